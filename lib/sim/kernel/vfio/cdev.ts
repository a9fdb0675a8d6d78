/**
 * /dev/vfio/devices/vfioN: a PCI device in the hands of user space. Nothing of the device can be reached before
 * BIND_IOMMUFD (drivers/vfio/device_cdev.c's and vfio_pci_core.c's role).
 */
import { O_RDONLY, type DeviceMapping } from '../../../kernel';
import { errno } from '../../../uapi/errno';
import { VFIO_DEVICE_BIND_IOMMUFD, VFIO_DEVICE_RESET } from '../../../uapi/vfio';
import { POWER_STATE_D0, POWER_STATE_D3HOT } from '../../devices/pci-registers';
import { OpenFile } from '../file';
import { IOMMU_NO_PASID } from '../iommu/core';
import { IommufdDevice } from '../iommufd/device';
import type { PciDevice } from '../pci';
import type { SimulatedProcess } from '../process';
import type { System } from '../system';
import { answerBind, iommufdOf, readBind } from './bind';
import { VirtualConfig } from './config';
import { DmaBufs } from './dma-buf';
import { DeviceFeatures } from './features';
import { VfioInterrupts } from './interrupts';
import type { DeviceVm, VmDeviceFile } from '../vm-device';
import { answers, type Bound } from './ioctls';
import { IoEventfds } from './ioeventfd';
import { LowPower } from './low-power';
import { isRegion, mapBar, mappableBars, readRegion, writeRegion } from './regions';

/** Bytes of `argsz`, with which every struct begins. */
const SIZE_FIELD = 4;

export class VfioFile extends OpenFile implements VmDeviceFile {
  vm: DeviceVm | undefined;
  #bound: Bound | undefined;
  /** Where read(2) and write(2) go on. */
  #position = 0;

  constructor(
    readonly system: System,
    readonly device: PciDevice,
  ) {
    super();
  }

  override ioctl(process: SimulatedProcess, request: number, argument: Uint8Array | number): number {
    if (request === VFIO_DEVICE_BIND_IOMMUFD.request) return this.#bind(process, argument);
    const bound = this.#bound;
    if (!bound) return -errno.EINVAL;
    bound.power.wake();
    const result = this.#call(bound, process, request, argument);
    bound.power.rest();
    return result;
  }

  override read(_process: SimulatedProcess, bytes: Uint8Array): number {
    const done = this.pread(bytes, this.#position);
    this.#position += Math.max(done, 0);
    return done;
  }

  override write(_process: SimulatedProcess, bytes: Uint8Array): number {
    const done = this.pwrite(bytes, this.#position);
    this.#position += Math.max(done, 0);
    return done;
  }

  override pread(bytes: Uint8Array, offset: number): number {
    const bound = this.#bound;
    if (!bound) return -errno.EINVAL;
    this.system.onRegisterAccess();
    return this.#access(bound, bytes, offset, readRegion);
  }

  override pwrite(bytes: Uint8Array, offset: number): number {
    const bound = this.#bound;
    return bound ? this.#access(bound, bytes, offset, writeRegion) : -errno.EINVAL;
  }

  override mmap(offset: number, length: number): DeviceMapping | number {
    // A descriptor that is only for reading has no shared mappings, and device memory has no others.
    if (!this.#bound || this.access === O_RDONLY) return -errno.EINVAL;
    return mapBar(this.system, this.device.pci, this.#bound.mappable, offset, length);
  }

  get iommufdDevice(): IommufdDevice | undefined {
    return this.#bound?.device;
  }

  /** Asks the user to let go, as Linux does before it removes a device. */
  deviceGone(): void {
    this.#bound?.interrupts.requestDevice();
  }

  get power(): LowPower | undefined {
    return this.#bound?.power;
  }

  prepareReset(): void {
    this.#bound?.dmaBufs.revoke();
  }

  finishReset(): void {
    this.#bound?.interrupts.restore();
    this.#bound?.dmaBufs.restore();
  }

  protected override release(): void {
    this.vm?.remove(this);
    const bound = this.#bound;
    if (!bound) return;
    this.#bound = undefined;
    this.device.opened = undefined;
    bound.dmaBufs.close();
    bound.power.close();
    bound.interrupts.close();
    bound.ioeventfds.close();
    this.device.disable();
    this.device.bus.resetIfIdle();
    for (const pasid of [...bound.pasids].sort((a, b) => a - b)) bound.device.detach(pasid);
    if (bound.attached) bound.device.detach(IOMMU_NO_PASID);
    bound.device.unbind();
    if (this.device.gone) this.system.releaseDevice(this.device);
  }

  #access({ power, config }: Bound, bytes: Uint8Array, offset: number, access: typeof readRegion): number {
    if (bytes.length === 0) return 0;
    if (!isRegion(offset)) return -errno.EINVAL;
    power.wake();
    const result = access(this.device, config, bytes, offset);
    power.rest();
    return result;
  }

  #call(bound: Bound, process: SimulatedProcess, request: number, argument: Uint8Array | number): number {
    if (request === VFIO_DEVICE_RESET.request) return this.device.resetWorks ? this.#reset() : -errno.EINVAL;
    const answer = answers.get(request);
    if (!answer) return -errno.ENOTTY;
    const user = process.userBytes(argument);
    return user && user.length >= SIZE_FIELD ? answer(bound, user, process) : -errno.EFAULT;
  }

  #bind(process: SimulatedProcess, argument: Uint8Array | number): number {
    const request = readBind(process, argument);
    if (typeof request === 'number') return request;
    if (this.system.groupFiles.has(this.device.group)) return -errno.EBUSY;
    if (this.#bound) return -errno.EINVAL;
    const file = iommufdOf(process, request);
    if (typeof file === 'number') return file;
    if (this.device.opened) return -errno.EINVAL;
    if (this.device.gone) return -errno.ENODEV;
    const device = IommufdDevice.claim(file, this.device);
    if (typeof device === 'number') return device;
    this.device.opened = this;
    this.device.enable();
    this.#bound = this.#open(device);
    answerBind(request, device.id);
    return 0;
  }

  #open(device: IommufdDevice): Bound {
    const { device: pci, system } = this;
    const interrupts = new VfioInterrupts(pci.pci, system.messagesOf(pci));
    const dmaBufs = new DmaBufs(pci);
    const power = new LowPower(pci, interrupts, dmaBufs, system.powerManagement);
    const config = new VirtualConfig(pci.pci, {
      reset: () => this.#reset(),
      setPowerState: (state) => {
        if (state >= POWER_STATE_D3HOT) dmaBufs.revoke();
        pci.setPowerState(state);
        interrupts.restore();
        dmaBufs.restore();
      },
      memorySpace: (enabled) => {
        if (!enabled) dmaBufs.revoke();
        dmaBufs.restore();
      },
      disableIntx: (disabled) => interrupts.disableIntx(disabled),
      get msi() {
        return interrupts.msi;
      },
    });
    return {
      ...{ pci, device, config, interrupts, dmaBufs, power, attached: false },
      mappable: mappableBars(system, pci),
      ioeventfds: new IoEventfds(pci),
      features: new DeviceFeatures(power, dmaBufs),
      pasids: new Set(),
    };
  }

  /** Function reset. */
  #reset(): number {
    this.prepareReset();
    this.device.setPowerState(POWER_STATE_D0);
    const done = this.device.reset();
    this.finishReset();
    return done ? 0 : -errno.ENOTTY;
  }
}
