/** Software nesting: GIOVA → GPA in the child, GPA → memory in the parent, and what both together come to. */
import { IommuError, NestedAddressSpace, type DmaBuffer, type MappedRange } from '../../lib';
import * as uapi from '../../lib/uapi';
import { Edu } from './edu';
import { IOVA, lowestId, openMock } from './mock-objects';
import { errorOf, fill, openEdu, PAGE } from './support';

/** Guest physical addresses: where the parent has memory. */
const GPA = 0x4000_0000n;
const page = (number: number) => BigInt(number * PAGE);

/** A parent with nothing attached, a space nested on it, and a device on that. */
function setUp() {
  const iommu = openMock();
  const device = iommu.createMockDevice({ cookie: 1 });
  const parent = iommu.createAddressSpace();
  const child = iommu.createAddressSpace({ parent });
  device.attach(child);
  return { iommu, device, parent, child, buffer: iommu.allocateDma(8 * PAGE) };
}

/** Ranges as [first page from `base`, pages, rights]. */
function shape(ranges: readonly MappedRange[], base = IOVA): [number, number, string][] {
  return ranges.map(({ iova, length, read, write }) => [
    Number(iova - base) / PAGE,
    length / PAGE,
    `${read ? 'r' : ''}${write ? 'w' : ''}`,
  ]);
}

describe('a nested space', () => {
  test('gives devices what the parent maps, at addresses of its own', () => {
    const { device, parent, child, buffer } = setUp();
    expect(child).toBeInstanceOf(NestedAddressSpace);
    expect([child.owner, child.parent === parent, parent.parent]).toEqual(['kernel', true, undefined]);
    expect(child.ioasid).not.toBe(parent.ioasid);
    const memory = parent.map(buffer, { iova: GPA });
    const mapping = child.map({ iova: GPA + page(2), length: 3 * PAGE }, { iova: IOVA });
    expect(mapping).toMatchObject({ iova: IOVA, parentIova: GPA + page(2), length: 3 * PAGE, mapped: true });
    expect(device.translates(IOVA, buffer, { offset: 2 * PAGE, length: 3 * PAGE })).toBe(true);
    expect(device.translates(IOVA + page(3), buffer, { offset: 5 * PAGE, length: PAGE })).toBe(false);
    const whole = child.map(memory, { iova: IOVA + page(100) });
    expect(device.translates(whole.iova, buffer)).toBe(true);
    expect(child.mappings.length).toBe(2);
    mapping.unmap();
    mapping.unmap();
    expect(device.translates(IOVA, buffer, { offset: 2 * PAGE, length: PAGE })).toBe(false);
    expect(mapping).toMatchObject({ mapped: false, shadow: [] });
    expect(child.unmapAll()).toBe(8 * PAGE);
    expect(device.translates(whole.iova, buffer, { length: PAGE })).toBe(false);
    expect(child.unmapAll()).toBe(0);
  });

  test('spans mappings of the parent; between them there is nothing', () => {
    const { iommu, device, parent, child, buffer } = setUp();
    const other = iommu.allocateDma(PAGE);
    parent.map(buffer, { iova: GPA, length: 2 * PAGE });
    parent.map(other, { iova: GPA + page(2) });
    parent.map(buffer, { iova: GPA + page(5), offset: 4 * PAGE, length: 4 * PAGE });
    const mapping = child.map({ iova: GPA + page(1), length: 6 * PAGE }, { iova: IOVA });
    expect(shape(mapping.shadow)).toEqual([
      [0, 1, 'rw'],
      [1, 1, 'rw'],
      [4, 2, 'rw'],
    ]);
    expect(device.translates(IOVA, buffer, { offset: PAGE, length: PAGE })).toBe(true);
    expect(device.translates(IOVA + page(1), other)).toBe(true);
    expect(device.translates(IOVA + page(4), buffer, { offset: 4 * PAGE, length: 2 * PAGE })).toBe(true);
    expect(child.unmap(IOVA, 6 * PAGE)).toBe(6 * PAGE);
    expect(child.shadow).toEqual([]);
  });

  test('has the rights that both have, and no more', () => {
    const { iommu, parent, child, buffer } = setUp();
    const writable = iommu.createAddressSpace().map(buffer);
    // The memory is writable; only the parent's mapping of it is not.
    parent.map(writable, { iova: GPA, length: PAGE, write: false });
    parent.map(writable, { iova: GPA + page(1), offset: PAGE, length: PAGE });
    const range = { iova: GPA, length: 2 * PAGE };
    expect(shape(child.map(range, { iova: IOVA }).shadow)).toEqual([
      [0, 1, 'r'],
      [1, 1, 'rw'],
    ]);
    expect(shape(child.map(range, { iova: IOVA + page(8), read: false }).shadow)).toEqual([[9, 1, 'w']]);
    expect(shape(child.map(range, { iova: IOVA + page(16), write: false }).shadow)).toEqual([
      [16, 1, 'r'],
      [17, 1, 'r'],
    ]);
  });

  test('has rules for map() and unmap(); what is refused changes nothing', () => {
    const { iommu, parent, child, buffer } = setUp();
    const memory = parent.map(buffer, { iova: GPA });
    const range = { iova: GPA, length: 2 * PAGE };
    const stranger = iommu.createAddressSpace().map(buffer);
    expect(() => child.map(stranger, { iova: IOVA })).toThrow(TypeError);
    expect(() => child.map(buffer as never, { iova: IOVA })).toThrow(TypeError);
    expect(() => child.map(range, {} as { iova: bigint })).toThrow('does not choose addresses');
    expect(() => child.map(range, { iova: IOVA, read: false, write: false })).toThrow(RangeError);
    expect(() => child.map({ iova: GPA, length: 0 }, { iova: IOVA })).toThrow(RangeError);
    expect(() => child.map({ iova: GPA, length: 2n ** 60n }, { iova: IOVA })).toThrow(RangeError);
    const last = 2n ** 64n - page(1);
    for (const [from, iova] of [
      [GPA, last],
      [last, IOVA],
    ])
      expect(errorOf(() => child.map({ iova: from, length: PAGE }, { iova }))).toMatchObject({
        code: 'EOVERFLOW',
      });
    expect(errorOf(() => child.map(range, { iova: IOVA + 1n }))).toMatchObject({
      code: 'EINVAL',
      request: 'IOMMU_IOAS_COPY',
      hint: 'the IOVA 0x1000001 must be a multiple of 2048 bytes',
    });
    expect(child.mappings).toEqual([]);
    child.map(memory, { iova: IOVA });
    expect(errorOf(() => child.map(range, { iova: IOVA + page(7) }))).toMatchObject({ code: 'EEXIST' });
    expect(errorOf(() => child.unmap(IOVA, PAGE))).toMatchObject({ code: 'ENOENT' });
    expect(errorOf(() => child.unmap(IOVA + page(8), PAGE))).toMatchObject({ code: 'ENOENT' });
    expect(shape(child.shadow)).toEqual([[0, 8, 'rw']]);
    child.close();
    expect(() => child.map(range, { iova: IOVA })).toThrow(
      'IOMMU_IOAS_COPY: EBADF: address space 2 is closed',
    );
  });
});

