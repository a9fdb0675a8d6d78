import { CHUNK_BYTES, PAGE_BYTES, PhysicalMemory, UNREADABLE } from '../../lib/sim/memory';

const MIB = 2 ** 20;

describe('kernel RAM', () => {
  test('reads as zero, and ends where it ends', () => {
    const memory = new PhysicalMemory(3 * MIB);
    expect(memory.read32(0)).toBe(0);
    expect(memory.read32(3 * MIB - 4)).toBe(0);
    expect(memory.read32(3 * MIB)).toBe(UNREADABLE);
    expect(memory.write32(3 * MIB, 1)).toBe(false);
    expect(memory.has(0, 3 * MIB)).toBe(true);
    expect(memory.has(3 * MIB - 1, 2)).toBe(false);
    expect(memory.has(-4, 4)).toBe(false);
    expect(memory.has(2 ** 52 - 1, 2)).toBe(false);
    expect(memory.read32(2 ** 52)).toBe(UNREADABLE);
  });

  test('words are little-endian and signed', () => {
    const memory = new PhysicalMemory(MIB);
    memory.copyIn(0x1000, Uint8Array.of(0x78, 0x56, 0x34, 0x92), 0, 4);
    expect(memory.read32(0x1000)).toBe(0x92345678 | 0);
    memory.write64(0x2000, 0x11223344, 0xaabbccdd);
    const bytes = new Uint8Array(8);
    memory.copyOut(0x2000, bytes, 0, 8);
    expect([...bytes]).toEqual([0xdd, 0xcc, 0xbb, 0xaa, 0x44, 0x33, 0x22, 0x11]);
  });

  test('the word at UNREADABLE - 2^32 is told apart from no RAM', () => {
    const memory = new PhysicalMemory(MIB);
    memory.write32(0, UNREADABLE);
    expect(memory.read32(0)).toBe(0);
  });

  test.each([0, -4096, 4095, 6000, 0xfec0_1000, NaN])('a size of %p is refused', (bytes) => {
    expect(() => new PhysicalMemory(bytes)).toThrow(RangeError);
  });

  test('unaligned words are refused', () => {
    const memory = new PhysicalMemory(MIB);
    expect(() => memory.read32(2)).toThrow(RangeError);
    expect(() => memory.write32(1, 0)).toThrow(RangeError);
    expect(() => memory.write64(4, 0, 0)).toThrow(RangeError);
  });
});

describe('page frames', () => {
  test('are zeroed, distinct, never page 0, and run out', () => {
    const memory = new PhysicalMemory(16 * PAGE_BYTES);
    const pages = Array.from({ length: 15 }, () => memory.allocatePage());
    expect(new Set(pages).size).toBe(15);
    expect(Math.min(...pages)).toBe(PAGE_BYTES);
    expect(memory.allocatePage()).toBe(-1);
    memory.write32(pages[3]!, -1);
    memory.freePage(pages[3]!);
    expect(memory.allocatedPages).toBe(14);
    expect(memory.allocatePage()).toBe(pages[3]);
    expect(memory.read32(pages[3]!)).toBe(0);
  });

  test('only an allocated page can be freed, once', () => {
    const memory = new PhysicalMemory(16 * PAGE_BYTES);
    const page = memory.allocatePage();
    memory.freePage(page);
    for (const pa of [page, 0, 2 * PAGE_BYTES, page + 1, 1e9]) {
      expect(() => memory.freePage(pa)).toThrow(RangeError);
    }
  });
});

test('page frames in a row, freed one by one', () => {
  const memory = new PhysicalMemory(16 * PAGE_BYTES);
  memory.allocatePage();
  const first = memory.allocatePages(3);
  expect(first).toBe(2 * PAGE_BYTES);
  expect(memory.allocatePage()).toBe(5 * PAGE_BYTES);
  expect(memory.allocatedPages).toBe(5);
  expect(memory.allocatePages(11)).toBe(-1);
  for (let i = 0; i < 3; i++) memory.freePage(first + i * PAGE_BYTES);
  expect(memory.allocatedPages).toBe(2);
});

