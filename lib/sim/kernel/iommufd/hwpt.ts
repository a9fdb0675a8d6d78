/** HWPT objects: hardware page tables (drivers/iommu/iommufd/hw_pagetable.c's role). */
import { errno } from '../../../uapi/errno';
import * as rows from '../../../uapi/iommufd-ioctls';
import {
  IOMMU_HWPT_ALLOC_DIRTY_TRACKING,
  IOMMU_HWPT_ALLOC_NEST_PARENT,
  IOMMU_HWPT_ALLOC_PASID,
  IOMMU_HWPT_DATA_NONE,
  IOMMU_HWPT_FAULT_ID_VALID,
  IOMMU_HW_CAP_DIRTY_TRACKING,
} from '../../../uapi/iommufd';
import type { Domain, NestedDomain, PagingDomain } from '../iommu/core';
import { PAGE_SIZE } from '../user-memory';
import { handler, type Command, type Handler } from './command';
import { IommufdDevice } from './device';
import { FaultObject } from './fault';
import { Ioas } from './ioas';
import { IommufdObject } from './object';

const PAGING_FLAGS =
  IOMMU_HWPT_ALLOC_NEST_PARENT |
  IOMMU_HWPT_ALLOC_DIRTY_TRACKING |
  IOMMU_HWPT_FAULT_ID_VALID |
  IOMMU_HWPT_ALLOC_PASID;
/** Most entries one IOMMU_HWPT_INVALIDATE takes. */
const MOST_ENTRIES = 1 << 19;

export abstract class Hwpt extends IommufdObject {
  abstract readonly domain: Domain;
  /** Where the faults of devices attached to it go. */
  fault: FaultObject | undefined;

  /** `pasidCompatible`: made with ALLOC_PASID, so that it may share a device with PASID attachments. */
  constructor(readonly pasidCompatible: boolean) {
    super();
  }

  destroy(): void {
    this.domain.free();
    if (this.fault) this.fault.users--;
  }
}

/** A table that mirrors an IOAS. */
export class HwptPaging extends Hwpt {
  /** Made by attaching a device to an IOAS: goes with its last user. */
  automatic = false;

  private constructor(
    readonly ioas: Ioas,
    override readonly domain: PagingDomain,
    readonly flags: number,
  ) {
    super((flags & IOMMU_HWPT_ALLOC_PASID) !== 0);
    ioas.users++;
  }

  get nestParent(): boolean {
    return (this.flags & IOMMU_HWPT_ALLOC_NEST_PARENT) !== 0;
  }

  /** Makes a table for `device` and fills it with the mappings of `ioas`. Not in the object table yet. */
  static create(ioas: Ioas, device: IommufdDevice, flags: number): HwptPaging | number {
    const { driver } = device;
    if (flags & ~PAGING_FLAGS) return -errno.EOPNOTSUPP;
    if (
      flags & IOMMU_HWPT_ALLOC_DIRTY_TRACKING &&
      !(driver.hardwareInfo(device.device).capabilities & IOMMU_HW_CAP_DIRTY_TRACKING)
    )
      return -errno.EOPNOTSUPP;
    if (flags & IOMMU_HWPT_FAULT_ID_VALID && flags & IOMMU_HWPT_ALLOC_NEST_PARENT) return -errno.EOPNOTSUPP;
    const domain = driver.allocatePaging(device.device, flags & ~IOMMU_HWPT_FAULT_ID_VALID);
    if (typeof domain === 'number') return domain;
    const result = ioas.table.addDomain(domain);
    if (result) {
      domain.free();
      return result;
    }
    const hwpt = new HwptPaging(ioas, domain, flags);
    ioas.hwpts.push(hwpt);
    return hwpt;
  }

  override destroy(): void {
    this.ioas.hwpts.splice(this.ioas.hwpts.indexOf(this), 1);
    this.ioas.table.removeDomain(this.domain);
    super.destroy();
    this.ioas.users--;
  }
}

