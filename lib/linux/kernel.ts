/** The Linux backend: every call of the seam as the system call it names. */
import { constants } from 'node:buffer';
import { release } from 'node:os';
import type { AllocateOptions, CallPage, DeviceMapping, Kernel, Memory, Watch } from '../kernel';
import { loadAddon } from './addon';
import type { Addon, Unavailable } from './addon';
import { IOMMU_FAULT_QUEUE_ALLOC, IOMMU_VEVENTQ_ALLOC } from '../uapi/iommufd-ioctls';
import { LinuxCallPage } from './call-page';
import { readdir, readFile, readlink, writeFile } from './files';
import type { Pump, PumpOptions } from '../rings/pump';
import { LinuxDeviceMapping, LinuxMemory } from './memory';
import { LinuxPump } from './pump';

const ENOMEM = 12;

/** Ioctls that return a file descriptor, and where in their struct. */
const RETURNED_DESCRIPTORS: ReadonlyMap<number, number> = new Map([
  [IOMMU_FAULT_QUEUE_ALLOC.request, IOMMU_FAULT_QUEUE_ALLOC.struct.offsets.out_fault_fd],
  [IOMMU_VEVENTQ_ALLOC.request, IOMMU_VEVENTQ_ALLOC.struct.offsets.out_veventq_fd],
]);

const IOC_SIZE_SHIFT = 16;
const IOC_SIZE_MASK = 0x3fff;
const IOC_TYPE_SHIFT = 8;
/** The type byte, ';', of every iommufd and VFIO request (linux/iommufd.h, linux/vfio.h). */
const VFIO_TYPE = 0x3b;
/** _IO(';', 100 + n) of the two VFIO requests whose argument has no size: SET_CONTAINER, GET_DEVICE_FD. */
const VFIO_GROUP_SET_CONTAINER = 0x3b68;
const VFIO_GROUP_GET_DEVICE_FD = 0x3b6a;

export class LinuxKernel implements Kernel {
  readonly backend = 'linux';
  readonly version = `Linux ${release()}`;
  readonly pageSize: number;

  private readonly addon: Addon;
  private page: LinuxCallPage | undefined;

  /** Loads the addon; throws Error with the reason where it cannot. */
  constructor() {
    const loaded = loadAddon();
    if ('reason' in loaded) throw new Error(loaded.reason);
    this.addon = loaded.addon;
    this.pageSize = this.addon.pageSize;
  }

  /** The same without the throw. Neither says anything about whether there is a /dev/iommu. */
  static load(): LinuxKernel | Unavailable {
    const loaded = loadAddon();
    return 'reason' in loaded ? loaded : new LinuxKernel();
  }

  /** open(2), always with O_CLOEXEC. What is open when the environment (a worker, say) ends is closed then. */
  open(path: string, flags: number): number {
    return this.addon.open(path, flags);
  }

  close(fd: number): number {
    return this.addon.close(fd);
  }

  /**
   * ioctl(2). Throws RangeError for a struct that is shorter than what the kernel may write: the leading u32 `size`
   * or `argsz` of an iommufd or VFIO struct; for other requests, the size encoded in the request.
   */
  ioctl(fd: number, request: number, argument?: Uint8Array | number): number {
    if (typeof argument !== 'object') return this.addon.ioctl(fd, request, argument);
    checkStruct(request, argument);
    const result = this.addon.ioctl(fd, request, argument);
    const returned = result < 0 ? undefined : RETURNED_DESCRIPTORS.get(request);
    if (returned !== undefined) this.addon.adopt(descriptorAt(argument, returned));
    return result;
  }

  callPage(): CallPage {
    return (this.page ??= new LinuxCallPage(this.addon));
  }

  read(fd: number, bytes: Uint8Array): number {
    return this.addon.read(fd, bytes);
  }

  write(fd: number, bytes: Uint8Array): number {
    return this.addon.write(fd, bytes);
  }

  pread(fd: number, bytes: Uint8Array, offset: number): number {
    return this.addon.pread(fd, bytes, offset);
  }

  pwrite(fd: number, bytes: Uint8Array, offset: number): number {
    return this.addon.pwrite(fd, bytes, offset);
  }

