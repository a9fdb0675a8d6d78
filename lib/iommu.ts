import type { AddressSpace, AddressSpaceOptions } from './address-space';
import { AttachTable } from './attach-data';
import type { BoundDevice } from './bound-device';
import { checkCookie, deviceOf, type Context } from './context';
import { createAddressSpace, type AnyAddressSpaceOptions } from './create-address-space';
import { describeContext, type IommuDescription } from './describe';
import { bindDevice, type Device } from './device';
import { DmaBuffer } from './dma-buffer';
import { refusal } from './errors';
import { createPageTable, type PageTableOptions } from './explicit-page-table';
import { hasExtension, type Extension } from './extensions';
import { FaultQueue, type FaultQueueOptions } from './fault-queue';
import { closing, Handle, runAll } from './handle';
import { HotCalls } from './hot-calls';
import type { IoAddressSpace } from './io-address-space';
import { listGroups, type IommuGroup } from './iommu-group';
import { readDeviceInfo, type IommuDeviceInfo } from './iommu-device-info';
import { call } from './ioctl';
import type { AllocateOptions, Kernel } from './kernel';
import { O_CLOEXEC, O_RDWR } from './kernel';
import { createMdev, listMdevTypes, removeMdev, type MdevOptions, type MdevType } from './mdev';
import { createMockDevice, type MockDevice } from './mock-device';
import { readLockedMemory, type LockedMemory } from './locked-memory';
import type { NestedAddressSpace, NestedAddressSpaceOptions } from './nested-address-space';
import { needsNoSnoop, NoSnoopWatch } from './no-snoop';
import { chooseBackend, type Backend, type Choice } from './open-kernel';
import { getOption, setOption } from './option';
import { checkOptions } from './options';
import { PageTable } from './page-table';
import { listDevices, resolveDevice, type DeviceDescription, type MdevDescription } from './sysfs';
import * as uapi from './uapi';
import type { UserAddressSpace, UserAddressSpaceOptions } from './user-address-space';
import { VirtualMachine } from './virtual-machine';
import { VirtualIommu, type VirtualIommuOptions } from './virtual-iommu';

/** Options of `Iommu.open`. */
export interface OpenOptions {
  /**
   * 'auto' (the default): Linux where /dev/iommu exists, else the software IOMMU. The environment variable
   * IOMMUFD_BACKEND (auto, linux, simulated) decides where this is left out.
   */
  backend?: Backend | undefined;
}

/** An open /dev/iommu: owns devices, address spaces, fault queues and DMA memory. */
export class Iommu extends Handle {
  /** The kernel underneath, for raw calls. */
  readonly kernel: Kernel;
  /** The descriptor of /dev/iommu, for raw calls. */
  readonly fd: number;
  /** Who answers: the machine's Linux or the software IOMMU. */
  readonly backend: 'linux' | 'simulated';
  /** Why that one, as a sentence. */
  readonly reason: string;
  readonly #context: Context;
  #noSnoopWatch: NoSnoopWatch | undefined;

