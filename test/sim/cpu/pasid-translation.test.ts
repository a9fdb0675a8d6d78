/** PASID translation: which bits lead where, and which of them the processor does not take. */
import fc from 'fast-check';
import { PasidTables, translatePasid } from '../../../lib/sim/cpu/pasid-translation';
import { PhysicalMemory } from '../../../lib/sim/memory';

const MIB = 2 ** 20;
const pasid = fc.integer({ min: 0, max: 0xfffff });

function tables(bytes = MIB): { memory: PhysicalMemory; made: PasidTables } {
  const memory = new PhysicalMemory(bytes);
  const made = PasidTables.create(memory);
  if (typeof made === 'number') throw new Error(`errno ${made}`);
  return { memory, made };
}

function words(memory: PhysicalMemory, address: number, count: number): number[] {
  const into = new Int32Array(count);
  memory.readWords(address, into);
  return [...into].map((word) => word >>> 0);
}

test('bit 19 chooses the directory, 18:10 its entry, 9:0 the entry of the table', () => {
  const { memory, made } = tables();
  expect(made.map(0xbcdef, 0x12345)).toBe(0);
  const at = made.high + 8 * ((0xbcdef >>> 10) & 0x1ff);
  const [low, high] = words(memory, at, 2);
  expect([low & 0xfff, high]).toEqual([1, 0]);
  expect(words(memory, low - 1 + 4 * (0xbcdef & 0x3ff), 1)).toEqual([0x80012345]);
});

test('what is mapped is translated, and nothing else', () => {
  fc.assert(
    fc.property(fc.array(fc.tuple(pasid, pasid), { maxLength: 8 }), fc.array(pasid), (pairs, others) => {
      const { memory, made } = tables();
      const model = new Map<number, number>();
      for (const [guest, host] of pairs) {
        expect(made.map(guest, host)).toBe(0);
        model.set(guest, host);
      }
      for (const guest of [...model.keys(), ...others])
        expect(translatePasid(memory, made, guest)).toBe(model.get(guest) ?? -1);
      for (const guest of model.keys()) {
        made.unmap(guest);
        expect(translatePasid(memory, made, guest)).toBe(-1);
      }
    }),
    { numRuns: 50 },
  );
});

test('reserved bits, and tables where no memory is, are not translated', () => {
  const { memory, made } = tables();
  made.map(5, 6);
  const [entry, high] = words(memory, made.low, 2);
  const table = entry - 1;
  for (const bits of [0x2, 0x800]) {
    memory.writeWords(made.low, Int32Array.of(entry | bits, high));
    expect(translatePasid(memory, made, 5)).toBe(-1);
  }
  memory.writeWords(made.low, Int32Array.of(1, 0x1000));
  expect(translatePasid(memory, made, 5)).toBe(-1);
  memory.writeWords(made.low, Int32Array.of(entry, high));
  for (const word of [0x80000006 | (1 << 20), 0x80000006 | (1 << 30), 6]) {
    memory.writeWords(table + 4 * 5, Int32Array.of(word));
    expect(translatePasid(memory, made, 5)).toBe(-1);
  }
});

test('memory is given back, and its lack refused', () => {
  // Page 0 is never given out: the directories, and one table.
  const { memory, made } = tables(4 * 4096);
  expect(made.map(1, 1)).toBe(0);
  expect(made.map(0x400, 1)).toBe(-12);
  made.free();
  expect(PasidTables.create(memory)).toBeInstanceOf(PasidTables);
  expect(PasidTables.create(memory)).toBe(-12);
});
