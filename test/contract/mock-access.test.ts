/** Access objects of the selftest: the kernel's own use of mappings, by raw calls. */
import { RawIommu, useRawIommu } from './mock';
import * as layout from '../../lib/sim/kernel/mock/layout';
import * as uapi from '../../lib/uapi';
import { errno } from '../../lib/uapi';
import { fill, PAGE } from './support';

const iommu = useRawIommu();
const IOVA = 0x100_0000n;
const EBADE = 52;
const PINS = layout.MOCK_FLAGS_ACCESS_CREATE_NEEDS_PIN_PAGES;
const { MOCK_ACCESS_RW_WRITE: WRITE, MOCK_ACCESS_RW_SLOW_PATH: SLOW } = layout;

function tryAccess(raw: RawIommu, ioas: number, flags: number): number {
  const { result, out } = raw.test(uapi.IOMMU_TEST_OP_CREATE_ACCESS, ioas, { create_access: { flags } });
  return result || out.create_access.out_access_fd;
}

function access(raw: RawIommu, ioas: number, flags = 0): number {
  const fd = tryAccess(raw, ioas, flags);
  if (fd < 0) throw new Error(`CREATE_ACCESS gave ${fd}`);
  return raw.keep(fd);
}

interface Range {
  iova?: bigint;
  length?: number | bigint;
  uptr?: bigint;
  flags?: number;
}

/** IOMMU_TEST_OP_ACCESS_PAGES: the id of the pages pinned, or the error. */
function pin(raw: RawIommu, fd: number, range: Range): number {
  const { result, out } = raw.test(uapi.IOMMU_TEST_OP_ACCESS_PAGES, fd, {
    access_pages: { iova: IOVA, length: PAGE, ...range },
  });
  return result || out.access_pages.out_access_pages_id;
}

function unpin(raw: RawIommu, fd: number, access_pages_id: number): number {
  return raw.test(uapi.IOMMU_TEST_OP_DESTROY_ACCESS_PAGES, fd, { destroy_access_pages: { access_pages_id } })
    .result;
}

function readWrite(raw: RawIommu, fd: number, range: Range): number {
  return raw.test(uapi.IOMMU_TEST_OP_ACCESS_RW, fd, { access_rw: { iova: IOVA, length: 16, ...range } })
    .result;
}

function replaceIoas(raw: RawIommu, fd: number, ioas_id: number): number {
  return raw.test(uapi.IOMMU_TEST_OP_ACCESS_REPLACE_IOAS, fd, { access_replace_ioas: { ioas_id } }).result;
}

/** An IOAS with `pages` pages mapped at IOVA. */
function mapped(raw: RawIommu, pages: number, flags?: number) {
  const ioas = raw.ioas();
  const memory = raw.memory(pages * PAGE);
  expect(raw.map(ioas, memory.address, pages * PAGE, IOVA, flags)).toBe(IOVA);
  return { ioas, memory, address: memory.address };
}

describe('an access', () => {
  test('has an id and a descriptor, and ends with the descriptor', () => {
    const raw = iommu();
    const ioas = raw.ioas();
    expect(tryAccess(raw, ioas, 2)).toBe(-errno.EOPNOTSUPP);
    expect(tryAccess(raw, 99, 0)).toBe(-errno.ENOENT);
    const fd = tryAccess(raw, ioas, 0);
    expect(raw.ioas()).toBe(3);
    expect(raw.destroy(2)).toBe(-errno.EBUSY);
    expect(raw.destroy(ioas)).toBe(-errno.EBUSY);
    expect(raw.drop(fd)).toBe(0);
    expect(raw.destroy(2)).toBe(-errno.ENOENT);
    expect(raw.destroy(ioas)).toBe(0);
  });

  test('keeps the iommufd alive, and its memory', () => {
    const raw = iommu();
    const { ioas, address } = mapped(raw, 2);
    const fd = access(raw, ioas, PINS);
    expect(pin(raw, fd, {})).toBe(0);
    const other = new RawIommu();
    raw.drop(raw.fd);
    expect(other.checkRefs(address, PAGE, 1)).toBe(0);
    expect(raw.drop(fd)).toBe(0);
    expect(other.checkRefs(address, PAGE, 0)).toBe(0);
    other.close();
  });

  test('is named by its descriptor', () => {
    const raw = iommu();
    const ioas = raw.ioas();
    for (const fd of [raw.fd, 9999]) {
      expect(pin(raw, fd, {})).toBe(-errno.EBADFD);
      expect(unpin(raw, fd, 0)).toBe(-errno.EBADFD);
      expect(readWrite(raw, fd, {})).toBe(-errno.EBADFD);
      expect(replaceIoas(raw, fd, ioas)).toBe(-errno.EBADFD);
    }
  });

  test('that pins pages makes mappings page-aligned', () => {
    const raw = iommu();
    const ioas = raw.ioas();
    const { address } = raw.memory(PAGE);
    expect(raw.map(ioas, address, 2048, IOVA)).toBe(IOVA);
    expect(tryAccess(raw, ioas, PINS)).toBe(-errno.EADDRINUSE);
    const bytes = access(raw, ioas);
    expect(raw.unmap(ioas, IOVA, 2048)).toBe(0);
    const fd = access(raw, ioas, PINS);
    expect(raw.map(ioas, address, 2048, IOVA)).toBe(-errno.EINVAL);
    expect(raw.map(ioas, address, PAGE, IOVA)).toBe(IOVA);
    raw.drop(fd);
    expect(raw.map(ioas, address, 1, 0n)).toBe(0n);
    expect(readWrite(raw, bytes, { iova: 0n, length: 1, uptr: address })).toBe(0);
  });
});

