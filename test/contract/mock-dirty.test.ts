/** Dirty tracking on the selftest IOMMU, by raw calls. */
import type { Memory } from '../../lib/open-kernel';
import * as uapi from '../../lib/uapi';
import { errno } from '../../lib/uapi';
import { APERTURE, MOCK_PAGE, useRawIommu } from './mock';
import { PAGE } from './support';

const iommu = useRawIommu();
const NO_CLEAR = uapi.IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR;
const ENABLE = uapi.IOMMU_HWPT_DIRTY_TRACKING_ENABLE;
const PAGES = 8;

/** A table with dirty tracking and PAGES mappings of 4 KiB, each a page of its own in the table. */
function setUp({ tracking = true, pages = PAGES } = {}) {
  const raw = iommu();
  const ioas = raw.ioas();
  const { address } = raw.memory(pages * PAGE);
  const { device } = raw.device(ioas);
  for (let i = 0; i < pages; i++) {
    const iova = APERTURE + BigInt(i * PAGE);
    expect(raw.map(ioas, address + BigInt(i * PAGE), PAGE, iova)).toBe(iova);
  }
  const hwpt = raw.hwpt({ dev_id: device, pt_id: ioas, flags: uapi.IOMMU_HWPT_ALLOC_DIRTY_TRACKING });
  if (tracking) expect(setTracking(hwpt, ENABLE)).toBe(0);
  return { raw, ioas, device, hwpt, bitmap: raw.memory(2 * PAGE) };
}

function setTracking(hwpt_id: number, flags: number): number {
  return iommu().run(uapi.IOMMU_HWPT_SET_DIRTY_TRACKING, { hwpt_id, flags });
}

interface Range {
  iova?: bigint;
  length?: bigint | number;
  page_size?: bigint | number;
  flags?: number;
}

/** Marks the pages whose bits are in `bits`: how many, or the error. */
function mark(hwpt: number, bits: number, range: Range = {}, uptr?: bigint): number {
  const raw = iommu();
  const memory = raw.memory(PAGE);
  new DataView(memory.bytes.buffer, memory.bytes.byteOffset).setUint32(0, bits, true);
  const dirty = {
    iova: APERTURE,
    length: PAGES * PAGE,
    page_size: PAGE,
    uptr: uptr ?? memory.address,
    ...range,
  };
  const { result, out } = raw.test(uapi.IOMMU_TEST_OP_DIRTY, hwpt, { dirty });
  return result || Number(out.dirty.out_nr_dirty);
}

function getBitmap(hwpt_id: number, data: bigint, range: Range = {}): number {
  const values = { iova: APERTURE, length: PAGES * PAGE, page_size: PAGE, ...range };
  return iommu().run(uapi.IOMMU_HWPT_GET_DIRTY_BITMAP, { hwpt_id, data, ...values });
}

/** Reads the bitmap into cleared memory: its first four bytes. */
function bits(hwpt: number, { bytes, address }: Memory, range: Range = {}, offset = 0): number {
  bytes.fill(0);
  expect(getBitmap(hwpt, address + BigInt(offset), range)).toBe(0);
  return new DataView(bytes.buffer, bytes.byteOffset).getUint32(offset, true);
}

test('pages are reported once, or as often as asked with NO_CLEAR', () => {
  const { hwpt, bitmap } = setUp();
  expect(bits(hwpt, bitmap)).toBe(0);
  expect(mark(hwpt, 0b1010_0101)).toBe(4);
  expect(bits(hwpt, bitmap, { flags: NO_CLEAR })).toBe(0b1010_0101);
  expect(bits(hwpt, bitmap)).toBe(0b1010_0101);
  expect(bits(hwpt, bitmap)).toBe(0);
});

test('bits are added to those that are there', () => {
  const { hwpt, bitmap } = setUp();
  expect(mark(hwpt, 0b10)).toBe(1);
  bitmap.bytes.fill(0x41, 0, 8);
  expect(getBitmap(hwpt, bitmap.address)).toBe(0);
  expect([...bitmap.bytes.subarray(0, 3)]).toEqual([0x43, 0x41, 0x41]);
});

test('granularity is that of the bitmap above that of the table', () => {
  const { hwpt, bitmap } = setUp();
  expect(mark(hwpt, 0b1, { page_size: MOCK_PAGE })).toBe(1);
  // The table's page is 4 KiB: two of 2 KiB.
  expect(bits(hwpt, bitmap, { page_size: MOCK_PAGE })).toBe(0b11);
  expect(mark(hwpt, 0b1000)).toBe(1);
  expect(bits(hwpt, bitmap, { page_size: 4 * PAGE })).toBe(0b1);
  expect(mark(hwpt, 0b1_0000)).toBe(1);
  expect(bits(hwpt, bitmap, { page_size: 8 * PAGE })).toBe(0b1);
});

test('bits count from the start of the range, wherever the bitmap is in memory', () => {
  const { hwpt, bitmap } = setUp();
  const range = { iova: APERTURE + BigInt(3 * PAGE), length: 3 * PAGE };
  for (const offset of [0, 1, 0xff1, PAGE - 1, PAGE]) {
    expect(mark(hwpt, 0b11011)).toBe(4);
    expect(bits(hwpt, bitmap, range, offset)).toBe(0b11);
    expect(bits(hwpt, bitmap, {}, offset)).toBe(0b11);
  }
});

