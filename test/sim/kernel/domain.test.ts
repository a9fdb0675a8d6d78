/** Mappings as a device sees them, through tables in memory, caches warm. */
import * as fs from '../../../lib/sim/vtd/first-stage';
import * as uapi from '../../../lib/uapi';
import { Bench, PAGE } from './bench';

const NEST = uapi.IOMMU_HWPT_ALLOC_NEST_PARENT;
const PASID = uapi.IOMMU_HWPT_ALLOC_PASID;

describe.each([
  ['first stage', {}],
  ['second stage, 57 bits', { FSTS: 0 }],
  ['second stage, 39 bits', { FSTS: 0, SAGAW: 0b0010, MGAW: 38, NEST: 0 }],
  ['second stage, 48 bits', { FSTS: 0, SAGAW: 0b0110, MGAW: 47 }],
])('%s', (_name, capabilities) => {
  let bench: Bench;
  let ioas: number;
  beforeEach(() => {
    bench = new Bench({ iommu: { capabilities } });
    bench.bind();
    ioas = bench.ioas();
  });

  test('what is mapped is reached, and nothing after unmap, though the caches were warm', () => {
    const memory = bench.memory(3 * PAGE);
    memory.bytes
      .fill(1)
      .fill(2, PAGE)
      .fill(3, 2 * PAGE);
    bench.map(ioas, 0x1_0000, memory.address, 3 * PAGE);
    expect(bench.probe.read(0x1_0000, 1)).toBeUndefined();
    bench.attach(ioas);
    for (let round = 0; round < 2; round++) {
      expect(bench.probe.read(0x1_0fff, 2)).toEqual([1, 2]);
      expect(bench.probe.write(0x1_2000, [9])).toBe(true);
    }
    expect(memory.bytes[2 * PAGE]).toBe(9);
    expect(bench.probe.read(0x1_3000, 1)).toBeUndefined();
    expect(bench.unmap(ioas)).toBe(BigInt(3 * PAGE));
    for (const iova of [0x1_0000, 0x1_1000, 0x1_2000]) expect(bench.probe.read(iova, 1)).toBeUndefined();
    expect(bench.machine.refusedDma).toHaveLength(0);
    bench.machine.idle();
    expect(bench.machine.refusedDma.length).toBeGreaterThan(0);
  });

  test.each([1, 0])('with HUGE_PAGES %d, as many tables as entries of that size need', (val64) => {
    const memory = bench.kernel.allocate(2 ** 21, { hugePages: true });
    if (typeof memory === 'number') throw new Error('allocate');
    memory.bytes.set([7], 5 * PAGE);
    const option = { option_id: uapi.IOMMU_OPTION_HUGE_PAGES, object_id: ioas, val64 };
    expect(bench.result(uapi.IOMMU_OPTION, option)).toBe(0);
    bench.attach(ioas);
    const before = bench.machine.memory.allocatedPages;
    const tables = (iova: number, length: number) => {
      bench.map(ioas, iova, memory.address, length);
      return bench.machine.memory.allocatedPages - before;
    };
    // One page of it needs a table of 4 KiB entries in any case; next to that, 2 MiB need one only without.
    const [small, both] = [tables(0x4000_0000, PAGE), tables(0x4020_0000, 2 ** 21)];
    expect(both - small).toBe(val64 ? 0 : 1);
    expect(bench.probe.read(0x4020_5000, 1)).toEqual([7]);
    bench.unmap(ioas);
    expect(bench.probe.read(0x4020_5000, 1)).toBeUndefined();
  });

  test('another page at the same IOVA is seen at once', () => {
    const [one, two] = [bench.memory(), bench.memory()];
    one.bytes[0] = 1;
    two.bytes[0] = 2;
    bench.attach(ioas);
    for (const [memory, value] of [
      [one, 1],
      [two, 2],
      [one, 1],
    ] as const) {
      bench.map(ioas, 0x20_0000, memory.address);
      expect(bench.probe.read(0x20_0000, 1)).toEqual([value]);
      bench.unmap(ioas);
    }
  });

  test('read-only memory', () => {
    const memory = bench.memory();
    bench.map(ioas, 0, memory.address, PAGE, false);
    bench.attach(ioas);
    expect(bench.probe.read(0, 1)).toEqual([0]);
    expect(bench.probe.write(0, [1])).toBe(false);
    expect(memory.bytes[0]).toBe(0);
  });

  test('huge pages, and a hole made next to one', () => {
    const memory = bench.kernel.allocate(8 << 20, { hugePages: true });
    if (typeof memory === 'number') throw new Error('allocate');
    const before = bench.machine.memory.allocatedPages;
    bench.attach(ioas);
    bench.map(ioas, 0x4000_0000, memory.address, 4 << 20);
    bench.map(ioas, 0x4040_0000, memory.address + BigInt(4 << 20), 4 << 20);
    memory.bytes[(4 << 20) - 1] = 7;
    expect(bench.probe.read(0x403f_ffff, 2)).toEqual([7, 0]);
    // Large pages need few tables.
    expect(bench.machine.memory.allocatedPages - before).toBeLessThan(8);
    bench.unmap(ioas, 0x4000_0000, 4 << 20);
    expect(bench.probe.read(0x403f_ffff, 1)).toBeUndefined();
    expect(bench.probe.read(0x4040_0000, 1)).toEqual([0]);
  });

  test('detach, replace and close block what was reachable', () => {
    const memory = bench.memory();
    const other = bench.ioas();
    bench.map(ioas, 0x1000, memory.address);
    bench.map(other, 0x2000, memory.address);
    bench.attach(ioas);
    expect(bench.probe.read(0x1000, 1)).toEqual([0]);
    bench.attach(other);
    expect(bench.probe.read(0x1000, 1)).toBeUndefined();
    expect(bench.probe.read(0x2000, 1)).toEqual([0]);
    bench.detach();
    expect(bench.probe.read(0x2000, 1)).toBeUndefined();
    bench.attach(ioas);
    expect(bench.probe.read(0x1000, 1)).toEqual([0]);
    bench.kernel.close(bench.vfio);
    expect(bench.probe.read(0x1000, 1)).toBeUndefined();
  });

  test("a device's own translations go too", () => {
    const memory = bench.memory();
    bench.map(ioas, 0x1000, memory.address);
    bench.attach(ioas);
    const dropped: number[] = [];
    bench.probe.invalidateTranslations = (_pasid, _high, low) => void dropped.push(low);
    expect(bench.probe.ask(0x1000)).toMatchObject({ success: true, read: true });
    bench.unmap(ioas, 0x1000, PAGE);
    expect(dropped.length).toBe(1);
    expect(bench.probe.ask(0x1000)).toMatchObject({ read: false, write: false });
    bench.detach();
    expect(dropped.length).toBe(2);
  });

  test('memory freed while it is mapped stays with the device', () => {
    const memory = bench.memory();
    memory.bytes[0] = 5;
    bench.map(ioas, 0x1000, memory.address);
    bench.attach(ioas);
    memory.free();
    expect(memory.bytes).toHaveLength(0);
    expect(bench.probe.read(0x1000, 1)).toEqual([5]);
    expect(bench.probe.write(0x1000, [6])).toBe(true);
    expect(bench.probe.read(0x1000, 1)).toEqual([6]);
    bench.unmap(ioas);
    expect(bench.probe.read(0x1000, 1)).toBeUndefined();
  });

  test('PASIDs are address spaces of their own', () => {
    const memory = bench.memory(2 * PAGE);
    memory.bytes.fill(1).fill(2, PAGE);
    const [a, b] = [bench.ioas(), bench.ioas()];
    bench.map(a, 0x1000, memory.address);
    bench.map(b, 0x1000, memory.address + BigInt(PAGE));
    const [first, second] = [a, b].map((id) => bench.hwpt(id, { flags: PASID }));
    bench.attach(first, 5);
    bench.attach(second, 6);
    expect(bench.probe.read(0x1000, 1, 5)).toEqual([1]);
    expect(bench.probe.read(0x1000, 1, 6)).toEqual([2]);
    expect(bench.probe.read(0x1000, 1, 7)).toBeUndefined();
    expect(bench.probe.read(0x1000, 1)).toBeUndefined();
    bench.attach(second, 5);
    expect(bench.probe.read(0x1000, 1, 5)).toEqual([2]);
    bench.detach(6);
    expect(bench.probe.read(0x1000, 1, 6)).toBeUndefined();
    bench.unmap(b);
    expect(bench.probe.read(0x1000, 1, 5)).toBeUndefined();
    const attach = uapi.VFIO_DEVICE_ATTACH_IOMMUFD_PT;
    expect(bench.result(attach, { pt_id: first, flags: 1, pasid: 2 ** 16 }, bench.vfio)).toBe('EINVAL');
  });
});

