/** lib/record-consumer.ts over a scripted kernel: who gets which record, and what ends a wait. */
import type { Fault, FaultView } from '../lib';
import { INVALID, numberOf, numbersOf, setUp, SUCCESS, thrown } from './fault-rig';
import { pages } from './rings/scenarios';

const EBADF = { code: 'EBADF', syscall: 'read' };
const EBUSY = { code: 'EBUSY', syscall: 'read', reason: 'fault consumer is being drained' };
const turn = () => new Promise<void>((resolve) => setImmediate(resolve));

describe('ready', () => {
  test('resolves when there is something, and takes none of it', async () => {
    const { consumer, deliver } = setUp();
    const waiting = consumer.ready();
    deliver(1);
    await waiting;
    await consumer.ready();
    expect(numbersOf(consumer.drain())).toEqual([1]);
  });

  test('everybody who waits is told', async () => {
    const { consumer, deliver } = setUp();
    const waiting = [consumer.ready(), consumer.ready(), consumer.next()] as const;
    deliver(1);
    expect(numberOf((await Promise.all(waiting))[2])).toBe(1);
  });

  test('with a timeout, with a signal, and on a consumer that is closed, also meanwhile', async () => {
    const { consumer, file } = setUp();
    await expect(consumer.ready({ timeout: 1 })).rejects.toMatchObject({
      code: 'ETIMEDOUT',
      syscall: 'poll',
    });
    await expect(consumer.ready({ signal: AbortSignal.abort() })).rejects.toMatchObject({
      name: 'AbortError',
    });
    const controller = new AbortController();
    const given = consumer.ready({ signal: controller.signal });
    const reason = new Error('enough');
    controller.abort(reason);
    await expect(given).rejects.toBe(reason);
    await expect(consumer.ready({ timeout: -1 })).rejects.toThrow(RangeError);
    expect(file.watches.size).toBe(0);
    const waiting = [consumer.ready(), consumer.ready(), consumer.next()];
    consumer.close();
    for (const each of waiting) await expect(each).rejects.toMatchObject(EBADF);
    await expect(consumer.ready()).rejects.toMatchObject(EBADF);
    expect(file.watches.size).toBe(0);
  });
});

describe('next', () => {
  test('who waited first gets the first', async () => {
    const { consumer, deliver } = setUp();
    const waiting = [consumer.next(), consumer.next(), consumer.next()];
    deliver(1, 2, 3);
    expect(numbersOf(await Promise.all(waiting))).toEqual([1, 2, 3]);
  });

  test('a wait that is given up leaves its place to those behind', async () => {
    const { consumer, deliver } = setUp();
    const controller = new AbortController();
    const first = consumer.next({ signal: controller.signal });
    const second = consumer.next();
    controller.abort();
    await expect(first).rejects.toMatchObject({ name: 'AbortError' });
    deliver(1);
    expect(numberOf(await second)).toBe(1);
  });

  test('within drain(callback), the drain has what is there, and it waits for what comes', async () => {
    const { consumer, deliver } = setUp();
    deliver(1, 2, 3);
    let waiting: Promise<Fault> | undefined;
    const seen: number[] = [];
    consumer.drain((record) => {
      seen.push(numberOf(record));
      waiting ??= consumer.next();
    });
    expect(seen).toEqual([1, 2, 3]);
    deliver(4);
    expect(numberOf(await waiting!)).toBe(4);
  });

  test('within a drain that throws, it gets what the drain leaves', async () => {
    const { consumer, publish, pending } = setUp();
    publish(1, 2);
    // They are objects then, which a drain has before what is in the ring.
    expect(pending()).toEqual([1, 2]);
    let waiting: Promise<Fault> | undefined;
    const callback = () => {
      waiting = consumer.next();
      throw new Error('no');
    };
    expect(() => consumer.drain(callback)).toThrow('no');
    expect(numberOf(await waiting!)).toBe(2);
  });
});