test('a hole in the mappings ends the report, and unmapping forgets', () => {
  const { raw, ioas, hwpt, bitmap } = setUp();
  expect(mark(hwpt, 0b1111_1111)).toBe(8);
  expect(raw.unmap(ioas, APERTURE + BigInt(2 * PAGE), PAGE)).toBe(0);
  expect(bits(hwpt, bitmap, { flags: NO_CLEAR })).toBe(0b11);
  expect(bits(hwpt, bitmap, { iova: APERTURE + BigInt(2 * PAGE), length: PAGE })).toBe(0);
  expect(bits(hwpt, bitmap, { iova: APERTURE + BigInt(3 * PAGE), length: PAGE })).toBe(1);
  // Marking what is not mapped counts, and does nothing.
  expect(mark(hwpt, 0b100)).toBe(1);
});

test('a page that starts before the range is cleaned and not reported; one that ends behind it sets bits behind', () => {
  const { hwpt, bitmap } = setUp();
  expect(mark(hwpt, 0b10)).toBe(1);
  const half = APERTURE + BigInt(PAGE + MOCK_PAGE);
  expect(bits(hwpt, bitmap, { iova: half, length: MOCK_PAGE, page_size: MOCK_PAGE })).toBe(0);
  expect(bits(hwpt, bitmap)).toBe(0);
  expect(mark(hwpt, 0b10)).toBe(1);
  const range = { iova: APERTURE + BigInt(PAGE), length: MOCK_PAGE, page_size: MOCK_PAGE };
  expect(bits(hwpt, bitmap, range)).toBe(0b11);
});

test('a bitmap that is not there is no error', () => {
  const { hwpt, bitmap } = setUp();
  expect(mark(hwpt, 0b11)).toBe(2);
  expect(getBitmap(hwpt, 0n)).toBe(0);
  expect(bits(hwpt, bitmap)).toBe(0);
});

test('turning tracking on cleans the table, turning it off keeps it', () => {
  const { hwpt, bitmap } = setUp();
  expect(mark(hwpt, 0b11)).toBe(2);
  expect(setTracking(hwpt, 0)).toBe(0);
  expect(mark(hwpt, 0b100)).toBe(-errno.EINVAL);
  expect(bits(hwpt, bitmap, { flags: NO_CLEAR })).toBe(0b11);
  expect(setTracking(hwpt, ENABLE)).toBe(0);
  expect(bits(hwpt, bitmap)).toBe(0);
});

test('what SET_DIRTY_TRACKING refuses', () => {
  const { raw, ioas, device, hwpt } = setUp({ tracking: false });
  const plain = raw.hwpt({ dev_id: device, pt_id: ioas });
  expect(setTracking(99, 2)).toBe(-errno.EOPNOTSUPP);
  expect(setTracking(99, ENABLE)).toBe(-errno.ENOENT);
  expect(setTracking(ioas, ENABLE)).toBe(-errno.ENOENT);
  expect(setTracking(plain, ENABLE)).toBe(-errno.EOPNOTSUPP);
  expect(setTracking(plain, 0)).toBe(-errno.EOPNOTSUPP);
  expect([ENABLE, ENABLE, 0, 0].map((flags) => setTracking(hwpt, flags))).toEqual([0, 0, 0, 0]);
});

test('what GET_DIRTY_BITMAP refuses, and in which order', () => {
  const { raw, ioas, device, hwpt, bitmap } = setUp();
  const plain = raw.hwpt({ dev_id: device, pt_id: ioas });
  const get = (id: number, range: Range) => getBitmap(id, bitmap.address, range);
  expect(get(99, { flags: 2 })).toBe(-errno.EOPNOTSUPP);
  expect(get(99, { length: 0 })).toBe(-errno.ENOENT);
  for (const id of [hwpt, plain]) {
    expect(get(id, { length: 0 })).toBe(-errno.EINVAL);
    expect(get(id, { iova: 2n ** 64n - 4096n, length: 2 * PAGE })).toBe(-errno.EOVERFLOW);
    expect(get(id, { iova: APERTURE + 1024n })).toBe(-errno.EINVAL);
    expect(get(id, { length: 1024, page_size: 1024 })).toBe(-errno.EINVAL);
    expect(get(id, { page_size: 0 })).toBe(-errno.EINVAL);
    expect(get(id, { page_size: 64 * PAGE })).toBe(-errno.EINVAL);
  }
  expect(get(plain, {})).toBe(-errno.EOPNOTSUPP);
  // A page size is taken for a mask.
  expect(mark(hwpt, 0b1)).toBe(1);
  expect(bits(hwpt, bitmap, { page_size: 0x1800, iova: APERTURE, length: 2 * PAGE, flags: NO_CLEAR })).toBe(
    0b11,
  );
  expect(get(hwpt, { iova: 2n ** 64n - 4096n, length: PAGE })).toBe(0);
});

test('what IOMMU_TEST_OP_DIRTY refuses', () => {
  const { raw, ioas, device, hwpt } = setUp();
  const plain = raw.hwpt({ dev_id: device, pt_id: ioas });
  expect(mark(99, 1, { page_size: 0 })).toBe(-errno.EINVAL);
  expect(mark(99, 1, { length: 0 })).toBe(-errno.EINVAL);
  expect(mark(99, 1, { iova: APERTURE + 1n })).toBe(-errno.EINVAL);
  expect(mark(99, 1, { length: PAGE + 1 })).toBe(-errno.EINVAL);
  expect(mark(99, 1, {}, 0n)).toBe(-errno.EINVAL);
  expect(mark(99, 1, { page_size: 1, length: 2 ** 27 + 1 })).toBe(-errno.EOVERFLOW);
  expect(mark(99, 1)).toBe(-errno.ENOENT);
  expect(mark(plain, 1)).toBe(-errno.EINVAL);
  expect(mark(hwpt, 1, {}, 8n)).toBe(-errno.EFAULT);
  expect(mark(hwpt, 1, { page_size: 3000n, length: 3000n * 3n, iova: 0n })).toBe(1);
});