  private constructor(choice: Choice) {
    super();
    this.kernel = choice.kernel;
    this.fd = choice.fd;
    this.backend = choice.backend;
    this.reason = choice.reason;
    this.#context = {
      kernel: choice.kernel,
      fd: choice.fd,
      hot: new HotCalls(choice.kernel, choice.fd),
      mapsFiles: true,
      attachData: new AttachTable(),
      devices: new Set<BoundDevice>(),
      spaces: new Set<IoAddressSpace>(),
      ioasids: new Set<number>(),
      queues: new Set<FaultQueue>(),
      buffers: new Set<DmaBuffer>(),
      machines: new Set<VirtualMachine>(),
      requireOpen: (where) => this.requireOpen(where),
    };
  }

  /**
   * Opens /dev/iommu.
   *
   * Throws IommuError: EACCES or EPERM (no permission: never a silent simulation), ENOENT, ENODEV, ENXIO (with
   * backend 'linux', where it does not exist), ENOSYS (with 'linux': not Linux, or the addon is not built);
   * TypeError for a backend that does not exist.
   */
  static open(options: OpenOptions = {}): Iommu {
    checkOptions(options, 'Iommu.open', '{ backend }');
    return new Iommu(chooseBackend(options.backend));
  }

  /** What answers, for people: 'Linux 7.3.4'. */
  get kernelVersion(): string {
    return this.kernel.version;
  }

  /** @internal */ override get label(): string {
    return 'the Iommu';
  }

  /** The PCI devices of the machine, ours to take or not, by address, and the mediated devices made of them. */
  devices(): DeviceDescription[] {
    this.requireOpen({ syscall: 'readdir' });
    return listDevices(this.kernel);
  }

  /** The types of mediated devices that can be made here, by parent. */
  mdevTypes(): MdevType[] {
    this.requireOpen({ syscall: 'readdir' });
    return listMdevTypes(this.kernel);
  }

  /**
   * Makes a mediated device of a parent's, which bind() takes by its UUID. It outlives this Iommu: removeMdev() ends it.
   *
   * Throws TypeError (no UUID); IommuError ENOENT (no such parent or type), EEXIST (the UUID is in use), EUSERS (the parent
   * has no more), EACCES.
   */
  createMdev(options: MdevOptions): MdevDescription {
    this.requireOpen({ syscall: 'write' });
    return createMdev(this.kernel, options);
  }

  /** Ends a mediated device. Throws TypeError; IommuError EBUSY (it is bound), ENOENT (there is none), EACCES. */
  removeMdev(uuid: string): void {
    this.requireOpen({ syscall: 'write' });
    const device = this.bound.find((one) => 'uuid' in one && one.uuid === String(uuid).toLowerCase());
    // Linux waits until the device is closed, which a program that waits cannot do.
    if (device)
      throw refusal('EBUSY', `${uuid} is bound, as 0x${device.cookie.toString(16)}`, {
        syscall: 'write',
        hint: 'close the device first',
      });
    removeMdev(this.kernel, uuid);
  }

  /**
   * The IOMMU groups of the machine, by number: their devices, the drivers these have, and which of them keep a group from
   * being taken.
   */
  groups(): IommuGroup[] {
    this.requireOpen({ syscall: 'readdir' });
    return listGroups(this.kernel, this.#context.devices);
  }

  /** The devices bound here. */
  get bound(): readonly BoundDevice[] {
    return [...this.#context.devices];
  }

  /**
   * Whether the kernel can do something at all (RFC, section 2: CHECK_EXTENSION); deviceInfo() says which devices can.
   * Throws TypeError for a name that is none.
   */
  checkExtension(name: Extension): boolean {
    this.requireOpen({});
    return hasExtension(this.#context, name);
  }

  /**
   * What address spaces a device bound here can have, by its cookie (RFC, section 2: IOMMU_DEVICE_GET_INFO): page sizes,
   * IOVAs, how nesting is done, formats of the user's tables. Throws TypeError, RangeError; IommuError ENODEV (no such cookie).
   */
  deviceInfo(cookie: bigint | number): IommuDeviceInfo {
    const request = 'IOMMU_GET_HW_INFO';
    this.requireOpen({ request });
    return readDeviceInfo(this.#context, deviceOf(this.#context, cookie, request));
  }

  /**
   * Takes a device: from now on its DMA is blocked, until it is attached to an address space.
   *
   * `target` is a PCI address ('0000:00:04.0'), a mediated device's UUID, a path ('/dev/vfio/devices/vfio0') or one of
   * devices(). `cookie`
   * is a 64-bit number of your choice, unique in this Iommu, which names the device in fault reports.
   *
   * Throws IommuError: EEXIST (cookie in use), EBUSY (bound here already), ENODEV (no such device, not bound to
   * vfio-pci, no IOMMU), EACCES, EPERM (interrupt remapping off, a driver of the kernel does DMA in the group, or the
   * group belongs to somebody else), EINVAL (bound by somebody else).
   */
  bind(target: string | DeviceDescription, options: { cookie: bigint | number }): Device {
    const request = 'VFIO_DEVICE_BIND_IOMMUFD';
    this.requireOpen({ request });
    const cookie = checkCookie(this.#context, options?.cookie, request);
    const found = resolveDevice(this.kernel, target);
    for (const device of this.#context.devices)
      if ('path' in device && device.path === found.path)
        throw refusal('EBUSY', `${device.name} is bound already, as 0x${device.cookie.toString(16)}`, {
          request,
          path: found.path,
        });
    return bindDevice(this.#context, found, cookie, O_RDWR | O_CLOEXEC);
  }

  /**
   * Makes a device of the kernel's mock IOMMU: no hardware needed, page faults included.
   * Throws IommuError ENOTTY where the kernel has no CONFIG_IOMMUFD_TEST.
   */
  createMockDevice(options: { cookie: bigint | number; pasid?: boolean | undefined }): MockDevice {
    this.requireOpen({ request: 'IOMMU_TEST_CMD' });
    const cookie = checkCookie(this.#context, options?.cookie, 'IOMMU_TEST_CMD');
    return createMockDevice(this.#context, cookie, options.pasid ?? false);
  }

  /** Makes an address space that map() fills with memory. */
  createAddressSpace(options?: AddressSpaceOptions): AddressSpace;
  /** Makes an address space whose page table is the user's, nested on `parent` in hardware (VT-d first stage). */
  createAddressSpace(options: UserAddressSpaceOptions): UserAddressSpace;
  /** Makes an address space that map() fills with ranges of `parent`: nested on it in software. */
  createAddressSpace(options: NestedAddressSpaceOptions): NestedAddressSpace;
  createAddressSpace(
    options: AnyAddressSpaceOptions = {},
  ): AddressSpace | NestedAddressSpace | UserAddressSpace {
    return createAddressSpace(this.#context, options);
  }

  /**
   * Makes a page table by hand, for the IOMMU of `device`: on an address space, or one of the user's own on a page table
   * or a virtual IOMMU. Attach devices to it as to an address space; it stays until it is closed.
   *
   * Throws TypeError, RangeError; IommuError EOPNOTSUPP (the IOMMU cannot), EINVAL (the parent does not fit), EADDRINUSE
   * (mappings do not fit the IOMMU), EFAULT, ENOMEM.
   */
  createPageTable(device: BoundDevice, options: PageTableOptions): PageTable {
    this.requireOpen({ request: 'IOMMU_HWPT_ALLOC' });
    return createPageTable(this.#context, device, options);
  }

  /** Makes a virtual IOMMU for a virtual machine: a slice of the IOMMU of `device`. Throws TypeError, IommuError. */
  createVirtualIommu(device: BoundDevice, options: VirtualIommuOptions): VirtualIommu {
    const request = 'IOMMU_VIOMMU_ALLOC';
    this.requireOpen({ request });
    if (!this.#context.devices.has(device)) throw new TypeError('the device must be one bound to this Iommu');
    if (!(options?.parent instanceof PageTable))
      throw new TypeError('parent must be a PageTable from iommu.createPageTable()');
    if (options.parent.context !== this.#context)
      throw new TypeError(`${options.parent.label} belongs to another Iommu`);
    options.parent.requireOpen({ request });
    return new VirtualIommu(device, options);
  }

  /**
   * Whether any attached device may do DMA that does not snoop the processors' caches, so that KVM has to let the guest flush
   * them (RFC, section 1.5). Throws IommuError EOPNOTSUPP on Linux, where KVM asks VFIO about each device.
   */
  needsNoSnoop(): boolean {
    this.requireOpen({ request: 'IOMMU_NO_SNOOP_QUERY' });
    return needsNoSnoop(this.#context);
  }

  /** Tells when needsNoSnoop() changes. An Iommu has one watch at a time. Throws IommuError EBUSY, EOPNOTSUPP. */
  watchNoSnoop(): NoSnoopWatch {
    const request = 'IOMMU_NO_SNOOP_NOTIFY';
    this.requireOpen({ request });
    if (this.#noSnoopWatch && !this.#noSnoopWatch.closed)
      throw refusal('EBUSY', 'no-snoop changes are watched already', {
        request,
        hint: 'close that watch first',
      });
    return (this.#noSnoopWatch = new NoSnoopWatch(this.#context));
  }

  /**
   * The devices and PASIDs of a virtual machine, by the descriptor of its file: KVM's, or `machine.createVm().fd` of a
   * simulated machine. No KVM has this; its methods throw IommuError EOPNOTSUPP there.
   *
   * Throws TypeError; IommuError EEXIST (it is open).
   */
  openVm(fd: number): VirtualMachine {
    this.requireOpen({ request: uapi.KVM_DEV_VFIO_FILE_ADD.name });
    if (!Number.isInteger(fd) || fd < 0)
      throw new TypeError(`${String(fd)} is no descriptor of a virtual machine`);
    // Two objects would each know half of what is in the machine.
    if ([...this.#context.machines].some((machine) => machine.fd === fd))
      throw refusal('EEXIST', `virtual machine ${fd} is open`, {
        request: uapi.KVM_DEV_VFIO_FILE_ADD.name,
        hint: 'use what openVm() returned, or close that',
      });
    return new VirtualMachine(this.#context, fd);
  }

  /**
   * Whose limit pinned memory counts against: the user's (the sum of all processes of the user), or this process's
   * (RLIMIT_MEMLOCK; IOMMU_OPTION_RLIMIT_MODE). 'user' at first. To be set before anything is made, with CAP_SYS_RESOURCE;
   * else throws IommuError EBUSY, EPERM.
   */
  get accounting(): 'user' | 'process' {
    this.requireOpen({ request: 'IOMMU_OPTION' });
    return getOption(this.#context, uapi.IOMMU_OPTION_RLIMIT_MODE, 0) === 0n ? 'user' : 'process';
  }

  set accounting(mode: 'user' | 'process') {
    this.requireOpen({ request: 'IOMMU_OPTION' });
    if (mode !== 'user' && mode !== 'process')
      throw new TypeError(`accounting is 'user' or 'process', not ${String(mode)}`);
    setOption(this.#context, uapi.IOMMU_OPTION_RLIMIT_MODE, 0, mode === 'user' ? 0n : 1n);
  }

  /**
   * How much memory this process has pinned and locked, as /proc/self/status says. Memory that spaces share, by nesting
   * or by map() of a mapping, counts once; a buffer that is mapped twice counts twice. Throws IommuError.
   */
  lockedMemory(): LockedMemory {
    this.requireOpen({ syscall: 'open' });
    return readLockedMemory(this.kernel);
  }

  /**
   * Moves the accounting of all pinned memory to the calling process, which got the descriptor from another
   * (IOMMU_IOAS_CHANGE_PROCESS). Throws IommuError EINVAL, and changes nothing, if memory is mapped that has no memfd.
   */
  changeProcess(): void {
    this.requireOpen({ request: 'IOMMU_IOAS_CHANGE_PROCESS' });
    call(this.kernel, this.fd, uapi.IOMMU_IOAS_CHANGE_PROCESS, {});
  }

  /**
   * What there is here, as plain data that JSON.stringify takes: descriptors, devices with their groups and PASIDs, address
   * spaces with their parents and mappings, memory, and faults without an answer.
   */
  describe(): IommuDescription {
    this.requireOpen({ syscall: 'readdir' });
    return describeContext(this.#context);
  }

  /** Makes a queue for the page faults of the address spaces that name it. Throws RangeError, IommuError. */
  createFaultQueue(options?: FaultQueueOptions): FaultQueue {
    return new FaultQueue(this.#context, options);
  }

  /** Allocates memory that devices can reach once it is mapped. Throws IommuError ENOMEM. */
  allocateDma(length: number, options: AllocateOptions = {}): DmaBuffer {
    if (!Number.isSafeInteger(length) || length <= 0)
      throw new RangeError(`length ${String(length)} is not a positive number of bytes`);
    return DmaBuffer.allocate(this.#context, length, options);
  }

  /** Detaches and unbinds every device, closes spaces, queues and buffers, then /dev/iommu itself. */
  protected override release(): void {
    const { devices, spaces, queues, buffers, machines } = this.#context;
    runAll([
      ...closing(machines),
      ...closing(devices),
      ...closing(spaces),
      ...closing(queues),
      ...closing(buffers),
      () => this.#noSnoopWatch?.close(),
      () => void this.kernel.close(this.fd),
    ]);
  }
}
