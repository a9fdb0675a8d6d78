/**
 * /dev/vfio/devices/vfioN of a mediated device: a small PCI function that the driver emulates. BAR 0 has the registers of
 * a DMA engine; BAR 2, where the device has one, its portal.
 */
import { O_RDONLY, type DeviceMapping } from '../../../kernel';
import { errno } from '../../../uapi/errno';
import { VFIO_DEVICE_NO_SNOOP_HINT } from '../../../uapi/proposal/no-snoop';
import { PASID_CPU, PASID_CPU_VIRT } from '../../../uapi/proposal/pasid';
import * as vfio from '../../../uapi/vfio';
import { CHANNEL_ENGINE_VENDOR_ID } from '../../devices/channel-engine-registers';
import { ConfigSpace } from '../../devices/config-space';
import { DMA_ENGINE_DEVICE_ID } from '../../devices/dma-engine-registers';
import * as pci from '../../devices/pci-registers';
import { OpenFile } from '../file';
import type { SimulatedProcess } from '../process';
import { noSnoopHint } from '../proposal/no-snoop';
import type { System } from '../system';
import { answerBind, iommufdOf, readBind } from '../vfio/bind';
import { answerInfo } from '../vfio/device-info';
import { fillStruct, LAST_PASID, pasidOf } from '../vfio/structs';
import { offsetOf, REGION_STRIDE } from '../vfio/regions';
import { EmulatedBinding, IsolatedBinding, type MdevBinding } from './binding';
import type { MdevDevice, MdevUser } from './device';
import { ChannelRegisters, REGISTERS_SIZE, SoftwareRegisters, type Registers } from './mediation';
import type { DeviceVm } from '../vm-device';
import { Portal } from './portal';

const PORTAL_INDEX = vfio.VFIO_PCI_BAR2_REGION_INDEX;
const WIDTHS = [4, 2, 1] as const;

/** What there is of the device once it is bound. */
interface Bound {
  readonly binding: MdevBinding;
  readonly config: ConfigSpace;
  readonly registers: Registers;
}

export class MdevFile extends OpenFile implements MdevUser {
  vm: DeviceVm | undefined;
  #bound: Bound | undefined;

  constructor(
    readonly system: System,
    readonly mdev: MdevDevice,
  ) {
    super();
  }

  get binding(): MdevBinding | undefined {
    return this.#bound?.binding;
  }

  override ioctl(process: SimulatedProcess, request: number, argument: Uint8Array | number): number {
    if (request === vfio.VFIO_DEVICE_BIND_IOMMUFD.request) return this.#bind(process, argument);
    const bound = this.#bound;
    if (!bound) return -errno.EINVAL;
    if (request === vfio.VFIO_DEVICE_RESET.request) return this.#reset(bound);
    const user = process.userBytes(argument);
    switch (request) {
      case vfio.VFIO_DEVICE_ATTACH_IOMMUFD_PT.request:
        return user ? this.#attach(bound, user) : -errno.EFAULT;
      case vfio.VFIO_DEVICE_DETACH_IOMMUFD_PT.request:
        return user ? this.#detach(bound, user) : -errno.EFAULT;
      case VFIO_DEVICE_NO_SNOOP_HINT.request:
        return this.#noSnoopHint(bound, user);
      case vfio.VFIO_DEVICE_GET_INFO.request:
        return user ? this.#info(user) : -errno.EFAULT;
      case vfio.VFIO_DEVICE_GET_REGION_INFO.request:
        return user ? this.#regionInfo(user) : -errno.EFAULT;
      case vfio.VFIO_DEVICE_GET_IRQ_INFO.request:
        return user ? this.#irqInfo(user) : -errno.EFAULT;
      default:
        return -errno.ENOTTY;
    }
  }