/** A user-owned first-stage table over a parent. */
export class HwptNested extends Hwpt {
  private constructor(
    readonly parent: HwptPaging,
    override readonly domain: NestedDomain,
    pasidCompatible: boolean,
  ) {
    super(pasidCompatible);
    parent.users++;
  }

  static create(
    parent: HwptPaging,
    device: IommufdDevice,
    flags: number,
    data: { type: number; bytes: Uint8Array } | undefined,
  ): HwptNested | number {
    if (flags & ~(IOMMU_HWPT_FAULT_ID_VALID | IOMMU_HWPT_ALLOC_PASID) || !data) return -errno.EOPNOTSUPP;
    if (parent.automatic || !parent.nestParent) return -errno.EINVAL;
    const driverFlags = flags & ~IOMMU_HWPT_FAULT_ID_VALID;
    const domain = device.driver.allocateNested(device.device, parent.domain, driverFlags, data);
    if (typeof domain === 'number') return domain;
    return new HwptNested(parent, domain, (flags & IOMMU_HWPT_ALLOC_PASID) !== 0);
  }

  override destroy(): void {
    super.destroy();
    this.parent.users--;
  }
}

function alloc(command: Command<typeof rows.IOMMU_HWPT_ALLOC.struct>): number {
  const { values, file } = command;
  if (values.__reserved) return -errno.EOPNOTSUPP;
  if ((values.data_type === IOMMU_HWPT_DATA_NONE) !== (values.data_len === 0)) return -errno.EINVAL;
  const device = file.objects.get(values.dev_id, IommufdDevice);
  if (!device) return -errno.ENOENT;
  const target = file.objects.get(values.pt_id, IommufdObject);

  let hwpt: Hwpt | number;
  if (target instanceof Ioas) {
    // No driver here takes data for a table the kernel owns.
    if (values.data_len) return -errno.EOPNOTSUPP;
    hwpt = HwptPaging.create(target, device, values.flags);
  } else if (target instanceof HwptPaging) {
    let data;
    if (values.data_len) {
      const bytes = command.memory.read(values.data_uptr, values.data_len);
      if (!bytes) return -errno.EFAULT;
      data = { type: values.data_type, bytes };
    }
    hwpt = HwptNested.create(target, device, values.flags, data);
  } else {
    return -errno.EINVAL;
  }
  if (typeof hwpt === 'number') return hwpt;

  if (values.flags & IOMMU_HWPT_FAULT_ID_VALID) {
    const fault = file.objects.get(values.fault_id, FaultObject);
    if (!fault) {
      hwpt.destroy();
      return -errno.ENOENT;
    }
    hwpt.fault = fault;
    fault.users++;
  }
  file.objects.add(hwpt);
  return command.respond({ out_hwpt_id: hwpt.id });
}

function invalidate(command: Command<typeof rows.IOMMU_HWPT_INVALIDATE.struct>): number {
  const { values, file, memory } = command;
  const answer = (result: number, done: number) => command.respond({ entry_num: done }) || result;
  if (values.__reserved) return answer(-errno.EOPNOTSUPP, 0);
  const { entry_num: count, entry_len: length } = values;
  if (count && (!values.data_uptr || !length || length > PAGE_SIZE || count > MOST_ENTRIES))
    return answer(-errno.EINVAL, 0);
  const hwpt = file.objects.get(values.hwpt_id, IommufdObject);
  if (!hwpt) return answer(-errno.ENOENT, 0);
  if (!(hwpt instanceof HwptNested)) return answer(-errno.EINVAL, 0);
  if (!hwpt.domain.supports(values.data_type)) return answer(-errno.EINVAL, 0);
  for (let done = 0; done < count; done++) {
    const entry = memory.read(values.data_uptr + BigInt(done * length), length);
    const result = entry ? hwpt.domain.invalidate(entry) : -errno.EFAULT;
    if (result) return answer(result, done);
  }
  return answer(0, count);
}

export const hwptHandlers: readonly Handler[] = [
  handler(rows.IOMMU_HWPT_ALLOC, alloc),
  handler(rows.IOMMU_HWPT_INVALIDATE, invalidate),
];
