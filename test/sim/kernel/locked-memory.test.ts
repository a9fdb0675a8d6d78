/** Who pays for pinned memory where no test on Linux can look, or would leave Linux with wrong counts. */
import { Machine } from '../../../lib/sim/machine';
import type { SimulatedProcess } from '../../../lib/sim';
import { UserMemory } from '../../../lib/sim/kernel/user-memory';
import { User } from '../../../lib/sim/kernel/credentials';
import type { Task } from '../../../lib/sim/kernel/iommufd/accounting';
import { Pages, type Hold } from '../../../lib/sim/kernel/iommufd/pages';
import { UserSource } from '../../../lib/sim/kernel/iommufd/page-source';
import { PhysicalMemory } from '../../../lib/sim/memory';
import * as uapi from '../../../lib/uapi';
import { errno } from '../../../lib/uapi';
import { code, PAGE } from './bench';

const IOVA = BigInt(uapi.MOCK_APERTURE_START);

function call<S extends uapi.Struct>(
  process: SimulatedProcess,
  fd: number,
  row: uapi.Ioctl<S>,
  values: Parameters<S['encode']>[0],
) {
  const bytes = row.struct.encode({ size: row.struct.size, ...values });
  const result = code(process.ioctl(fd, row.request, bytes));
  return { result, out: row.struct.decode(bytes) as ReturnType<S['decode']> };
}

function setUp(options: Parameters<Machine['createProcess']>[0], perProcess = false) {
  const machine = new Machine({ iommu: 'mock', manual: true, permissions: () => true });
  const process = machine.createProcess(options);
  const fd = process.open('/dev/iommu', 2);
  if (perProcess) call(process, fd, uapi.IOMMU_OPTION, { option_id: 0, val64: 1 });
  const ioas = call(process, fd, uapi.IOMMU_IOAS_ALLOC, {}).out.out_ioas_id;
  call(process, fd, uapi.IOMMU_TEST_CMD, { op: uapi.IOMMU_TEST_OP_MOCK_DOMAIN, id: ioas });
  const memory = process.allocate(16 * PAGE, { memfd: true });
  if (typeof memory === 'number') throw new Error('allocate');
  const map = (pages: number, iova = IOVA) => {
    const values = { flags: 7, ioas_id: ioas, fd: memory.fd, length: pages * PAGE, iova };
    return call(process, fd, uapi.IOMMU_IOAS_MAP_FILE, values).result;
  };
  const unmap = (by: SimulatedProcess, its: number) =>
    call(by, its, uapi.IOMMU_IOAS_UNMAP, { ioas_id: ioas, length: 2n ** 64n - 1n }).result;
  return { machine, process, fd, map, unmap };
}

const change = (process: SimulatedProcess, fd: number) =>
  call(process, fd, uapi.IOMMU_IOAS_CHANGE_PROCESS, {}).result;

describe('a process', () => {
  test('may lock 8 MiB, or what it is made with, unless it has CAP_IPC_LOCK', () => {
    const machine = new Machine();
    expect(machine.createProcess().memlock).toBe(2 ** 23);
    expect(() => machine.createProcess({ uid: 0, memlock: -1 })).toThrow(RangeError);
    expect(() => machine.createProcess({ uid: 0, memlock: NaN })).toThrow(RangeError);
    for (const [options, most] of [
      [{ uid: 1000, memlock: 2 * PAGE }, 2],
      [{ uid: 1000, memlock: 3 * PAGE - 1 }, 2],
      [{ uid: 1000, memlock: Infinity }, 16],
      [{ uid: 1000, memlock: 0, capabilities: ['CAP_IPC_LOCK'] }, 16],
      [{ uid: 1000, memlock: 0, capabilities: ['CAP_SYS_RESOURCE'] }, 0],
      [{ uid: 0, memlock: 0 }, 16],
      [{ uid: 0, memlock: 0, capabilities: [] }, 0],
    ] as const) {
      const { map } = setUp(options);
      if (most < 16) expect(map(most + 1)).toBe('ENOMEM');
      if (most > 0) expect(map(most)).toBe(0);
    }
  });

  test('pays for what it mapped before it became somebody else', () => {
    const { machine, process, map, unmap, fd } = setUp({ uid: 1000, memlock: 4 * PAGE });
    expect(map(3)).toBe(0);
    process.credentials = { uid: 2000 };
    expect(map(4, IOVA + 0x10_0000n)).toBe(0);
    const counts = () => [1000, 2000].map((uid) => machine.system.user(uid).lockedPages);
    expect(counts()).toEqual([3, 4]);
    expect(unmap(process, fd)).toBe(0);
    expect(counts()).toEqual([0, 0]);
  });

  test('that ends gives its user everything back with its last descriptor', () => {
    const { machine, process, map, fd } = setUp({ uid: 1000 });
    const other = machine.createProcess({ uid: 1000 });
    expect(map(3)).toBe(0);
    process.sendDescriptor(fd, other);
    process.exit();
    expect(machine.system.user(1000).lockedPages).toBe(3);
    other.exit();
    expect(machine.system.user(1000).lockedPages).toBe(0);
  });
});

