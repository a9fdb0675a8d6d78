/** HWPT objects: hardware page tables (drivers/iommu/iommufd/hw_pagetable.c's role). */
import { errno } from '../../../uapi/errno';
import {
  IOMMU_HWPT_ALLOC_DIRTY_TRACKING,
  IOMMU_HWPT_ALLOC_NEST_PARENT,
  IOMMU_HWPT_ALLOC_PASID,
  IOMMU_HWPT_FAULT_ID_VALID,
  IOMMU_HW_CAP_DIRTY_TRACKING,
} from '../../../uapi/iommufd';
import {
  IOMMU_IOASID_ENFORCE_SNOOP_DISABLE,
  IOMMU_IOASID_ENFORCE_SNOOP_ENABLE,
} from '../../../uapi/proposal/no-snoop';
import type { Domain, IommuDriver, NestedDomain, PagingDomain, UserData } from '../iommu/core';
import type { IommufdDevice } from './device';
import type { FaultObject } from './fault';
import type { Ioas } from './ioas';
import { IommufdObject } from './object';
import type { Viommu } from './viommu';

const PAGING_FLAGS =
  IOMMU_HWPT_ALLOC_NEST_PARENT |
  IOMMU_HWPT_ALLOC_DIRTY_TRACKING |
  IOMMU_HWPT_FAULT_ID_VALID |
  IOMMU_HWPT_ALLOC_PASID;

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

  constructor(
    readonly ioas: Ioas,
    override readonly domain: PagingDomain,
    readonly flags: number,
    /** Whose format the table has: devices of other IOMMUs cannot use it. */
    readonly driver: IommuDriver,
    /** DMA through it is coherent with caches, whatever a device asks for. */
    readonly enforcesCoherency: boolean,
  ) {
    super((flags & IOMMU_HWPT_ALLOC_PASID) !== 0);
    ioas.users++;
  }

  get nestParent(): boolean {
    return (this.flags & IOMMU_HWPT_ALLOC_NEST_PARENT) !== 0;
  }

  /** Makes an empty table for `device`. Not in the object table yet. */
  static create(ioas: Ioas, device: IommufdDevice, flags: number, data?: UserData): HwptPaging | number {
    const { driver } = device;
    if (flags & ~PAGING_FLAGS) return -errno.EOPNOTSUPP;
    if (
      flags & IOMMU_HWPT_ALLOC_DIRTY_TRACKING &&
      !((driver.hardwareInfo(device.device)?.capabilities ?? 0) & IOMMU_HW_CAP_DIRTY_TRACKING)
    )
      return -errno.EOPNOTSUPP;
    if (flags & IOMMU_HWPT_FAULT_ID_VALID && flags & IOMMU_HWPT_ALLOC_NEST_PARENT) return -errno.EOPNOTSUPP;
    const canEnforce = driver.enforcesCoherency?.(device.device) ?? false;
    if (ioas.enforceSnoop === IOMMU_IOASID_ENFORCE_SNOOP_ENABLE && !canEnforce) return -errno.EINVAL;
    const domain = driver.allocatePaging(device.device, flags & ~IOMMU_HWPT_FAULT_ID_VALID, data);
    if (typeof domain === 'number') return domain;
    const wanted = canEnforce && ioas.enforceSnoop !== IOMMU_IOASID_ENFORCE_SNOOP_DISABLE;
    // Before anything is mapped: some formats say it in every entry.
    const enforcesCoherency = wanted && (domain.enforceCoherency?.() ?? true);
    return new HwptPaging(ioas, domain, flags, driver.behind ?? driver, enforcesCoherency);
  }

  /** Fills the table with the mappings of the IOAS, which it mirrors from now on. 0 or -errno. */
  fill(): number {
    const result = this.ioas.table.addDomain(this.domain);
    if (!result) this.ioas.hwpts.push(this);
    return result;
  }

  override destroy(): void {
    const index = this.ioas.hwpts.indexOf(this);
    if (index >= 0) {
      this.ioas.hwpts.splice(index, 1);
      this.ioas.table.removeDomain(this.domain);
    }
    super.destroy();
    this.ioas.users--;
  }
}

const NESTED_FLAGS = IOMMU_HWPT_FAULT_ID_VALID | IOMMU_HWPT_ALLOC_PASID;

/** A user-owned first-stage table over a parent. */
export class HwptNested extends Hwpt {
  /** `made` on it: the parent itself, or a virtual IOMMU over the parent. */
  constructor(
    readonly parent: HwptPaging,
    readonly made: HwptPaging | Viommu,
    override readonly domain: NestedDomain,
    pasidCompatible: boolean,
  ) {
    super(pasidCompatible);
    made.users++;
  }

  static create(
    parent: HwptPaging,
    device: IommufdDevice,
    flags: number,
    data: UserData,
  ): HwptNested | number {
    const { driver } = device;
    if (flags & ~NESTED_FLAGS || data.length === 0 || !driver.allocateNested) return -errno.EOPNOTSUPP;
    if (parent.automatic || !parent.nestParent || parent.driver !== (driver.behind ?? driver))
      return -errno.EINVAL;
    const driverFlags = flags & ~IOMMU_HWPT_FAULT_ID_VALID;
    const domain = driver.allocateNested(device.device, parent.domain, driverFlags, data);
    if (typeof domain === 'number') return domain;
    return new HwptNested(parent, parent, domain, (flags & IOMMU_HWPT_ALLOC_PASID) !== 0);
  }

  static createOn(viommu: Viommu, device: IommufdDevice, flags: number, data: UserData): HwptNested | number {
    const { part, driver, hwpt } = viommu;
    if (driver !== device.driver) return -errno.EINVAL;
    if (flags & ~NESTED_FLAGS || data.length === 0) return -errno.EOPNOTSUPP;
    const domain = part.allocateNested?.(flags & ~IOMMU_HWPT_FAULT_ID_VALID, data) ?? -errno.EOPNOTSUPP;
    if (typeof domain === 'number') return domain;
    return new HwptNested(hwpt, viommu, domain, (flags & IOMMU_HWPT_ALLOC_PASID) !== 0);
  }

  override destroy(): void {
    super.destroy();
    this.made.users--;
  }
}