describe('nested', () => {
  let bench: Bench;
  let ioas: number;
  let parent: number;
  /** The user's first-stage tables: four levels, each in a page of guest memory. */
  let tables: ReturnType<Bench['memory']>;

  /** Guest physical address of the n-th page of `tables`. */
  const guest = (n: number) => 0x10_0000 + n * PAGE;
  const entry = (table: number, index: number, value: number) =>
    new DataView(tables.bytes.buffer).setBigUint64(table * PAGE + 8 * index, BigInt(value), true);

  beforeEach(() => {
    bench = new Bench();
    bench.bind();
    ioas = bench.ioas();
    parent = bench.hwpt(ioas, { flags: NEST });
    tables = bench.memory(6 * PAGE);
    bench.map(ioas, guest(0), tables.address, 6 * PAGE);
    const table = fs.FS_P | fs.FS_RW | fs.FS_US | fs.FS_A;
    for (let level = 0; level < 3; level++) entry(level, 0, guest(level + 1) | table);
    // Virtual page 5 is guest page 4 of the tables, and page 6 is guest page 5.
    entry(3, 5, guest(4) | table | fs.FS_D);
    entry(3, 6, guest(5) | table | fs.FS_D);
    tables.bytes[4 * PAGE] = 44;
    tables.bytes[5 * PAGE] = 55;
  });

  function nest(flags = 0, data: Parameters<typeof uapi.iommu_hwpt_vtd_s1.encode>[0] = {}): number {
    const bytes = bench.memory();
    bytes.bytes.set(uapi.iommu_hwpt_vtd_s1.encode({ pgtbl_addr: guest(0), addr_width: 48, ...data }));
    const common = { data_type: uapi.IOMMU_HWPT_DATA_VTD_S1, data_len: 24, data_uptr: bytes.address };
    return bench.hwpt(parent, { flags, ...common });
  }

  function invalidate(hwpt_id: number, addr: bigint, npages: bigint, more: object = {}): string | number {
    const bytes = bench.memory();
    bytes.bytes.set(uapi.iommu_hwpt_vtd_s1_invalidate.encode({ addr, npages }));
    const values = { hwpt_id, data_uptr: bytes.address, entry_len: 24, entry_num: 1, ...more };
    return bench.result(uapi.IOMMU_HWPT_INVALIDATE, values);
  }

  test("the user's tables are walked through the parent", () => {
    bench.attach(nest());
    expect(bench.probe.read(0x5000, 1)).toEqual([44]);
    expect(bench.probe.read(0x6000, 1)).toEqual([55]);
    expect(bench.probe.read(0x7000, 1)).toBeUndefined();
    expect(bench.probe.write(0x5001, [1])).toBe(true);
    expect(tables.bytes[4 * PAGE + 1]).toBe(1);
  });

  test("a change of the user's tables is seen once it is invalidated", () => {
    const hwpt = nest();
    bench.attach(hwpt);
    expect(bench.probe.read(0x5000, 1)).toEqual([44]);
    entry(3, 5, 0);
    expect(bench.probe.read(0x5000, 1)).toEqual([44]);
    expect(invalidate(hwpt, 0x6000n, 1n)).toBe(0);
    expect(bench.probe.read(0x5000, 1)).toEqual([44]);
    expect(invalidate(hwpt, 0x5000n, 1n)).toBe(0);
    expect(bench.probe.read(0x5000, 1)).toBeUndefined();
    entry(3, 6, 0);
    expect(invalidate(hwpt, 0n, 2n ** 64n - 1n)).toBe(0);
    expect(bench.probe.read(0x6000, 1)).toBeUndefined();
  });

  test('an unmap in the parent is seen by itself', () => {
    bench.attach(nest());
    expect(bench.probe.read(0x5000, 1)).toEqual([44]);
    bench.unmap(ioas);
    expect(bench.probe.read(0x5000, 1)).toBeUndefined();
  });

  test('arguments', () => {
    const hwpt = nest();
    expect(invalidate(hwpt, 0x5001n, 1n)).toBe('EINVAL');
    expect(invalidate(hwpt, 0x1000n, 2n ** 64n - 1n)).toBe('EINVAL');
    expect(invalidate(hwpt, 0x1000n, 1n, { entry_len: 16 })).toBe('EINVAL');
    expect(invalidate(hwpt, 0x1000n, 1n, { entry_len: 32 })).toBe('EINVAL');
    expect(invalidate(hwpt, 0x1000n, 1n, { data_type: 1 })).toBe('EINVAL');
    expect(invalidate(hwpt, 0x1000n, 1n, { entry_len: 0 })).toBe('EINVAL');
    expect(invalidate(hwpt, 0x1000n, 1n, { data_uptr: 0n })).toBe('EINVAL');
    expect(invalidate(hwpt, 0x1000n, 1n, { data_uptr: 8n })).toBe('EFAULT');
    expect(invalidate(hwpt, 0x1000n, 1n, { entry_num: 2 ** 19 + 1 })).toBe('EINVAL');
    expect(invalidate(hwpt, 0n, 0n, { entry_num: 0, data_uptr: 0n, entry_len: 0 })).toBe(0);
    expect(invalidate(parent, 0x1000n, 1n)).toBe('EINVAL');
    expect(invalidate(99, 0x1000n, 1n)).toBe('ENOENT');
    expect(() => nest(NEST)).toThrow('EOPNOTSUPP');
    expect(() => bench.hwpt(parent, { data_type: 2, data_len: 24, data_uptr: tables.address })).toThrow(
      'EOPNOTSUPP',
    );
    for (const data_len of [23, 25])
      expect(() => bench.hwpt(parent, { data_type: 1, data_len, data_uptr: tables.address })).toThrow(
        'EINVAL',
      );
    expect(() => bench.hwpt(parent, { data_type: 1, data_len: 24, data_uptr: 0n })).toThrow('EFAULT');
  });

  test('what the hardware cannot do fails at attach, and the device stays where it was', () => {
    bench.attach(ioas);
    bench.map(ioas, 0x8000, tables.address);
    const bad = [nest(0, { addr_width: 39 }), nest(0, { pgtbl_addr: 1n << 60n })];
    for (const pt_id of bad)
      expect(bench.result(uapi.VFIO_DEVICE_ATTACH_IOMMUFD_PT, { pt_id, argsz: 12 }, bench.vfio)).toBe(
        'EINVAL',
      );
    expect(bench.probe.read(0x8000, 1)).toBeDefined();
  });

  test('with a PASID', () => {
    bench.attach(nest(PASID), 9);
    expect(bench.probe.read(0x5000, 1, 9)).toEqual([44]);
    expect(bench.probe.read(0x5000, 1)).toBeUndefined();
  });

  test('a parent has no read-only pages', () => {
    expect(() => bench.map(ioas, 0x8000, tables.address, PAGE, false)).toThrow('EINVAL');
    const other = bench.ioas();
    bench.map(other, 0x8000, tables.address, PAGE, false);
    expect(() => bench.hwpt(other, { flags: NEST })).toThrow('EINVAL');
    bench.map(ioas, 0x8000, tables.address);
  });

  test('the parent cannot go before it', () => {
    const hwpt = nest();
    expect(bench.result(uapi.IOMMU_DESTROY, { id: parent })).toBe('EBUSY');
    bench.call(uapi.IOMMU_DESTROY, { id: hwpt });
    bench.call(uapi.IOMMU_DESTROY, { id: parent });
    bench.call(uapi.IOMMU_DESTROY, { id: ioas });
  });
});