describe('ACCESS_PAGES', () => {
  test('pins pages, and compares them with memory', () => {
    const raw = iommu();
    const { ioas, address } = mapped(raw, 4);
    const fd = access(raw, ioas, PINS);
    expect(pin(raw, fd, { length: 2 * PAGE, uptr: address })).toBe(0);
    expect(raw.checkRefs(address, 2 * PAGE, 1)).toBe(0);
    expect(raw.checkRefs(address + BigInt(2 * PAGE), 2 * PAGE, 0)).toBe(0);
    expect(pin(raw, fd, { length: 2 * PAGE, uptr: address })).toBe(1);
    expect(pin(raw, fd, { iova: IOVA + BigInt(PAGE), length: 3 * PAGE })).toBe(2);
    expect(raw.checkRefs(address, 4 * PAGE, 1)).toBe(0);
    expect(pin(raw, fd, { uptr: address + BigInt(PAGE) })).toBe(-EBADE);
    expect(pin(raw, fd, { uptr: 8n })).toBe(-errno.EFAULT);
    expect(unpin(raw, fd, 0)).toBe(0);
    expect(unpin(raw, fd, 0)).toBe(-errno.ENOENT);
    expect(raw.checkRefs(address, 2 * PAGE, 1)).toBe(0);
    expect(unpin(raw, fd, 1)).toBe(0);
    expect(raw.checkRefs(address, PAGE, 0)).toBe(0);
    expect(raw.checkRefs(address + BigInt(PAGE), 3 * PAGE, 1)).toBe(0);
    expect(pin(raw, fd, {})).toBe(3);
    raw.drop(fd);
    expect(raw.checkRefs(address, 4 * PAGE, 0)).toBe(0);
  });

  test('what it refuses, and in which order', () => {
    const raw = iommu();
    const { ioas } = mapped(raw, 2, uapi.IOMMU_IOAS_MAP_READABLE);
    const fd = access(raw, ioas, PINS);
    const bytes = access(raw, ioas);
    expect(pin(raw, 9999, { length: 2 ** 24 + 1, flags: 2 })).toBe(-errno.ENOMEM);
    expect(pin(raw, 9999, { flags: 2 })).toBe(-errno.EOPNOTSUPP);
    expect(pin(raw, bytes, { length: 0 })).toBe(-errno.EOPNOTSUPP);
    expect(pin(raw, fd, { length: 0 })).toBe(-errno.EINVAL);
    expect(pin(raw, fd, { iova: 2n ** 64n - 4096n, length: 2 * PAGE })).toBe(-errno.EOVERFLOW);
    expect(pin(raw, fd, { iova: 0n })).toBe(-errno.ENOENT);
    expect(pin(raw, fd, { length: 3 * PAGE })).toBe(-errno.ENOENT);
    expect(pin(raw, fd, { iova: IOVA + 8n, length: 8 })).toBe(-errno.EINVAL);
    expect(pin(raw, fd, { flags: layout.MOCK_FLAGS_ACCESS_WRITE })).toBe(-errno.EPERM);
    expect(pin(raw, fd, { iova: IOVA + 8n, flags: layout.MOCK_FLAGS_ACCESS_WRITE })).toBe(-errno.EINVAL);
    expect(pin(raw, fd, { length: 8 })).toBe(0);
  });

  test('a page of two mappings is no page of one', () => {
    const raw = iommu();
    const ioas = raw.ioas();
    const { address } = raw.memory(4 * PAGE);
    expect(raw.map(ioas, address, PAGE, IOVA)).toBe(IOVA);
    expect(raw.map(ioas, address + BigInt(2 * PAGE), PAGE, IOVA + BigInt(PAGE))).toBe(IOVA + BigInt(PAGE));
    expect(raw.map(ioas, 0n, PAGE, IOVA + BigInt(2 * PAGE))).toBe(IOVA + BigInt(2 * PAGE));
    const fd = access(raw, ioas, PINS);
    expect(pin(raw, fd, { length: 2 * PAGE })).toBe(0);
    expect(raw.checkRefs(address, PAGE, 1)).toBe(0);
    expect(raw.checkRefs(address + BigInt(PAGE), PAGE, 0)).toBe(0);
    expect(pin(raw, fd, { length: 3 * PAGE })).toBe(-errno.EFAULT);
    expect(unpin(raw, fd, 0)).toBe(0);
    expect(raw.checkRefs(address, 4 * PAGE, 0)).toBe(0);
  });

  test('unmapping lets go of what is pinned, and no more', () => {
    const raw = iommu();
    const { ioas, address } = mapped(raw, 2);
    const next = IOVA + BigInt(2 * PAGE);
    const rest = raw.memory(PAGE);
    expect(raw.map(ioas, rest.address, PAGE, next)).toBe(next);
    const [fd, other] = [access(raw, ioas, PINS), access(raw, ioas, PINS)];
    expect(pin(raw, fd, { length: 3 * PAGE })).toBe(0);
    expect(pin(raw, fd, { iova: next })).toBe(1);
    expect(pin(raw, other, {})).toBe(0);
    expect(raw.unmap(ioas, IOVA, PAGE)).toBe(-errno.ENOENT);
    expect(raw.checkRefs(address, 2 * PAGE, 1)).toBe(0);
    expect(raw.unmap(ioas, IOVA, 2 * PAGE)).toBe(0);
    expect(unpin(raw, fd, 0)).toBe(-errno.ENOENT);
    expect(unpin(raw, other, 0)).toBe(-errno.ENOENT);
    expect(raw.checkRefs(address, 2 * PAGE, 0)).toBe(0);
    expect(raw.checkRefs(rest.address, PAGE, 1)).toBe(0);
    expect(unpin(raw, fd, 1)).toBe(0);
    expect(raw.checkRefs(rest.address, PAGE, 0)).toBe(0);
  });

  test('shares pages with tables', () => {
    const raw = iommu();
    const { ioas, address } = mapped(raw, 2);
    const fd = access(raw, ioas, PINS);
    expect(pin(raw, fd, {})).toBe(0);
    const { stdev, hwpt } = raw.device(ioas);
    expect(raw.checkRefs(address, 2 * PAGE, 1)).toBe(0);
    expect(raw.checkMap(hwpt, IOVA, address, 2 * PAGE)).toBe(0);
    expect(pin(raw, fd, { length: 2 * PAGE, uptr: address })).toBe(1);
    expect(raw.destroy(stdev)).toBe(0);
    expect(raw.checkRefs(address, 2 * PAGE, 1)).toBe(0);
    expect(unpin(raw, fd, 1)).toBe(0);
    expect(raw.checkRefs(address + BigInt(PAGE), PAGE, 0)).toBe(0);
    expect(raw.checkRefs(address, PAGE, 1)).toBe(0);
  });
});

