import { Clock } from '../../lib/sim/clock';

/** mulberry32, so that a failure can be repeated from its seed. */
function random(seed: number): () => number {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

test('events run in order of time, and time is that of the event', () => {
  const clock = new Clock();
  const seen: [string, number][] = [];
  clock.schedule(30, () => seen.push(['c', clock.now]));
  clock.schedule(10, () => seen.push(['a', clock.now]));
  clock.schedule(20, () => seen.push(['b', clock.now]));
  expect(clock.pending).toBe(3);
  expect(clock.next).toBe(10);
  expect(clock.now).toBe(0);
  expect(clock.step()).toBe(true);
  expect(clock.now).toBe(10);
  expect(clock.idle()).toBe(2);
  expect(seen).toEqual([
    ['a', 10],
    ['b', 20],
    ['c', 30],
  ]);
  expect(clock.step()).toBe(false);
  expect(clock.now).toBe(30);
  expect(clock.next).toBe(Infinity);
});

test('an event scheduled by an event with delay 0 runs after those already due', () => {
  const clock = new Clock();
  const seen: string[] = [];
  clock.schedule(5, () => {
    seen.push('first');
    clock.schedule(0, () => seen.push('third'));
  });
  clock.schedule(5, () => seen.push('second'));
  clock.schedule(6, () => seen.push('fourth'));
  clock.idle();
  expect(seen).toEqual(['first', 'second', 'third', 'fourth']);
});

test('random schedules run like a stable sort', () => {
  const seed = Math.floor(Math.random() * 2 ** 31);
  const next = random(seed);
  const clock = new Clock();
  const expected: { at: number; id: number }[] = [];
  const ran: { at: number; id: number }[] = [];
  let id = 0;
  const add = (): void => {
    const mine = id++;
    const delay = Math.floor(next() * 8);
    expected.push({ at: clock.now + delay, id: mine });
    clock.schedule(delay, () => {
      ran.push({ at: clock.now, id: mine });
      if (id < 3000 && next() < 0.7) add();
    });
  };
  for (let i = 0; i < 1000; i++) add();
  clock.idle();
  expected.sort((a, b) => a.at - b.at || a.id - b.id);
  expect({ seed, ran }).toEqual({ seed, ran: expected });
});

test('idle gives up on a device that never stops', () => {
  const clock = new Clock();
  let ran = 0;
  const again = (): void => {
    ran++;
    clock.schedule(1, again);
  };
  clock.schedule(1, again);
  expect(() => clock.idle(100)).toThrow('the simulation is not idle after 100 events (1 pending, 100 ns)');
  expect(ran).toBe(100);
});

test('exactly as many events as the limit are no error', () => {
  const clock = new Clock();
  for (let i = 0; i < 5; i++) clock.schedule(i, () => undefined);
  expect(clock.idle(5)).toBe(5);
});

test('an event that throws is gone, and the rest stays', () => {
  const clock = new Clock();
  let ran = false;
  clock.schedule(1, () => {
    throw new Error('broken');
  });
  clock.schedule(2, () => (ran = true));
  expect(() => clock.step()).toThrow('broken');
  expect(clock.pending).toBe(1);
  expect(clock.idle()).toBe(1);
  expect(ran).toBe(true);
});

test('the owner hears of each new event', () => {
  const clock = new Clock();
  const pending: number[] = [];
  clock.onScheduled = () => pending.push(clock.pending);
  clock.schedule(1, () => clock.schedule(1, () => undefined));
  clock.idle();
  expect(pending).toEqual([1, 1]);
});

test.each([-1, NaN, Infinity])('a delay of %p is a RangeError', (delay) => {
  const clock = new Clock();
  expect(() => clock.schedule(delay, () => undefined)).toThrow(RangeError);
  expect(clock.pending).toBe(0);
});
