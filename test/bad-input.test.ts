/** What goes wrong around a program: permissions, drivers, hardware that is off or pulled out; and options that are none. */
import { Iommu, IommuError } from '../lib';
import { Machine } from '../lib/sim';
import { DmaEngine, Edu } from '../lib/sim';
import { errorOf } from './contract/support';

const EDU = '0000:00:04.0';

function bind(machine: Machine): IommuError {
  const iommu = Iommu.open({ backend: machine });
  return errorOf(() => iommu.bind(EDU, { cookie: 1 })) as IommuError;
}

test('no permission on /dev/iommu', () => {
  const process = new Machine().createProcess({ uid: 1000 });
  const error = errorOf(() => Iommu.open({ backend: process })) as IommuError;
  expect(error).toBeInstanceOf(IommuError);
  expect(error).toMatchObject({ code: 'EACCES', errno: -13, syscall: 'open', path: '/dev/iommu' });
  expect(error.hint).toContain('sudo chown $USER /dev/iommu');
});

test('no permission on the device', () => {
  const machine = new Machine({ permissions: (path) => path === '/dev/iommu' });
  const iommu = Iommu.open({ backend: machine.createProcess({ uid: 1000 }) });
  const error = errorOf(() => iommu.bind(EDU, { cookie: 1 })) as IommuError;
  expect(error).toMatchObject({ code: 'EACCES', syscall: 'open', path: '/dev/vfio/devices/vfio0' });
  expect(error.hint).toContain('chown');
});

test('another driver has the device', () => {
  const error = bind(new Machine({ devices: { [EDU]: { device: new Edu(), driver: 'edu' } } }));
  expect(error).toMatchObject({ code: 'ENODEV', syscall: 'open' });
  expect(error.message).toContain('bound to the driver edu, not to vfio-pci');
  expect(error.hint).toContain(`echo ${EDU} | sudo tee /sys/bus/pci/devices/${EDU}/driver/unbind`);
});

test('no driver has the device', () => {
  const error = bind(new Machine({ devices: { [EDU]: { device: new Edu(), driver: null } } }));
  expect(error).toMatchObject({ code: 'ENODEV' });
  expect(error.hint).toContain('driver_override');
  expect(error.hint).not.toContain('unbind');
});

test('interrupt remapping is off', () => {
  const error = bind(new Machine({ iommu: { interruptRemapping: false } }));
  expect(error).toMatchObject({ code: 'EPERM', errno: -1, request: 'VFIO_DEVICE_BIND_IOMMUFD' });
  expect(error.hint).toContain('interrupt remapping is off');
});

test('somebody else has a device of the group', () => {
  const machine = new Machine({
    devices: {
      [EDU]: { device: new Edu(), group: 3 },
      '0000:00:05.0': { device: new DmaEngine(), group: 3 },
    },
  });
  const [one, two] = [Iommu.open({ backend: machine }), Iommu.open({ backend: machine })];
  one.bind('0000:00:05.0', { cookie: 1 });
  const error = errorOf(() => two.bind(EDU, { cookie: 1 })) as IommuError;
  expect(error).toMatchObject({ code: 'EPERM', request: 'VFIO_DEVICE_BIND_IOMMUFD' });
  expect(error.hint).toContain("owns a device of this device's IOMMU group");
  one.close();
  two.bind(EDU, { cookie: 1 });
});

test('devices of one group share one address space', () => {
  const machine = new Machine({
    devices: {
      [EDU]: { device: new Edu(), group: 3 },
      '0000:00:05.0': { device: new DmaEngine(), group: 3 },
    },
  });
  const iommu = Iommu.open({ backend: machine });
  const [edu, engine] = [EDU, '0000:00:05.0'].map((bdf, i) => iommu.bind(bdf, { cookie: i }));
  const [space, other] = [iommu.createAddressSpace(), iommu.createAddressSpace()];
  edu.attach(space);
  const error = errorOf(() => engine.attach(other)) as IommuError;
  expect(error).toMatchObject({ code: 'EINVAL', request: 'VFIO_DEVICE_ATTACH_IOMMUFD_PT' });
  expect(error.hint).toContain('IOMMU group');
  engine.attach(space);
  expect(space.attachments).toHaveLength(2);
});

test('a device that is pulled out can still be closed, and nothing keeps its place', () => {
  const machine = new Machine();
  const iommu = Iommu.open({ backend: machine });
  const device = iommu.bind(EDU, { cookie: 1 });
  const space = iommu.createAddressSpace();
  const buffer = iommu.allocateDma(4096);
  device.attach(space);
  space.map(buffer);
  const bar = device.region('bar0');
  expect(bar.read32(0)).toBe(0x010000ed);
  machine.unplug(EDU);
  expect(bar.read32(0)).toBe(0xffff_ffff);
  expect(errorOf(() => iommu.bind(EDU, { cookie: 2 }))).toMatchObject({ code: 'ENODEV' });
  device.close();
  expect(device.closed).toBe(true);
  expect(space.attachments).toEqual([]);
  space.close();
  iommu.close();
  machine.plug(EDU, { device: new Edu() });
  Iommu.open({ backend: machine }).bind(EDU, { cookie: 1 });
});

test('the mock IOMMU is the kernel’s own', () => {
  const iommu = Iommu.open({ backend: new Machine() });
  const error = errorOf(() => iommu.createMockDevice({ cookie: 1 })) as IommuError;
  expect(error).toMatchObject({ code: 'ENOTTY', request: 'IOMMU_TEST_CMD' });
  expect(error.hint).toContain('CONFIG_IOMMUFD_TEST');
  expect(iommu.createAddressSpace().ioasId).toBe(1);
});

test('options are objects, and a fault queue is one', () => {
  const iommu = Iommu.open({ backend: new Machine() });
  const device = iommu.bind(EDU, { cookie: 1 });
  const space = iommu.createAddressSpace();
  const made = (options: unknown) => () => iommu.createAddressSpace(options as never);
  const notNull = (caller: string) => new TypeError(`${caller} takes an object of options, not null`);
  expect(made(null)).toThrow(notNull('createAddressSpace'));
  expect(made({ faults: {} })).toThrow(new TypeError('faults is what iommu.createFaultQueue() returned'));
  expect(() => device.attach(space, null as never)).toThrow(notNull('attach'));
  expect(device.attached()).toBeUndefined();
  expect(iommu.describe().spaces).toHaveLength(1);
  const guest = {
    owner: 'user',
    parent: space,
    pageTable: { address: 0, width: 48 },
    enforceSnoop: undefined,
  };
  expect(errorOf(made(guest))).not.toMatchObject({ message: expect.stringContaining('snoops') as string });
});
