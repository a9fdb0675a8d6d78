/** Operations of IOMMU_TEST_CMD on mock devices: making, attaching, page faults. */
import { errno } from '../../../uapi/errno';
import * as test from '../../../uapi/iommufd-test';
import { IOMMU_NO_PASID } from '../iommu/core';
import { MockKernelDevice } from '../mock/device';
import type { MockIommu } from '../mock/driver';
import { IommufdDevice } from './device';
import { Hwpt } from './hwpt';
import { IommufdObject } from './object';
import type { TestCommand } from './selftest';

const DEVICE_FLAGS = test.MOCK_FLAGS_DEVICE_NO_DIRTY | test.MOCK_FLAGS_DEVICE_PASID;

/** What binds a mock device, as VFIO binds a real one. Destroying it is how the device goes away. */
export class SelftestDevice extends IommufdObject {
  #bound: IommufdDevice | undefined;

  get bound(): IommufdDevice {
    if (!this.#bound) throw new Error('the mock device is not bound');
    return this.#bound;
  }

  set bound(device: IommufdDevice) {
    this.#bound = device;
  }

  destroy(): void {
    for (const pasid of [...this.bound.igroup.attachments.keys()]) this.bound.detach(pasid);
    this.bound.unbind();
  }
}

function driverOf({ file }: TestCommand): MockIommu {
  const { selftest } = file.system;
  if (!selftest) throw new Error('the machine has no selftest IOMMU');
  return selftest;
}

function mockDomain(command: TestCommand): number {
  const { file, values } = command;
  const flags = values.op === test.IOMMU_TEST_OP_MOCK_DOMAIN_FLAGS ? values.mock_domain_flags.dev_flags : 0;
  if (flags & ~DEVICE_FLAGS) return -errno.EINVAL;
  const object = new SelftestDevice();
  object.unfinished = true;
  file.objects.add(object);
  const device = new MockKernelDevice(
    !(flags & test.MOCK_FLAGS_DEVICE_NO_DIRTY),
    (flags & test.MOCK_FLAGS_DEVICE_PASID) !== 0,
  );
  const abort = (error: number) => {
    file.objects.remove(object);
    return error;
  };
  const bound = IommufdDevice.claimMock(file, device, driverOf(command));
  if (typeof bound === 'number') return abort(bound);
  const hwptId = bound.attach(IOMMU_NO_PASID, values.id, false);
  if (hwptId < 0) {
    bound.unbind();
    return abort(hwptId);
  }
  object.bound = bound;
  object.unfinished = false;
  return command.respond({
    mock_domain: { out_stdev_id: object.id, out_hwpt_id: hwptId, out_idev_id: bound.id },
  });
}

/** Runs an operation on the mock device that `id` names. */
function onDevice(run: (command: TestCommand, device: IommufdDevice) => number) {
  return (command: TestCommand) => {
    const object = command.file.objects.get(command.values.id, SelftestDevice);
    return object ? run(command, object.bound) : -errno.ENOENT;
  };
}

function replaceDomain(command: TestCommand, device: IommufdDevice): number {
  const pt_id = device.attach(IOMMU_NO_PASID, command.values.mock_domain_replace.pt_id, true);
  return pt_id < 0 ? pt_id : command.respond({ mock_domain_replace: { pt_id } });
}

function changePasid(replacing: boolean) {
  return (command: TestCommand, device: IommufdDevice): number => {
    const { pasid, pt_id } = command.values.pasid_attach;
    const used = device.attach(pasid, pt_id, replacing);
    return used < 0 ? used : command.respond({ pasid_attach: { pasid, pt_id: used } });
  };
}

function detachPasid({ values }: TestCommand, device: IommufdDevice): number {
  device.detach(values.pasid_detach.pasid);
  return 0;
}

function checkPasid({ values, file }: TestCommand, device: IommufdDevice): number {
  const { pasid, hwpt_id } = values.pasid_check;
  const attached = device.igroup.group.handles.get(pasid)?.domain;
  if (hwpt_id === 0) return attached ? -errno.EINVAL : 0;
  const hwpt = file.objects.get(hwpt_id, IommufdObject);
  if (!hwpt) return -errno.ENOENT;
  return hwpt instanceof Hwpt && hwpt.domain === attached ? 0 : -errno.EINVAL;
}

function triggerFault(command: TestCommand): number {
  const request = command.values.trigger_iopf;
  const bound = command.file.objects.get(request.dev_id, IommufdDevice);
  if (!bound) return -errno.ENOENT;
  if (!(bound.device instanceof MockKernelDevice)) return -errno.EINVAL;
  driverOf(command).reportPageRequest(bound.device, request);
  return 0;
}

function triggerEvent({ file, values }: TestCommand): number {
  const bound = file.objects.get(values.trigger_vevent.dev_id, IommufdDevice);
  // Linux 7.3 takes any device for a mock one here.
  return bound?.device instanceof MockKernelDevice ? bound.device.triggerEvent() : -errno.ENOENT;
}

export const deviceOperations = [
  [test.IOMMU_TEST_OP_MOCK_DOMAIN, mockDomain],
  [test.IOMMU_TEST_OP_MOCK_DOMAIN_FLAGS, mockDomain],
  [test.IOMMU_TEST_OP_MOCK_DOMAIN_REPLACE, onDevice(replaceDomain)],
  [test.IOMMU_TEST_OP_PASID_ATTACH, onDevice(changePasid(false))],
  [test.IOMMU_TEST_OP_PASID_REPLACE, onDevice(changePasid(true))],
  [test.IOMMU_TEST_OP_PASID_DETACH, onDevice(detachPasid)],
  [test.IOMMU_TEST_OP_PASID_CHECK_HWPT, onDevice(checkPasid)],
  [test.IOMMU_TEST_OP_TRIGGER_IOPF, triggerFault],
  [test.IOMMU_TEST_OP_TRIGGER_VEVENT, triggerEvent],
] as const;
