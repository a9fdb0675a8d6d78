/**
 * The seam: the system calls this package makes, as an interface. Linux answers them through the addon
 * (lib/linux); the simulated kernel answers them from its model (lib/sim). Nothing above this file knows which.
 *
 * Every call behaves as its Linux counterpart: a result of 0 or more, or a negative errno (-22 for EINVAL).
 * Only misuse by the caller, such as a string for a number, throws (TypeError or RangeError).
 */

import type { Pump, PumpOptions } from './rings/pump';

/** A region of memory that devices may reach once it is mapped into an I/O address space. */
export interface Memory {
  /** The memory itself, page-aligned, zeroed when allocated. Length 0 after `free`. */
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** Address of the first byte in the process: what `user_va` of IOMMU_IOAS_MAP takes. */
  readonly address: bigint;
  /** Bytes: the length asked for, rounded up to whole pages. */
  readonly length: number;
  /** File descriptor of the memfd behind it, or -1. Closed by `free`. */
  readonly fd: number;
  /**
   * Gives the memory back and detaches `bytes`. Idempotent. Unmap it from every I/O address space first:
   * the kernel keeps pinned pages alive, but the device would go on writing to pages nobody can see.
   */
  free(): void;
}

export interface AllocateOptions {
  /** Back the memory with huge pages (MAP_HUGETLB); -ENOMEM where none are reserved. */
  hugePages?: boolean;
  /** Back it with a memfd of sealed size, so that IOMMU_IOAS_MAP_FILE and other processes can map it. */
  memfd?: boolean;
}

/** Device memory (a BAR) mapped through mmap(2): sized, ordered accesses; no bytes to alias. */
export interface DeviceMapping {
  readonly length: number;
  /** One load of exactly `width` bytes; 8-byte values are bigint. `offset` must be a multiple of `width`. */
  load(offset: number, width: 1 | 2 | 4): number;
  load64(offset: number): bigint;
  /** One store of exactly `width` bytes. */
  store(offset: number, width: 1 | 2 | 4, value: number): void;
  store64(offset: number, value: bigint): void;
  /**
   * One store of 64 bytes (MOVDIR64B), at a multiple of 64, after all stores before it. 0, or -EOPNOTSUPP, and nothing is
   * written, where the processor has no such instruction.
   */
  storeBlock(offset: number, bytes: Uint8Array): number;
  /** munmap. Idempotent; later accesses throw. */
  unmap(): void;
}

/** Bytes of the widest store. */
export const BLOCK_BYTES = 64;

/** Bytes of a call page. */
export const CALL_PAGE_BYTES = 16384;
/** Where in a call page structs may lie: from here on, to its end. */
export const CALL_STRUCTS_AT = 4096;
/** Calls that a batch can have. */
export const MOST_CALLS = 255;

/**
 * Memory for the structs of hot ioctls, which never moves: a call with one of them passes an offset, and neither looks
 * up nor copies a buffer. There is one for each kernel, and it belongs to whoever makes a call, from writing the struct to
 * reading what came back: nobody else runs in between.
 *
 * A struct lies within [CALL_STRUCTS_AT, CALL_PAGE_BYTES). How long it is says its leading u32 (`size` or `argsz` of iommufd
 * and VFIO), for other requests the request's own size. One that reaches past the end is a RangeError, and no call is made;
 * so is a number that is no 32-bit integer. EINTR is retried. A descriptor that an ioctl returns stays open when the
 * environment ends (`Kernel.ioctl` closes it then): such requests are not hot.
 */
export interface CallPage {
  readonly buffer: ArrayBuffer;
  /** Address of the first byte in the process. */
  readonly address: bigint;
  /** ioctl(2) with the struct at `offset`. */
  ioctl(fd: number, request: number, offset: number): number;
  /** Describes call `index`, from 0 to MOST_CALLS - 1, of the next batch. */
  describe(index: number, fd: number, request: number, offset: number): void;
  /**
   * Makes the first `count` calls that were described, in that order, until one fails; returns how many did not. They
   * are checked before the first is made. Those behind the one that failed were not made.
   */
  run(count: number): number;
  /** What call `index` of the last batch returned, if it was made. */
  result(index: number): number;
}

/** A standing interest in a file descriptor's readiness. */
export interface Watch {
  /** Stops the callbacks. Idempotent. Close a watch before its file descriptor. */
  close(): void;
  /** Whether the watch keeps the event loop alive (it does when made). */
  ref(): void;
  unref(): void;
}

