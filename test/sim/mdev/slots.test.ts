/** No routing slot is filled twice, whatever fills it; and who has it is named. */
import { Iommu } from '../../../lib';
import type { Machine } from '../../../lib/sim';
import * as uapi from '../../../lib/uapi';
import { attempt } from '../../../lib/ioctl';
import { errorOf } from '../../contract/support';
import { bindNew, fill, machineWith, OTHER_PARENT, PARENT, spaceWith, written } from './parent';

const IOVA = 0x100000n;

let machine: Machine;
let iommu: Iommu;

beforeEach(() => {
  machine = machineWith();
  iommu = Iommu.open({ backend: machine });
});
afterEach(() => iommu.close());

const space = () => spaceWith(iommu, IOVA, { pasid: true });

describe('two devices whose commands come by ENQCMD', () => {
  test('of one parent, in one virtual machine: the second attach of a vPASID is refused, and both are named', () => {
    const vm = iommu.openVm(machine.createVm().fd);
    const [one, other] = [bindNew(iommu, 'enqcmd', 0x11n), bindNew(iommu, 'enqcmd', 0x22n)];
    for (const device of [one, other]) vm.addDevice(device);
    const [first, second] = [space(), space()];
    one.attach(first.space, { pasid: 7 });
    const error = errorOf(() => other.attach(second.space, { pasid: 7 })) as Error;
    expect(error).toMatchObject({
      code: 'EEXIST',
      request: 'VFIO_DEVICE_ATTACH_IOMMUFD_PT',
      reason:
        `device 0x22 (${other.uuid}) would fill the routing slot [RID, PASID] of device 0x11 (${one.uuid}), ` +
        'and their faults could not be told apart',
    });
    // Nothing has changed: the first works, the second has nothing, and its own vPASIDs are free.
    expect(other.attached(7)).toBeUndefined();
    expect([fill(machine, one, IOVA, { pasid: 7 }), written(first.buffer)]).toEqual([0, true]);
    expect(fill(machine, other, IOVA, { pasid: 7 })).not.toBe(0);
    expect(written(second.buffer)).toBe(false);
    other.attach(second.space, { pasid: 8 });
    one.detach({ pasid: 7 });
    other.attach(second.space, { pasid: 7 });
    expect([fill(machine, other, IOVA, { pasid: 7 }), written(second.buffer)]).toEqual([0, true]);
  });

  test('of one parent, in different virtual machines: it works', () => {
    const [one, other] = [bindNew(iommu, 'enqcmd', 1n), bindNew(iommu, 'enqcmd', 2n)];
    const spaces = [one, other].map((device) => {
      iommu.openVm(machine.createVm().fd).addDevice(device);
      const { space: each, buffer } = space();
      device.attach(each, { pasid: 7 });
      return buffer;
    });
    expect([fill(machine, one, IOVA, { pasid: 7 }), spaces.map(written)]).toEqual([0, [true, false]]);
    expect([fill(machine, other, IOVA, { pasid: 7 }), spaces.map(written)]).toEqual([0, [true, true]]);
  });

  test('of two parents, in one virtual machine: it works', () => {
    const vm = iommu.openVm(machine.createVm().fd);
    const devices = [PARENT, OTHER_PARENT].map((parent, i) => bindNew(iommu, 'enqcmd', BigInt(i), parent));
    const spaces = devices.map((device) => {
      vm.addDevice(device);
      const { space: each, buffer } = space();
      device.attach(each, { pasid: 7 });
      return buffer;
    });
    expect([fill(machine, devices[1], IOVA, { pasid: 7 }), spaces.map(written)]).toEqual([0, [false, true]]);
  });
});

test('a device joins a virtual machine before its vPASIDs have a meaning', () => {
  const vm = iommu.openVm(machine.createVm().fd);
  const device = bindNew(iommu, 'enqcmd', 1n);
  device.attach(space().space, { pasid: 7 });
  expect(errorOf(() => vm.addDevice(device))).toMatchObject({ code: 'EBUSY' });
  device.detach({ pasid: 7 });
  vm.addDevice(device);
  expect(errorOf(() => vm.addDevice(device))).toMatchObject({ code: 'EEXIST' });
  device.attach(space().space, { pasid: 7 });
  expect(errorOf(() => vm.removeDevice(device))).toMatchObject({ code: 'EBUSY' });
  device.detach({ pasid: 7 });
  vm.removeDevice(device);
  expect(vm.devices).toEqual([]);
});

test('the owner of a slot is told among the devices of one iommufd only', () => {
  const stranger = Iommu.open({ backend: machine });
  const owner = (of: Iommu, dev_id: number, pasid = 0) =>
    attempt(of.kernel, of.fd, uapi.IOMMU_SLOT_OWNER, { dev_id, pasid });
  const vm = machine.createVm();
  const [one, other] = [bindNew(iommu, 'enqcmd', 1n), bindNew(stranger, 'enqcmd', 2n)];
  iommu.openVm(vm.fd).addDevice(one);
  stranger.openVm(vm.fd).addDevice(other);
  one.attach(space().space, { pasid: 7 });
  expect(owner(iommu, one.id, 7).out.out_dev_id).toBe(one.id);
  expect(owner(iommu, one.id).out.out_dev_id).toBe(0);
  const { space: theirs } = spaceWith(stranger, IOVA, { pasid: true });
  expect(errorOf(() => other.attach(theirs, { pasid: 7 }))).toMatchObject({ code: 'EEXIST' });
  expect(owner(stranger, other.id, 7).out.out_dev_id).toBe(0);
  expect(owner(stranger, 99).result).toBe(-2);
  stranger.close();
});

test('two users in one virtual machine: the second is refused, and learns nothing of the first', () => {
  const { fd } = machine.createVm();
  using other = Iommu.open({ backend: machine });
  const devices = [iommu, other].map((user, i) => {
    const device = bindNew(user, 'enqcmd', BigInt(0x77 + i));
    user.openVm(fd).addDevice(device);
    return device;
  });
  devices[0].attach(space().space, { pasid: 7 });
  const { space: second } = spaceWith(other, IOVA, { pasid: true });
  const error = errorOf(() => devices[1].attach(second, { pasid: 7 })) as Error;
  expect(error).toMatchObject({ code: 'EEXIST', hint: expect.stringContaining('another user') as string });
  expect(error.message).not.toContain('0x77');
  expect(devices[1].attached(7)).toBeUndefined();
});