describe('what the parent does later', () => {
  test('is followed: unmapped, it is out of reach; mapped again, within', () => {
    const { iommu, device, parent, child, buffer } = setUp();
    const mapping = child.map({ iova: GPA, length: 4 * PAGE }, { iova: IOVA });
    expect(mapping.shadow).toEqual([]);
    const first = parent.map(buffer, { iova: GPA + page(1), length: 2 * PAGE });
    expect(device.translates(IOVA + page(1), buffer, { length: 2 * PAGE })).toBe(true);
    first.unmap();
    expect(device.translates(IOVA + page(1), buffer, { length: PAGE })).toBe(false);
    const other = iommu.allocateDma(4 * PAGE);
    parent.map(other, { iova: GPA });
    expect(device.translates(IOVA, other)).toBe(true);
    parent.unmap(GPA, 4 * PAGE);
    expect(device.translates(IOVA, other, { length: PAGE })).toBe(false);
    parent.map(other, { iova: GPA });
    expect(parent.unmapAll()).toBe(4 * PAGE);
    expect(mapping).toMatchObject({ mapped: true, shadow: [] });
    parent.map(other, { iova: GPA });
    other.close();
    expect([parent.mappings, mapping.shadow]).toEqual([[], []]);
  });

  test('is refused whole where the child cannot follow', () => {
    const { device, parent, child, buffer } = setUp();
    child.map({ iova: GPA, length: 2 * PAGE }, { iova: IOVA });
    // Half a page of the mock IOMMU: nothing is attached to the parent, which takes any length.
    child.map({ iova: GPA + page(4), length: 1024 }, { iova: IOVA + page(4) });
    expect(errorOf(() => parent.map(buffer, { iova: GPA }))).toMatchObject({ code: 'EINVAL' });
    expect([parent.mappings, child.shadow]).toEqual([[], []]);
    expect(device.translates(IOVA, buffer, { length: PAGE })).toBe(false);
    parent.map(buffer, { iova: GPA, length: 2 * PAGE });
    expect(device.translates(IOVA, buffer, { length: 2 * PAGE })).toBe(true);
  });

  test('a mapping that a raw call removed gives way in the child too', () => {
    const { iommu, device, parent, child, buffer } = setUp();
    parent.map(buffer, { iova: GPA });
    child.map({ iova: GPA, length: PAGE }, { iova: IOVA });
    const raw = uapi.iommu_ioas_unmap.encode({
      ...{ size: uapi.iommu_ioas_unmap.size, ioas_id: parent.ioasId, iova: GPA, length: buffer.length },
    });
    expect(iommu.kernel.ioctl(iommu.fd, uapi.IOMMU_IOAS_UNMAP.request, raw)).toBe(0);
    const other = iommu.allocateDma(PAGE);
    parent.map(other, { iova: GPA });
    expect(device.translates(IOVA, other)).toBe(true);
  });

  test('closing it closes what is nested on it; nothing is left behind', () => {
    const { iommu, device, parent, child, buffer } = setUp();
    const grandchild = iommu.createAddressSpace({ parent: child });
    parent.map(buffer, { iova: GPA });
    grandchild.map(child.map({ iova: GPA, length: PAGE }, { iova: IOVA }), { iova: IOVA });
    parent.close();
    expect([child.closed, grandchild.closed, device.attached()]).toEqual([true, true, undefined]);
    expect(lowestId(iommu)).toBe(parent.ioasId);
    expect(iommu.createAddressSpace().ioasid).toBe(1);
  });

  test('a child that closes leaves the parent as it was', () => {
    const { iommu, device, parent, child, buffer } = setUp();
    const memory = parent.map(buffer, { iova: GPA });
    const mapping = child.map(memory, { iova: IOVA });
    child.close();
    expect(mapping.mapped).toBe(false);
    expect(device.attached()).toBeUndefined();
    memory.unmap();
    parent.map(buffer, { iova: GPA });
    const next = iommu.createAddressSpace({ parent });
    device.attach(next);
    next.map({ iova: GPA, length: PAGE }, { iova: IOVA });
    expect(device.translates(IOVA, buffer, { length: PAGE })).toBe(true);
  });
});

