/** Mediated devices: made through sysfs, bound by UUID, kept apart by PASIDs that nobody sees. */
import { Iommu } from '../../../lib';
import {
  CONTROL_ATS,
  CONTROL_PAGE_REQUESTS,
  dmaEngine,
  ERROR_PAGE_REQUEST,
  ERROR_REFUSED,
  type Machine,
} from '../../../lib/sim';
import { errorOf } from '../../contract/support';
import { bindNew, fill, machineWith, outcome, PARENT, SPACES, spaceWith, startFill, written } from './parent';

const UUID = '0d3b1ad4-2f1c-4c85-8f4e-0123456789ab';
const TYPES = `/sys/class/mdev_bus/${PARENT}/mdev_supported_types`;
const IOVA = 0x100000n;

let machine: Machine;
let iommu: Iommu;

beforeEach(() => {
  machine = machineWith();
  iommu = Iommu.open({ backend: machine });
});
afterEach(() => iommu.close());

describe('sysfs', () => {
  test('a parent says which types it has', () => {
    const kernel = machine.process();
    const folder = (name: string) => `channel-engine-${name}`;
    const names = ['channel', 'enqcmd', 'pasid', 'software'].map(folder);
    expect(kernel.readdir(TYPES)).toEqual(names);
    expect(kernel.readFile(`${TYPES}/${names[0]}/available_instances`)).toBe('8\n');
    expect(iommu.mdevTypes().filter(({ parent }) => parent === PARENT)).toContainEqual({
      parent: PARENT,
      type: 'channel-engine-pasid',
      name: 'Channel with PASIDs',
      deviceApi: 'vfio-pci',
      available: 8,
    });
  });

  test('a UUID in create makes one, which has a device file and is in devices()', () => {
    const kernel = machine.process();
    const create = `${TYPES}/channel-engine-channel/create`;
    expect(kernel.writeFile(create, UUID.toUpperCase())).toBe(36);
    expect(kernel.readdir(`${TYPES}/channel-engine-channel/devices`)).toEqual([UUID]);
    expect(kernel.readFile(`${TYPES}/channel-engine-pasid/available_instances`)).toBe('7\n');
    expect(iommu.devices().find(({ uuid }) => uuid === UUID)).toEqual({
      uuid: UUID,
      parent: PARENT,
      type: 'channel-engine-channel',
      driver: 'vfio-channel-engine',
      iommuGroup: undefined,
      path: '/dev/vfio/devices/vfio0',
    });
    expect(kernel.readFile('/sys/class/vfio-dev/vfio0/dev')).toBe('511:0\n');
    expect(kernel.writeFile(create, UUID)).toBe(-17);
    expect(kernel.writeFile(create, 'no UUID')).toBe(-22);
    expect(kernel.writeFile(`/sys/bus/mdev/devices/${UUID}/remove`, '1')).toBe(1);
    expect(iommu.devices().some(({ uuid }) => uuid === UUID)).toBe(false);
  });

  test('no more than there are channels', () => {
    const type = { parent: PARENT, type: 'channel-engine-software' };
    for (let i = 0; i < 8; i++) iommu.createMdev(type);
    expect(errorOf(() => iommu.createMdev(type))).toMatchObject({
      code: 'EUSERS',
      hint: '0 more of this type can be made; a UUID names one device',
    });
  });

  test('one in use is not removed, nor is its parent taken away', () => {
    const device = bindNew(iommu, 'channel', 1n);
    expect(errorOf(() => iommu.removeMdev(device.uuid!))).toMatchObject({ code: 'EBUSY' });
    const kernel = machine.process();
    expect(kernel.writeFile(`/sys/bus/mdev/devices/${device.uuid}/remove`, '1')).toBe(-16);
    expect(kernel.writeFile('/sys/bus/pci/drivers/channel-engine/unbind', PARENT)).toBe(-16);
    device.close();
    expect(kernel.writeFile('/sys/bus/pci/drivers/channel-engine/unbind', PARENT)).toBe(12);
    expect(iommu.devices().some(({ uuid }) => uuid !== undefined)).toBe(false);
  });
});

