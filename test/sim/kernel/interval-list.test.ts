import fc from 'fast-check';
import { IntervalList, type Interval } from '../../../lib/sim/kernel/iommufd/interval-list';

const interval = fc
  .tuple(fc.bigInt(0n, 400n), fc.bigInt(0n, 12n))
  .map(([start, extra]) => ({ start, last: start + extra }));

function meets(a: Interval, b: Interval): boolean {
  return a.start <= b.last && a.last >= b.start;
}

describe('IntervalList', () => {
  test('does what a sorted array does', () => {
    const command = fc.oneof(
      { weight: 5, arbitrary: fc.record({ kind: fc.constant('add'), at: interval }) },
      { weight: 3, arbitrary: fc.record({ kind: fc.constant('remove'), at: interval }) },
      { weight: 4, arbitrary: fc.record({ kind: fc.constant('find'), at: interval }) },
    );
    fc.assert(
      fc.property(fc.array(command, { maxLength: 300 }), (commands) => {
        const list = new IntervalList<Interval>();
        let model: Interval[] = [];
        for (const { kind, at } of commands) {
          const hit = model.find((other) => meets(other, at));
          expect(list.first(at.start, at.last)).toBe(hit);
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

  test('removing what is not there is a mistake of the caller', () => {
    const list = new IntervalList<Interval>();
    expect(() => list.remove({ start: 1n, last: 2n })).toThrow('no such interval');
    list.add({ start: 1n, last: 2n });
    expect(() => list.remove({ start: 1n, last: 2n })).toThrow('no such interval');
    expect(list.size).toBe(1);
  });
});
