/** VDEVICE objects: a device under the id that it has behind a virtual IOMMU (drivers/iommu/iommufd/viommu.c's role). */
import { errno } from '../../../uapi/errno';
import { IOMMU_VDEVICE_ALLOC } from '../../../uapi/iommufd-ioctls';
import { handler, type Command, type Handler } from './command';
import { IommufdDevice } from './device';
import { IommufdObject } from './object';
import { Viommu } from './viommu';

/** Goes with its device: IommufdDevice.unbind buries it. */
export class Vdevice extends IommufdObject {
  constructor(
    readonly viommu: Viommu,
    readonly device: IommufdDevice,
    readonly virtualId: bigint,
  ) {
    super();
    viommu.users++;
    viommu.vdevices.set(virtualId, this);
    device.vdevice = this;
  }

  destroy(): void {
    this.viommu.vdevices.delete(this.virtualId);
    this.viommu.users--;
    this.device.vdevice = undefined;
  }
}

function alloc(command: Command<typeof IOMMU_VDEVICE_ALLOC.struct>): number {
  const { values, file } = command;
  const viommu = file.objects.get(values.viommu_id, Viommu);
  const device = file.objects.get(values.dev_id, IommufdDevice);
  if (!viommu || !device) return -errno.ENOENT;
  if (viommu.driver !== device.driver) return -errno.EINVAL;
  if (device.vdevice || viommu.vdevices.has(values.virt_id)) return -errno.EEXIST;
  const { id } = file.objects.add(new Vdevice(viommu, device, values.virt_id));
  return command.respond({ out_vdevice_id: id });
}

export const vdeviceHandlers: readonly Handler[] = [handler(IOMMU_VDEVICE_ALLOC, alloc)];
