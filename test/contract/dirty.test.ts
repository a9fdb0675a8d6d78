/** Dirty tracking as ranges, on the mock IOMMU. */
import fc from 'fast-check';
import type { AddressSpace, IovaRange, MockDevice, PageTable } from '../../lib';
import { runsOfBits } from '../../lib/dirty';
import * as uapi from '../../lib/uapi';
import { IOVA, openMock } from './mock-objects';
import { errorOf, PAGE } from './support';

const at = (page: number) => IOVA + BigInt(page * PAGE);
const range = (page: number, pages: number): IovaRange => ({
  iova: at(page),
  length: BigInt(pages * PAGE),
});

/** A tracked page table, a device on it, and mappings of so many pages at so many places: [page, pages]. */
function setUp(mappings: [number, number][] = [[0, 8]]) {
  const iommu = openMock();
  const device = iommu.createMockDevice({ cookie: 1 });
  const space = iommu.createAddressSpace();
  const table = iommu.createPageTable(device, { parent: space, dirtyTracking: true });
  device.attach(table);
  table.trackDirty();
  const pages = Math.max(...mappings.map(([, count]) => count));
  const buffer = iommu.allocateDma(pages * PAGE);
  const map = (page: number, count: number) => space.map(buffer, { iova: at(page), length: count * PAGE });
  for (const [page, count] of mappings) map(page, count);
  const mark = (page: number, count = 1) => device.markDirty(at(page), count * PAGE);
  return { iommu, device, space, table, buffer, map, mark };
}

/** Splits the mappings into single pages, so that a page of the table is a page of memory. */
function singles(from: number, to: number): [number, number][] {
  return Array.from({ length: to - from }, (_, i) => [from + i, 1]);
}

test('what was written is reported once, as ranges', () => {
  const { table, mark } = setUp(singles(0, 8));
  expect(table.readDirty()).toEqual([]);
  mark(1, 2);
  mark(5);
  expect(table.readDirty({ clear: false })).toEqual([range(1, 2), range(5, 1)]);
  expect(table.readDirty()).toEqual([range(1, 2), range(5, 1)]);
  expect(table.readDirty()).toEqual([]);
  mark(7);
  table.trackDirty(false);
  expect(table.readDirty({ clear: false })).toEqual([range(7, 1)]);
  table.trackDirty();
  expect(table.readDirty()).toEqual([]);
});

test('holes do not end the report, whatever the order of the mappings', () => {
  const { table, mark } = setUp([...singles(6, 8), ...singles(0, 2), ...singles(4, 5)]);
  for (const page of [0, 1, 4, 6, 7]) mark(page);
  expect(table.readDirty()).toEqual([range(0, 2), range(4, 1), range(6, 2)]);
});

test('a range that cuts a mapping loses nothing: the rest of the mapping is in the answer', () => {
  // Eight pages from an aligned address: the kernel may make one page of the table of them.
  const { table, mark, space } = setUp([[0, 8], ...singles(8, 10)]);
  mark(0, 8);
  mark(8, 2);
  const found = table.readDirty({ iova: at(3), length: PAGE });
  expect(found).toEqual([range(0, 8)]);
  expect(table.readDirty({ iova: at(9) })).toEqual([range(9, 1)]);
  expect(table.readDirty()).toEqual([range(8, 1)]);
  expect(table.readDirty({ iova: at(0), length: 0 })).toEqual([]);
  expect(table.readDirty({ iova: at(100), length: PAGE })).toEqual([]);
  expect(space.mappings).toHaveLength(3);
});

test('granularity is as fine as the mappings need, and coarser if asked', () => {
  const { table, mark, space, buffer } = setUp(singles(0, 8));
  mark(5);
  expect(table.readDirty({ pageSize: 4 * PAGE, clear: false })).toEqual([range(4, 4)]);
  expect(table.readDirty({ pageSize: PAGE })).toEqual([range(5, 1)]);
  // Half a page of memory is a page of the mock IOMMU.
  space.map(buffer, { iova: at(8), length: uapi.MOCK_PAGE_SIZE });
  mark(5);
  expect(table.readDirty({ pageSize: 2 ** 20 })).toEqual([range(5, 1)]);
  for (const pageSize of [0, -4096, 3000, 1.5, NaN, 2 ** 60])
    expect(() => table.readDirty({ pageSize })).toThrow(RangeError);
  expect(() => table.readDirty({ iova: -1 })).toThrow(RangeError);
  expect(() => table.readDirty({ length: 2n ** 64n })).toThrow(RangeError);
});