describe('three levels', () => {
  test('are merged, and follow the lowest', () => {
    const { iommu, parent, child, buffer } = setUp();
    const device = iommu.createMockDevice({ cookie: 2 });
    const grandchild = iommu.createAddressSpace({ parent: child });
    device.attach(grandchild);
    grandchild.map({ iova: IOVA + page(1), length: 4 * PAGE }, { iova: IOVA + page(64), write: false });
    child.map({ iova: GPA + page(2), length: 4 * PAGE }, { iova: IOVA + page(2) });
    const low = parent.map(buffer, { iova: GPA, length: 4 * PAGE });
    expect(shape(grandchild.shadow)).toEqual([[65, 2, 'r']]);
    expect(device.translates(IOVA + page(65), buffer, { offset: 2 * PAGE, length: 2 * PAGE })).toBe(true);
    parent.map(buffer, { iova: GPA + page(4), offset: 4 * PAGE, length: 4 * PAGE });
    expect(device.translates(IOVA + page(67), buffer, { offset: 4 * PAGE, length: PAGE })).toBe(true);
    low.unmap();
    expect(shape(grandchild.shadow)).toEqual([[67, 1, 'r']]);
    expect(device.translates(IOVA + page(65), buffer, { offset: 2 * PAGE, length: PAGE })).toBe(false);
    child.unmapAll();
    expect(grandchild.shadow).toEqual([]);
    expect(device.translates(IOVA + page(67), buffer, { offset: 4 * PAGE, length: PAGE })).toBe(false);
  });

  test('what the highest cannot follow is refused at the lowest', () => {
    const { iommu, parent, child, buffer } = setUp();
    const grandchild = iommu.createAddressSpace({ parent: child });
    iommu.createMockDevice({ cookie: 2 }).attach(grandchild);
    grandchild.map({ iova: IOVA, length: PAGE }, { iova: 0n });
    child.map({ iova: GPA, length: PAGE }, { iova: IOVA });
    expect(errorOf(() => parent.map(buffer, { iova: GPA }))).toMatchObject({ code: 'EINVAL' });
    expect([parent.mappings, child.shadow, grandchild.shadow]).toEqual([[], [], []]);
  });
});

