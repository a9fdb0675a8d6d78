/** CHANGE_PROCESS: what must be mapped, who pays before and after, and who can afford it. */
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { SimulatedProcess } from '../../lib/sim/kernel/process';
import * as uapi from '../../lib/uapi';
import { code } from './calls';
import { countedPages } from './counted-pages';
import { limitLockedMemory, withoutCapabilities } from './limits';
import { APERTURE, mockKernel, RawIommu, useRawIommu } from './mock';
import { backend, PAGE } from './support';

const iommu = useRawIommu();
const IOVA = APERTURE;
const OTHER = IOVA + 0x10_0000n;
const LIMIT = 8;
const DEFAULT = 8 * 1024 * 1024;
const SOMEBODY = 12345;
const CHILD = join(__dirname, 'children/change-process.js');

beforeAll(() => limitLockedMemory(mockKernel(), LIMIT * PAGE));
afterAll(() => limitLockedMemory(mockKernel(), DEFAULT));

function change(raw: RawIommu, fields: object = {}): string | number {
  return code(raw.run(uapi.IOMMU_IOAS_CHANGE_PROCESS, fields));
}

interface TakenOver {
  readonly result: number;
  readonly locked: number;
  readonly pinned: number;
}

/** CHANGE_PROCESS by another process, which may lock `pages` and ends then: what came of it, and what it had to pay. */
function takeOver(raw: RawIommu, pages: number, uid = 0): TakenOver {
  const memlock = pages * PAGE;
  if (backend === 'linux') {
    const command = [`--memlock=${memlock}:`, process.execPath, CHILD, String(uid)];
    const { stdout, stderr } = spawnSync('prlimit', command, {
      stdio: ['ignore', 'pipe', 'pipe', raw.fd],
      encoding: 'utf8',
    });
    if (!stdout) throw new Error(`the other process said: ${stderr}`);
    return JSON.parse(stdout) as TakenOver;
  }
  const kernel = raw.kernel as SimulatedProcess;
  const other = new SimulatedProcess(kernel.system, { uid, memlock });
  const { request, struct } = uapi.IOMMU_IOAS_CHANGE_PROCESS;
  const fd = kernel.sendDescriptor(raw.fd, other);
  const result = other.ioctl(fd, request, struct.encode({ size: struct.size }));
  const counted = countedPages(other);
  other.exit();
  return { result, ...counted };
}

/** `pages` pages of a memfd in a table, mapped by a process without CAP_IPC_LOCK. */
function setUp(raw: RawIommu, pages: number, perProcess = false) {
  if (perProcess)
    expect(raw.run(uapi.IOMMU_OPTION, { option_id: uapi.IOMMU_OPTION_RLIMIT_MODE, val64: 1 })).toBe(0);
  const ioas = raw.ioas();
  raw.device(ioas);
  const { fd } = raw.memory(2 * LIMIT * PAGE, { memfd: true });
  const map = (count: number, iova: bigint) =>
    withoutCapabilities(raw.kernel, () => raw.mapFile(ioas, fd, 0, count * PAGE, iova));
  expect(map(pages, IOVA)).toBe(IOVA);
  return { ioas, fd, map };
}

test('everything that is mapped must be a file', () => {
  const raw = iommu();
  expect(change(raw, { __reserved: 1 })).toBe('EOPNOTSUPP');
  expect(change(raw)).toBe(0);
  const [first, second] = [raw.ioas(), raw.ioas()];
  const memory = raw.memory(PAGE, { memfd: true });
  raw.mapFile(first, memory.fd, 0, PAGE, IOVA);
  expect(change(raw)).toBe(0);
  raw.mapFile(second, raw.dmabuf(PAGE), 0, PAGE, IOVA);
  expect(change(raw)).toBe('EINVAL');
  raw.unmap(second, IOVA, PAGE);
  expect(change(raw)).toBe(0);
  // The memory of a memfd by its address is memory of the process.
  raw.map(second, memory.address, PAGE, IOVA);
  expect(change(raw, { __reserved: 1 })).toBe('EOPNOTSUPP');
  expect(change(raw)).toBe('EINVAL');
  raw.destroy(second);
  expect(change(raw)).toBe(0);
});

test('for the same process, nothing changes', () => {
  const raw = iommu();
  const { map } = setUp(raw, 5);
  expect(change(raw)).toBe(0);
  expect(countedPages(raw.kernel)).toEqual({ locked: 0, pinned: 5 });
  expect(map(3, OTHER)).toBe(OTHER);
});

test('for another of the same user, there must be room for all of it twice', () => {
  const raw = iommu();
  const { ioas, map } = setUp(raw, 5);
  expect(takeOver(raw, 9)).toEqual({ result: -uapi.errno.ENOMEM, locked: 0, pinned: 0 });
  expect(countedPages(raw.kernel)).toEqual({ locked: 0, pinned: 5 });
  expect(takeOver(raw, 10)).toEqual({ result: 0, locked: 0, pinned: 5 });
  expect(countedPages(raw.kernel)).toEqual({ locked: 0, pinned: 0 });
  // The user still pays, and once.
  expect(map(4, OTHER)).toBe(-uapi.errno.ENOMEM);
  expect(map(3, OTHER)).toBe(OTHER);
  expect(raw.unmap(ioas, IOVA, 5 * PAGE)).toBe(0);
  expect(countedPages(raw.kernel)).toEqual({ locked: 0, pinned: 3 });
  expect(map(5, IOVA)).toBe(IOVA);
});

test('another user pays instead, until somebody else takes over', () => {
  const raw = iommu();
  const { ioas, map } = setUp(raw, 5);
  const copy = { flags: 7, dst_ioas_id: ioas, src_ioas_id: ioas, length: 2 * PAGE, src_iova: IOVA };
  expect(raw.run(uapi.IOMMU_IOAS_COPY, { ...copy, dst_iova: OTHER })).toBe(0);
  expect(takeOver(raw, 4, SOMEBODY).result).toBe(-uapi.errno.ENOMEM);
  expect(takeOver(raw, 5, SOMEBODY)).toEqual({ result: 0, locked: 0, pinned: 5 });
  const third = OTHER + 0x10_0000n;
  expect(map(LIMIT, third)).toBe(third);
  // That process has ended, and its user still pays.
  expect(change(raw)).toBe('ENOMEM');
  expect(raw.unmap(ioas, third, LIMIT * PAGE)).toBe(0);
  expect(change(raw)).toBe(0);
  expect(countedPages(raw.kernel)).toEqual({ locked: 0, pinned: 5 });
  expect(map(4, third)).toBe(-uapi.errno.ENOMEM);
  expect(map(3, third)).toBe(third);
});

test('a process that pays itself is rid of it', () => {
  const raw = iommu();
  const { ioas } = setUp(raw, 5, true);
  expect(countedPages(raw.kernel)).toEqual({ locked: 5, pinned: 5 });
  expect(takeOver(raw, 4)).toEqual({ result: -uapi.errno.ENOMEM, locked: 0, pinned: 0 });
  expect(countedPages(raw.kernel)).toEqual({ locked: 5, pinned: 5 });
  expect(takeOver(raw, 5)).toEqual({ result: 0, locked: 5, pinned: 5 });
  expect(countedPages(raw.kernel)).toEqual({ locked: 0, pinned: 0 });
  expect(raw.unmap(ioas, IOVA, 5 * PAGE)).toBe(0);
  expect(countedPages(raw.kernel)).toEqual({ locked: 0, pinned: 0 });
});