describe('CHANGE_PROCESS', () => {
  test('from a process that paid itself and has ended is EINVAL, and done', () => {
    const { machine, process, map, unmap, fd } = setUp({ uid: 0, capabilities: ['CAP_SYS_RESOURCE'] }, true);
    const other = machine.createProcess();
    expect(map(3)).toBe(0);
    const its = process.sendDescriptor(fd, other);
    process.exit();
    expect(change(other, its)).toBe('EINVAL');
    expect(other.memory).toMatchObject({ lockedPages: 3, pinnedPages: 3 });
    expect(change(other, its)).toBe(0);
    // What could not be given back for the first is never given back for the second.
    expect(unmap(other, its)).toBe(0);
    expect(other.memory).toMatchObject({ lockedPages: 3, pinnedPages: 3 });
  });

  test('leaves what counts against no limit with the old process', () => {
    const { machine, process, map, unmap, fd } = setUp({ uid: 0 });
    const other = machine.createProcess();
    expect(map(3)).toBe(0);
    const its = process.sendDescriptor(fd, other);
    expect(change(other, its)).toBe(0);
    expect([process.memory.pinnedPages, other.memory.pinnedPages]).toEqual([3, 0]);
    expect(unmap(other, its)).toBe(0);
    expect([process.memory.pinnedPages, other.memory.pinnedPages]).toEqual([3, -3]);
    expect(other.readFile('/proc/self/status')).toContain('VmPin:\t18446744073709551604 kB\n');
  });
});

describe('Pages', () => {
  const seed = Number(process.env['SEED'] ?? Date.now() % 2 ** 31);
  const LENGTH = 24;

  test(`pin and count each page once, whatever holds overlap (SEED=${seed})`, () => {
    let state = seed;
    const pick = (below: number) => {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      return Math.floor((state / 2 ** 32) * below);
    };
    const physical = new PhysicalMemory(2 ** 20);
    const memory = new UserMemory(physical);
    const { address } = memory.allocate(LENGTH * PAGE, false);
    const task: Task = { memory, credentials: { uid: 1 }, user: new User(1), memlock: (LENGTH / 2) * PAGE };
    const pages = new Pages(new UserSource(memory, BigInt(address)), true, task, 'user');
    let holds: Hold[] = [];
    const covered = (among: readonly Hold[]) =>
      Array.from({ length: LENGTH }, (_, i) => among.some(({ first, end }) => first <= i && i < end));
    const count = (among: readonly Hold[]) => covered(among).filter(Boolean).length;
    for (let step = 0; step < 2000; step++) {
      if (pick(2) === 0) {
        const first = pick(LENGTH);
        const length = 1 + pick(LENGTH - first);
        const hold = pages.hold(BigInt(first * PAGE), BigInt(length * PAGE)) as Hold;
        const most = count([...holds, hold]);
        if (most > LENGTH / 2) {
          expect(pages.charge()).toBe(-errno.ENOMEM);
          hold.release();
        } else {
          expect(pages.charge()).toBe(0);
          holds.push(hold);
        }
      } else if (holds.length > 0) {
        const hold = holds[pick(holds.length)];
        holds = holds.filter((each) => each !== hold);
        hold.release();
        hold.release();
      }
      expect(task.user.lockedPages).toBe(count(holds));
      expect(memory.pinnedPages).toBe(count(holds));
      expect(covered(holds)).toEqual(
        Array.from({ length: LENGTH }, (_, i) => memory.pinCount(BigInt(address + i * PAGE)) === 1),
      );
      const base = new Set(holds.map((hold) => hold.physical - hold.first * PAGE));
      expect(base.size).toBeLessThanOrEqual(1);
    }
  });
});
