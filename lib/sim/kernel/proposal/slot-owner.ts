/** IOMMU_SLOT_OWNER: who fills the routing slot that an attach was refused. */
import { errno } from '../../../uapi/errno';
import { IOMMU_SLOT_OWNER } from '../../../uapi/proposal/pasid';
import { IOMMU_NO_PASID } from '../iommu/core';
import { handler, type Command, type Handler } from '../iommufd/command';
import { IommufdDevice } from '../iommufd/device';
import { MdevDevice } from '../mdev/device';

function slotOwner(command: Command<typeof IOMMU_SLOT_OWNER.struct>): number {
  const { file, values } = command;
  const device = file.objects.get(values.dev_id, IommufdDevice);
  if (!device) return -errno.ENOENT;
  const mdev = device.device;
  if (mdev instanceof MdevDevice) {
    const binding = ownerOf(mdev, values.pasid)?.opened?.binding;
    // Another user's devices are nobody's business here.
    return command.respond({ out_dev_id: binding?.iommufd === file ? binding.id : 0 });
  }
  const owners = [...(device.igroup.attachments.get(values.pasid)?.devices ?? [])];
  return command.respond({ out_dev_id: owners[0]?.id ?? 0 });
}

function ownerOf(mdev: MdevDevice, vpasid: number): MdevDevice | undefined {
  const { iommu } = mdev.parent;
  if (vpasid === IOMMU_NO_PASID) return iommu.ownerOf(mdev.defaultPasid);
  const pasid = mdev.pasidOf(vpasid) ?? mdev.source.peek(vpasid);
  return pasid === undefined ? undefined : iommu.ownerOf(pasid);
}

export const slotOwnerHandlers: readonly Handler[] = [handler(IOMMU_SLOT_OWNER, slotOwner)];
