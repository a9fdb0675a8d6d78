/**
 * /dev/vfio/N: a group as a whole, for programs that put it into a container; noiommu-N where no IOMMU is in front of its
 * device (drivers/vfio/group.c's role). An iommufd is the container here.
 */
import { errno } from '../../../uapi/errno';
import {
  VFIO_GROUP_FLAGS_CONTAINER_SET,
  VFIO_GROUP_FLAGS_VIABLE,
  VFIO_GROUP_GET_STATUS,
  VFIO_GROUP_SET_CONTAINER,
  VFIO_GROUP_UNSET_CONTAINER,
} from '../../../uapi/vfio-type1';
import { isCapable, type Credentials } from '../credentials';
import { OpenFile } from '../file';
import type { IommuGroup, KernelPciDevice } from '../iommu/core';
import { IommufdFile } from '../iommufd/file';
import { createCompatIoas, setNoIommuMode } from '../iommufd/vfio-compat';
import type { PciDevice } from '../pci';
import type { SimulatedProcess } from '../process';
import type { System } from '../system';

/** VFIO's devices of a group. */
export function vfioDevices(system: System, group: IommuGroup<KernelPciDevice>): PciDevice[] {
  return [...system.devices.values()].filter((device) => device.group === group && device.vfioIndex >= 0);
}

/** The name of its file in /dev/vfio. */
export function vfioGroupName(system: System, group: IommuGroup<KernelPciDevice>): string {
  return `${system.iommu ? '' : 'noiommu-'}${group.id}`;
}

export class VfioGroupFile extends OpenFile {
  #container: IommufdFile | undefined;

  private constructor(
    readonly system: System,
    readonly group: IommuGroup<KernelPciDevice>,
  ) {
    super();
    system.groupFiles.set(group, this);
  }

  /** open(2): a group has one file at a time, and none while a device of it is bound through its own file. */
  static open(
    system: System,
    group: IommuGroup<KernelPciDevice>,
    credentials: Credentials,
  ): VfioGroupFile | number {
    if (!system.iommu && !isCapable(credentials, 'CAP_SYS_RAWIO')) return -errno.EPERM;
    const bound = vfioDevices(system, group).some(({ opened }) => opened);
    return bound || system.groupFiles.has(group) ? -errno.EBUSY : new VfioGroupFile(system, group);
  }

  override ioctl(process: SimulatedProcess, request: number, argument: Uint8Array | number): number {
    switch (request) {
      case VFIO_GROUP_GET_STATUS.request:
        return this.#status(process.userBytes(argument));
      case VFIO_GROUP_SET_CONTAINER.request:
        return this.#setContainer(process, process.userBytes(argument));
      case VFIO_GROUP_UNSET_CONTAINER.request:
        return this.#container ? this.#leave() : -errno.EINVAL;
      default:
        return -errno.ENOTTY;
    }
  }

  protected override release(): void {
    if (this.#container) this.#leave();
    this.system.groupFiles.delete(this.group);
  }

  /** VFIO has no device of it any more. */
  get #gone(): boolean {
    return vfioDevices(this.system, this.group).length === 0;
  }

  #status(user: Uint8Array | undefined): number {
    const { struct, minimumSize } = VFIO_GROUP_GET_STATUS;
    if (!user || user.length < minimumSize) return -errno.EFAULT;
    const { argsz } = struct.decode(user);
    if (argsz < minimumSize) return -errno.EINVAL;
    if (this.#gone) return -errno.ENODEV;
    // Drivers of the kernel's own do DMA through the others.
    const viable = this.#container || this.group.ownerCount === 0 ? VFIO_GROUP_FLAGS_VIABLE : 0;
    user.set(
      struct.encode({ argsz, flags: viable | (this.#container ? VFIO_GROUP_FLAGS_CONTAINER_SET : 0) }),
    );
    return 0;
  }

  #setContainer(process: SimulatedProcess, user: Uint8Array | undefined): number {
    const { struct } = VFIO_GROUP_SET_CONTAINER;
    if (!user || user.length < struct.size) return -errno.EFAULT;
    const file = process.file(struct.decode(user).fd);
    if (!file) return -errno.EBADF;
    if (this.#container) return -errno.EINVAL;
    if (this.#gone) return -errno.ENODEV;
    if (!(file instanceof IommufdFile)) return -errno.EBADFD;
    const result = this.system.iommu ? createCompatIoas(file) : setNoIommuMode(file);
    if (!result) this.#container = file.get();
    return result;
  }

  #leave(): number {
    this.#container?.put();
    this.#container = undefined;
    return 0;
  }
}
