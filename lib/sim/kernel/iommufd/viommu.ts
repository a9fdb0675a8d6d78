/** VIOMMU objects: a share of an IOMMU that a guest sees as its own (drivers/iommu/iommufd/viommu.c's role). */
import { errno } from '../../../uapi/errno';
import { IOMMU_VIOMMU_TYPE_DEFAULT } from '../../../uapi/iommufd';
import { IOMMU_VIOMMU_ALLOC } from '../../../uapi/iommufd-ioctls';
import type { IommuDriver, KernelDevice, UserData } from '../iommu/core';
import type { DriverViommu, ViommuCore, ViommuOperations } from '../iommu/viommu';
import { handler, userData, type Command, type Handler } from './command';
import { IommufdDevice } from './device';
import type { IommufdFile } from './file';
import { HwptPaging } from './hwpt';
import { IommufdObject } from './object';
import type { Vdevice } from './vdevice';
import type { VeventQueue } from './veventq';

export class Viommu extends IommufdObject implements ViommuCore {
  readonly vdevices = new Map<bigint, Vdevice>();
  /** IOMMU_VEVENTQ_TYPE_* → queue. */
  readonly eventQueues = new Map<number, VeventQueue>();
  #part: DriverViommu | undefined;

  constructor(
    readonly file: IommufdFile,
    readonly driver: IommuDriver,
    readonly hwpt: HwptPaging,
  ) {
    super();
    hwpt.users++;
  }

  /** Makes one over `hwpt`. Not in the object table yet. */
  static create(
    { file, driver }: IommufdDevice,
    operations: ViommuOperations,
    hwpt: HwptPaging,
    data?: UserData,
  ): Viommu | number {
    const viommu = new Viommu(file, driver, hwpt);
    const part = operations.create(viommu, hwpt.domain, data);
    if (typeof part === 'number') {
      hwpt.users--;
      return part;
    }
    viommu.#part = part;
    return viommu;
  }

  /** The driver's. */
  get part(): DriverViommu {
    if (!this.#part) throw new Error('the driver has not made its part');
    return this.#part;
  }

  destroy(): void {
    this.part.free();
    this.hwpt.users--;
  }

  deviceOf(virtualId: bigint): KernelDevice | undefined {
    return this.vdevices.get(virtualId)?.device.device;
  }

  virtualIdOf(device: KernelDevice): bigint | undefined {
    for (const [virtualId, vdevice] of this.vdevices) if (vdevice.device.device === device) return virtualId;
    return undefined;
  }

  reportEvent(type: number, data: Uint8Array): number {
    const queue = this.eventQueues.get(type);
    if (!queue) return -errno.EOPNOTSUPP;
    queue.report(data);
    return 0;
  }

  offerPages(memory: ArrayBuffer): number {
    return this.file.mmapTable.add(this, memory);
  }

  withdrawPages(offset: number): void {
    this.file.mmapTable.remove(offset);
  }
}

function alloc(command: Command<typeof IOMMU_VIOMMU_ALLOC.struct>): number {
  const { values, file } = command;
  const { type, data_len, data_uptr } = values;
  if (values.flags || type === IOMMU_VIOMMU_TYPE_DEFAULT) return -errno.EOPNOTSUPP;
  const device = file.objects.get(values.dev_id, IommufdDevice);
  if (!device) return -errno.ENOENT;
  const operations = device.driver.viommu;
  if (!operations?.supports(type)) return -errno.EOPNOTSUPP;
  const hwpt = file.objects.get(values.hwpt_id, HwptPaging);
  if (!hwpt) return -errno.ENOENT;
  if (!hwpt.nestParent) return -errno.EINVAL;
  const data = data_len > 0 ? userData(command.memory, type, data_len, data_uptr) : undefined;
  const viommu = Viommu.create(device, operations, hwpt, data);
  if (typeof viommu === 'number') return viommu;
  file.objects.add(viommu);
  return command.respond({ out_viommu_id: viommu.id });
}

export const viommuHandlers: readonly Handler[] = [handler(IOMMU_VIOMMU_ALLOC, alloc)];