describe("on('record')", () => {
  test('each is called once, in order, until off()', async () => {
    const { consumer, deliver, file } = setUp();
    const seen: number[] = [];
    const listener = (fault: Fault) => void seen.push(numberOf(fault));
    consumer.on('record', listener);
    deliver(1, 2);
    await turn();
    await turn();
    expect(seen).toEqual([1, 2]);
    consumer.off('record', listener);
    expect(file.watches.size).toBe(0);
    deliver(3);
    await turn();
    await turn();
    expect(seen).toEqual([1, 2]);
    consumer.on('record', listener);
    await turn();
    await turn();
    expect(seen).toEqual([1, 2, 3]);
  });

  test('what was there before is its own too, and who waits in next() comes first', async () => {
    const { consumer, deliver } = setUp();
    const waiting = consumer.next();
    const seen: number[] = [];
    consumer.on('record', (fault) => void seen.push(numberOf(fault)));
    deliver(1, 2);
    expect(numberOf(await waiting)).toBe(1);
    await turn();
    expect(seen).toEqual([2]);
  });

  test('close() in a listener: there is no other call', async () => {
    const { consumer, deliver } = setUp();
    const seen: number[] = [];
    consumer.on('record', (fault) => {
      seen.push(numberOf(fault));
      consumer.close();
    });
    deliver(1, 2);
    await turn();
    await turn();
    expect(seen).toEqual([1]);
    expect(() => consumer.on('record', () => {})).toThrow(thrown(EBADF));
  });

  test('a descriptor that cannot be watched is an error, and nothing listens', () => {
    const { consumer, file } = setUp();
    file.watch = () => -1 as never;
    const listener = jest.fn();
    expect(() => consumer.on('record', listener)).toThrow(thrown({ code: 'EPERM', syscall: 'poll' }));
    expect(consumer.drain()).toEqual([]);
    expect(listener).not.toHaveBeenCalled();
  });
});

describe("on('error'), and errors of listeners", () => {
  test('the end of the pump is an event, once, after what was there', async () => {
    const { consumer, file, deliver } = setUp();
    const seen: unknown[] = [];
    consumer.on('error', (error) => seen.push(error));
    consumer.on('record', (fault) => seen.push(numberOf(fault)));
    deliver(1);
    file.fail(5);
    for (let i = 0; i < 5; i++) await turn();
    expect(seen).toEqual([1, thrown({ code: 'EIO', syscall: 'read' })]);
    expect(file.watches.size).toBe(0);
    await expect(consumer.next()).rejects.toMatchObject({ code: 'EIO' });
    await expect(consumer.ready()).rejects.toMatchObject({ code: 'EIO' });
  });

  test('without a listener for it, it is thrown where records are listened for', () => {
    const { pump, file, consumer } = setUp();
    let wake = () => {};
    pump.start = (callback) => {
      wake = callback;
      return 0;
    };
    const stop = jest.spyOn(pump, 'stop');
    consumer.on('record', () => {});
    file.fail(5);
    expect(pump.pass()).toBe(-5);
    expect(wake).toThrow(thrown({ code: 'EIO', syscall: 'read' }));
    // It is over, and keeps no process.
    expect(stop).toHaveBeenCalledTimes(1);
    expect(wake).not.toThrow();
  });

  test('where nobody listens for records, who waits is told, and nothing is thrown', async () => {
    const { file, consumer } = setUp();
    const waiting = [consumer.next(), consumer.next(), consumer.ready()];
    file.fail(19);
    for (const each of waiting) await expect(each).rejects.toMatchObject({ code: 'ENODEV' });
  });

  test('an error of a listener is thrown; all listeners get the rest', async () => {
    const { pump, publish, consumer } = setUp();
    let wake = () => {};
    pump.start = (callback) => {
      wake = callback;
      return 0;
    };
    const seen: [string, number][] = [];
    consumer.on('record', (fault) => {
      seen.push(['first', numberOf(fault)]);
      if (numberOf(fault) === 1) throw new Error('one');
    });
    consumer.on('record', (fault) => void seen.push(['second', numberOf(fault)]));
    publish(1, 2, 3);
    expect(wake).toThrow('one');
    await turn();
    const rest = [2, 3].flatMap((n) => [
      ['first', n],
      ['second', n],
    ]);
    expect(seen).toEqual([['first', 1], ...rest]);
    expect(numbersOf(consumer.pending)).toEqual([1, 2, 3]);
  });
});

