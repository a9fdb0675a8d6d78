import fc from 'fast-check';
import { IntervalList, type Interval } from '../../../lib/sim/kernel/iommufd/interval-list';

const interval = fc
  .tuple(fc.bigInt(0n, 400n), fc.bigInt(0n, 12n))
  .map(([start, extra]) => ({ start, last: start + extra }));

function meets(a: Interval, b: Interval): boolean {
  return a.start <= b.last && a.last >= b.start;
}

/** The first value from `start` on with `length` free ones. */
function roomIn(model: readonly Interval[], start: bigint, length: bigint): bigint {
  for (;;) {
    const hit = model.find((other) => meets(other, { start, last: start + length - 1n }));
    if (!hit) return start;
    start = hit.last + 1n;
  }
}

describe('IntervalList', () => {
  test('does what a sorted array does', () => {
    const command = fc.oneof(
      { weight: 5, arbitrary: fc.record({ kind: fc.constant('add'), at: interval }) },
      { weight: 3, arbitrary: fc.record({ kind: fc.constant('remove'), at: interval }) },
      { weight: 4, arbitrary: fc.record({ kind: fc.constant('find'), at: interval }) },
      { weight: 4, arbitrary: fc.record({ kind: fc.constant('room'), at: interval }) },
    );
    fc.assert(
      fc.property(fc.array(command, { maxLength: 300 }), (commands) => {
        const list = new IntervalList<Interval>();
        let model: Interval[] = [];
        for (const { kind, at } of commands) {
          const hit = model.find((other) => meets(other, at));
          expect(list.first(at.start, at.last)).toBe(hit);
          const length = at.last - at.start + 1n;
          if (kind === 'room') expect(list.room(at.start, length)).toBe(roomIn(model, at.start, length));
          if (kind === 'add' && !hit) {
            list.add(at);
            model = [...model, at].sort((a, b) => (a.start < b.start ? -1 : 1));
          } else if (kind === 'remove' && hit) {
            list.remove(hit);
            model = model.filter((other) => other !== hit);
          }
          expect(list.size).toBe(model.length);
        }
        expect([...list]).toEqual(model);
      }),
    );
  });

  test('many intervals, added in any order, across blocks', () => {
    const list = new IntervalList<Interval>();
    const added: Interval[] = [];
    for (let i = 0; i < 5000; i++) {
      const start = BigInt((i * 1237) % 5000) * 10n;
      const each = { start, last: start + 4n };
      added.push(each);
      list.add(each);
    }
    expect(list.size).toBe(5000);
    expect([...list].map(({ start }) => start)).toEqual(
      Array.from({ length: 5000 }, (_, i) => BigInt(i) * 10n),
    );
    for (let i = 0n; i < 5000n; i += 7n) {
      expect(list.first(i * 10n + 4n, i * 10n + 4n)?.start).toBe(i * 10n);
      expect(list.first(i * 10n + 5n, i * 10n + 9n)).toBeUndefined();
      expect(list.first(i * 10n + 5n, 2n ** 64n)?.start).toBe(i < 4999n ? (i + 1n) * 10n : undefined);
    }
    for (const each of added) list.remove(each);
    expect(list.size).toBe(0);
    expect([...list]).toEqual([]);
    expect(list.first(0n, 2n ** 64n)).toBeUndefined();
  });

  test('room among many, of sizes beyond 2^53, in a tree that grows and shrinks', () => {
    const seed = Math.floor(Math.random() * 2 ** 31);
    console.log(`seed ${seed}`);
    let state = seed;
    const pick = (below: number) => (state = (Math.imul(state, 1103515245) + 12345) & 0x7fffffff) % below;
    const list = new IntervalList<Interval>();
    let model: Interval[] = [];
    const step = 2n ** 50n;
    for (let round = 0; round < 3000; round++) {
      // More and more of them, then fewer and fewer.
      if (pick(10) < (round < 1800 ? 8 : 2)) {
        const start = BigInt(pick(6000)) * step + BigInt(pick(3));
        const each = { start, last: start + step - BigInt(3 + pick(4)) };
        if (list.first(each.start, each.last)) continue;
        list.add(each);
        model.push(each);
      } else if (model.length > 0) {
        const at = pick(model.length);
        list.remove(model[at]);
        model.splice(at, 1);
      }
      if (round % 10) continue;
      model = model.sort((a, b) => (a.start < b.start ? -1 : 1));
      expect([...list]).toEqual(model);
      const start = BigInt(pick(6000)) * step + BigInt(pick(5));
      for (const length of [1n, 3n, 6n, step + 3n, 7n * step - 1n])
        expect(list.room(start, length)).toBe(roomIn(model, start, length));
    }
  });

  test('removing what is not there is a mistake of the caller', () => {
    const list = new IntervalList<Interval>();
    expect(() => list.remove({ start: 1n, last: 2n })).toThrow('no such interval');
    list.add({ start: 1n, last: 2n });
    expect(() => list.remove({ start: 1n, last: 2n })).toThrow('no such interval');
    expect(list.size).toBe(1);
  });
});
