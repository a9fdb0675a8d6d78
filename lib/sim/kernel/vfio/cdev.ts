/**
 * /dev/vfio/devices/vfioN: a PCI device in the hands of user space. Nothing of the device can be reached before
 * BIND_IOMMUFD (drivers/vfio/device_cdev.c's and vfio_pci_core.c's role).
 */
import { O_RDONLY, type DeviceMapping } from '../../../kernel';
import { errno } from '../../../uapi/errno';
import * as vfio from '../../../uapi/vfio';
import { POWER_STATE_D0 } from '../../devices/pci-registers';
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
import {
  mapBar,
  offsetOf,
  readRegion,
  regionCapabilities,
  regionFlags,
  regionSize,
  writeRegion,
} from './regions';

/** PASIDs above are refused before anything else is looked at: Linux keeps them in an ida. */
const LAST_PASID = 2 ** 31 - 1;

/** A token is a UUID. */
const TOKEN_BYTES = 16;

/** What there is of an opened device once it is bound. */
interface Bound {
  readonly device: IommufdDevice;
  readonly config: VirtualConfig;
  readonly interrupts: VfioInterrupts;
  /** The RID has a page table. */
  attached: boolean;
  /** PASIDs that have one. */
  readonly pasids: Set<number>;
}

export class VfioFile extends OpenFile {
  #bound: Bound | undefined;

  constructor(
    readonly system: System,
    readonly device: PciDevice,
  ) {
    super();
  }

  override ioctl(process: SimulatedProcess, request: number, argument: Uint8Array | number): number {
    const bound = this.#bound;
    if (request !== vfio.VFIO_DEVICE_BIND_IOMMUFD.request && !bound) return -errno.EINVAL;
    if (request === vfio.VFIO_DEVICE_RESET.request) return this.#reset();
    const row = vfio.vfioIoctls.find((candidate) => candidate.request === request);
    if (!row) return -errno.ENOTTY;
    const user = process.userBytes(argument);
    if (!user || user.length < 4) return -errno.EFAULT;
    switch (request) {
      case vfio.VFIO_DEVICE_BIND_IOMMUFD.request:
        return this.#bind(process, user);
      case vfio.VFIO_DEVICE_ATTACH_IOMMUFD_PT.request:
        return this.#attach(bound as Bound, user);
      case vfio.VFIO_DEVICE_DETACH_IOMMUFD_PT.request:
        return this.#detach(bound as Bound, user);
      case vfio.VFIO_DEVICE_GET_INFO.request:
        return this.#info(user);
      case vfio.VFIO_DEVICE_GET_REGION_INFO.request:
        return this.#regionInfo(user);
      case vfio.VFIO_DEVICE_GET_IRQ_INFO.request:
        return this.#irqInfo(bound as Bound, user);
      default:
        return (bound as Bound).interrupts.set(process, user);
    }
  }