test('marks and reports agree, whatever the layout', () => {
  fc.assert(
    fc.property(
      fc.uniqueArray(fc.nat(63), { minLength: 1, maxLength: 24 }),
      fc.array(fc.nat(23), { maxLength: 24 }),
      (mapped, marked) => {
        const { iommu, table, mark } = setUp(mapped.map((page) => [page, 1]));
        const dirty = new Set(marked.map((i) => mapped[i % mapped.length]));
        for (const page of dirty) mark(page);
        const pages = table
          .readDirty()
          .flatMap(({ iova, length }) =>
            Array.from({ length: Number(length) / PAGE }, (_, i) => Number(iova - IOVA) / PAGE + i),
          );
        expect(pages).toEqual([...dirty].sort((one, other) => one - other));
        expect(table.readDirty()).toEqual([]);
        iommu.close();
      },
    ),
    { numRuns: 8 },
  );
});

describe('of an address space', () => {
  function openSpace() {
    const iommu = openMock();
    const device: MockDevice = iommu.createMockDevice({ cookie: 1 });
    const space: AddressSpace = iommu.createAddressSpace({ dirtyTracking: true });
    for (const [page] of singles(0, 4)) space.map(iommu.allocateDma(PAGE), { iova: at(page), length: PAGE });
    return { iommu, device, space };
  }

  test('one call is enough: the first starts the recording', () => {
    const { device, space } = openSpace();
    device.attach(space);
    expect(() => space.readDirty({ pageSize: 3 })).toThrow(RangeError);
    expect(errorOf(() => device.markDirty(at(1), PAGE))).toMatchObject({ code: 'EINVAL' });
    expect(space.readDirty()).toEqual([]);
    device.markDirty(at(1), PAGE);
    expect(space.readDirty()).toEqual([range(1, 1)]);
    device.markDirty(at(2), PAGE);
    space.trackDirty(false);
    expect(space.readDirty()).toEqual([range(2, 1)]);
    expect(errorOf(() => device.markDirty(at(2), PAGE))).toMatchObject({ code: 'EINVAL' });
  });

  test('tables made later are tracked too', () => {
    const { device, space } = openSpace();
    space.trackDirty();
    expect(space.readDirty()).toEqual([]);
    device.attach(space);
    device.markDirty(at(2), PAGE);
    expect(space.readDirty()).toEqual([range(2, 1)]);
    expect(space.readDirty()).toEqual([]);
  });

  test('what was written before the last device left is still reported', () => {
    const { device, space } = openSpace();
    space.trackDirty();
    device.attach(space);
    device.markDirty(at(1), PAGE);
    device.detach();
    device.attach(space);
    device.markDirty(at(3), PAGE);
    expect(space.readDirty()).toEqual([range(1, 1), range(3, 1)]);
    device.markDirty(at(0), PAGE);
    space.trackDirty();
    expect(space.readDirty()).toEqual([]);
  });

  test('must be asked for', () => {
    const { iommu, device } = openSpace();
    const plain = iommu.createAddressSpace();
    const table: PageTable = iommu.createPageTable(device, { parent: plain });
    for (const use of [() => plain.trackDirty(), () => plain.readDirty(), () => table.trackDirty()])
      expect(errorOf(use)).toMatchObject({ code: 'EOPNOTSUPP' });
    plain.map(iommu.allocateDma(PAGE), { iova: at(0) });
    expect(errorOf(() => table.readDirty())).toMatchObject({
      code: 'EOPNOTSUPP',
      request: 'IOMMU_HWPT_GET_DIRTY_BITMAP',
      hint: 'make the page table or the address space with dirtyTracking: true',
    });
  });
});

test('runs of bits, against bit by bit', () => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 1, maxLength: 40 }), fc.nat(7), (bytes, less) => {
      // Long runs are what it takes shortcuts for.
      const bitmap = bytes.map((byte) => (byte < 100 ? 0 : byte < 200 ? 0xff : byte));
      const count = bitmap.length * 8 - less;
      const bits = new Set(runsOfBits(bitmap, count).flatMap(([first, end]) => span(first, end)));
      for (let bit = 0; bit < count; bit++)
        expect([bit, bits.has(bit)]).toEqual([bit, ((bitmap[bit >> 3] >> (bit & 7)) & 1) === 1]);
      expect(Math.max(-1, ...bits)).toBeLessThan(count);
    }),
  );
});

function span(first: number, end: number): number[] {
  return Array.from({ length: end - first }, (_, i) => first + i);
}