// poll(2) bits (asm-generic/poll.h)
export const POLLIN = 0x001;
export const POLLPRI = 0x002;
export const POLLOUT = 0x004;
export const POLLERR = 0x008;
export const POLLHUP = 0x010;
export const POLLRDNORM = 0x040;
export const POLLWRNORM = 0x100;

// open(2) flags (asm-generic/fcntl.h, x86-64 and arm64)
export const O_RDONLY = 0o0;
export const O_WRONLY = 0o1;
export const O_RDWR = 0o2;
export const O_NONBLOCK = 0o4000;
export const O_CLOEXEC = 0o2000000;
export const EFD_NONBLOCK = O_NONBLOCK;
export const EFD_CLOEXEC = O_CLOEXEC;
// mmap(2)
export const PROT_READ = 1;
export const PROT_WRITE = 2;

/** Rings that other threads and processes can map, and a thread that fills them. */
export interface RingCalls {
  /** Moves records between a file and the ring in `memory` (lib/rings), in a thread of its own where somebody waits. */
  pump(fd: number, memory: Memory, options: PumpOptions): Pump | number;
  /** Maps the first `length` bytes of a memfd: what another thread has cannot be handed over as a buffer. */
  mapMemory(fd: number, length: number): Memory | number;
  /** Another descriptor for the same open file, good when the other thread closes its own. */
  duplicate(fd: number): number;
  /** As `watch` for POLLIN of an eventfd, which is read behind each callback: a doorbell. */
  watchCounter(fd: number, callback: () => void): Watch | number;
}

/** One process's view of a kernel. */
export interface Kernel {
  /** Which backend answers. */
  readonly backend: 'linux' | 'simulated';
  /** What answers, for people: 'Linux 7.3.4' or 'simulated (Linux 7.3 uAPI)'. */
  readonly version: string;
  /** PAGE_SIZE in bytes. */
  readonly pageSize: number;

  open(path: string, flags: number): number;
  close(fd: number): number;
  /**
   * ioctl(2). `argument` is the struct, read and written in place; or the integer argument; or absent (0).
   * Addresses inside the struct come from `addressOf`; the caller keeps what they point to alive.
   */
  ioctl(fd: number, request: number, argument?: Uint8Array | number): number;
  /** The memory for hot ioctls: at each call the same. Throws Error where there is no memory for it. */
  callPage(): CallPage;
  read(fd: number, bytes: Uint8Array): number;
  write(fd: number, bytes: Uint8Array): number;
  /** pread(2) and pwrite(2); `offset` in bytes, below 2^53. */
  pread(fd: number, bytes: Uint8Array, offset: number): number;
  pwrite(fd: number, bytes: Uint8Array, offset: number): number;
  /** mmap(2) of device memory, MAP_SHARED. `protection` is PROT_READ | PROT_WRITE. */
  mmap(fd: number, offset: number, length: number, protection: number): DeviceMapping | number;
  /** Readiness now: poll(2) with no timeout. Returns the ready bits of `events` (and POLLERR, POLLHUP). */
  poll(fd: number, events: number): number;
  /** Calls back on the event loop whenever one of `events` is ready. */
  watch(fd: number, events: number, callback: (ready: number) => void): Watch | number;
  eventfd(initial: number, flags: number): number;
  /** Page-aligned memory for DMA. */
  allocate(length: number, options?: AllocateOptions): Memory | number;
  /** The address of the first byte of `bytes` in the process, for pointers inside structs. */
  addressOf(bytes: ArrayBufferView): bigint;

  /** What the kernel has for rings; lib/rings does without, through read, write and watch. */
  readonly rings?: RingCalls;

  // Files, for sysfs and procfs.
  /** Names in a directory, sorted. */
  readdir(path: string): string[] | number;
  /** The whole of a text file. */
  readFile(path: string): string | number;
  /** One write(2) of `text` to an existing file. */
  writeFile(path: string, text: string): number;
  /** Target of a symbolic link, as stored. */
  readlink(path: string): string | number;
}

/** The calls on files alone: what finding devices, and giving them to another driver, takes. */
export type KernelFiles = Pick<
  Kernel,
  'open' | 'close' | 'read' | 'readdir' | 'readFile' | 'writeFile' | 'readlink'
>;
