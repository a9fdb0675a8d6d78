/**
 * What iommufd sees as the IOMMU of mediated devices. Their address spaces are in their parent's PASID table: without a
 * PASID, under the default PASID; with a vPASID, under the pPASID that stands for it. User space learns neither.
 */
import { errno } from '../../../uapi/errno';
import { IOMMU_PGFAULT_FLAGS_PASID_VALID } from '../../../uapi/iommufd';
import type {
  AttachHandle,
  Domain,
  HardwareInfo,
  IommuDriver,
  IommuGroup,
  KernelDevice,
  PagingDomain,
  UserData,
} from '../iommu/core';
import { FaultGroup, type PageFault } from '../iommu/page-fault';
import type { PciDevice } from '../pci';
import type { MdevDevice } from './device';

/** What an attach leaves at the parent's slot [RID, PASID]. */
export class MdevHandle implements AttachHandle {
  readonly domain: Domain;
  readonly deliver: ((group: FaultGroup) => void) | undefined;

  constructor(
    readonly mdev: MdevDevice,
    pasid: number,
    /** Undefined: the default PASID's slot. */
    vpasid: number | undefined,
    handle: AttachHandle,
  ) {
    this.domain = handle.domain;
    const { deliver } = handle;
    this.deliver = deliver && ((raw) => deliver(new MdevFaultGroup(raw, handle, pasid, vpasid)));
  }
}

/** A group of faults as the user of a mediated device sees it. The raw one is kept for the answer. */
class MdevFaultGroup extends FaultGroup {
  constructor(
    readonly raw: FaultGroup,
    handle: AttachHandle,
    pasid: number,
    vpasid: number | undefined,
  ) {
    // Others of the parent's devices may have left requests under this group index: they are not for this user.
    const own = raw.faults.filter((fault) => fault.pasid === pasid);
    super(
      raw.device,
      own.map((fault) => virtualFault(fault, vpasid)),
      handle,
      raw.driver,
    );
  }

  override respond(code: number): void {
    this.raw.respond(code);
  }
}

function virtualFault(fault: PageFault, vpasid: number | undefined): PageFault {
  return vpasid === undefined
    ? { ...fault, pasid: 0, flags: fault.flags & ~IOMMU_PGFAULT_FLAGS_PASID_VALID }
    : { ...fault, pasid: vpasid };
}

/** Each mediated device is in a group of its own. */
function mdevOf({ devices: [device] }: IommuGroup): MdevDevice {
  return device as MdevDevice;
}

export class MdevIommu implements IommuDriver {
  readonly behind: IommuDriver;

  /** `hardware`: the driver of the IOMMU in front of the parent. */
  constructor(
    readonly parent: PciDevice,
    readonly hardware: IommuDriver,
  ) {
    this.behind = hardware;
  }

  hardwareInfo(device: KernelDevice): HardwareInfo | undefined {
    const info = this.hardware.hardwareInfo(this.parent);
    return info && { ...info, maxPasidLog2: (device as MdevDevice).type.pasids ? info.maxPasidLog2 : 0 };
  }

  enforcesCoherency(): boolean {
    return this.hardware.enforcesCoherency?.(this.parent) ?? false;
  }

  reservedRegions(): readonly { start: bigint; last: bigint }[] {
    return this.hardware.reservedRegions(this.parent);
  }

  allocatePaging(_device: KernelDevice, flags: number, data?: UserData): PagingDomain | number {
    return this.hardware.allocatePaging(this.parent, flags, data);
  }

  allocateNested(_device: KernelDevice, parent: PagingDomain, flags: number, data: UserData) {
    return this.hardware.allocateNested?.(this.parent, parent, flags, data) ?? -errno.EOPNOTSUPP;
  }

  attachGroup(group: IommuGroup, handle: AttachHandle | undefined): number {
    const mdev = mdevOf(group);
    return handle ? this.#fill(mdev, mdev.defaultPasid, undefined, handle) : this.#block(mdev.defaultPasid);
  }

  attachGroupPasid(group: IommuGroup, vpasid: number, handle: AttachHandle | undefined): number {
    const mdev = mdevOf(group);
    const known = mdev.pasidOf(vpasid);
    if (!handle) {
      if (known === undefined) return 0;
      const result = this.#block(known);
      mdev.release(vpasid);
      return result;
    }
    const bits = this.hardwareInfo(mdev)?.maxPasidLog2 ?? 0;
    if (vpasid >= 2 ** bits) return -errno.EINVAL;
    const pasid = known ?? mdev.acquire(vpasid);
    if (pasid < 0) return pasid;
    const result = this.#fill(mdev, pasid, vpasid, handle);
    if (result && known === undefined) mdev.release(vpasid);
    return result;
  }

  /** The device in whose name a slot of the parent's is filled. */
  ownerOf(pasid: number): MdevDevice | undefined {
    const handle = this.parent.group.handles.get(pasid);
    return handle instanceof MdevHandle ? handle.mdev : undefined;
  }

  releaseGroup(group: IommuGroup): void {
    this.attachGroup(group, undefined);
  }

  remove(): void {
    throw new Error('a mediated device has no tables of its own');
  }

  pageResponse(): void {
    throw new Error('faults of a mediated device are answered as its parent’s');
  }

  /** Puts a domain into the parent's slot [RID, pasid]. Two devices in one slot could not be told apart. */
  #fill(mdev: MdevDevice, pasid: number, vpasid: number | undefined, handle: AttachHandle): number {
    const { group } = this.parent;
    const owner = this.ownerOf(pasid);
    if (owner && owner !== mdev) return -errno.EEXIST;
    const raw = new MdevHandle(mdev, pasid, vpasid, handle);
    const result = this.hardware.attachGroupPasid(group, pasid, raw);
    if (!result) group.handles.set(pasid, raw);
    return result;
  }

  #block(pasid: number): number {
    const { group } = this.parent;
    const result = this.hardware.attachGroupPasid(group, pasid, undefined);
    group.handles.delete(pasid);
    return result;
  }
}
