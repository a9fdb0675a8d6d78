/** RLIMIT_MEMLOCK: which pages count against whose limit, from when to when. */
import * as uapi from '../../lib/uapi';
import { code } from './calls';
import { countedPages } from './counted-pages';
import { limitLockedMemory, withoutCapabilities } from './limits';
import { APERTURE, mockKernel, RawIommu, useRawIommu } from './mock';
import { PAGE } from './support';

const iommu = useRawIommu();
const IOVA = APERTURE;
/** Room that no test fills. */
const STEP = 0x10_0000n;
const LIMIT = 8;
const DEFAULT = 8 * 1024 * 1024;

beforeAll(() => limitLockedMemory(mockKernel(), LIMIT * PAGE));
afterAll(() => limitLockedMemory(mockKernel(), DEFAULT));

function at(number: number): bigint {
  return IOVA + BigInt(number) * STEP;
}

/** MAP by a process without CAP_IPC_LOCK. */
function map(raw: RawIommu, ioas: number, address: bigint, pages: number, iova: bigint): string | number {
  const result = withoutCapabilities(raw.kernel, () => raw.map(ioas, address, pages * PAGE, iova));
  return typeof result === 'bigint' ? 0 : code(result);
}

/** MAP_FILE, likewise. */
function mapFile(raw: RawIommu, ioas: number, fd: number, pages: number, iova: bigint): string | number {
  const result = withoutCapabilities(raw.kernel, () => raw.mapFile(ioas, fd, 0, pages * PAGE, iova));
  return typeof result === 'bigint' ? 0 : code(result);
}

/** How many more pages may be pinned. */
function room(raw: RawIommu): number {
  const other = new RawIommu();
  const ioas = other.ioas();
  other.device(ioas);
  const { address } = other.memory(LIMIT * PAGE);
  let pages = LIMIT;
  while (pages > 0 && map(other, ioas, address, pages, IOVA) !== 0) pages--;
  other.close();
  expect(raw.kernel).toBe(other.kernel);
  return pages;
}

/** With RLIMIT_MODE 1 if `perProcess`. */
function setUp(raw: RawIommu, perProcess = false) {
  if (perProcess)
    expect(raw.run(uapi.IOMMU_OPTION, { option_id: uapi.IOMMU_OPTION_RLIMIT_MODE, val64: 1 })).toBe(0);
  return { ioas: raw.ioas(), address: raw.memory(2 * LIMIT * PAGE).address };
}

function copy(raw: RawIommu, ioas: number, src_iova: bigint, pages: number, dst_iova: bigint): number {
  const ids = { dst_ioas_id: ioas, src_ioas_id: ioas };
  return raw.run(uapi.IOMMU_IOAS_COPY, { flags: 7, ...ids, length: pages * PAGE, src_iova, dst_iova });
}