describe('ACCESS_RW', () => {
  test.each([0, SLOW])('copies across mappings, with flags %d', (slow) => {
    const raw = iommu();
    const { ioas, memory } = mapped(raw, 3);
    const more = raw.memory(2 * PAGE);
    const at = IOVA + BigInt(3 * PAGE);
    expect(raw.map(ioas, more.address + 100n, 5000, at)).toBe(at);
    const fd = access(raw, ioas);
    fill(memory.bytes, 1);
    fill(more.bytes, 77);
    const buffer = raw.memory(4 * PAGE);
    const offset = 2 * PAGE + 3;
    const length = PAGE + 4000;
    const range = { iova: IOVA + BigInt(offset), length, uptr: buffer.address + 5n };
    expect(readWrite(raw, fd, { ...range, flags: slow })).toBe(0);
    const [first, second] = [memory.bytes.subarray(offset), more.bytes.subarray(100, 100 + 4003)];
    const expected = [...first, ...second];
    expect([...buffer.bytes.subarray(5, 5 + length)]).toEqual(expected);

    fill(buffer.bytes, 200);
    expect(readWrite(raw, fd, { ...range, flags: slow | WRITE })).toBe(0);
    const written = [...buffer.bytes.subarray(5, 5 + length)];
    expect([...first, ...more.bytes.subarray(100, 100 + 4003)]).toEqual(written);
    expect(raw.checkRefs(memory.address, 3 * PAGE, 0)).toBe(0);
  });

  test('what it refuses, and in which order', () => {
    const raw = iommu();
    const { ioas, address } = mapped(raw, 1, uapi.IOMMU_IOAS_MAP_READABLE);
    const writable = IOVA + BigInt(PAGE);
    expect(raw.map(ioas, 0n, PAGE, writable, uapi.IOMMU_IOAS_MAP_WRITEABLE)).toBe(writable);
    const fd = access(raw, ioas);
    expect(readWrite(raw, 9999, { length: 2 ** 24 + 1, flags: 2 })).toBe(-errno.ENOMEM);
    expect(readWrite(raw, 9999, { flags: 2 })).toBe(-errno.EOPNOTSUPP);
    expect(readWrite(raw, fd, { flags: WRITE, length: 8, iova: 0n })).toBe(-errno.EFAULT);
    expect(readWrite(raw, fd, { length: 0, uptr: address })).toBe(-errno.EINVAL);
    expect(readWrite(raw, fd, { iova: 2n ** 64n - 1n, length: 2, uptr: address })).toBe(-errno.EOVERFLOW);
    expect(readWrite(raw, fd, { iova: 0n, uptr: address })).toBe(-errno.ENOENT);
    expect(readWrite(raw, fd, { uptr: address, flags: WRITE })).toBe(-errno.EPERM);
    expect(readWrite(raw, fd, { uptr: address, iova: writable })).toBe(-errno.EPERM);
    expect(readWrite(raw, fd, { uptr: address, iova: writable, flags: WRITE })).toBe(-errno.EFAULT);
    expect(readWrite(raw, fd, { uptr: 0n })).toBe(-errno.EFAULT);
    expect(readWrite(raw, fd, { uptr: address })).toBe(0);
  });

  test('with SYZ, an IOVA is the number of a mapping and an offset', () => {
    const raw = iommu();
    const { ioas, memory } = mapped(raw, 2);
    const low = raw.memory(PAGE);
    expect(raw.map(ioas, low.address, PAGE, 0x5000n)).toBe(0x5000n);
    fill(memory.bytes, 3);
    const fd = access(raw, ioas);
    const buffer = raw.memory(PAGE);
    const flags = layout.MOCK_FLAGS_ACCESS_SYZ;
    const iova = (BigInt(PAGE + 7) << 32n) | 1n;
    expect(readWrite(raw, fd, { iova, flags, uptr: buffer.address })).toBe(0);
    expect([...buffer.bytes.subarray(0, 16)]).toEqual([...memory.bytes.subarray(PAGE + 7, PAGE + 23)]);
    expect(readWrite(raw, fd, { iova: 2n, flags, uptr: buffer.address })).toBe(-errno.ENOENT);
  });
});