  override pread(bytes: Uint8Array, offset: number): number {
    if (!this.#bound) return -errno.EINVAL;
    this.system.onRegisterAccess();
    return readRegion(this.device, this.#bound.config, bytes, offset);
  }

  override pwrite(bytes: Uint8Array, offset: number): number {
    if (!this.#bound) return -errno.EINVAL;
    return writeRegion(this.device, this.#bound.config, bytes, offset);
  }

  override mmap(offset: number, length: number): DeviceMapping | number {
    // A descriptor that is only for reading has no shared mappings, and device memory has no others.
    if (!this.#bound || this.access === O_RDONLY) return -errno.EINVAL;
    return mapBar(this.system, this.device.pci, offset, length);
  }

  /** Asks the user to let go, as Linux does before it removes a device. */
  deviceGone(): void {
    this.#bound?.interrupts.requestDevice();
  }

  protected override release(): void {
    const bound = this.#bound;
    if (!bound) return;
    this.#bound = undefined;
    this.device.opened = undefined;
    bound.interrupts.close();
    this.device.disable();
    for (const pasid of [...bound.pasids].sort((a, b) => a - b)) bound.device.detach(pasid);
    if (bound.attached) bound.device.detach(IOMMU_NO_PASID);
    bound.device.unbind();
    if (this.device.gone) this.system.releaseDevice(this.device);
  }

  #bind(process: SimulatedProcess, user: Uint8Array): number {
    const { struct, minimumSize } = vfio.VFIO_DEVICE_BIND_IOMMUFD;
    const argsz = new DataView(user.buffer, user.byteOffset).getUint32(0, true);
    if (argsz < minimumSize) return -errno.EINVAL;
    const bytes = copyStruct(user, argsz, struct.size);
    if (typeof bytes === 'number') return bytes;
    const { iommufd, flags, token_uuid_ptr: token } = struct.decode(bytes);
    if (iommufd < 0 || flags & ~vfio.VFIO_DEVICE_BIND_FLAG_TOKEN) return -errno.EINVAL;
    if (this.#bound) return -errno.EINVAL;
    // No simulated device is a virtual function: a token has nothing to match.
    if (flags & vfio.VFIO_DEVICE_BIND_FLAG_TOKEN)
      return process.memory.read(token, TOKEN_BYTES) ? -errno.EINVAL : -errno.EFAULT;
    const file = process.file(iommufd);
    if (!file) return -errno.EBADF;
    if (!(file instanceof IommufdFile)) return -errno.EBADFD;
    if (this.device.opened) return -errno.EINVAL;
    if (this.device.gone) return -errno.ENODEV;
    const device = IommufdDevice.claim(file, this.device);
    if (typeof device === 'number') return device;
    this.device.opened = this;
    this.device.enable();
    this.#bound = this.#open(device);
    struct.write(new DataView(user.buffer, user.byteOffset), 0, { out_devid: device.id });
    return 0;
  }

  #open(device: IommufdDevice): Bound {
    const interrupts = new VfioInterrupts(this.device.pci, this.system.messagesOf(this.device));
    const config = new VirtualConfig(this.device.pci, {
      reset: () => this.#reset(),
      setPowerState: (state) => {
        this.device.setPowerState(state);
        interrupts.restore();
      },
      disableIntx: (disabled) => interrupts.disableIntx(disabled),
      get msi() {
        return interrupts.msi;
      },
    });
    return { device, config, interrupts, attached: false, pasids: new Set() };
  }

  #attach(bound: Bound, user: Uint8Array): number {
    const { struct, minimumSize } = vfio.VFIO_DEVICE_ATTACH_IOMMUFD_PT;
    const pasid = pasidOf(user, minimumSize, vfio.VFIO_DEVICE_ATTACH_PASID, struct.offsets.pasid);
    if (pasid !== undefined && pasid < 0) return pasid;
    const view = new DataView(user.buffer, user.byteOffset);
    const ptId = view.getUint32(struct.offsets.pt_id, true);
    const replacing = pasid === undefined ? bound.attached : bound.pasids.has(pasid);
    if (pasid !== undefined && pasid > LAST_PASID) return -errno.ENOSPC;
    const result = bound.device.attach(pasid ?? IOMMU_NO_PASID, ptId, replacing);
    if (result < 0) return result;
    if (pasid === undefined) bound.attached = true;
    else bound.pasids.add(pasid);
    // An IOAS gives back the HWPT that was chosen or made.
    view.setUint32(struct.offsets.pt_id, result, true);
    return 0;
  }

  #detach(bound: Bound, user: Uint8Array): number {
    const { struct, minimumSize } = vfio.VFIO_DEVICE_DETACH_IOMMUFD_PT;
    const pasid = pasidOf(user, minimumSize, vfio.VFIO_DEVICE_DETACH_PASID, struct.offsets.pasid);
    if (pasid !== undefined && pasid < 0) return pasid;
    if (pasid === undefined ? bound.attached : bound.pasids.delete(pasid))
      bound.device.detach(pasid ?? IOMMU_NO_PASID);
    if (pasid === undefined) bound.attached = false;
    return 0;
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
      const known = { index, size, offset: offsetOf(index) };
      const capabilities = regionCapabilities(this.device.pci, index);
      if (capabilities.length === 0) return struct.encode({ ...known, argsz, flags, cap_offset });
      const all = { ...known, flags: flags | vfio.VFIO_REGION_INFO_FLAG_CAPS };
      const needed = struct.size + capabilities.length;
      // Too short for the capabilities: the caller learns how much they need.
      if (argsz < needed) return struct.encode({ ...all, argsz: needed, cap_offset: 0 });
      if (user.length < needed) return -errno.EFAULT;
      user.set(capabilities, struct.size);
      return struct.encode({ ...all, argsz, cap_offset: struct.size });
    });
  }

  #irqInfo({ interrupts }: Bound, user: Uint8Array): number {
    const { struct, minimumSize } = vfio.VFIO_DEVICE_GET_IRQ_INFO;
    return fillStruct(user, struct.size, minimumSize, (argsz) => {
      const { index } = struct.decode(user);
      if (index >= vfio.VFIO_PCI_NUM_IRQS) return -errno.EINVAL;
      return struct.encode({ argsz, flags: interrupts.flags(index), index, count: interrupts.count(index) });
    });
  }

  #reset(): number {
    if (!this.device.pci.resettable) return -errno.EINVAL;
    this.device.setPowerState(POWER_STATE_D0);
    this.device.reset();
    this.#bound?.interrupts.restore();
    return 0;
  }
}

/** The PASID that ATTACH or DETACH names, undefined where its flag is not set: the RID; or -errno. */
function pasidOf(user: Uint8Array, minimum: number, flag: number, offset: number): number | undefined {
  if (user.length < minimum) return -errno.EFAULT;
  const view = new DataView(user.buffer, user.byteOffset, user.byteLength);
  const argsz = view.getUint32(0, true);
  const flags = view.getUint32(4, true);
  if (argsz < minimum || flags & ~flag) return -errno.EINVAL;
  if (!(flags & flag)) return undefined;
  if (argsz < offset + 4) return -errno.EINVAL;
  return user.length < offset + 4 ? -errno.EFAULT : view.getUint32(offset, true);
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
