/** MAP_FILE: which files can be mapped, in which order the kernel complains, and what mappings share. */
import { O_RDONLY, type Kernel } from '../../lib/kernel';
import type { SimulatedProcess } from '../../lib/sim';
import { MemoryFile } from '../../lib/sim/kernel/memfd';
import * as uapi from '../../lib/uapi';
import { code, FIXED, READ, U64_MAX, WRITE } from './calls';
import { APERTURE, useRawIommu, type RawIommu } from './mock';
import { backend, PAGE } from './support';

const iommu = useRawIommu();
const PAGES = 4;
const P = BigInt(PAGE);
const IOVA = APERTURE;

/** An IOAS and a memfd of PAGES pages. */
function setUp(raw: RawIommu) {
  return { ioas: raw.ioas(), memory: raw.memory(PAGES * PAGE, { memfd: true }) };
}

/** A descriptor for the same memfd that cannot write. */
function readOnly(kernel: Kernel, fd: number): number {
  if (backend === 'linux') return kernel.open(`/proc/self/fd/${fd}`, O_RDONLY);
  const process = kernel as SimulatedProcess;
  const file = new MemoryFile((process.file(fd) as MemoryFile).frames);
  file.access = O_RDONLY;
  return process.install(file);
}

function name(result: bigint | number): string | number {
  return typeof result === 'bigint' ? 0 : code(result);
}

test('the order of complaints', () => {
  const raw = iommu();
  const { ioas, memory } = setUp(raw);
  const map = (fields: object) =>
    code(
      raw.run(uapi.IOMMU_IOAS_MAP_FILE, {
        flags: READ | WRITE | FIXED,
        ioas_id: ioas,
        fd: memory.fd,
        length: P,
        iova: IOVA,
        ...fields,
      }),
    );
  expect(map({ flags: 8, iova: U64_MAX })).toBe('EOPNOTSUPP');
  expect(map({ flags: FIXED, iova: U64_MAX })).toBe('EOVERFLOW');
  expect(map({ flags: READ, iova: U64_MAX })).toBe('EOVERFLOW');
  expect(map({ flags: FIXED, length: U64_MAX })).toBe('EOVERFLOW');
  expect(map({ flags: FIXED, ioas_id: 99 })).toBe('EINVAL');
  expect(map({ ioas_id: 99, length: 0 })).toBe('ENOENT');
  expect(map({ length: 0, fd: -1, start: U64_MAX })).toBe('EINVAL');
  expect(map({ length: 2n, fd: -1, start: U64_MAX })).toBe('EOVERFLOW');
  expect(map({ length: 1n, fd: -1, start: U64_MAX })).toBe('EBADF');
  expect(map({ fd: 9999, iova: 0n })).toBe('EBADF');
  expect(map({ length: U64_MAX - 1n, start: 0 })).toBe('EINVAL');
  expect(map({ length: U64_MAX - P, start: 0 })).toBe('EOVERFLOW');
  expect(map({})).toBe(0);
  expect(map({ start: 7 })).toBe('EEXIST');
});

test('what is no memory, and what is past the end, shows when it is pinned', () => {
  const raw = iommu();
  const { ioas, memory } = setUp(raw);
  const other = raw.kernel.eventfd(0, 0);
  raw.keep(other);
  expect(raw.mapFile(ioas, other, 0, PAGE, IOVA)).toBe(IOVA);
  expect(name(raw.tryDevice(ioas) as number)).toBe('EINVAL');
  expect(raw.unmap(ioas, IOVA, PAGE)).toBe(0);
  for (const start of [BigInt(PAGES) * P, 2n ** 63n, U64_MAX - P + 1n, U64_MAX - P]) {
    expect(raw.mapFile(ioas, memory.fd, start, PAGE - 1, IOVA)).toBe(IOVA);
    expect(raw.unmap(ioas, IOVA, PAGE - 1)).toBe(0);
  }
  raw.device(ioas);
  const map = (fd: number, start: number | bigint, length: number) =>
    name(raw.mapFile(ioas, fd, start, length, IOVA));
  expect(map(other, 0, PAGE)).toBe('EINVAL');
  expect(map(raw.fd, 0, PAGE)).toBe('EINVAL');
  expect(map(memory.fd, PAGES * PAGE, PAGE)).toBe('EINVAL');
  expect(map(memory.fd, (PAGES - 1) * PAGE, 2 * PAGE)).toBe('EINVAL');
  expect(map(memory.fd, 2n ** 63n, PAGE)).toBe('EINVAL');
  expect(map(memory.fd, U64_MAX - P + 1n, PAGE)).toBe('EINVAL');
  expect(map(memory.fd, (PAGES - 1) * PAGE, PAGE)).toBe(0);
  expect(raw.unmap(ioas, IOVA, PAGE)).toBe(0);
  expect(map(memory.fd, 0, PAGES * PAGE)).toBe(0);
});

