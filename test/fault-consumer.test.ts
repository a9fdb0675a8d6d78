/** lib/fault-consumer.ts over a scripted kernel: when which answer goes. */
import type { Fault, FaultView } from '../lib';
import { IOMMU_PGFAULT_FLAGS_LAST_PAGE as LAST } from '../lib/uapi';
import { INVALID, numberOf, numbersOf, setUp, SUCCESS, thrown } from './fault-rig';
import { groupOf } from './rings/fault-file';
import { OWNER, pages } from './rings/scenarios';

const EEXIST = { code: 'EEXIST', syscall: 'write' };
const page = (n: number) => BigInt(n) * 4096n;

describe('groups', () => {
  const SIZE = 4;
  type Part = 'success' | 'invalid' | 'keep' | 'later';
  /** What is done with each record, what with each that was left, and what the response is. */
  test.each<[Part[], ('success' | 'invalid')[], number]>([
    [['success', 'success', 'success', 'success'], [], SUCCESS],
    [['success', 'invalid', 'success', 'success'], [], INVALID],
    [['keep', 'success', 'success', 'success'], ['success'], SUCCESS],
    [['invalid', 'success', 'success', 'keep'], ['success'], INVALID],
    [['later', 'invalid', 'keep', 'success'], ['success', 'success'], INVALID],
    [['success', 'later', 'keep', 'success'], ['success', 'invalid'], INVALID],
    [['success', 'success', 'success', 'later'], ['success'], SUCCESS],
    [['keep', 'keep', 'later', 'later'], ['success', 'success', 'success', 'success'], SUCCESS],
  ])('%j, then %j', (parts, rest, code) => {
    const { consumer, file, answers } = setUp();
    file.deliver(pages(9, 0, SIZE));
    file.deliver(pages(10, 100));
    const kept: Fault[] = [];
    consumer.drain((record) => {
      if (numberOf(record) === 100) return record.respond('success');
      const part = parts[numberOf(record)];
      if (part === 'keep') kept.push(record.keep());
      else if (part !== 'later') record.respond(part);
    });
    const left = [...consumer.pending];
    expect(left).toHaveLength(rest.length);
    expect(left).toEqual(expect.arrayContaining(kept));
    const done = () => answers().filter(([cookie]) => cookie === 9);
    for (const [i, response] of rest.entries()) {
      expect(done()).toEqual([]);
      expect(left[i].respond(response)).toBe(true);
    }
    expect(done()).toEqual([[9, code]]);
    expect(consumer.pending).toEqual([]);
  });

  test("the callback's view stays where it was while others become objects", () => {
    const { consumer, deliver, publish, answers } = setUp();
    const views: FaultView[] = [];
    deliver(20);
    consumer.drain((view) => {
      view.respond('success');
      views.push(view);
    });
    publish(21);
    expect(numbersOf(consumer.pending)).toEqual([21]);
    expect(numberOf(views[0])).toBe(20);
    expect(() => views[0].respond('invalid')).toThrow(thrown(EEXIST));
    expect(answers()).toEqual([[20, SUCCESS]]);
  });

  test('what is kept can be answered within the callback, and later', () => {
    const { consumer, file, answers, deliver } = setUp();
    file.deliver(pages(9, 0, 2));
    deliver(20, 21);
    const kept: Fault[] = [];
    consumer.drain((record) => {
      const fault = record.keep();
      expect(record.keep()).toBe(fault);
      expect(fault).toMatchObject({ address: record.address, ioasid: OWNER.ioasid, cookie: OWNER.cookie });
      if (numberOf(record) === 20) expect(fault.respond('invalid')).toBe(true);
      else kept.push(fault);
    });
    expect(answers()).toEqual([[20, INVALID]]);
    for (const fault of kept.reverse()) expect(fault.respond('success')).toBe(true);
    expect(answers()).toEqual([
      [20, INVALID],
      [21, SUCCESS],
      [9, SUCCESS],
    ]);
  });

  test('answering twice is EEXIST, however it was answered first', () => {
    const { consumer, answers, deliver, file } = setUp();
    deliver(1, 2, 3);
    file.deliver(pages(4, 4, 2));
    let count = 0;
    consumer.drain((record) => {
      const n = numberOf(record);
      if (n === 2) record.keep().respond('success');
      else if (n === 3) record.keep();
      if (n !== 2) record.respond('success');
      expect(() => record.respond('invalid')).toThrow(thrown(EEXIST));
      if (n === 1) expect(() => record.keep()).toThrow(thrown(EEXIST));
      expect(() => record.respond('perhaps' as 'invalid')).toThrow(TypeError);
      count++;
    });
    expect([count, answers()]).toEqual([5, [1, 2, 3, 4].map((cookie) => [cookie, SUCCESS])]);
  });

  test('a group whose last request is missing ends where the next begins', () => {
    const { consumer, answers, file } = setUp({ slots: 4 });
    // As many as the ring has slots: it might go on.
    file.deliver(groupOf(...[0, 1, 2, 3].map((n) => ({ dev_id: 2, addr: page(n), cookie: 1 }))));
    file.deliver(groupOf({ dev_id: 2, addr: page(9), cookie: 2, flags: LAST }));
    consumer.drain((record) => record.respond('success'));
    expect(answers()).toEqual([
      [1, SUCCESS],
      [2, SUCCESS],
    ]);
  });

  test.each(['drain', 'callback', 'next', 'pending'])('larger than the ring, by %s', async (how) => {
    const COUNT = 50;
    const { consumer, answers, file } = setUp({ slots: 8 });
    file.deliver(pages(3, 0, COUNT));
    file.deliver(pages(4, COUNT));
    const seen: number[] = [];
    const kept: Fault[] = [];
    const take = (fault: Fault) => {
      seen.push(numberOf(fault));
      kept.push(fault);
    };
    while (seen.length <= COUNT) {
      if (how === 'drain') consumer.drain().forEach(take);
      else if (how === 'callback') consumer.drain((record) => take(record.keep()));
      else if (how === 'next') take(await consumer.next());
      else {
        await consumer.ready();
        expect(consumer.pending.length).toBeGreaterThan(0);
        consumer.drain().forEach(take);
      }
    }
    expect(seen).toEqual(Array.from({ length: COUNT + 1 }, (_, i) => i));
    expect(answers()).toEqual([]);
    for (const fault of kept) expect(fault.respond('success')).toBe(true);
    expect(answers()).toEqual([
      [3, SUCCESS],
      [4, SUCCESS],
    ]);
    expect(consumer.counters).toMatchObject({ published: COUNT + 1, consumed: COUNT + 1, dropped: 0 });
  });
});

describe('pending', () => {
  test('has what is still in the ring; who asks next gets it all the same', async () => {
    const { consumer, publish, pending } = setUp();
    publish(1, 2, 3);
    await consumer.ready();
    expect(consumer.counters).toMatchObject({ published: 3, consumed: 0 });
    expect(pending()).toEqual([1, 2, 3]);
    expect(consumer.counters).toMatchObject({ published: 3, consumed: 3 });
    expect(numberOf(await consumer.next())).toBe(1);
    expect(numbersOf(consumer.drain())).toEqual([2, 3]);
    expect(pending()).toEqual([1, 2, 3]);
    consumer.pending[1].respond('success');
    expect(pending()).toEqual([1, 3]);
  });

  test('within a callback it leaves the ring alone', () => {
    const { consumer, publish } = setUp();
    publish(1, 2);
    const seen: number[][] = [];
    consumer.drain(() => void seen.push(numbersOf(consumer.pending)));
    expect(seen).toEqual([[], [1]]);
  });

  test('is empty once closed', () => {
    const { consumer, publish, pending } = setUp();
    publish(1);
    expect(pending()).toEqual([1]);
    consumer.close();
    expect(pending()).toEqual([]);
  });
});