  /** As mmap(2), but -EINVAL for a mapping beyond the end of a regular file: accesses there kill the process. */
  mmap(fd: number, offset: number, length: number, protection: number): DeviceMapping | number {
    const handle = this.addon.mmap(fd, offset, length, protection);
    return handle < 0 ? handle : new LinuxDeviceMapping(this.addon, handle, length);
  }

  poll(fd: number, events: number): number {
    return this.addon.poll(fd, events);
  }

  /**
   * Watches a duplicate of `fd`: several watches on one descriptor are fine. `ready` is what poll(2) says when the
   * callback is due, level-triggered: as long as nobody reads, or the file stays in error, it is called again.
   * -EPERM for a file that cannot be polled, such as a regular one.
   */
  watch(fd: number, events: number, callback: (ready: number) => void): Watch | number {
    const handle = this.addon.watch(fd, events, callback);
    return handle < 0 ? handle : new LinuxWatch(this.addon, handle);
  }

  /** eventfd(2), always with EFD_CLOEXEC. */
  eventfd(initial: number, flags: number): number {
    return this.addon.eventfd(initial, flags);
  }

  /** -EINVAL for a length of 0, as mmap(2). */
  allocate(length: number, options: AllocateOptions = {}): Memory | number {
    if (length > constants.MAX_LENGTH) return -ENOMEM;
    const memory = this.addon.allocate(length, options.hugePages ?? false, options.memfd ?? false);
    return typeof memory === 'number' ? memory : new LinuxMemory(this.addon, memory);
  }

  duplicate(fd: number): number {
    return this.addon.duplicate(fd);
  }

  mapMemory(fd: number, length: number): Memory | number {
    const memory = this.addon.mapMemory(fd, length);
    return typeof memory === 'number' ? memory : new LinuxMemory(this.addon, memory);
  }

  /** A limit beyond 2^53 - 1 is none. */
  pump(fd: number, memory: Memory, { limit }: PumpOptions): Pump | number {
    if (!(memory instanceof LinuxMemory)) throw new TypeError('memory must come from allocate()');
    const native = this.addon.pump(fd, memory.handle, Math.min(limit, Number.MAX_SAFE_INTEGER));
    return typeof native === 'number' ? native : new LinuxPump(this.addon, this, native);
  }

  addressOf(bytes: ArrayBufferView): bigint {
    return this.addon.addressOf(bytes);
  }

  readdir(path: string): string[] | number {
    return readdir(path);
  }

  readFile(path: string): string | number {
    return readFile(path);
  }

  writeFile(path: string, text: string): number {
    return writeFile(path, text);
  }

  readlink(path: string): string | number {
    return readlink(path);
  }
}

class LinuxWatch implements Watch {
  constructor(
    private readonly addon: Addon,
    private handle: number,
  ) {}

  close(): void {
    if (this.handle < 0) return;
    this.addon.closeWatch(this.handle);
    this.handle = -1;
  }

  ref(): void {
    if (this.handle >= 0) this.addon.refWatch(this.handle);
  }

  unref(): void {
    if (this.handle >= 0) this.addon.unrefWatch(this.handle);
  }
}

/** Keeps the kernel from writing past the end of `argument`. What is no Uint8Array the addon refuses. */
function descriptorAt(bytes: Uint8Array, offset: number): number {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength).getInt32(offset, true);
}

function checkStruct(request: number, argument: Uint8Array): void {
  if (!(argument instanceof Uint8Array)) return;
  let size = (request >>> IOC_SIZE_SHIFT) & IOC_SIZE_MASK;
  const type = (request >>> IOC_TYPE_SHIFT) & 0xff;
  if (type === VFIO_TYPE && request !== VFIO_GROUP_SET_CONTAINER && request !== VFIO_GROUP_GET_DEVICE_FD) {
    size = 4;
    if (argument.length >= 4) {
      size = (argument[0] | (argument[1] << 8) | (argument[2] << 16) | (argument[3] << 24)) >>> 0;
    }
  }
  if (argument.length < size) {
    throw new RangeError(
      `argument is ${argument.length} bytes long, but request 0x${request.toString(16)} takes ${size}`,
    );
  }
}