describe('adopted buffers', () => {
  test('rebase puts another buffer behind the same addresses', () => {
    const memory = new PhysicalMemory(MIB);
    const base = memory.adopt(new Uint8Array(3 * MIB).fill(1).buffer);
    const other = new Uint8Array(3 * MIB).fill(2);
    memory.rebase(base, other.buffer);
    expect(memory.read32(base + 2 * MIB)).toBe(0x02020202);
    memory.write32(base, 7);
    expect(other[0]).toBe(7);
    expect(() => memory.rebase(base, new ArrayBuffer(CHUNK_BYTES))).toThrow(RangeError);
    expect(() => memory.rebase(base + CHUNK_BYTES, new ArrayBuffer(1))).toThrow(RangeError);
  });

  test('alias the bytes of the typed array', () => {
    const memory = new PhysicalMemory(MIB);
    const user = new Uint8Array(3 * MIB);
    const base = memory.adopt(user.buffer);
    expect(base).toBeGreaterThanOrEqual(2 ** 32);
    expect(base % CHUNK_BYTES).toBe(0);
    memory.write32(base + 2 * MIB + 8, 0x01020304);
    expect([...user.subarray(2 * MIB + 8, 2 * MIB + 12)]).toEqual([4, 3, 2, 1]);
    user[5] = 0x77;
    expect(memory.read32(base + 4)).toBe(0x7700);
    expect(memory.has(base, 3 * MIB)).toBe(true);
    expect(memory.has(base + 3 * MIB, 1)).toBe(false);
  });

  test('of an odd length end at their last byte', () => {
    const memory = new PhysicalMemory(MIB);
    const user = new Uint8Array(10);
    const base = memory.adopt(user.buffer);
    expect(memory.has(base, 10)).toBe(true);
    expect(memory.has(base, 11)).toBe(false);
    expect(memory.read32(base + 4)).toBe(0);
    expect(memory.read32(base + 8)).toBe(UNREADABLE);
    expect(memory.write64(base, 1, 2)).toBe(true);
    expect(memory.write64(base + 8, 1, 2)).toBe(false);
  });

  test('release takes the RAM away, and neighbours merge for reuse', () => {
    const memory = new PhysicalMemory(MIB);
    const [a, b, c] = [1, 1, 1].map(() => memory.adopt(new ArrayBuffer(CHUNK_BYTES))) as [
      number,
      number,
      number,
    ];
    memory.release(a);
    memory.release(c);
    expect(memory.read32(a)).toBe(UNREADABLE);
    expect(memory.read32(b)).toBe(0);
    memory.release(b);
    expect(memory.adopt(new ArrayBuffer(3 * CHUNK_BYTES))).toBe(a);
    expect(memory.adopt(new ArrayBuffer(1))).toBe(c + CHUNK_BYTES);
    expect(() => memory.release(b)).toThrow(RangeError);
    expect(() => memory.adopt(new ArrayBuffer(0))).toThrow(RangeError);
  });
});

describe('bulk copies', () => {
  // Few bytes are copied otherwise than many.
  test.each([1, 127, 128, 129, PAGE_BYTES])(
    '%i bytes, by an address in halves, across a chunk’s end',
    (length) => {
      const memory = new PhysicalMemory(8 * MIB);
      const base = memory.adopt(new ArrayBuffer(2 * CHUNK_BYTES));
      const from = Uint8Array.from({ length: length + 2 }, (_, i) => i + 1);
      for (const pa of [
        CHUNK_BYTES - 1,
        base + CHUNK_BYTES - (length >> 1),
        base + 2 * CHUNK_BYTES - length,
      ]) {
        const [high, low] = [Math.floor(pa / 2 ** 32), pa | 0];
        expect(memory.copyInAt(high, low, from, 1, length)).toBe(true);
        const into = new Uint8Array(length + 2);
        expect(memory.copyOutAt(high, low, into, 1, length)).toBe(true);
        expect(into).toEqual(Uint8Array.of(0, ...from.subarray(1, -1), 0));
      }
    },
  );

  test('an address in halves that has no RAM, or cannot have any', () => {
    const memory = new PhysicalMemory(2 * PAGE_BYTES);
    const bytes = new Uint8Array(16);
    for (const [high, low] of [
      [0, 2 * PAGE_BYTES],
      [1, 0],
      [0xf_ffff, -8],
      [0x10_0000, 0],
      [-1, -8],
    ] as const) {
      expect(memory.copyOutAt(high, low, bytes, 0, 16)).toBe(false);
      expect(memory.copyInAt(high, low, bytes, 0, 16)).toBe(false);
    }
    expect(() => memory.copyOutAt(0, 0, bytes, 8, 9)).toThrow(RangeError);
  });

  test('cross chunks', () => {
    const memory = new PhysicalMemory(8 * MIB);
    const from = Uint8Array.from({ length: 3 * MIB }, (_, i) => (i * 7) >> 3);
    expect(memory.copyIn(MIB + 1, from, 0, from.length)).toBe(true);
    const into = new Uint8Array(from.length + 2);
    expect(memory.copyOut(MIB + 1, into, 1, from.length)).toBe(true);
    expect(Buffer.compare(into.subarray(1, -1), from)).toBe(0);
    expect([into[0], into[into.length - 1]]).toEqual([0, 0]);
  });

  test('stop at missing RAM, having moved what is before it', () => {
    const memory = new PhysicalMemory(2 * PAGE_BYTES);
    const from = new Uint8Array(16).fill(9);
    expect(memory.copyIn(2 * PAGE_BYTES - 8, from, 0, 16)).toBe(false);
    const into = new Uint8Array(16);
    expect(memory.copyOut(2 * PAGE_BYTES - 8, into, 0, 16)).toBe(false);
    expect([...into]).toEqual([9, 9, 9, 9, 9, 9, 9, 9, 0, 0, 0, 0, 0, 0, 0, 0]);
    expect(memory.copyOut(2 ** 51, into, 0, 1)).toBe(false);
    expect(memory.copyOut(2 ** 51, into, 0, 0)).toBe(true);
  });

  test('refuse a range outside the array', () => {
    const memory = new PhysicalMemory(MIB);
    expect(() => memory.copyOut(0, new Uint8Array(4), 2, 3)).toThrow(RangeError);
    expect(() => memory.copyIn(0, new Uint8Array(4), -1, 1)).toThrow(RangeError);
  });

  test('readWords and writeWords', () => {
    const memory = new PhysicalMemory(MIB);
    expect(memory.writeWords(MIB - 8, [1, -2])).toBe(true);
    const words = new Int32Array(2);
    expect(memory.readWords(MIB - 8, words)).toBe(true);
    expect([...words]).toEqual([1, -2]);
    expect(memory.readWords(MIB - 4, words)).toBe(false);
    expect(memory.writeWords(MIB - 4, words)).toBe(false);
  });
});
