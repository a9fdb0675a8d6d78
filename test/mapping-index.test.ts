import fc from 'fast-check';
import type { Mapping } from '../lib/mapping';
import { MappingIndex } from '../lib/mapping-index';

/** What the index looks at. */
function mapping(iova: number, length: number): Mapping {
  return { iova: BigInt(iova), length, end: BigInt(iova + length) } as Mapping;
}

describe('mapping index', () => {
  test('finds what a scan of all finds, whatever comes and goes', () => {
    const slot = fc.integer({ min: 0, max: 3000 });
    const step = fc.record({ remove: fc.boolean(), slot, length: fc.integer({ min: 1, max: 16 }) });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 4000, size: 'max' }), fc.array(slot), (steps, ends) => {
        const index = new MappingIndex();
        const model = new Map<number, Mapping>();
        for (const { remove, slot, length } of steps) {
          const known = model.get(slot);
          const one = mapping(slot * 16, length);
          if (remove) {
            index.remove(known ?? one);
            model.delete(slot);
          } else {
            expect(index.add(one)).toBe(known);
            model.set(slot, one);
          }
        }
        const sorted = [...model].sort(([a], [b]) => a - b).map(([, one]) => one);
        expect([...index]).toEqual(sorted);
        for (const end of ends)
          for (const start of [0, end * 8, end * 16 - 5]) {
            const [from, to] = [BigInt(start), BigInt(end * 16 + 5)];
            expect(index.overlapping(from, to)).toEqual(
              sorted.filter((one) => one.iova < to && one.end > from),
            );
          }
      }),
      { numRuns: 20 },
    );
  });

  test('is not slower for what it holds: a search among many looks at few', () => {
    let looked = 0;
    const index = new MappingIndex();
    for (let i = 0; i < 20_000; i++) {
      const iova = BigInt(i * 4096);
      index.add({
        get iova() {
          looked++;
          return iova;
        },
        end: iova + 4096n,
      } as Mapping);
    }
    expect(looked / 20_000).toBeLessThan(40);
    looked = 0;
    expect(index.overlapping(4096n * 777n, 4096n * 780n)).toHaveLength(3);
    expect(looked).toBeLessThan(40);
  });

  test('removes only what is there', () => {
    const index = new MappingIndex();
    const [one, same] = [mapping(0, 1), mapping(0, 1)];
    index.remove(one);
    index.add(one);
    index.remove(same);
    expect([...index]).toEqual([one]);
    index.remove(one);
    expect([...index]).toEqual([]);
    expect(index.overlapping(0n, 1n << 64n)).toEqual([]);
  });
});