test('IOAS_COPY takes the number of a mapping too, and says which IOVA it was', () => {
  const raw = iommu();
  const { ioas, address } = mapped(raw, 2);
  const other = raw.ioas();
  const copy = (src_ioas_id: number, src_iova: bigint, flags: number) =>
    raw.call(uapi.IOMMU_IOAS_COPY, {
      flags: flags | layout.MOCK_FLAGS_ACCESS_SYZ,
      src_ioas_id,
      dst_ioas_id: other,
      src_iova,
      dst_iova: IOVA,
      length: PAGE,
    });
  const { result, out } = copy(ioas, BigInt(PAGE) << 32n, 7);
  expect(result).toBe(0);
  expect(out).toMatchObject({ flags: 7, src_iova: IOVA + BigInt(PAGE), dst_iova: IOVA });
  const { hwpt } = raw.device(other);
  expect(raw.checkMap(hwpt, IOVA, address + BigInt(PAGE), PAGE)).toBe(0);
  expect(copy(ioas, 1n, 7).result).toBe(-errno.ENOENT);
  expect(copy(99, 0n, 7).result).toBe(-errno.ENOENT);
  expect(copy(ioas, 0n, 0).result).toBe(-errno.EINVAL);
  expect(copy(ioas, 0n, 8).result).toBe(-errno.EOPNOTSUPP);
});

test('ACCESS_REPLACE_IOAS moves it, and lets go of everything', () => {
  const raw = iommu();
  const { ioas, address } = mapped(raw, 1);
  const other = raw.ioas();
  const crooked = raw.ioas();
  expect(raw.map(crooked, address, 100, IOVA)).toBe(IOVA);
  const fd = access(raw, ioas, PINS);
  expect(pin(raw, fd, {})).toBe(0);
  expect(replaceIoas(raw, fd, 99)).toBe(-errno.ENOENT);
  expect(replaceIoas(raw, fd, crooked)).toBe(-errno.EADDRINUSE);
  expect(replaceIoas(raw, fd, ioas)).toBe(0);
  expect(raw.checkRefs(address, PAGE, 1)).toBe(0);
  expect(replaceIoas(raw, fd, other)).toBe(0);
  expect(raw.checkRefs(address, PAGE, 0)).toBe(0);
  expect(unpin(raw, fd, 0)).toBe(-errno.ENOENT);
  expect(pin(raw, fd, {})).toBe(-errno.ENOENT);
  expect(raw.destroy(ioas)).toBe(0);
  expect(raw.destroy(other)).toBe(-errno.EBUSY);
});