test('a hardware queue in a nested space keeps its memory in the parent too', () => {
  const { iommu, parent, child, buffer } = setUp();
  const device = iommu.createMockDevice({ cookie: 2 });
  const table = iommu.createPageTable(device, { parent: child, nestParent: true });
  const viommu = iommu.createVirtualIommu(device, { parent: table, type: 0xdeadbeef });
  const memory = parent.map(buffer, { iova: GPA });
  child.map(memory, { iova: IOVA });
  const queue = viommu.createHardwareQueue({ type: 0xdeadbeef, index: 0, iova: IOVA, length: PAGE });
  for (const unmap of [() => memory.unmap(), () => parent.unmapAll(), () => buffer.close()])
    expect(errorOf(unmap)).toMatchObject({ code: 'EBUSY', request: 'IOMMU_IOAS_UNMAP' });
  expect([memory.mapped, shape(child.shadow)]).toEqual([true, [[0, 8, 'rw']]]);
  queue.close();
  memory.unmap();
});

test('no space nests across two Iommus, nor on a user-managed one', () => {
  const { iommu, parent, child } = setUp();
  const other = openMock();
  for (const options of [
    { parent },
    { parent: child },
    { parent, owner: 'user', pageTable: { address: 0, width: 48 } },
  ] as const)
    expect(() => other.createAddressSpace(options as { parent: typeof parent })).toThrow('another Iommu');
  const below = iommu.createAddressSpace({ nestParent: true });
  const user = iommu.createAddressSpace({ parent: below, pageTable: { address: 0, width: 48 } });
  expect(() => iommu.createAddressSpace({ parent: user as never })).toThrow(TypeError);
  expect(() => iommu.createAddressSpace({ owner: 'nobody' as 'kernel' })).toThrow(TypeError);
  expect(() => iommu.createAddressSpace({ owner: 'user' } as never)).toThrow('needs a parent');
  const pageTable = { address: 0, width: 48 } as const;
  expect(() => iommu.createAddressSpace({ owner: 'kernel', parent, pageTable } as never)).toThrow(TypeError);
});

test('a PASID table of the user’s own is EOPNOTSUPP, once its description is right', () => {
  const { iommu } = setUp();
  const parent = iommu.createAddressSpace({ nestParent: true });
  const pasidTable = { ste: [1n, 2n] } as const;
  const numbers = [lowestId(iommu), iommu.createAddressSpace().ioasid];
  expect(errorOf(() => iommu.createAddressSpace({ parent, pasidTable }))).toMatchObject({
    code: 'EOPNOTSUPP',
    request: 'IOMMU_HWPT_ALLOC',
  });
  expect(() => iommu.createAddressSpace({ parent, pasidTable: { ste: [1n] as never } })).toThrow(RangeError);
  expect(() =>
    iommu.createAddressSpace({ parent, pasidTable, pageTable: { address: 0, width: 48 } } as never),
  ).toThrow(TypeError);
  expect([lowestId(iommu), iommu.createAddressSpace().ioasid]).toEqual(numbers.map((number) => number + 1));
});

test('DMA goes through the shadow: reads and writes where both allow it', async () => {
  const { iommu, device } = openEdu();
  const parent = iommu.createAddressSpace();
  const child = iommu.createAddressSpace({ parent });
  device.attach(child);
  const buffer: DmaBuffer = iommu.allocateDma(3 * PAGE);
  fill(buffer.bytes.subarray(0, PAGE), 7);
  const writable = iommu.createAddressSpace().map(buffer);
  parent.map(buffer, { iova: GPA, length: 2 * PAGE });
  parent.map(writable, { iova: GPA + page(2), offset: 2 * PAGE, write: false });
  const mapping = child.map({ iova: GPA, length: 3 * PAGE }, { iova: 0x10_0000n });
  const edu = new Edu(device);
  await edu.fetch(mapping.iova, 2048);
  for (const at of [1, 2]) await edu.store(mapping.iova + page(at), 2048);
  expect(Buffer.compare(buffer.bytes.subarray(0, 2048), buffer.bytes.subarray(PAGE, PAGE + 2048))).toBe(0);
  // The parent lets nobody write there, though the memory could be written.
  expect(buffer.bytes.subarray(2 * PAGE).every((byte) => byte === 0)).toBe(true);
  buffer.bytes.fill(0);
  parent.unmap(GPA, 2 * PAGE);
  await edu.store(mapping.iova, 2048);
  expect(buffer.bytes.every((byte) => byte === 0)).toBe(true);
  expect(() => child.map({ iova: GPA, length: 1 }, { iova: 0n })).not.toThrow(IommuError);
});
