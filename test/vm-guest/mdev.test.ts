// Runs in the guest only: Linux's sample mediated device (samples/vfio-mdev/mtty.c), whose DMA no IOMMU takes part in.
import { existsSync } from 'node:fs';
import { Iommu, type Device } from '../../lib';
import { errorOf } from '../contract/support';

const PARENT = 'mtty';
const loaded = existsSync(`/sys/class/mdev_bus/${PARENT}`);
const why = loaded ? '' : ' (skipped: not loaded, see npm run vm -- --module mdev --module mtty)';

(loaded ? describe : describe.skip)(`mtty, a mediated device of Linux's${why}`, () => {
  let iommu: Iommu;
  let device: Device;

  beforeEach(() => {
    iommu = Iommu.open({ backend: 'linux' });
    const { uuid } = iommu.createMdev({ parent: PARENT, type: 'mtty-1' });
    device = iommu.bind(uuid, { cookie: 0x77n });
  });
  afterEach(() => {
    const { uuid } = device;
    device.close();
    iommu.removeMdev(uuid!);
    iommu.close();
  });

  it('is made through sysfs, and listed', () => {
    expect(iommu.mdevTypes().map(({ parent, type, deviceApi }) => [parent, type, deviceApi])).toEqual([
      [PARENT, 'mtty-1', 'vfio-pci'],
      [PARENT, 'mtty-2', 'vfio-pci'],
    ]);
    expect(iommu.devices().find(({ uuid }) => uuid === device.uuid)).toMatchObject({
      parent: PARENT,
      type: 'mtty-1',
      driver: 'mtty',
      path: device.path,
    });
    expect(errorOf(() => iommu.removeMdev(device.uuid!))).toMatchObject({ code: 'EBUSY' });
  });

  it('is a PCI device to its user, with registers that its driver emulates', () => {
    expect(device.info()).toMatchObject({ pci: true, regions: 9, pasid: undefined });
    const config = device.region('config');
    expect([config.read16(0), config.read16(2)]).toEqual([0x4348, 0x3253]);
    const uart = device.region('bar0');
    // The scratch register of an UART.
    uart.write8(7, 0xa5);
    expect(uart.read8(7)).toBe(0xa5);
  });

  it('is attached to address spaces by an access object: no page table, no PASID', () => {
    const space = iommu.createAddressSpace({ pasid: true });
    space.map(iommu.allocateDma(4096), { iova: 0x100000n });
    device.attach(space);
    expect(device.attached()).toBe(space);
    expect(errorOf(() => device.hardwareInfo())).toMatchObject({ code: 'EOPNOTSUPP' });
    expect(errorOf(() => device.attach(space, { pasid: 1 }))).toMatchObject({ code: 'EOPNOTSUPP' });
    const other = iommu.createAddressSpace();
    device.attach(other, { replace: true });
    device.detach();
    other.close();
    space.close();
  });

  it('has no virtual machine that translates PASIDs', () => {
    expect(errorOf(() => iommu.openVm(device.fd).addDevice(device))).toMatchObject({
      code: 'EOPNOTSUPP',
      hint: "a simulated machine (backend: 'simulated', or a Machine of iommufd/sim) has it",
    });
  });
});
