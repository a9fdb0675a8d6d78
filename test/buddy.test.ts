import fc from 'fast-check';
import { blockSize, Buddy, SMALLEST_BLOCK } from '../lib/buddy';

test('blocks are powers of two, a cache line at least', () => {
  expect([1, 64, 65, 4096, 4097].map(blockSize)).toEqual([64, 64, 128, 4096, 8192]);
});

test('random allocations: aligned, apart, and all of it comes back in one piece', () => {
  const size = 1 << 14;
  const step = fc.record({ bytes: fc.integer({ min: 1, max: size }), free: fc.nat(10), keep: fc.boolean() });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 200 }), (steps) => {
      const buddy = new Buddy(size);
      const held: { offset: number; length: number }[] = [];
      const taken = new Uint8Array(size / SMALLEST_BLOCK);
      const mark = (offset: number, length: number, value: number) =>
        taken.fill(value, offset / SMALLEST_BLOCK, (offset + length) / SMALLEST_BLOCK);
      for (const { bytes, free, keep } of steps) {
        const length = blockSize(bytes);
        const offset = keep ? buddy.allocate(length) : -1;
        if (offset >= 0) {
          expect(offset % length).toBe(0);
          expect(
            taken.subarray(offset / SMALLEST_BLOCK, (offset + length) / SMALLEST_BLOCK).every((t) => t === 0),
          ).toBe(true);
          mark(offset, length, 1);
          held.push({ offset, length });
        } else if (keep) {
          // Nowhere an aligned place of this length is free.
          for (let at = 0; at < size; at += length)
            expect(
              taken.subarray(at / SMALLEST_BLOCK, (at + length) / SMALLEST_BLOCK).some((t) => t === 1),
            ).toBe(true);
        }
        const [gone] = held.splice(free, 1);
        if (!gone) continue;
        buddy.free(gone.offset, gone.length);
        mark(gone.offset, gone.length, 0);
      }
      for (const { offset, length } of held) buddy.free(offset, length);
      expect(buddy.allocate(size)).toBe(0);
    }),
  );
});