describe('DMA', () => {
  test('of two devices of one parent goes through the address space of each', () => {
    const [one, other] = [bindNew(iommu, 'channel', 1n), bindNew(iommu, 'channel', 2n)];
    const [first, second] = [spaceWith(iommu, IOVA), spaceWith(iommu, IOVA)];
    one.attach(first.space);
    other.attach(second.space);
    expect(fill(machine, one, IOVA)).toBe(0);
    expect([written(first.buffer), written(second.buffer)]).toEqual([true, false]);
    expect(fill(machine, other, IOVA)).toBe(0);
    expect(written(second.buffer)).toBe(true);
  });

  test('before an attach, and after a detach, reaches nothing', () => {
    const device = bindNew(iommu, 'channel', 1n);
    const { space, buffer } = spaceWith(iommu, IOVA);
    expect(fill(machine, device, IOVA)).toBe(ERROR_REFUSED);
    device.attach(space);
    device.detach();
    expect(fill(machine, device, IOVA)).toBe(ERROR_REFUSED);
    expect(written(buffer)).toBe(false);
  });

  test('needs Bus Master Enable', () => {
    const { uuid } = iommu.createMdev({ parent: PARENT, type: 'channel-engine-channel' });
    const device = iommu.bind(uuid, { cookie: 1n });
    const { space, buffer } = spaceWith(iommu, IOVA);
    device.attach(space);
    expect(fill(machine, device, IOVA)).toBe(ERROR_REFUSED);
    device.enableBusMaster();
    expect([fill(machine, device, IOVA), written(buffer)]).toEqual([0, true]);
  });

  test('with a vPASID goes through what is attached to that vPASID', () => {
    const [one, other] = [bindNew(iommu, 'pasid', 1n), bindNew(iommu, 'pasid', 2n)];
    const spaces = [1, 2, 3].map(() => spaceWith(iommu, IOVA, { pasid: true }));
    one.attach(spaces[0].space, { pasid: 7 });
    one.attach(spaces[1].space, { pasid: 8 });
    other.attach(spaces[2].space, { pasid: 7 });
    expect(fill(machine, one, IOVA, { pasid: 8 })).toBe(0);
    expect(spaces.map(({ buffer }) => written(buffer))).toEqual([false, true, false]);
    expect(fill(machine, other, IOVA, { pasid: 7 })).toBe(0);
    expect(spaces.map(({ buffer }) => written(buffer))).toEqual([false, true, true]);
    // The register says what was written to it.
    expect(other.region('bar0').read32(dmaEngine.PASID)).toBe(0x80000007);
    // A vPASID that means nothing leads nowhere, whatever the hardware's PASID of that number is.
    for (const pasid of [0, 9, ...Array.from({ length: 16 }, (_, i) => SPACES.perRid + i)])
      expect(fill(machine, other, IOVA, { pasid })).toBe(ERROR_REFUSED);
    expect(written(spaces[0].buffer)).toBe(false);
  });

  test('a command that runs when its vPASID is detached ends, and does not meet the next owner of its pPASID', () => {
    const [one, other] = [bindNew(iommu, 'pasid', 1n), bindNew(iommu, 'pasid', 2n)];
    const [first, second] = [1, 2].map(() => spaceWith(iommu, IOVA, { pasid: true }));
    one.attach(first.space, { pasid: 7 });
    startFill(one, IOVA, { pasid: 7, length: 4096 });
    one.detach({ pasid: 7 });
    other.attach(second.space, { pasid: 1 });
    machine.idle();
    expect([written(first.buffer), written(second.buffer)]).toEqual([false, false]);
  });

  test('a type without PASIDs has none', () => {
    const device = bindNew(iommu, 'channel', 1n);
    const { space } = spaceWith(iommu, IOVA, { pasid: true });
    expect(errorOf(() => device.attach(space, { pasid: 1 }))).toMatchObject({ code: 'EOPNOTSUPP' });
    expect(device.hardwareInfo().maxPasidLog2).toBe(0);
  });

  test('nothing of a user is left for the next', () => {
    const device = bindNew(iommu, 'pasid', 1n);
    const { uuid } = device;
    const { space, buffer } = spaceWith(iommu, IOVA, { pasid: true });
    device.attach(space, { pasid: 7 });
    device.attach(space);
    startFill(device, IOVA, { pasid: 7 });
    device.close();
    machine.idle();
    const again = iommu.bind(uuid!, { cookie: 2n });
    again.enableBusMaster();
    const registers = again.region('bar0');
    expect([registers.read32(dmaEngine.PASID), registers.read64(dmaEngine.DESTINATION)]).toEqual([0, 0n]);
    for (const options of [{}, { pasid: 7 }]) expect(fill(machine, again, IOVA, options)).toBe(ERROR_REFUSED);
    expect(written(buffer)).toBe(false);
  });
});

