import { EventStream } from '../lib/event-stream';

function setUp() {
  const log: string[] = [];
  const stream = new EventStream<number>({ start: () => log.push('start'), stop: () => log.push('stop') });
  return { stream, log };
}

describe('event stream', () => {
  test('buffered events come first, in order, without starting the source', async () => {
    const { stream, log } = setUp();
    stream.push(1);
    stream.push(2);
    expect(await stream.next()).toEqual({ value: 1, done: false });
    expect(stream.take()).toEqual([2]);
    expect(stream.empty).toBe(true);
    expect(log).toEqual([]);
  });

  test('the source runs from the first waiter to the last', async () => {
    const { stream, log } = setUp();
    const [a, b] = [stream.next(), stream.next()];
    expect(log).toEqual(['start']);
    stream.push(1);
    expect(log).toEqual(['start']);
    stream.push(2);
    expect(log).toEqual(['start', 'stop']);
    expect(await Promise.all([a, b])).toEqual([
      { value: 1, done: false },
      { value: 2, done: false },
    ]);
  });

  test('the end comes after what is buffered, and once', async () => {
    const { stream, log } = setUp();
    const waiting = stream.next();
    stream.end();
    expect(await waiting).toEqual({ value: undefined, done: true });
    expect(log).toEqual(['start', 'stop']);
    stream.end();
    expect(await stream.next()).toEqual({ value: undefined, done: true });
    expect(log).toEqual(['start', 'stop']);
  });

  test('an error reaches all who wait, and the next may wait again', async () => {
    const { stream, log } = setUp();
    const waiting = [stream.next(), stream.next()];
    stream.fail(new Error('gone'));
    for (const each of waiting) await expect(each).rejects.toThrow('gone');
    const later = stream.next();
    stream.push(3);
    expect(await later).toEqual({ value: 3, done: false });
    expect(log).toEqual(['start', 'stop', 'start', 'stop']);
  });

  test('a source that cannot start rejects', async () => {
    const stream = new EventStream<number>({
      start: () => {
        throw new Error('no descriptor left');
      },
      stop: () => {},
    });
    await expect(stream.next()).rejects.toThrow('no descriptor left');
    expect(stream.waiting).toBe(false);
  });

  test('leaving an iteration ends its own wait: the event goes to the other, and the source stops with the last', async () => {
    const { stream, log } = setUp();
    const [left, other] = [stream.iterate(() => {}), stream.iterate(() => {})];
    const [abandoned, waiting] = [left.next(), other.next()];
    expect(await left.return!()).toEqual({ value: undefined, done: true });
    expect(await abandoned).toEqual({ value: undefined, done: true });
    expect(log).toEqual(['start']);
    stream.push(5);
    expect(await waiting).toEqual({ value: 5, done: false });
    expect(log).toEqual(['start', 'stop']);
    stream.push(6);
    expect(await left.next()).toEqual({ value: undefined, done: true });
    const alone = other.next();
    expect(await alone).toEqual({ value: 6, done: false });
    const last = other.next();
    await other.return!();
    expect(await last).toEqual({ value: undefined, done: true });
    expect(log).toEqual(['start', 'stop', 'start', 'stop']);
    expect(stream.waiting).toBe(false);
  });

  test('what must be done before a wait may fail, and what is done on leaving is done', async () => {
    const { stream, log } = setUp();
    const broken = stream.iterate(() => {
      throw new Error('no');
    });
    await expect(broken.next()).rejects.toThrow('no');
    expect(log).toEqual([]);
    const leaving = stream.iterate(
      () => {},
      () => log.push('left'),
    );
    await leaving.return!();
    expect(log).toEqual(['left']);
  });

  test('a wait with a limit rejects at its end, and takes no event', async () => {
    const { stream, log } = setUp();
    await expect(stream.next({ timeout: 1 })).rejects.toMatchObject({
      name: 'IommuError',
      code: 'ETIMEDOUT',
      errno: -110,
      message: 'poll: ETIMEDOUT: nothing happened within 1 ms',
    });
    expect(log).toEqual(['start', 'stop']);
    stream.push(1);
    expect(await stream.next({ timeout: 0 })).toEqual({ value: 1, done: false });
    const inTime = stream.next({ timeout: 60_000 });
    stream.push(2);
    expect(await inTime).toEqual({ value: 2, done: false });
  });

  test('what is ready when time is up still counts: an event of the same turn of the event loop', async () => {
    const { stream } = setUp();
    // Two timers are due at once, this one first: what it leads to in the same turn is in time.
    setTimeout(() => setImmediate(() => stream.push(8)), 1);
    const waiting = stream.next({ timeout: 1 });
    for (const end = performance.now() + 5; performance.now() < end;);
    expect(await waiting).toEqual({ value: 8, done: false });
  });

  test('a signal ends the wait with its reason, and takes no event', async () => {
    const { stream, log } = setUp();
    const controller = new AbortController();
    const [aborted, other] = [stream.next({ signal: controller.signal }), stream.next()];
    controller.abort();
    await expect(aborted).rejects.toMatchObject({ name: 'AbortError' });
    stream.push(1);
    expect(await other).toEqual({ value: 1, done: false });
    expect(log).toEqual(['start', 'stop']);
    stream.push(2);
    const late = stream.next({ signal: AbortSignal.abort(new Error('too late')) });
    await expect(late).rejects.toThrow('too late');
    expect(stream.take()).toEqual([2]);
  });

  test.each([-1, NaN, 2 ** 31, Infinity])('%p is no timeout', async (timeout) => {
    const { stream, log } = setUp();
    await expect(stream.next({ timeout })).rejects.toThrow(RangeError);
    await expect(stream.next({ timeout: '1' as unknown as number })).rejects.toThrow(TypeError);
    expect(log).toEqual([]);
  });
});
