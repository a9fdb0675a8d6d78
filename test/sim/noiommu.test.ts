/** Machines without an IOMMU: DMA that nobody translates, and who may have such devices. */
import * as pci from '../../lib/sim/devices/pci-registers';
import type { SimulatedProcess } from '../../lib/sim/kernel/process';
import { Machine } from '../../lib/sim/machine';
import * as uapi from '../../lib/uapi';
import { code, PROBE_BDF } from './kernel/bench';
import { PLAIN, ProbeFunction } from './kernel/probe-function';

const OTHER_BDF = '0000:00:07.0';

describe('without an IOMMU', () => {
  const make = () => {
    const probe = new ProbeFunction();
    const { config } = probe;
    const enable = (capability: number, control: number, value: number) =>
      config.write(config.extendedCapability(capability) + control, 2, value);
    enable(pci.EXTENDED_CAPABILITY_PASID, pci.PASID_CONTROL, 1);
    enable(pci.EXTENDED_CAPABILITY_ATS, pci.ATS_CONTROL, 0x8000);
    enable(pci.EXTENDED_CAPABILITY_PRI, pci.PRI_ALLOCATION, 8);
    enable(pci.EXTENDED_CAPABILITY_PRI, pci.PRI_CONTROL, 1);
    return { probe, machine: new Machine({ iommu: 'none', devices: { [PROBE_BDF]: probe } }) };
  };

  test('addresses of DMA are physical, and those with a PASID nowhere', () => {
    const { probe, machine } = make();
    probe.config.write(4, 2, 6);
    const page = machine.memory.allocatePage();
    machine.memory.write32(page, 0x1234_5678);
    expect(probe.read(page, 4)).toEqual([0x78, 0x56, 0x34, 0x12]);
    expect(probe.read(page, 4, 1)).toBeUndefined();
    expect(probe.read(2 ** 40, 4)).toBeUndefined();
    expect(machine.refusedDma).toEqual([]);
  });

  test('translation and pages can be asked of nobody', () => {
    const { probe, machine } = make();
    probe.config.write(4, 2, 6);
    expect(probe.ask(machine.memory.allocatePage()).success).toBe(false);
    expect(probe.page(0x9000, 1)).toBe(false);
  });

  test('there is no unit, and there are no groups', () => {
    const { machine } = make();
    expect(() => machine.unit).toThrow('has no VT-d unit');
    expect(() => machine.plug(OTHER_BDF, { device: new ProbeFunction(PLAIN), group: 1 })).toThrow(RangeError);
    machine.plug(OTHER_BDF, { device: new ProbeFunction(PLAIN) });
    expect(machine.system.groups.map(({ id, name }) => [id, name])).toEqual([
      [0, 'vfio-noiommu'],
      [1, 'vfio-noiommu'],
    ]);
    machine.unplug(OTHER_BDF);
    expect(machine.system.groups.map(({ id }) => id)).toEqual([0]);
  });

  test('a device takes CAP_SYS_RAWIO, and so do its group and its physical addresses', () => {
    const { machine } = make();
    const root = machine.createProcess();
    const other = machine.createProcess({ uid: 0, capabilities: [] });
    for (const path of ['/dev/vfio/devices/noiommu-vfio0', '/dev/vfio/noiommu-0']) {
      expect(code(other.open(path, 2))).toBe('EPERM');
      expect(root.close(root.open(path, 2))).toBe(0);
    }
    const iommufd = other.open('/dev/iommu', 2);
    const values = { size: uapi.iommu_ioas_noiommu_get_pa.size, flags: 1 };
    const bytes = uapi.iommu_ioas_noiommu_get_pa.encode(values);
    expect(code(other.ioctl(iommufd, uapi.IOMMU_IOAS_NOIOMMU_GET_PA.request, bytes))).toBe('EPERM');
    // An iommufd without translation that somebody else set up.
    const group = root.open('/dev/vfio/noiommu-0', 2);
    const shared = root.open('/dev/iommu', 2);
    const container = new Uint8Array(Int32Array.of(shared).buffer);
    expect(root.ioctl(group, uapi.VFIO_GROUP_SET_CONTAINER.request, container)).toBe(0);
    const received = root.sendDescriptor(shared, other);
    const setType = (process: SimulatedProcess, fd: number) =>
      code(process.ioctl(fd, uapi.VFIO_SET_IOMMU.request, uapi.VFIO_NOIOMMU_IOMMU));
    expect(setType(other, received)).toBe('EPERM');
    expect(setType(root, shared)).toBe(0);
  });
});