test('a command that runs when its device is closed does not meet the next owner of its default PASID', () => {
  const device = bindNew(iommu, 'channel', 1n);
  const { uuid } = device;
  const [first, second] = [1, 2].map(() => spaceWith(iommu, IOVA));
  device.attach(first.space);
  startFill(device, IOVA, { length: 4096 });
  device.close();
  iommu.removeMdev(uuid!);
  // The channel goes to a device that makes no use of it, and the default PASID to another.
  iommu.createMdev({ parent: PARENT, type: 'channel-engine-software' });
  bindNew(iommu, 'channel', 2n).attach(second.space);
  machine.idle();
  expect([written(first.buffer), written(second.buffer)]).toEqual([false, false]);
});

describe('page faults', () => {
  const FLAGS = CONTROL_ATS | CONTROL_PAGE_REQUESTS;

  test('of two devices in one address space are told apart', async () => {
    const faults = iommu.createFaultQueue();
    const space = iommu.createAddressSpace({ faults });
    const [one, other] = [bindNew(iommu, 'channel', 0x11n), bindNew(iommu, 'channel', 0x22n)];
    for (const device of [one, other]) device.attach(space);
    startFill(other, 0x300000n, { flags: FLAGS });
    startFill(one, 0x200000n, { flags: FLAGS });
    machine.idle();
    const found = [await faults.next({ timeout: 1000 }), await faults.next({ timeout: 1000 })];
    expect(found.map(({ cookie, ioasid, address, pasid }) => ({ cookie, ioasid, address, pasid }))).toEqual([
      { cookie: 0x22n, ioasid: space.ioasid, address: 0x300000n, pasid: undefined },
      { cookie: 0x11n, ioasid: space.ioasid, address: 0x200000n, pasid: undefined },
    ]);
    const buffer = iommu.allocateDma(4096);
    space.map(buffer, { iova: 0x300000n });
    found[0].respond('success');
    found[1].respond('invalid');
    machine.idle();
    expect([outcome(other), written(buffer)]).toEqual([0, true]);
    expect(outcome(one)).not.toBe(0);
  });

  test('carry the vPASID', async () => {
    const faults = iommu.createFaultQueue();
    const space = iommu.createAddressSpace({ faults, pasid: true });
    const device = bindNew(iommu, 'pasid', 0x33n);
    device.attach(space, { pasid: 42 });
    startFill(device, 0x200000n, { pasid: 42, flags: FLAGS });
    machine.idle();
    const fault = await faults.next({ timeout: 1000 });
    expect(fault).toMatchObject({ cookie: 0x33n, ioasid: space.ioasid, pasid: 42, address: 0x200000n });
    expect(fault.raw.pasid).toBe(42);
    const buffer = iommu.allocateDma(4096);
    space.map(buffer, { iova: 0x200000n });
    fault.respond('success');
    machine.idle();
    expect([outcome(device), written(buffer)]).toEqual([0, true]);
  });

  test('that another device of the parent has left unfinished are not among them', async () => {
    const faults = iommu.createFaultQueue();
    const devices = Array.from({ length: 6 }, (_, i) => bindNew(iommu, 'channel', BigInt(i)));
    devices.forEach((device, i) => {
      device.attach(iommu.createAddressSpace({ faults }));
      const last = i === devices.length - 1;
      if (last) return;
      // 256 requests may be on their way: the fifth device asks for more than are left, and gives its group up halfway.
      device.region('bar0').write32(dmaEngine.PREFETCH, i === 3 ? 60 : i === 4 ? 8 : 64);
      startFill(device, 0x1000000n * BigInt(i + 1), { flags: FLAGS, length: 64 * 4096 });
      machine.idle();
    });
    expect(outcome(devices[4])).toBe(ERROR_PAGE_REQUEST);
    faults.drain();
    // The sixth device gets the group index that the fifth gave up.
    startFill(devices[5], 0x900000n, { flags: FLAGS });
    machine.idle();
    const found = faults.drain();
    expect(found.map(({ cookie, address }) => [cookie, address])).toEqual([[5n, 0x900000n]]);
  });

  test('end with the attach', async () => {
    const faults = iommu.createFaultQueue();
    const space = iommu.createAddressSpace({ faults });
    const device = bindNew(iommu, 'channel', 1n);
    device.attach(space);
    startFill(device, 0x200000n, { flags: FLAGS });
    machine.idle();
    const fault = await faults.next({ timeout: 1000 });
    expect(outcome(device)).toBe(-1);
    device.detach();
    machine.idle();
    expect(outcome(device)).toBeGreaterThan(0);
    expect(fault.respond('success')).toBe(false);
  });
});

