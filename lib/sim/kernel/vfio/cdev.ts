/**
 * /dev/vfio/devices/vfioN: a PCI device in the hands of user space. Nothing of the device can be reached before
 * BIND_IOMMUFD (drivers/vfio/device_cdev.c's and vfio_pci_core.c's role).
 */
import type { DeviceMapping } from '../../../kernel';
import { errno } from '../../../uapi/errno';
import * as vfio from '../../../uapi/vfio';
import { OpenFile } from '../file';
import { IOMMU_NO_PASID } from '../iommu/core';
import { copyStruct } from '../iommufd/command';
import { IommufdDevice } from '../iommufd/device';
import { IommufdFile } from '../iommufd/file';
import type { PciDevice } from '../pci';
import type { SimulatedProcess } from '../process';
import type { System } from '../system';
import { VirtualConfig } from './config';
import { VfioInterrupts } from './interrupts';
import { mapBar, offsetOf, readRegion, regionFlags, regionSize, writeRegion } from './regions';

export class VfioFile extends OpenFile {
  #bound: IommufdDevice | undefined;
  /** PASIDs that are attached; the RID under IOMMU_NO_PASID. */
  readonly #attached = new Set<number>();
  readonly #config: VirtualConfig;
  readonly #interrupts: VfioInterrupts;

  constructor(
    readonly system: System,
    readonly device: PciDevice,
  ) {
    super();
    this.#config = new VirtualConfig(device.pci, () => device.reset());
    this.#interrupts = new VfioInterrupts(device.pci, system.interrupts);
  }