describe('per user', () => {
  test('the limit is exact, and what does not fit leaves nothing behind', () => {
    const raw = iommu();
    const { ioas, address } = setUp(raw);
    raw.device(ioas);
    expect(map(raw, ioas, address, LIMIT + 1, at(0))).toBe('ENOMEM');
    expect(map(raw, ioas, address, LIMIT, at(0))).toBe(0);
    expect(map(raw, ioas, address, 1, at(1))).toBe('ENOMEM');
    expect(raw.unmap(ioas, at(1), PAGE)).toBe(-uapi.errno.ENOENT);
    expect(raw.unmap(ioas, at(0), LIMIT * PAGE)).toBe(0);
    expect(map(raw, ioas, address, LIMIT, at(1))).toBe(0);
  });

  test('all iommufds of a user share it', () => {
    const raw = iommu();
    const { ioas, address } = setUp(raw);
    raw.device(ioas);
    expect(map(raw, ioas, address, 5, at(0))).toBe(0);
    expect(room(raw)).toBe(LIMIT - 5);
    raw.close();
    expect(room(raw)).toBe(LIMIT);
  });

  test('CAP_IPC_LOCK is asked for when memory is mapped', () => {
    const raw = iommu();
    const { ioas, address } = setUp(raw);
    raw.device(ioas);
    expect(raw.map(ioas, address, 2 * LIMIT * PAGE, at(0))).toBe(at(0));
    expect(countedPages(raw.kernel)).toEqual({ locked: 0, pinned: 2 * LIMIT });
    expect(map(raw, ioas, address, LIMIT, at(1))).toBe(0);
    // Whoever attaches a table does not matter.
    const other = raw.ioas();
    expect(map(raw, other, address, 1, at(0))).toBe(0);
    expect(code(Number(raw.tryDevice(other)))).toBe('ENOMEM');
    expect(raw.unmap(ioas, at(1), LIMIT * PAGE)).toBe(0);
    raw.device(other);
    expect(countedPages(raw.kernel)).toEqual({ locked: 0, pinned: 2 * LIMIT + 1 });
  });

  test('nothing counts before there is a table, and all of it must fit then', () => {
    const raw = iommu();
    const { ioas, address } = setUp(raw);
    expect(map(raw, ioas, address, 5, at(0))).toBe(0);
    expect(map(raw, ioas, address, 4, at(1))).toBe(0);
    expect(room(raw)).toBe(LIMIT);
    expect(code(raw.tryDevice(ioas) as number)).toBe('ENOMEM');
    expect(room(raw)).toBe(LIMIT);
    expect(raw.unmap(ioas, at(1), 4 * PAGE)).toBe(0);
    const { device, stdev } = raw.device(ioas);
    expect(room(raw)).toBe(LIMIT - 5);
    // A second table finds the pages in the first.
    const hwpt = raw.hwpt({ dev_id: device, pt_id: ioas });
    expect(raw.replace(stdev, hwpt)).toBe(hwpt);
    expect(room(raw)).toBe(LIMIT - 5);
    expect(raw.destroy(stdev)).toBe(0);
    expect(raw.destroy(hwpt)).toBe(0);
    expect(room(raw)).toBe(LIMIT);
  });

  test('whole pages count, once for each mapping of the same memory', () => {
    const raw = iommu();
    const { ioas, address } = setUp(raw);
    raw.device(ioas);
    expect(raw.map(ioas, address, PAGE, at(0))).toBe(at(0));
    const half = (offset: bigint, length: number, iova: bigint) =>
      withoutCapabilities(raw.kernel, () => raw.map(ioas, address + offset, length, iova));
    expect(half(2048n, 4096, at(1) + 2048n)).toBe(at(1) + 2048n);
    expect(room(raw)).toBe(LIMIT - 2);
    expect(half(2048n, 2048, at(2) + 2048n)).toBe(at(2) + 2048n);
    expect(map(raw, ioas, address, 2, at(3))).toBe(0);
    expect(room(raw)).toBe(LIMIT - 5);
  });

  test('a copy is free, and keeps its part', () => {
    const raw = iommu();
    const { ioas, address } = setUp(raw);
    raw.device(ioas);
    expect(map(raw, ioas, address, 6, at(0))).toBe(0);
    expect(copy(raw, ioas, at(0), 6, at(1))).toBe(0);
    expect(copy(raw, ioas, at(0) + BigInt(PAGE), 2, at(2))).toBe(0);
    expect(copy(raw, ioas, at(0) + BigInt(4 * PAGE), 1, at(3))).toBe(0);
    expect(room(raw)).toBe(LIMIT - 6);
    expect(raw.unmap(ioas, at(1), 6 * PAGE)).toBe(0);
    expect(room(raw)).toBe(LIMIT - 6);
    // Pages 1, 2 and 4 are in the copies.
    expect(raw.unmap(ioas, at(0), 6 * PAGE)).toBe(0);
    expect(room(raw)).toBe(LIMIT - 3);
    expect(copy(raw, ioas, at(2), 2, at(0))).toBe(0);
    expect(raw.unmap(ioas, at(2), 2 * PAGE)).toBe(0);
    expect(room(raw)).toBe(LIMIT - 3);
    expect(raw.unmap(ioas, at(0), 2 * PAGE)).toBe(0);
    expect(raw.unmap(ioas, at(3), PAGE)).toBe(0);
    expect(room(raw)).toBe(LIMIT);
  });

  test('a copy to where there is a table pins what nobody has yet', () => {
    const raw = iommu();
    const { ioas, address } = setUp(raw);
    const other = raw.ioas();
    raw.device(other);
    expect(map(raw, ioas, address, LIMIT + 2, at(0))).toBe(0);
    const to = (src_iova: bigint, pages: number, dst_iova: bigint) => {
      const ids = { dst_ioas_id: other, src_ioas_id: ioas };
      return code(
        raw.run(uapi.IOMMU_IOAS_COPY, { flags: 7, ...ids, length: pages * PAGE, src_iova, dst_iova }),
      );
    };
    expect(to(at(0), LIMIT + 1, at(0))).toBe('ENOMEM');
    expect(room(raw)).toBe(LIMIT);
    expect(to(at(0), 3, at(0))).toBe(0);
    expect(to(at(0) + BigInt(2 * PAGE), 4, at(1))).toBe(0);
    expect(room(raw)).toBe(LIMIT - 6);
    expect(code(raw.tryDevice(ioas) as number)).toBe('ENOMEM');
    expect(raw.unmap(other, at(0), 3 * PAGE)).toBe(0);
    expect(room(raw)).toBe(LIMIT - 4);
  });

  test('memory that is not there is found first, and gives back what was pinned', () => {
    const raw = iommu();
    const { ioas } = setUp(raw);
    raw.device(ioas);
    const { address } = raw.memory(PAGE, { memfd: true });
    expect(map(raw, ioas, 0x1000n, LIMIT + 1, at(0))).toBe('EFAULT');
    const { fd } = raw.memory(4 * PAGE, { memfd: true });
    expect(mapFile(raw, ioas, fd, 5, at(0))).toBe('EINVAL');
    expect(room(raw)).toBe(LIMIT);
    expect(map(raw, ioas, address, 1, at(0))).toBe(0);
    expect(mapFile(raw, ioas, fd, 4, at(1))).toBe(0);
    expect(room(raw)).toBe(LIMIT - 5);
  });

  test('the kernel pins for itself too', () => {
    const raw = iommu();
    const { ioas, address } = setUp(raw);
    expect(map(raw, ioas, address, LIMIT + 1, at(0))).toBe(0);
    const { out } = raw.test(uapi.IOMMU_TEST_OP_CREATE_ACCESS, ioas, { create_access: { flags: 1 } });
    const file = raw.keep(out.create_access.out_access_fd);
    const pin = (page: number, pages: number) => {
      const range = { iova: at(0) + BigInt(page * PAGE), length: pages * PAGE };
      const { result, out: pinned } = raw.test(uapi.IOMMU_TEST_OP_ACCESS_PAGES, file, {
        access_pages: range,
      });
      return result ? code(result) : pinned.access_pages.out_access_pages_id;
    };
    const unpin = (access_pages_id: number) =>
      raw.test(uapi.IOMMU_TEST_OP_DESTROY_ACCESS_PAGES, file, { destroy_access_pages: { access_pages_id } })
        .result;
    expect(pin(0, LIMIT + 1)).toBe('ENOMEM');
    expect(room(raw)).toBe(LIMIT);
    const first = pin(0, 4) as number;
    const second = pin(2, 4) as number;
    expect(pin(2, 4)).not.toBe(second);
    expect(room(raw)).toBe(LIMIT - 6);
    expect(unpin(first)).toBe(0);
    expect(room(raw)).toBe(LIMIT - 4);
    // Reading needs pages for a moment, and counts none.
    const access_rw = { iova: at(0), length: 8 * PAGE, uptr: raw.memory(8 * PAGE).address, flags: 4 };
    expect(raw.test(uapi.IOMMU_TEST_OP_ACCESS_RW, file, { access_rw }).result).toBe(0);
    expect(room(raw)).toBe(LIMIT - 4);
    expect(raw.unmap(ioas, at(0), (LIMIT + 1) * PAGE)).toBe(0);
    expect(room(raw)).toBe(LIMIT);
  });

  test('DMA-bufs count for nothing', () => {
    const raw = iommu();
    const { ioas } = setUp(raw);
    raw.device(ioas);
    expect(mapFile(raw, ioas, raw.dmabuf(2 * LIMIT * PAGE), 2 * LIMIT, at(0))).toBe(0);
    expect(room(raw)).toBe(LIMIT);
    expect(countedPages(raw.kernel)).toEqual({ locked: 0, pinned: 0 });
  });
});

