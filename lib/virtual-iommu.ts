import type { BoundDevice } from './bound-device';
import { destroy, type Context } from './context';
import { EventQueue, type EventQueueOptions } from './event-queue';
import { closing, Handle, runAll } from './handle';
import { HardwareQueue, type HardwareQueueOptions } from './hardware-queue';
import { encodeInvalidation, invalidate, type RawInvalidation, type SmmuInvalidation } from './invalidation';
import { call } from './ioctl';
import type { PageTable } from './page-table';
import * as uapi from './uapi';

/** Options of `iommu.createVirtualIommu`. */
export interface VirtualIommuOptions {
  /** The page table (made with `nestParent`) that translates the guest's physical addresses. */
  parent: PageTable;
  /** 'arm-smmuv3', 'tegra241-cmdqv', or any enum iommu_viommu_type. */
  type: 'arm-smmuv3' | 'tegra241-cmdqv' | number;
  /** With a type given as a number: its driver's struct, which the kernel may write into (see `data`). */
  data?: Uint8Array | undefined;
}

/** A stand-in for a device in a virtual IOMMU: the vDEVICE of iommufd. It goes with its device. */
export class VirtualDevice extends Handle {
  /** The kernel's object ID. */
  readonly id: number;
  readonly virtualIommu: VirtualIommu;
  readonly device: BoundDevice;
  /** What the guest calls the device: the stream ID of an SMMUv3. */
  readonly virtId: bigint;

  /** @internal Use `virtualIommu.createDevice()`. */
  constructor(virtualIommu: VirtualIommu, device: BoundDevice, virtId: bigint) {
    super();
    const { context } = virtualIommu;
    const values = { viommu_id: virtualIommu.id, dev_id: device.id, virt_id: virtId };
    this.id = call(context.kernel, context.fd, uapi.IOMMU_VDEVICE_ALLOC, values).out_vdevice_id;
    this.virtualIommu = virtualIommu;
    this.device = device;
    this.virtId = virtId;
    virtualIommu.children.add(this);
    device.setVirtualDevice(this);
  }

  /** @internal */
  override get label(): string {
    return `virtual device 0x${this.virtId.toString(16)}`;
  }

  protected override release(): void {
    runAll([
      () => destroy(this.virtualIommu.context, this.id),
      () => this.virtualIommu.children.delete(this),
      () => this.device.setVirtualDevice(undefined),
    ]);
  }
}

/**
 * A slice of an IOMMU for one virtual machine: the vIOMMU of iommufd. It names devices as the guest does, takes the
 * guest's invalidations, reports events to it, and has page tables of the guest nested on it.
 */
export class VirtualIommu extends Handle {
  /** The kernel's object ID. */
  readonly id: number;
  readonly parent: PageTable;
  /**
   * The type's own struct as the kernel left it: with 'tegra241-cmdqv' a struct iommu_viommu_tegra241_cmdqv, whose
   * offset and length mmap(2) of `iommu.fd` takes.
   */
  readonly data: Uint8Array;
  /** @internal */
  readonly context: Context;
  /** @internal Closed with it, the youngest first. */
  readonly children = new Set<Handle>();

  /** @internal Use `iommu.createVirtualIommu()`; the arguments are checked. */
  constructor(device: BoundDevice, { parent, type, data }: VirtualIommuOptions) {
    super();
    const { context } = parent;
    const { id, bytes } = describe(type, data);
    const values = {
      type: id,
      dev_id: device.id,
      hwpt_id: parent.id,
      data_len: bytes.length,
      data_uptr: bytes.length > 0 ? context.kernel.addressOf(bytes) : 0n,
    };
    this.id = call(context.kernel, context.fd, uapi.IOMMU_VIOMMU_ALLOC, values, bytes).out_viommu_id;
    this.context = context;
    this.parent = parent;
    this.data = bytes;
    parent.children.add(this);
  }

  /** @internal */
  override get label(): string {
    return `virtual IOMMU ${this.id}`;
  }

  /** What stands for devices here. */
  get devices(): readonly VirtualDevice[] {
    return [...this.children].filter((child) => child instanceof VirtualDevice);
  }

  /** @internal The device that the guest calls `virtId`. */
  deviceOf(virtId: bigint): BoundDevice | undefined {
    return this.devices.find((one) => one.virtId === virtId)?.device;
  }

  /**
   * Names a device as the guest does: `virtId`, 64 bits, unique here. A device is in one virtual IOMMU at most. Attach it
   * to a page table nested here afterwards. Throws TypeError, RangeError, IommuError EEXIST, EINVAL.
   */
  createDevice(device: BoundDevice, options: { virtId: bigint | number }): VirtualDevice {
    this.requireOpen({ request: 'IOMMU_VDEVICE_ALLOC' });
    if (!this.context.devices.has(device)) throw new TypeError('the device must be one bound to this Iommu');
    return new VirtualDevice(this, device, uapi.toU64(options.virtId, 'virtId'));
  }

  /** A queue of the events of one type, which there can be one of. Throws IommuError. */
  createEventQueue(options: EventQueueOptions): EventQueue {
    this.requireOpen({ request: 'IOMMU_VEVENTQ_ALLOC' });
    return new EventQueue(this, options);
  }

  /** Lets the IOMMU read a queue of the guest's. Throws RangeError, IommuError. */
  createHardwareQueue(options: HardwareQueueOptions): HardwareQueue {
    this.requireOpen({ request: 'IOMMU_HW_QUEUE_ALLOC' });
    return new HardwareQueue(this, options);
  }

  /** Carries out the guest's invalidations, device caches included. Throws RangeError, IommuError. */
  invalidate(what: SmmuInvalidation | RawInvalidation): void {
    this.requireOpen({ request: 'IOMMU_HWPT_INVALIDATE' });
    invalidate(this.context, this.id, encodeInvalidation(what));
  }

  protected override release(): void {
    runAll([
      ...closing(this.children),
      () => destroy(this.context, this.id),
      () => this.parent.children.delete(this),
    ]);
  }
}

/** A type's number, and its data: memory of our own that the kernel writes into. */
function describe(type: VirtualIommuOptions['type'], data: Uint8Array = new Uint8Array()) {
  if (type === 'arm-smmuv3') return { id: uapi.IOMMU_VIOMMU_TYPE_ARM_SMMUV3, bytes: new Uint8Array() };
  if (type === 'tegra241-cmdqv')
    return {
      id: uapi.IOMMU_VIOMMU_TYPE_TEGRA241_CMDQV,
      bytes: uapi.iommu_viommu_tegra241_cmdqv.encode({}),
    };
  if (typeof type !== 'number')
    throw new TypeError(`a virtual IOMMU is 'arm-smmuv3', 'tegra241-cmdqv' or a number, not ${String(type)}`);
  return { id: type, bytes: Uint8Array.from(data) };
}
