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
});
