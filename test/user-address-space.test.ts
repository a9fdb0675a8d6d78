/** Nested translation: no virtual hardware of QEMU 7.2 has it, so the simulated machine alone runs these. */
import {
  Iommu,
  type CacheInvalidation,
  type Device,
  type DmaBuffer,
  type IommuError,
  type UserAddressSpace,
  type UserAddressSpaceOptions,
} from '../lib';
import { Machine } from '../lib/sim';
import * as reg from '../lib/sim/devices/dma-engine-registers';
import * as uapi from '../lib/uapi';
import { errorOf, fill, until } from './contract/support';

const PAGE = 4096;
/** Where the user's tables and data are in the parent's space: "guest physical" addresses. */
const TABLES = 0x100_0000n;
const DATA = 0x200_0000n;
/** First-stage entries (VT-d specification, section 9.7): present, writable, user. */
const PRESENT = 1n;
const PERMISSIONS = 7n;
const ADDRESS = 0x40_0020_3000n;
const PASID = 33;

/** A first-stage table of one page per level, which maps ADDRESS and what follows it in its last page. */
class Table {
  readonly #entries: BigUint64Array;

  constructor(readonly memory: DmaBuffer) {
    this.#entries = new BigUint64Array(memory.bytes.buffer, memory.bytes.byteOffset, (4 * PAGE) / 8);
    for (let level = 3; level > 0; level--)
      this.#entries[(3 - level) * 512 + index(ADDRESS, level)] =
        (TABLES + BigInt((4 - level) * PAGE)) | PERMISSIONS;
  }

  set(address: bigint, target: bigint | undefined, permissions = PERMISSIONS): void {
    this.#entries[3 * 512 + index(address, 0)] = target === undefined ? 0n : target | permissions;
  }
}

function index(address: bigint, level: number): number {
  return Number((address >> BigInt(12 + 9 * level)) & 511n);
}

function setUp(options: { pasid?: boolean; faults?: boolean } = {}) {
  const iommu = Iommu.open({ backend: new Machine({ iommu: { capabilities: { FS5LP: 0 } } }) });
  const device = iommu.bind('0000:00:05.0', { cookie: 7 });
  const parent = iommu.createAddressSpace({ nestParent: true });
  const table = new Table(iommu.allocateDma(4 * PAGE));
  const data = iommu.allocateDma(4 * PAGE);
  parent.map(table.memory, { iova: TABLES });
  parent.map(data, { iova: DATA });
  const faults = options.faults ? iommu.createFaultQueue() : undefined;
  const space = iommu.createAddressSpace({
    parent,
    pageTable: { address: TABLES, width: 48 },
    pasid: options.pasid,
    faults,
  });
  return { iommu, device, parent, table, data, space, faults };
}

/** Has the engine read 64 bytes at `address` into its buffer; the error code and what it read. */
async function read(device: Device, address: bigint, flags = 0, pasid?: number) {
  device.enableBusMaster();
  const bar = device.region('bar0');
  bar.write64(reg.dmaEngine.SOURCE, address);
  bar.write32(reg.dmaEngine.LENGTH, 64);
  bar.write32(reg.dmaEngine.PASID, pasid === undefined ? 0 : (reg.PASID_ENABLE | pasid) >>> 0);
  bar.write32(reg.dmaEngine.CONTROL, reg.CONTROL_START | reg.OPERATION_READ | flags);
  await until(() => (bar.read32(reg.dmaEngine.STATUS) & reg.STATUS_BUSY) === 0);
  const bytes = Uint8Array.from({ length: 64 }, (_, i) => bar.read8(reg.dmaEngine.BUFFER + i));
  return { error: bar.read32(reg.dmaEngine.STATUS) >>> reg.STATUS_ERROR_SHIFT, bytes };
}

