import { refusal } from './errors';
import { Handle } from './handle';
import { checkRange } from './iova';
import { pread, pwrite } from './ioctl';
import type { DeviceMapping, Kernel } from './kernel';
import { BLOCK_BYTES, PROT_READ, PROT_WRITE } from './kernel';
import type { RegionCapabilities } from './region-capabilities';
import type { RegisterMap } from './register-map';
import { placeRegisters, type Registers } from './registers';
import { toU64, VFIO_REGION_INFO_FLAG_READ, VFIO_REGION_INFO_FLAG_WRITE } from './uapi';

/** What VFIO_DEVICE_GET_REGION_INFO says about a region. */
export interface RegionDescription {
  /** For messages: 'bar0 of 0000:00:04.0'. */
  readonly name: string;
  /** VFIO_REGION_INFO_FLAG_*. */
  readonly flags: number;
  /** Bytes. */
  readonly size: number;
  /** Where it starts in the device's file. */
  readonly fileOffset: number;
  /** The whole of it may be mapped: VFIO says MMAP, and no capability takes parts away. */
  readonly mappable: boolean;
  readonly capabilities: RegionCapabilities;
  /** Asked before each write(2) of `bytes` at `offset`; throws to refuse it. */
  readonly beforeWrite?: (offset: number, bytes: Uint8Array) => void;
}

type Width = 1 | 2 | 4 | 8 | typeof BLOCK_BYTES;

/**
 * A region of a device: a BAR, the ROM or configuration space. Offsets are bytes from its start; each access
 * is one access of exactly its width on the bus, little-endian, and must be aligned to it.
 *
 * Throws RangeError, before anything is touched, for an access outside the region or misaligned, and
 * IommuError for one the kernel refuses.
 */
export class Region extends Handle {
  /** Bytes. */
  readonly size: number;
  /** VFIO_REGION_INFO_FLAG_* (linux/vfio.h). */
  readonly flags: number;
  /** What VFIO says beyond that. */
  readonly capabilities: RegionCapabilities;
  /** Whether accesses are loads and stores through mmap(2), rather than pread(2) and pwrite(2). */
  readonly mapped: boolean;
  readonly #kernel: Kernel;
  readonly #fd: number;
  readonly #description: RegionDescription;
  readonly #mapping: DeviceMapping | undefined;
  readonly #scratch = new Uint8Array(8);
  readonly #view = new DataView(this.#scratch.buffer);
  readonly #onClose: () => void;

  /** @internal Use `device.region()`. */
  constructor(kernel: Kernel, fd: number, description: RegionDescription, onClose: () => void) {
    super();
    this.#kernel = kernel;
    this.#fd = fd;
    this.#description = description;
    this.#onClose = onClose;
    this.size = description.size;
    this.flags = description.flags;
    this.capabilities = description.capabilities;
    this.#mapping = description.mappable ? this.#mmap() : undefined;
    this.mapped = this.#mapping !== undefined;
  }

  /** undefined where the kernel will not map it after all: pread and pwrite serve then. */
  #mmap(): DeviceMapping | undefined {
    const protection =
      (this.#can(VFIO_REGION_INFO_FLAG_READ) ? PROT_READ : 0) |
      (this.#can(VFIO_REGION_INFO_FLAG_WRITE) ? PROT_WRITE : 0);
    const mapping = this.#kernel.mmap(this.#fd, this.#description.fileOffset, this.size, protection);
    return typeof mapping === 'number' ? undefined : mapping;
  }

  #can(flag: number): boolean {
    return (this.flags & flag) !== 0;
  }

  /** @internal */ override get label(): string {
    return this.#description.name;
  }

  protected override release(): void {
    this.#mapping?.unmap();
    this.#onClose();
  }

  /**
   * Declared registers, by name, `offset` bytes from the start of the region. Throws RangeError where they do not fit.
   *
   *     const registers = device.region('bar0').registers(EDU);
   *     registers.STATUS.read();
   */
  registers<M extends RegisterMap>(map: M, offset = 0): Registers<M> {
    return placeRegisters(this, map, offset);
  }

  read8(offset: number): number {
    return this.#read(offset, 1);
  }

  read16(offset: number): number {
    return this.#read(offset, 2);
  }

  read32(offset: number): number {
    return this.#read(offset, 4);
  }