  override ioctl(process: SimulatedProcess, request: number, argument: Uint8Array | number): number {
    if (request !== vfio.VFIO_DEVICE_BIND_IOMMUFD.request && !this.#bound) return -errno.EINVAL;
    if (request === vfio.VFIO_DEVICE_RESET.request) return this.#reset();
    const row = vfio.vfioIoctls.find((candidate) => candidate.request === request);
    if (!row) return -errno.ENOTTY;
    const user = process.userBytes(argument);
    if (!user || user.length < 4) return -errno.EFAULT;
    switch (request) {
      case vfio.VFIO_DEVICE_BIND_IOMMUFD.request:
        return this.#bind(process, user);
      case vfio.VFIO_DEVICE_ATTACH_IOMMUFD_PT.request:
        return this.#attach(user);
      case vfio.VFIO_DEVICE_DETACH_IOMMUFD_PT.request:
        return this.#detach(user);
      case vfio.VFIO_DEVICE_GET_INFO.request:
        return this.#info(user);
      case vfio.VFIO_DEVICE_GET_REGION_INFO.request:
        return this.#regionInfo(user);
      case vfio.VFIO_DEVICE_GET_IRQ_INFO.request:
        return this.#irqInfo(user);
      default:
        return this.#interrupts.set(process, user);
    }
  }

  override pread(bytes: Uint8Array, offset: number): number {
    if (!this.#bound) return -errno.EINVAL;
    this.system.onRegisterAccess();
    return readRegion(this.device.pci, this.#config, bytes, offset);
  }

  override pwrite(bytes: Uint8Array, offset: number): number {
    if (!this.#bound) return -errno.EINVAL;
    return writeRegion(this.device.pci, this.#config, bytes, offset);
  }

  override mmap(offset: number, length: number): DeviceMapping | number {
    if (!this.#bound) return -errno.EINVAL;
    return mapBar(this.system, this.device.pci, offset, length);
  }

  /** Asks the user to let go, as Linux does before it removes a device. */
  deviceGone(): void {
    this.#interrupts.requestDevice();
  }

  protected override release(): void {
    const bound = this.#bound;
    if (!bound) return;
    this.device.opened = undefined;
    this.#interrupts.close();
    for (const pasid of [...this.#attached].sort((a, b) => b - a)) bound.detach(pasid);
    this.device.disable();
    this.#bound = undefined;
    bound.unbind();
  }

  #bind(process: SimulatedProcess, user: Uint8Array): number {
    const { struct, minimumSize } = vfio.VFIO_DEVICE_BIND_IOMMUFD;
    const argsz = new DataView(user.buffer, user.byteOffset).getUint32(0, true);
    if (argsz < minimumSize) return -errno.EINVAL;
    const bytes = copyStruct(user, argsz, struct.size);
    if (typeof bytes === 'number') return bytes;
    const { iommufd, flags } = struct.decode(bytes);
    if (iommufd < 0 || flags & ~vfio.VFIO_DEVICE_BIND_FLAG_TOKEN) return -errno.EINVAL;
    if (this.#bound) return -errno.EINVAL;
    // No simulated device is a virtual function: a token has nothing to match.
    if (flags & vfio.VFIO_DEVICE_BIND_FLAG_TOKEN) return -errno.EINVAL;
    const file = process.file(iommufd);
    if (!file) return -errno.EBADF;
    if (!(file instanceof IommufdFile)) return -errno.EBADFD;
    if (this.device.opened) return -errno.EINVAL;
    const bound = IommufdDevice.claim(file, this.device);
    if (typeof bound === 'number') return bound;
    this.#bound = bound;
    this.device.opened = this;
    this.device.enable();
    this.#config.load();
    struct.write(new DataView(user.buffer, user.byteOffset), 0, { out_devid: bound.id });
    return 0;
  }

  #attach(user: Uint8Array): number {
    const { struct, minimumSize } = vfio.VFIO_DEVICE_ATTACH_IOMMUFD_PT;
    const pasid = this.#pasid(user, minimumSize, vfio.VFIO_DEVICE_ATTACH_PASID, struct.offsets.pasid);
    if (pasid < 0) return pasid;
    const view = new DataView(user.buffer, user.byteOffset);
    const ptId = view.getUint32(struct.offsets.pt_id, true);
    const result = (this.#bound as IommufdDevice).attach(pasid, ptId, this.#attached.has(pasid));
    if (result < 0) return result;
    this.#attached.add(pasid);
    // An IOAS gives back the HWPT that was chosen or made.
    view.setUint32(struct.offsets.pt_id, result, true);
    return 0;
  }

  #detach(user: Uint8Array): number {
    const { struct, minimumSize } = vfio.VFIO_DEVICE_DETACH_IOMMUFD_PT;
    const pasid = this.#pasid(user, minimumSize, vfio.VFIO_DEVICE_DETACH_PASID, struct.offsets.pasid);
    if (pasid < 0) return pasid;
    if (this.#attached.delete(pasid)) (this.#bound as IommufdDevice).detach(pasid);
    return 0;
  }

  /** The slot that ATTACH and DETACH name: IOMMU_NO_PASID, or the struct's PASID where its flag is set. */
  #pasid(user: Uint8Array, minimum: number, flag: number, offset: number): number {
    if (user.length < minimum) return -errno.EFAULT;
    const view = new DataView(user.buffer, user.byteOffset, user.byteLength);
    const argsz = view.getUint32(0, true);
    const flags = view.getUint32(4, true);
    if (argsz < minimum || flags & ~flag) return -errno.EINVAL;
    if (!(flags & flag)) return IOMMU_NO_PASID;
    if (argsz < offset + 4) return -errno.EINVAL;
    if (user.length < offset + 4) return -errno.EFAULT;
    const pasid = view.getUint32(offset, true);
    // PASID 0 is the RID's own slot, and PASIDs have 20 bits at most (PCIe, PASID TLP prefix).
    return pasid === IOMMU_NO_PASID || pasid >= 1 << 20 ? -errno.EINVAL : pasid;
  }

  #info(user: Uint8Array): number {
    const { struct, minimumSize } = vfio.VFIO_DEVICE_GET_INFO;
    return fillStruct(user, struct.size, minimumSize, (argsz) =>
      struct.encode({
        argsz,
        flags: vfio.VFIO_DEVICE_FLAGS_PCI | (this.device.pci.resettable ? vfio.VFIO_DEVICE_FLAGS_RESET : 0),
        num_regions: vfio.VFIO_PCI_NUM_REGIONS,
        num_irqs: vfio.VFIO_PCI_NUM_IRQS,
      }),
    );
  }

  #regionInfo(user: Uint8Array): number {
    const { struct, minimumSize } = vfio.VFIO_DEVICE_GET_REGION_INFO;
    return fillStruct(user, struct.size, minimumSize, (argsz) => {
      const { index, cap_offset } = struct.decode(user);
      const size = regionSize(this.device.pci, index);
      if (size < 0) return -errno.EINVAL;
      const flags = regionFlags(this.device.pci, index);
      return struct.encode({ argsz, flags, index, cap_offset, size, offset: offsetOf(index) });
    });
  }

  #irqInfo(user: Uint8Array): number {
    const { struct, minimumSize } = vfio.VFIO_DEVICE_GET_IRQ_INFO;
    return fillStruct(user, struct.size, minimumSize, (argsz) => {
      const { index } = struct.decode(user);
      if (index >= vfio.VFIO_PCI_NUM_IRQS) return -errno.EINVAL;
      const intx = vfio.VFIO_IRQ_INFO_MASKABLE | vfio.VFIO_IRQ_INFO_AUTOMASKED;
      const resizable = index === vfio.VFIO_PCI_MSIX_IRQ_INDEX;
      const more =
        index === vfio.VFIO_PCI_INTX_IRQ_INDEX ? intx : resizable ? 0 : vfio.VFIO_IRQ_INFO_NORESIZE;
      const count = this.#interrupts.count(index);
      return struct.encode({ argsz, flags: vfio.VFIO_IRQ_INFO_EVENTFD | more, index, count });
    });
  }

  #reset(): number {
    if (!this.device.pci.resettable) return -errno.EINVAL;
    this.device.reset();
    return 0;
  }
}

/**
 * The way of VFIO's GET_*_INFO: `argsz` must cover what the first kernel knew, and as much is written back as
 * both sides know.
 */
function fillStruct(
  user: Uint8Array,
  size: number,
  minimum: number,
  fill: (argsz: number) => Uint8Array | number,
): number {
  if (user.length < minimum) return -errno.EFAULT;
  const argsz = new DataView(user.buffer, user.byteOffset, user.byteLength).getUint32(0, true);
  if (argsz < minimum) return -errno.EINVAL;
  const bytes = fill(argsz);
  if (typeof bytes === 'number') return bytes;
  const length = Math.min(argsz, size);
  if (user.length < length) return -errno.EFAULT;
  user.set(bytes.subarray(0, length));
  return 0;
}