describe('drain', () => {
  test('without a callback: objects, and nothing when there is nothing', () => {
    const { consumer, publish } = setUp();
    expect(consumer.drain()).toEqual([]);
    expect(consumer.drain(() => {})).toBe(0);
    publish(1, 2);
    expect(numbersOf(consumer.drain())).toEqual([1, 2]);
  });

  test('a callback that throws: answers go out, the one at hand stays pending, the rest stays', () => {
    const { consumer, deliver, answers, pending } = setUp();
    deliver(1, 2, 3, 4);
    const callback = (record: FaultView) => {
      if (numberOf(record) === 3) throw new Error('three');
      record.respond(numberOf(record) === 1 ? 'success' : 'invalid');
    };
    expect(() => consumer.drain(callback)).toThrow('three');
    expect(answers()).toEqual([
      [1, SUCCESS],
      [2, INVALID],
    ]);
    expect(consumer.counters).toMatchObject({ published: 4, consumed: 3 });
    const seen: number[] = [];
    expect(consumer.drain((record) => void seen.push(numberOf(record)))).toBe(1);
    expect([seen, pending()]).toEqual([[4], [3, 4]]);
    for (const fault of consumer.pending) expect(fault.respond('success')).toBe(true);
    expect(answers().slice(2)).toEqual([
      [3, SUCCESS],
      [4, SUCCESS],
    ]);
  });

  test('a callback that throws after its answer: that one goes out too', () => {
    const { consumer, deliver, answers, pending } = setUp();
    deliver(1, 2);
    const callback = (record: FaultView) => {
      record.respond('success');
      throw new Error('after');
    };
    expect(() => consumer.drain(callback)).toThrow('after');
    expect(answers()).toEqual([[1, SUCCESS]]);
    expect(pending()).toEqual([2]);
  });

  test('the same where the records are objects already', () => {
    const { consumer, publish, answers, pending, file } = setUp();
    publish(1, 2, 3, 4);
    expect(pending()).toEqual([1, 2, 3, 4]);
    const write = jest.spyOn(file, 'write');
    const callback = (record: FaultView) => {
      if (numberOf(record) === 3) throw new Error('three');
      record.respond('success');
    };
    expect(() => consumer.drain(callback)).toThrow('three');
    expect(answers()).toEqual([
      [1, SUCCESS],
      [2, SUCCESS],
    ]);
    // In one write(2).
    expect(write).toHaveBeenCalledTimes(1);
    expect(pending()).toEqual([3, 4]);
    expect(numbersOf(consumer.drain())).toEqual([4]);
  });

  test('within another it is EBUSY, with objects as well, and the outer one goes on', () => {
    const { consumer, publish, pending } = setUp();
    publish(1, 2);
    expect(pending()).toEqual([1, 2]);
    publish(3);
    let refused = 0;
    const callback = () => {
      expect(() => consumer.drain()).toThrow(thrown(EBUSY));
      expect(() => consumer.drain(() => {})).toThrow(thrown(EBUSY));
      refused++;
    };
    expect(consumer.drain(callback)).toBe(3);
    expect(refused).toBe(3);
    expect(consumer.drain()).toEqual([]);
  });

  test('close() in the callback ends it; what was answered has gone out', () => {
    for (const objects of [false, true]) {
      const { consumer, publish, answers, file } = setUp();
      publish(1, 2, 3, 4);
      if (objects) expect(consumer.pending).toHaveLength(4);
      const kept: Fault[] = [];
      const count = consumer.drain((record) => {
        if (numberOf(record) === 1) kept.push(record.keep());
        else record.respond('success');
        if (numberOf(record) === 3) consumer.close();
      });
      expect(count).toBe(3);
      expect(answers()).toEqual([
        [2, SUCCESS],
        [3, SUCCESS],
      ]);
      expect(kept[0].respond('success')).toBe(false);
      expect(file.responses()).toHaveLength(2);
      expect(() => consumer.drain()).toThrow(thrown(EBADF));
    }
  });

  test('close() and an exception in the callback: the exception', () => {
    const { consumer, deliver } = setUp();
    deliver(1, 2);
    const callback = () => {
      consumer.close();
      throw new Error('mine');
    };
    expect(() => consumer.drain(callback)).toThrow('mine');
  });

  test('all that the kernel has at the call, however small the ring', () => {
    const { consumer, deliver, answers } = setUp({ slots: 8 });
    const all = Array.from({ length: 1000 }, (_, i) => i + 1);
    deliver(...all);
    expect(numbersOf(consumer.drain())).toEqual(all);
    for (const fault of consumer.pending) fault.respond('success');
    expect(answers()).toHaveLength(1000);
    deliver(...all);
    expect(consumer.drain((record) => record.respond('success'))).toBe(1000);
  });

  test('with a limit: all, where the callback answers; else as many as may be held', () => {
    const { consumer, deliver } = setUp({ limit: 3 });
    deliver(...Array.from({ length: 10 }, (_, i) => i + 1));
    expect(consumer.drain((record) => record.respond('success'))).toBe(10);
    deliver(1, 2, 3, 4, 5);
    expect(consumer.drain(() => {})).toBe(3);
  });

  test('what comes while it runs is for the next call', () => {
    const { consumer, deliver } = setUp();
    deliver(1, 2);
    let last = 2;
    const more = (record: FaultView) => {
      record.respond('success');
      deliver(++last);
    };
    expect(consumer.drain(more)).toBe(2);
    expect(consumer.drain(more)).toBe(2);
    expect(last).toBe(6);
  });

  test('a kernel that is never seen empty does not keep it', () => {
    const { consumer, file } = setUp();
    let cookie = 0;
    // As much as there is room for, each time.
    file.read = (_fd, bytes) => {
      const one = pages(1 + (cookie++ % 256), cookie);
      for (let at = 0; at < bytes.length; at += one.length) bytes.set(one, at);
      return bytes.length;
    };
    let count = 0;
    const words = consumer.drain((record) => {
      count++;
      record.respond('success');
    });
    expect(words).toBe(count);
    expect(count).toBeGreaterThanOrEqual(2 ** 20);
    expect(count).toBeLessThan(2 ** 20 + 256);
  });
});