  /** Configuration space has no 8-byte accesses: the kernel makes two of 4 there. */
  read64(offset: number): bigint {
    this.#check(offset, 8, VFIO_REGION_INFO_FLAG_READ);
    if (this.#mapping) return this.#mapping.load64(offset);
    this.#transfer('pread', offset, 8);
    return this.#view.getBigUint64(0, true);
  }

  write8(offset: number, value: number): void {
    this.#write(offset, 1, value);
  }

  write16(offset: number, value: number): void {
    this.#write(offset, 2, value);
  }

  write32(offset: number, value: number): void {
    this.#write(offset, 4, value);
  }

  /** As read64. */
  write64(offset: number, value: bigint | number): void {
    const wide = toU64(value);
    this.#check(offset, 8, VFIO_REGION_INFO_FLAG_WRITE);
    if (this.#mapping) {
      this.#mapping.store64(offset, wide);
      return;
    }
    this.#view.setBigUint64(0, wide, true);
    this.#transfer('pwrite', offset, 8);
  }

  /**
   * Writes 64 bytes in one write (MOVDIR64B), as portals of accelerators take their descriptors; whatever was written to
   * memory before is there by then. `offset` is a multiple of 64.
   *
   * Throws IommuError EOPNOTSUPP, and writes nothing, where the processor cannot, or the region is not mapped.
   */
  writeBlock(offset: number, bytes: Uint8Array): void {
    if (!(bytes instanceof Uint8Array)) throw new TypeError('bytes must be a Uint8Array');
    if (bytes.length !== BLOCK_BYTES)
      throw new RangeError(`a block has ${BLOCK_BYTES} bytes, not ${bytes.length}`);
    this.#check(offset, BLOCK_BYTES, VFIO_REGION_INFO_FLAG_WRITE);
    if (!this.#mapping)
      throw refusal('EOPNOTSUPP', `${this.label} is not mapped, and no system call writes 64 bytes at once`, {
        syscall: 'pwrite',
      });
    if (this.#mapping.storeBlock(offset, bytes) < 0)
      throw refusal('EOPNOTSUPP', 'this processor has no store of 64 bytes (MOVDIR64B)', {
        syscall: 'store',
        hint: '`grep movdir64b /proc/cpuinfo` names those that have',
      });
  }

  /** Reads `bytes.length` bytes from `offset` on; the kernel chooses the access widths. */
  read(offset: number, bytes: Uint8Array): void {
    this.#bulk('pread', offset, bytes);
  }

  /** Writes `bytes` from `offset` on; the kernel chooses the access widths. */
  write(offset: number, bytes: Uint8Array): void {
    this.#bulk('pwrite', offset, bytes);
  }

  #read(offset: number, width: 1 | 2 | 4): number {
    this.#check(offset, width, VFIO_REGION_INFO_FLAG_READ);
    if (this.#mapping) return this.#mapping.load(offset, width);
    this.#view.setUint32(0, 0);
    this.#transfer('pread', offset, width);
    return this.#view.getUint32(0, true);
  }

  #write(offset: number, width: 1 | 2 | 4, value: number): void {
    if (typeof value !== 'number') throw new TypeError(`value must be a number, not ${typeof value}`);
    if (!Number.isInteger(value) || value < 0 || value >= 2 ** (8 * width))
      throw new RangeError(`${value} is not an unsigned ${8 * width}-bit integer`);
    this.#check(offset, width, VFIO_REGION_INFO_FLAG_WRITE);
    if (this.#mapping) {
      this.#mapping.store(offset, width, value);
      return;
    }
    this.#view.setUint32(0, value, true);
    this.#transfer('pwrite', offset, width);
  }

  #check(offset: number, width: Width, flag: number): void {
    this.#requireOpenFor(flag);
    checkRange(offset, width, this.size);
    if (offset % width !== 0) throw new RangeError(`offset ${offset} is not a multiple of ${width}`);
    this.#checkPermission(flag);
  }

  #requireOpenFor(flag: number): void {
    // No object for the error on the way of every access.
    if (this.closed) throw this.closedError({ syscall: syscallOf(flag) });
  }

  #checkPermission(flag: number): void {
    if (this.#can(flag)) return;
    const syscall = syscallOf(flag);
    const done = syscall === 'pread' ? 'read' : 'written';
    throw refusal('EACCES', `${this.label} cannot be ${done}`, { syscall });
  }

  #transfer(syscall: 'pread' | 'pwrite', offset: number, width: Width): void {
    this.#moveAll(syscall, offset, this.#scratch.subarray(0, width));
  }

  #bulk(syscall: 'pread' | 'pwrite', offset: number, bytes: Uint8Array): void {
    const flag = syscall === 'pread' ? VFIO_REGION_INFO_FLAG_READ : VFIO_REGION_INFO_FLAG_WRITE;
    this.#requireOpenFor(flag);
    if (!(bytes instanceof Uint8Array)) throw new TypeError('bytes must be a Uint8Array');
    checkRange(offset, bytes.length, this.size);
    this.#checkPermission(flag);
    this.#moveAll(syscall, offset, bytes);
  }

  #moveAll(syscall: 'pread' | 'pwrite', offset: number, bytes: Uint8Array): void {
    const move = syscall === 'pread' ? pread : pwrite;
    if (syscall === 'pwrite') this.#description.beforeWrite?.(offset, bytes);
    for (let done = 0; done < bytes.length;) {
      const moved = move(
        this.#kernel,
        this.#fd,
        bytes.subarray(done),
        this.#description.fileOffset + offset + done,
      );
      if (moved === 0)
        throw refusal('EIO', `${this.label} stopped answering at offset ${offset + done}`, { syscall });
      done += moved;
    }
  }
}

function syscallOf(flag: number): 'pread' | 'pwrite' {
  return flag === VFIO_REGION_INFO_FLAG_READ ? 'pread' : 'pwrite';
}
