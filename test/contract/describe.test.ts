/** The state of an Iommu as plain data. */
import { IOVA, MOCK_TABLE, openMock } from './mock-objects';
import { EDU, open, openEdu, PAGE } from './support';

describe('describe()', () => {
  test('has devices with their groups, spaces with their mappings, and memory', () => {
    const { iommu, device } = openEdu(0xffff_ffff_ffff_ffffn);
    const space = iommu.createAddressSpace();
    device.attach(space);
    const buffers = [iommu.allocateDma(PAGE), iommu.allocateDma(4 * PAGE, { memfd: true })];
    space.map(buffers[1], { iova: 0x20_0000n, offset: PAGE, length: 2 * PAGE, write: false });
    const state = iommu.describe();
    const group = iommu.devices().find(({ bdf }) => bdf === EDU)!.iommuGroup!;
    expect(state).toEqual({
      ...{ backend: iommu.backend, kernel: iommu.kernelVersion, fd: iommu.fd },
      devices: [
        {
          ...{ cookie: '0xffffffffffffffff', name: EDU, parent: null, id: device.id, fd: device.fd, group },
          attached: [{ pasid: null, ioasid: 1 }],
        },
      ],
      groups: [{ id: group, members: [{ name: EDU, driver: 'vfio-pci', cookie: '0xffffffffffffffff' }] }],
      spaces: [
        {
          ...{ ioasid: 1, owner: 'kernel', parent: null, nesting: null, ioas: space.ioasId, pageTables: [] },
          ...{ enforceSnoop: 'auto', pasid: false, faults: null, shadow: null },
          mappings: [
            {
              ...{ iova: '0x200000', length: 2 * PAGE, read: true, write: false },
              ...{ buffer: 1, offset: PAGE, parentIova: null },
            },
          ],
        },
      ],
      buffers: buffers.map(({ address, length, fd }, number) => ({
        ...{ number, address: `0x${address.toString(16)}`, length, fd: fd < 0 ? null : fd },
      })),
      faultQueues: [],
      virtualMachines: [],
    });
    expect(JSON.parse(JSON.stringify(state))).toEqual(state);
  });

  test('has parents, PASIDs, and faults without an answer', () => {
    const iommu = openMock();
    const device = iommu.createMockDevice({ cookie: 1, pasid: true });
    const faults = iommu.createFaultQueue({ limit: 9 });
    const space = iommu.createAddressSpace({ faults, pasid: true });
    device.attach(space, { pasid: 5 });
    const child = iommu.createAddressSpace({ parent: space });
    space.map(iommu.allocateDma(PAGE), { iova: IOVA });
    child.map({ iova: IOVA, length: 2 * PAGE }, { iova: 0x5000n });
    device.triggerFault({ pasid: 5, address: IOVA + BigInt(PAGE), permissions: { write: false } });
    const before = iommu.describe();
    expect(before.faultQueues[0].pending).toEqual([]);
    const [fault] = faults.drain();
    const state = iommu.describe();
    expect(state.devices).toMatchObject([{ group: null, fd: null, attached: [{ pasid: 5, ioasid: 1 }] }]);
    expect(state.spaces).toMatchObject([
      { ioasid: 1, parent: null, pasid: true, faults: faults.id, mappings: [{ iova: '0x1000000' }] },
      {
        ...{ ioasid: 2, owner: 'kernel', parent: 1, nesting: 'software', ioas: child.ioasId, faults: null },
        mappings: [{ iova: '0x5000', length: 2 * PAGE, parentIova: '0x1000000', buffer: null, offset: null }],
        shadow: [{ iova: '0x5000', length: PAGE, read: true, write: true }],
      },
    ]);
    expect(state.spaces[0].pageTables).toHaveLength(1);
    const address = `0x${(IOVA + BigInt(PAGE)).toString(16)}`;
    expect(state.faultQueues).toEqual([
      {
        ...{ id: faults.id, fd: faults.fd, limit: 9 },
        pending: [{ ioasid: 1, cookie: '0x1', pasid: 5, address, read: true, write: false }],
      },
    ]);
    fault.respond('success');
    expect(iommu.describe().faultQueues[0].pending).toEqual([]);
    expect(JSON.parse(JSON.stringify(state))).toEqual(state);
  });

  test('has page tables made by hand: of a space, or spaces of their own', () => {
    const iommu = openMock();
    const device = iommu.createMockDevice({ cookie: 1 });
    const space = iommu.createAddressSpace();
    const parent = iommu.createPageTable(device, { parent: space, nestParent: true });
    const nested = iommu.createPageTable(device, { parent, pageTable: MOCK_TABLE });
    device.attach(nested);
    expect(iommu.describe().spaces).toMatchObject([
      { ioasid: 1, owner: 'kernel', pageTables: [parent.id], parent: null },
      { ioasid: 2, owner: 'user', pageTables: [nested.id], parent: 1, nesting: 'hardware', ioas: null },
    ]);
    expect(iommu.describe().devices[0].attached).toEqual([{ pasid: null, ioasid: 2 }]);
  });

  test('of a closed Iommu is refused', () => {
    const iommu = open();
    iommu.close();
    expect(() => iommu.describe()).toThrow('EBADF');
  });
});
