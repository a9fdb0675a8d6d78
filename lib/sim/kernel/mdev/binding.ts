/** A mediated device in the hands of an iommufd: a device of it, or an access object where no IOMMU takes part. */
import { errno } from '../../../uapi/errno';
import { IOMMU_NO_PASID } from '../iommu/core';
import { Access } from '../iommufd/access';
import { IommufdDevice } from '../iommufd/device';
import type { IommufdFile } from '../iommufd/file';
import { Ioas } from '../iommufd/ioas';
import type { MdevDevice } from './device';

export interface MdevBinding {
  readonly iommufd: IommufdFile;
  readonly id: number;
  /** Attaches or replaces; `pasid` undefined: requests that name none. The ID to report, or -errno. */
  attach(ptId: number, pasid: number | undefined): number;
  /** Does nothing where nothing is attached. -EOPNOTSUPP for PASIDs of a device that has none. */
  detach(pasid: number | undefined): number;
  close(): void;
}

/** Address spaces in the IOMMU: the default PASID's, and those of vPASIDs. */
export class IsolatedBinding implements MdevBinding {
  readonly #slots = new Set<number>();

  private constructor(
    readonly iommufd: IommufdFile,
    readonly device: IommufdDevice,
    readonly mdev: MdevDevice,
  ) {}

  static bind(file: IommufdFile, mdev: MdevDevice): IsolatedBinding | number {
    const device = IommufdDevice.claimMediated(file, mdev, mdev.parent.iommu);
    return typeof device === 'number' ? device : new IsolatedBinding(file, device, mdev);
  }

  get id(): number {
    return this.device.id;
  }

  attach(ptId: number, pasid: number | undefined): number {
    if (pasid !== undefined && !this.mdev.type.pasids) return -errno.EOPNOTSUPP;
    const slot = pasid ?? IOMMU_NO_PASID;
    const result = this.device.attach(slot, ptId, this.#slots.has(slot));
    if (result >= 0) this.#slots.add(slot);
    return result;
  }

  detach(pasid: number | undefined): number {
    if (pasid !== undefined && !this.mdev.type.pasids) return -errno.EOPNOTSUPP;
    const slot = pasid ?? IOMMU_NO_PASID;
    if (this.#slots.delete(slot)) this.device.detach(slot);
    return 0;
  }

  close(): void {
    // PASIDs first, the device's own slot last.
    for (const slot of [...this.#slots].sort((a, b) => b - a)) this.detach(slot || undefined);
    this.device.unbind();
  }
}

/** vfio_iommufd_emulated_*: the driver reaches the IOAS itself. */
export class EmulatedBinding implements MdevBinding {
  /** Pins nothing, so that nothing has to be let go. */
  readonly access: Access;

  constructor(readonly iommufd: IommufdFile) {
    this.access = iommufd.objects.add(new Access(iommufd, true, () => {}));
  }

  get id(): number {
    return this.access.id;
  }

  attach(ptId: number, pasid: number | undefined): number {
    if (pasid !== undefined) return -errno.EOPNOTSUPP;
    const ioas = this.iommufd.objects.get(ptId, Ioas);
    if (!ioas) return -errno.ENOENT;
    return this.access.change(ioas) || ptId;
  }

  detach(pasid: number | undefined): number {
    if (pasid !== undefined) return -errno.EOPNOTSUPP;
    this.access.change(undefined);
    return 0;
  }

  close(): void {
    this.access.close();
  }
}