describe('a device in software', () => {
  test('reaches memory through its address space, whatever that has besides', () => {
    const device = bindNew(iommu, 'software', 1n);
    const { space, buffer } = spaceWith(iommu, IOVA, { pasid: true });
    expect(fill(machine, device, IOVA)).toBe(ERROR_REFUSED);
    device.attach(space);
    expect([fill(machine, device, IOVA), written(buffer)]).toEqual([0, true]);
    expect(fill(machine, device, 0x900000n)).toBe(ERROR_REFUSED);
    device.detach();
    expect(fill(machine, device, IOVA)).toBe(ERROR_REFUSED);
  });

  test('may not write where the mapping is for reading only', () => {
    const device = bindNew(iommu, 'software', 1n);
    const space = iommu.createAddressSpace();
    space.map(iommu.allocateDma(4096), { iova: IOVA, write: false });
    device.attach(space);
    expect(fill(machine, device, IOVA)).toBe(ERROR_REFUSED);
  });

  test('has no page tables, and no PASIDs', () => {
    const device = bindNew(iommu, 'software', 1n);
    const { space } = spaceWith(iommu, IOVA, { pasid: true });
    expect(errorOf(() => device.attach(space, { pasid: 1 }))).toMatchObject({ code: 'EOPNOTSUPP' });
    expect(errorOf(() => device.hardwareInfo())).toMatchObject({ code: 'EOPNOTSUPP' });
  });
});

test('a parent that is pulled out stays until its devices are closed', () => {
  const device = bindNew(iommu, 'channel', 1n);
  const { space, buffer } = spaceWith(iommu, IOVA);
  device.attach(space);
  machine.unplug(PARENT);
  fill(machine, device, IOVA);
  expect(written(buffer)).toBe(false);
  device.close();
  expect(iommu.devices().some(({ uuid }) => uuid !== undefined)).toBe(false);
});

test('what a device is used for counts for KVM’s query, as its parent’s would', () => {
  const device = bindNew(iommu, 'channel', 1n);
  const space = iommu.createAddressSpace({ enforceSnoop: 'disable' });
  device.attach(space);
  expect(iommu.needsNoSnoop()).toBe(true);
  device.attach(space, { noSnoop: false });
  expect(iommu.needsNoSnoop()).toBe(false);
});