test('a mapping has the pages of the memfd', () => {
  const raw = iommu();
  const { ioas, memory } = setUp(raw);
  const { hwpt } = raw.device(ioas);
  expect(raw.mapFile(ioas, memory.fd, PAGE, 2 * PAGE, IOVA)).toBe(IOVA);
  expect(raw.map(ioas, memory.address, PAGES * PAGE, IOVA + 0x10_0000n)).toBe(IOVA + 0x10_0000n);
  expect(raw.checkMap(hwpt, IOVA, memory.address + P, 2 * PAGE)).toBe(0);
  expect(raw.checkMap(hwpt, IOVA + 0x10_0000n, memory.address, PAGES * PAGE)).toBe(0);
  expect(code(raw.checkMap(hwpt, IOVA, memory.address, PAGE))).toBe('EINVAL');
  // Pinned for each of the two.
  expect([0, 1, 2].map((page) => raw.checkRefs(memory.address + BigInt(page) * P, PAGE, 2))).toEqual([
    -uapi.errno.EIO,
    0,
    0,
  ]);
  // What is smaller than a page of the file is no problem for the mock's tables of 2 KiB pages.
  expect(raw.mapFile(ioas, memory.fd, 2048, PAGE, IOVA + 0x20_0800n)).toBe(IOVA + 0x20_0800n);
  expect(raw.checkMap(hwpt, IOVA + 0x20_0800n, memory.address + 2048n, PAGE)).toBe(0);
  expect(name(raw.mapFile(ioas, memory.fd, 1024, PAGE, IOVA + 0x30_0000n))).toBe('EINVAL');
});

test('a mapping keeps the file, and the file its memory', () => {
  const raw = iommu();
  const ioas = raw.ioas();
  const memory = raw.memory(2 * PAGE, { memfd: true });
  const file = raw.test(uapi.IOMMU_TEST_OP_CREATE_ACCESS, ioas).out.create_access.out_access_fd;
  raw.keep(file);
  memory.bytes.set([1, 2, 3, 4], PAGE - 2);
  expect(raw.mapFile(ioas, memory.fd, 0, 2 * PAGE, IOVA)).toBe(IOVA);
  memory.free();
  const target = raw.memory(PAGE);
  const access_rw = { iova: IOVA + P - 2n, length: 4, uptr: target.address };
  const readWrite = (flags: number) =>
    raw.test(uapi.IOMMU_TEST_OP_ACCESS_RW, file, { access_rw: { ...access_rw, flags } }).result;
  expect(readWrite(0)).toBe(0);
  expect([...target.bytes.subarray(0, 4)]).toEqual([1, 2, 3, 4]);
  target.bytes.set([9, 8, 7, 6]);
  expect(readWrite(1)).toBe(0);
  target.bytes.fill(0);
  expect(readWrite(0)).toBe(0);
  expect([...target.bytes.subarray(0, 4)]).toEqual([9, 8, 7, 6]);
  raw.device(ioas);
  expect(readWrite(0)).toBe(0);
});

test('the descriptor may be one that is for reading only', () => {
  const raw = iommu();
  const { ioas, memory } = setUp(raw);
  raw.device(ioas);
  const again = raw.keep(readOnly(raw.kernel, memory.fd));
  expect(code(raw.kernel.write(again, new Uint8Array(1)))).toBe('EBADF');
  expect(raw.mapFile(ioas, again, 0, PAGE, IOVA, WRITE)).toBe(IOVA);
});

test('an automatic IOVA is aligned as the byte of the file is', () => {
  const raw = iommu();
  const memory = raw.memory(64 * PAGE, { memfd: true });
  for (const [start, length, expected] of [
    [0, 1, 0x1000n],
    [0, 4 * PAGE, 0x4000n],
    [PAGE, 4 * PAGE, 0x1000n],
    [2 * PAGE, 4 * PAGE, 0x2000n],
    [32 * PAGE, 32 * PAGE, 0x2_0000n],
    [0x801, 10, 0x1801n],
  ] as const) {
    const ioas = raw.ioas();
    expect(raw.mapFile(ioas, memory.fd, start, length)).toBe(expected);
  }
});

test('COPY shares the pages, also when the file is closed', () => {
  const raw = iommu();
  const { ioas, memory } = setUp(raw);
  const copy = (fields: object) =>
    code(
      raw.run(uapi.IOMMU_IOAS_COPY, {
        flags: 7,
        dst_ioas_id: ioas,
        src_ioas_id: ioas,
        length: PAGE,
        src_iova: IOVA,
        dst_iova: IOVA + 0x10_0000n,
        ...fields,
      }),
    );
  raw.device(ioas);
  expect(raw.mapFile(ioas, memory.fd, 0, 2 * PAGE, IOVA, READ)).toBe(IOVA);
  expect(copy({})).toBe('EPERM');
  expect(copy({ flags: READ | FIXED })).toBe(0);
  expect(raw.checkRefs(memory.address, PAGE, 1)).toBe(0);
  memory.free();
  expect(raw.unmap(ioas, IOVA, 2 * PAGE)).toBe(0);
  expect(copy({ flags: READ | FIXED, src_iova: IOVA + 0x10_0000n, dst_iova: IOVA })).toBe(0);
});
