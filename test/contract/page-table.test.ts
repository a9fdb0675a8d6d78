/** Page tables made by hand, on the mock IOMMU. */
import { IommuError } from '../../lib';
import * as layout from '../../lib/sim/kernel/mock/layout';
import * as uapi from '../../lib/uapi';
import { IOVA, lowestId, MOCK_TABLE, openMock, openNesting, testCommand } from './mock-objects';
import { errorOf, PAGE } from './support';

describe('page table', () => {
  test('has the mappings of its space, for a device and for its PASIDs', () => {
    const iommu = openMock();
    const device = iommu.createMockDevice({ cookie: 1, pasid: true });
    const space = iommu.createAddressSpace();
    const table = iommu.createPageTable(device, { parent: space, pasid: true });
    const buffer = iommu.allocateDma(PAGE);
    space.map(buffer, { iova: IOVA });
    expect(table).toMatchObject({ ioasid: space.ioasid, pasid: true, nestParent: false, closed: false });
    device.attach(table);
    device.attach(table, { pasid: 7 });
    expect(device.attached() === table && device.attached(7) === table).toBe(true);
    expect(table.attachments.map(({ pasid }) => pasid)).toEqual([undefined, 7]);
    expect(device.translates(IOVA, buffer)).toBe(true);
    expect(device.translates(IOVA, buffer, { pasid: 7 })).toBe(true);
    device.detach({ pasid: 7 });
    expect(table.attachments).toHaveLength(1);
    expect(table.closed).toBe(false);
  });

  test('closing it detaches; closing its space closes it; nothing is left behind', () => {
    const iommu = openMock();
    const device = iommu.createMockDevice({ cookie: 1 });
    const before = lowestId(iommu);
    const space = iommu.createAddressSpace();
    const first = iommu.createPageTable(device, { parent: space });
    using second = iommu.createPageTable(device, { parent: space });
    device.attach(first);
    device.attach(second, { replace: true });
    expect(first.attachments).toEqual([]);
    first.close();
    first.close();
    expect(device.attached() === second).toBe(true);
    space.close();
    expect(second.closed).toBe(true);
    expect(device.attached()).toBeUndefined();
    expect(lowestId(iommu)).toBe(before);
    for (const use of [
      () => device.attach(second),
      () => second.trackDirty(),
      () => second.readDirty(),
      () => second.invalidate('all'),
      () => iommu.createPageTable(device, { parent: second, pageTable: MOCK_TABLE }),
      () => iommu.createVirtualIommu(device, { parent: second, type: 1 }),
    ])
      expect(use).toThrow(`EBADF: page table ${second.id} is closed`);
  });

  test('faults of what is attached to it carry the IOASID of its space', async () => {
    const iommu = openMock();
    const device = iommu.createMockDevice({ cookie: 0xabc });
    const faults = iommu.createFaultQueue();
    iommu.createAddressSpace();
    const space = iommu.createAddressSpace();
    const table = iommu.createPageTable(device, { parent: space, faults });
    device.attach(table);
    device.triggerFault({ address: IOVA });
    const fault = await faults.next();
    expect(fault).toMatchObject({ ioasid: space.ioasid, cookie: 0xabcn, address: IOVA });
    expect(errorOf(() => faults.close())).toMatchObject({
      code: 'EBUSY',
      reason: `fault queue ${faults.id} is used by page table ${table.id}`,
    });
    expect(fault.respond('success')).toBe(true);
    table.close();
    faults.close();
  });

  test('nested ones translate first; each is an address space of its own', async () => {
    const { iommu, device, space, parent } = openNesting();
    const faults = iommu.createFaultQueue();
    const nested = iommu.createPageTable(device, { parent, pageTable: MOCK_TABLE, faults });
    expect(nested.parent === parent && nested.space === undefined).toBe(true);
    expect([space.ioasid, parent.ioasid, nested.ioasid]).toEqual([1, 1, 2]);
    device.attach(nested);
    device.triggerFault({ address: 5n });
    expect((await faults.next()).ioasid).toBe(2);
    const iotlb = (id: number, value: number) =>
      testCommand(iommu, {
        op: uapi.IOMMU_TEST_OP_MD_CHECK_IOTLB,
        id: nested.id,
        check_iotlb: { id, iotlb: value },
      });
    const entry = (iotlb_id: number) => layout.iommu_hwpt_invalidate_selftest.encode({ iotlb_id });
    nested.invalidate({ type: layout.IOMMU_HWPT_INVALIDATE_DATA_SELFTEST, entries: [entry(1), entry(2)] });
    expect([0, 1, 2].map((id) => iotlb(id, 0) === 0)).toEqual([false, true, true]);
    const error = errorOf(() =>
      nested.invalidate({ type: layout.IOMMU_HWPT_INVALIDATE_DATA_SELFTEST, entries: [entry(0), entry(4)] }),
    );
    expect(error).toMatchObject({
      code: 'EINVAL',
      request: 'IOMMU_HWPT_INVALIDATE',
      hint: 'entry 1 was refused; the 1 before it were carried out',
    });
    expect(iotlb(0, 0)).toBe(0);
    expect(errorOf(() => nested.readDirty())).toMatchObject({ code: 'EINVAL' });
    parent.close();
    expect(nested.closed).toBe(true);
    expect(iommu.createAddressSpace().ioasid).toBe(2);
  });

  test('what cannot be is refused', () => {
    const { iommu, device, space, parent } = openNesting();
    const flat = iommu.createPageTable(device, { parent: space });
    const make = (options: object) => () => iommu.createPageTable(device, options as never);
    expect(errorOf(make({ parent: flat, pageTable: MOCK_TABLE }))).toMatchObject({ code: 'EINVAL' });
    expect(errorOf(make({ parent, pageTable: { address: 0, width: 48 } }))).toMatchObject({
      code: 'EOPNOTSUPP',
      request: 'IOMMU_HWPT_ALLOC',
    });
    expect(make({ parent })).toThrow(TypeError);
    expect(make({ parent: {} })).toThrow(TypeError);
    expect(make({})).toThrow(TypeError);
    expect(make({ parent: space, faults: {} })).toThrow(TypeError);
    expect(make({ parent, pageTable: 5 })).toThrow(TypeError);
    expect(make({ parent, pageTable: { ste: [1n] } })).toThrow(RangeError);
    expect(make({ parent, pageTable: { dte: [1n, 2n] } })).toThrow(RangeError);
    const stranger = openMock();
    expect(make({ parent: stranger.createAddressSpace() })).toThrow('belongs to another Iommu');
    expect(make({ parent: space, faults: stranger.createFaultQueue() })).toThrow(TypeError);
    expect(() => stranger.createPageTable(device, { parent: space })).toThrow(TypeError);
    const faults = iommu.createFaultQueue();
    expect(errorOf(make({ parent: space, nestParent: true, faults }))).toMatchObject({ code: 'EOPNOTSUPP' });
    expect(() => device.attach({} as never)).toThrow(TypeError);
  });

  test('attaching a PASID is refused where the kernel would do nothing, or say EINVAL only', () => {
    const iommu = openMock();
    const space = iommu.createAddressSpace();
    const plain = iommu.createMockDevice({ cookie: 1 });
    const capable = iommu.createMockDevice({ cookie: 2, pasid: true });
    const table = iommu.createPageTable(plain, { parent: space, pasid: true });
    const without = iommu.createPageTable(plain, { parent: space });
    expect(errorOf(() => plain.attach(table, { pasid: 3 }))).toMatchObject({
      code: 'EOPNOTSUPP',
      reason: `mock device ${plain.stdevId} has no PASIDs`,
    });
    const error = errorOf(() => capable.attach(without, { pasid: 3 })) as IommuError;
    expect(error).toMatchObject({ code: 'EINVAL', hint: 'make it with pasid: true' });
    expect(error.reason).toBe(`page table ${without.id} cannot be used with PASIDs`);
    capable.attach(table, { pasid: 3 });
    expect(errorOf(() => capable.attach(without))).toMatchObject({ code: 'EINVAL' });
  });
});