  override pread(bytes: Uint8Array, offset: number): number {
    const bound = this.#bound;
    if (!bound) return -errno.EINVAL;
    this.system.onRegisterAccess();
    return this.#access(bound, bytes, offset, (source, at, width, view, index) => {
      const value = source.read(at, width);
      if (width === 4) view.setUint32(index, value, true);
      else if (width === 2) view.setUint16(index, value, true);
      else view.setUint8(index, value);
    });
  }

  override pwrite(bytes: Uint8Array, offset: number): number {
    const bound = this.#bound;
    if (!bound) return -errno.EINVAL;
    return this.#access(bound, bytes, offset, (target, at, width, view, index) => {
      const value =
        width === 4
          ? view.getUint32(index, true)
          : width === 2
            ? view.getUint16(index, true)
            : view.getUint8(index);
      target.write(at, width, value);
    });
  }

  override mmap(offset: number, length: number): DeviceMapping | number {
    if (!this.#bound || this.access === O_RDONLY || offset !== Number(offsetOf(PORTAL_INDEX)))
      return -errno.EINVAL;
    if (!this.mdev.type.enqcmd || length > REGISTERS_SIZE) return -errno.EINVAL;
    // Until the processor translates, whatever PASID a guest put into a command would reach the hardware.
    return this.#portalVm ? new Portal(this.mdev, () => this.#portalVm) : -errno.EACCES;
  }

  protected override release(): void {
    this.vm?.remove(this);
    const bound = this.#bound;
    if (!bound) return;
    this.#bound = undefined;
    bound.registers.reset();
    bound.binding.close();
    this.mdev.opened = undefined;
    const parent = this.mdev.parent.pci;
    if (parent.gone && !this.system.mdevs.inUse(parent)) this.system.releaseDevice(parent);
  }

  /** Whose guest may use the portal. */
  get #portalVm(): DeviceVm | undefined {
    return this.#bound && this.vm?.translatesPasids ? this.vm : undefined;
  }

  #bind(process: SimulatedProcess, argument: Uint8Array | number): number {
    const request = readBind(process, argument);
    if (typeof request === 'number') return request;
    const { mdev, system } = this;
    if (this.#bound) return -errno.EINVAL;
    const file = iommufdOf(process, request);
    if (typeof file === 'number') return file;
    if (mdev.opened) return -errno.EINVAL;
    if (system.mdevs.devices.get(mdev.uuid) !== mdev || mdev.parent.pci.gone) return -errno.ENODEV;
    const binding = mdev.type.isolated ? IsolatedBinding.bind(file, mdev) : new EmulatedBinding(file);
    if (typeof binding === 'number') return binding;
    const config = new ConfigSpace({
      vendorId: CHANNEL_ENGINE_VENDOR_ID,
      deviceId: DMA_ENGINE_DEVICE_ID,
      revisionId: 1,
      classCode: 0x088000,
      bars: [
        { bar: 0, size: REGISTERS_SIZE, width: 64, prefetchable: false },
        ...(mdev.type.enqcmd
          ? [{ bar: 2, size: REGISTERS_SIZE, width: 64 as const, prefetchable: false }]
          : []),
      ],
    });
    const mayStart = () => config.busMasterEnabled;
    const registers =
      binding instanceof EmulatedBinding
        ? new SoftwareRegisters(binding.access, mayStart)
        : new ChannelRegisters(mdev, mayStart);
    mdev.opened = this;
    this.#bound = { binding, config, registers };
    this.#reset(this.#bound);
    answerBind(request, binding.id);
    return 0;
  }

  #attach({ binding }: Bound, user: Uint8Array): number {
    const { struct, minimumSize } = vfio.VFIO_DEVICE_ATTACH_IOMMUFD_PT;
    const pasid = pasidOf(user, minimumSize, vfio.VFIO_DEVICE_ATTACH_PASID, struct.offsets.pasid);
    if (pasid !== undefined && pasid < 0) return pasid;
    if (pasid !== undefined && pasid > LAST_PASID) return -errno.ENOSPC;
    const view = new DataView(user.buffer, user.byteOffset);
    const result = binding.attach(view.getUint32(struct.offsets.pt_id, true), pasid);
    if (result < 0) return result;
    view.setUint32(struct.offsets.pt_id, result, true);
    return 0;
  }

  #detach({ binding }: Bound, user: Uint8Array): number {
    const { struct, minimumSize } = vfio.VFIO_DEVICE_DETACH_IOMMUFD_PT;
    const pasid = pasidOf(user, minimumSize, vfio.VFIO_DEVICE_DETACH_PASID, struct.offsets.pasid);
    return pasid !== undefined && pasid < 0 ? pasid : binding.detach(pasid);
  }

  /** Where the driver does the DMA, the processor's caches see all of it. */
  #noSnoopHint({ binding }: Bound, user: Uint8Array | undefined): number {
    if (!(binding instanceof IsolatedBinding)) return -errno.EOPNOTSUPP;
    return user ? noSnoopHint(binding.device, user) : -errno.EFAULT;
  }

  #info(user: Uint8Array): number {
    const { pasids, enqcmd } = this.mdev.type;
    return answerInfo(user, {
      flags: vfio.VFIO_DEVICE_FLAGS_PCI | vfio.VFIO_DEVICE_FLAGS_RESET,
      regions: vfio.VFIO_PCI_NUM_REGIONS,
      interrupts: vfio.VFIO_PCI_NUM_IRQS,
      pasid: pasids ? (enqcmd ? PASID_CPU | PASID_CPU_VIRT : 0) : undefined,
    });
  }

  #regionInfo(user: Uint8Array): number {
    const { struct, minimumSize } = vfio.VFIO_DEVICE_GET_REGION_INFO;
    return fillStruct(user, struct.size, minimumSize, (argsz) => {
      const { index } = struct.decode(user);
      if (index >= vfio.VFIO_PCI_NUM_REGIONS) return -errno.EINVAL;
      const flags = this.#regionFlags(index);
      return struct.encode({ argsz, flags, index, size: this.#regionSize(index), offset: offsetOf(index) });
    });
  }

  #irqInfo(user: Uint8Array): number {
    const { struct, minimumSize } = vfio.VFIO_DEVICE_GET_IRQ_INFO;
    return fillStruct(user, struct.size, minimumSize, (argsz) => {
      const { index } = struct.decode(user);
      // It sends none: software polls its status.
      return index < vfio.VFIO_PCI_NUM_IRQS ? struct.encode({ argsz, index }) : -errno.EINVAL;
    });
  }

  #regionSize(index: number): number {
    if (index === vfio.VFIO_PCI_CONFIG_REGION_INDEX) return this.#bound?.config.size ?? 0;
    return this.#bound?.config.bar(index)?.size ?? 0;
  }

  #regionFlags(index: number): number {
    if (this.#regionSize(index) === 0) return 0;
    if (index === PORTAL_INDEX)
      return this.#portalVm ? vfio.VFIO_REGION_INFO_FLAG_WRITE | vfio.VFIO_REGION_INFO_FLAG_MMAP : 0;
    return vfio.VFIO_REGION_INFO_FLAG_READ | vfio.VFIO_REGION_INFO_FLAG_WRITE;
  }

  #reset({ config, registers }: Bound): number {
    config.reset();
    config.set(pci.COMMAND, 2, pci.COMMAND_MEMORY_SPACE);
    registers.reset();
    return 0;
  }

  /** Cuts an access into aligned ones of 4 bytes at most: mediated ones are never wider. */
  #access(
    { config, registers }: Bound,
    bytes: Uint8Array,
    offset: number,
    visit: (
      target: Registers | ConfigSpace,
      at: number,
      width: number,
      view: DataView,
      index: number,
    ) => void,
  ): number {
    const index = Math.floor(offset / REGION_STRIDE);
    const start = offset % REGION_STRIDE;
    const isConfig = index === vfio.VFIO_PCI_CONFIG_REGION_INDEX;
    if (!isConfig && index !== vfio.VFIO_PCI_BAR0_REGION_INDEX) return -errno.EINVAL;
    const length = Math.min(bytes.length, this.#regionSize(index) - start);
    if (bytes.length > 0 && length <= 0) return -errno.EINVAL;
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    for (let done = 0; done < length;) {
      const at = start + done;
      const width = WIDTHS.find((each) => at % each === 0 && length - done >= each) ?? 1;
      visit(isConfig ? config : registers, at, width, view, done);
      done += width;
    }
    return length;
  }
}