describe('per process', () => {
  test('the limit is its own', () => {
    const raw = iommu();
    const { ioas, address } = setUp(raw, true);
    raw.device(ioas);
    expect(map(raw, ioas, address, 5, at(0))).toBe(0);
    expect(countedPages(raw.kernel)).toEqual({ locked: 5, pinned: 5 });
    expect(map(raw, ioas, address, 4, at(1))).toBe('ENOMEM');
    expect(countedPages(raw.kernel)).toEqual({ locked: 5, pinned: 5 });
    expect(room(raw)).toBe(LIMIT);
    expect(map(raw, ioas, address, 3, at(1))).toBe(0);
    // A lower limit takes nothing away.
    limitLockedMemory(raw.kernel, PAGE);
    expect(raw.unmap(ioas, at(0), 5 * PAGE)).toBe(0);
    expect(countedPages(raw.kernel)).toEqual({ locked: 3, pinned: 3 });
    expect(map(raw, ioas, address, 1, at(0))).toBe('ENOMEM');
    limitLockedMemory(raw.kernel, LIMIT * PAGE);
    raw.close();
    expect(countedPages(raw.kernel)).toEqual({ locked: 0, pinned: 0 });
  });

  test('CAP_IPC_LOCK counts for no limit, and is pinned all the same', () => {
    const raw = iommu();
    const { ioas, address } = setUp(raw, true);
    raw.device(ioas);
    expect(raw.map(ioas, address, 2 * LIMIT * PAGE, at(0))).toBe(at(0));
    expect(countedPages(raw.kernel)).toEqual({ locked: 0, pinned: 2 * LIMIT });
  });
});