describe('user-managed address space', () => {
  test("translates by the user's table, and then by the parent", async () => {
    const { device, table, data, space } = setUp();
    fill(data.bytes, 1);
    device.attach(space);
    table.set(ADDRESS, DATA + 0x1000n);
    const { error, bytes } = await read(device, ADDRESS + 0x80n);
    expect(error).toBe(reg.ERROR_NONE);
    expect([...bytes]).toEqual([...data.bytes.subarray(PAGE + 0x80, PAGE + 0x80 + 64)]);
    expect((await read(device, ADDRESS + 0x1000n)).error).toBe(reg.ERROR_REFUSED);
  });

  test('a changed entry counts after invalidate', async () => {
    const { device, table, data, space } = setUp();
    fill(data.bytes, 1);
    device.attach(space);
    for (const [page, what] of [
      [0, { iova: ADDRESS, pages: 1 }],
      [1, [{ iova: ADDRESS, pages: 1n, leaf: true }]],
      [2, 'all'],
    ] as const) {
      table.set(ADDRESS, DATA + BigInt(page * PAGE));
      space.invalidate(what);
      const { bytes } = await read(device, ADDRESS);
      expect([...bytes]).toEqual([...data.bytes.subarray(page * PAGE, page * PAGE + 64)]);
    }
    expect(() => space.invalidate({ iova: 1, pages: 1 })).toThrow(RangeError);
  });

  test.each([
    ['of a range', { range: { iova: ADDRESS, length: 1 } }],
    ['of last-level entries', { range: { iova: ADDRESS, length: PAGE }, leaf: true }],
    ['of a device, by its cookie', { device: 7n }],
    ['of device TLBs', { caches: ['iotlb', 'device-tlb'] }],
    ['of everything', {}],
  ] satisfies [string, CacheInvalidation][])('forgets what is cached %s', async (_name, what) => {
    const { device, table, data, space } = setUp();
    fill(data.bytes, 1);
    device.attach(space);
    table.set(ADDRESS, DATA);
    await read(device, ADDRESS);
    table.set(ADDRESS, DATA + 0x1000n);
    space.invalidate(what);
    expect([...(await read(device, ADDRESS)).bytes]).toEqual([...data.bytes.subarray(PAGE, PAGE + 64)]);
  });

  test('what the kernel cannot forget is refused by name', () => {
    const { iommu, device, space, parent } = setUp({ pasid: true });
    const sent = jest.spyOn(iommu.kernel, 'ioctl');
    device.attach(space, { pasid: PASID });
    sent.mockClear();
    space.invalidate({ pasid: PASID, range: { iova: ADDRESS, length: 2 * PAGE + 1 } });
    expect(invalidated(sent.mock.calls)).toEqual([1]);
    const refused = (what: CacheInvalidation) => errorOf(() => space.invalidate(what));
    expect(refused({ caches: ['iotlb', 'pasid'] })).toMatchObject({
      code: 'EOPNOTSUPP',
      reason: 'the kernel has no invalidation of the PASID cache',
    });
    expect(refused({ device: 8 })).toMatchObject({ code: 'ENODEV' });
    expect(refused({ device: 7, pasid: 1 })).toMatchObject({
      code: 'ENOENT',
      reason: `0000:00:05.0, PASID 1 is not attached to ${space.label}`,
    });
    const smmu = iommu.createAddressSpace({ parent, pageTable: { ste: [1n, 2n] } });
    expect(errorOf(() => smmu.invalidate({}))).toMatchObject({ code: 'EOPNOTSUPP' });
    expect(() => space.invalidate({ caches: [] })).toThrow(TypeError);
    expect(() => space.invalidate({ caches: ['tlb'] as never })).toThrow(TypeError);
    expect(() => space.invalidate({ range: { iova: 1, length: 1 } })).toThrow(RangeError);
    expect(() => space.invalidate({ range: { iova: 0, length: 0 } })).toThrow(RangeError);
    expect(invalidated(sent.mock.calls)).toHaveLength(1);
  });

  test('works for a PASID beside a kernel-managed space', async () => {
    const { iommu, device, table, data, space } = setUp({ pasid: true });
    const own = iommu.createAddressSpace({ pasid: true });
    fill(data.bytes, 9);
    device.attach(own);
    device.attach(space, { pasid: PASID });
    table.set(ADDRESS, DATA);
    own.map(data, { iova: 0x700_0000n, offset: 2 * PAGE });
    expect([...(await read(device, ADDRESS, 0, PASID)).bytes]).toEqual([...data.bytes.subarray(0, 64)]);
    const plain = await read(device, 0x700_0000n);
    expect([...plain.bytes]).toEqual([...data.bytes.subarray(2 * PAGE, 2 * PAGE + 64)]);
    device.detach({ pasid: PASID });
    expect((await read(device, ADDRESS, 0, PASID)).error).not.toBe(reg.ERROR_NONE);
  });

  test('reports its faults, which the user answers by changing the table', async () => {
    const { device, table, data, space, faults, parent } = setUp({ pasid: true, faults: true });
    fill(data.bytes, 4);
    device.attach(space, { pasid: PASID });
    const reading = read(device, ADDRESS, reg.CONTROL_ATS | reg.CONTROL_PAGE_REQUESTS, PASID);
    const { value: fault } = await faults![Symbol.asyncIterator]().next();
    expect(fault).toMatchObject({ ioasid: space.ioasid, cookie: 7n, pasid: PASID, address: ADDRESS });
    expect(space.ioasid).not.toBe(parent.ioasid);
    table.set(ADDRESS, DATA);
    expect(fault!.respond('success')).toBe(true);
    expect(await reading).toMatchObject({ error: reg.ERROR_NONE });
    expect([...(await read(device, ADDRESS, 0, PASID)).bytes]).toEqual([...data.bytes.subarray(0, 64)]);
  });

  test('a read-only entry stays read-only, whatever the parent allows', async () => {
    const { device, table, data, space } = setUp();
    device.attach(space);
    table.set(ADDRESS, DATA, PRESENT | 4n);
    const bar = device.region('bar0');
    device.enableBusMaster();
    bar.write32(reg.dmaEngine.PATTERN, 0xffff_ffff);
    bar.write64(reg.dmaEngine.DESTINATION, ADDRESS);
    bar.write32(reg.dmaEngine.LENGTH, 64);
    bar.write32(reg.dmaEngine.CONTROL, reg.CONTROL_START | reg.OPERATION_FILL);
    await until(() => (bar.read32(reg.dmaEngine.STATUS) & reg.STATUS_BUSY) === 0);
    // Without a PASID requests are user requests of RID_PASID; WP does not matter for those.
    expect(bar.read32(reg.dmaEngine.STATUS) >>> reg.STATUS_ERROR_SHIFT).toBe(reg.ERROR_REFUSED);
    expect(data.bytes.subarray(0, 64).every((byte) => byte === 0)).toBe(true);
  });

  test('closing the parent closes what is nested on it, and detaches it', () => {
    const { iommu, device, parent, space } = setUp();
    device.attach(space);
    parent.close();
    expect(space.closed).toBe(true);
    expect(device.attached()).toBeUndefined();
    expect(iommu.createAddressSpace().ioasid).toBe(1);
    iommu.close();
  });

  test('nests in hardware on a space that is nested in software', async () => {
    const iommu = Iommu.open({ backend: new Machine({ iommu: { capabilities: { FS5LP: 0 } } }) });
    const device = iommu.bind('0000:00:05.0', { cookie: 7 });
    const root = iommu.createAddressSpace();
    const parent = iommu.createAddressSpace({ parent: root, nestParent: true });
    const table = new Table(iommu.allocateDma(4 * PAGE));
    const data = iommu.allocateDma(PAGE);
    fill(data.bytes, 1);
    for (const [buffer, at] of [
      [table.memory, TABLES],
      [data, DATA],
    ] as const)
      parent.map(root.map(buffer), { iova: at });
    const space = iommu.createAddressSpace({ parent, pageTable: { address: TABLES, width: 48 } });
    device.attach(space);
    table.set(ADDRESS, DATA);
    expect([...(await read(device, ADDRESS)).bytes]).toEqual([...data.bytes.subarray(0, 64)]);
    root.mappings.find(({ buffer }) => buffer === data)!.unmap();
    expect((await read(device, ADDRESS)).error).toBe(reg.ERROR_REFUSED);
    root.close();
    expect([parent.closed, space.closed, device.attached()]).toEqual([true, true, undefined]);
  });

  test('a parent with read-only mappings is refused by the erratum’s name', () => {
    const { device, parent, data, space } = setUp();
    const readOnly = parent.map(data, { iova: 2n * DATA, write: false });
    const error = errorOf(() => device.attach(space)) as IommuError;
    expect(error).toMatchObject({ code: 'EINVAL', request: 'IOMMU_HWPT_ALLOC' });
    expect(error.hint).toContain('erratum 772415');
    readOnly.unmap();
    device.attach(space);
  });

  test('tables of the kernel go with their last user', () => {
    const { iommu, device, space } = setUp();
    const before = lowestId(iommu);
    for (let i = 0; i < 3; i++) {
      device.attach(space);
      device.detach();
    }
    expect(lowestId(iommu)).toBe(before);
  });

  test('what cannot be is refused', () => {
    const { iommu, device, parent, space } = setUp();
    const plain = iommu.createAddressSpace();
    const make = (options: object) => () => iommu.createAddressSpace(options as UserAddressSpaceOptions);
    const pageTable = { address: TABLES, width: 48 };
    expect(errorOf(make({ parent: plain, pageTable }))).toMatchObject({
      code: 'EINVAL',
      hint: 'make it with nestParent: true',
    });
    expect(make({ parent: space, pageTable })).toThrow(TypeError);
    expect(make({ owner: 'user', parent })).toThrow(TypeError);
    expect(make({ pageTable })).toThrow(TypeError);
    expect(make({ parent, pageTable: { address: 1, width: 48 } })).toThrow(RangeError);
    expect(make({ parent, pageTable: { address: 0, width: 39 } })).toThrow(RangeError);
    expect(errorOf(make({ nestParent: true, faults: iommu.createFaultQueue() }))).toMatchObject({
      code: 'EOPNOTSUPP',
    });
    const numbers = iommu.createAddressSpace().ioasid;
    expect(numbers).toBe(4);
    // Five levels, which the unit does not have, are refused when a device attaches; nothing is left behind.
    const before = lowestId(iommu);
    const wide = iommu.createAddressSpace({ parent, pageTable: { address: TABLES, width: 57 } });
    expect(errorOf(() => device.attach(wide))).toMatchObject({ code: 'EINVAL' });
    expect(device.attached()).toBeUndefined();
    expect(lowestId(iommu)).toBe(before);
  });
});

/** What the kernel was told to invalidate. */
function invalidated(calls: readonly unknown[][]) {
  const invalidations = calls.filter(([, request]) => request === uapi.IOMMU_HWPT_INVALIDATE.request);
  return invalidations.map(([, , bytes]) => uapi.iommu_hwpt_invalidate.decode(bytes as Uint8Array).entry_num);
}

/** The kernel's lowest free object ID: unchanged when nothing was left behind. */
function lowestId(iommu: Iommu): number {
  const space = iommu.createAddressSpace();
  const id = space.ioasId;
  space.close();
  return id;
}

test('a user-managed space has no map(): its table is the user’s', () => {
  const { space } = setUp();
  expect('map' in (space satisfies UserAddressSpace)).toBe(false);
});
