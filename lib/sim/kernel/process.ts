/** A simulated process: file descriptors, memory, and the system calls of the seam. */
import {
  O_CLOEXEC,
  O_NONBLOCK,
  O_RDONLY,
  O_RDWR,
  O_WRONLY,
  POLLERR,
  POLLHUP,
  PROT_WRITE,
  type AllocateOptions,
  type CallPage,
  type DeviceMapping,
  type Kernel,
  type Memory,
  type Watch,
} from '../../kernel';
import { errno } from '../../uapi/errno';
import {
  checkBytes,
  checkEvents,
  checkInt32,
  checkInteger,
  checkPath,
  checkSize,
  checkUint32,
} from './arguments';
import { SimulatedCallPage } from './call-page';
import { DEFAULT_MEMLOCK, type Credentials, type ProcessOptions, type User } from './credentials';
import { EFD_SEMAPHORE, EventFile } from './eventfd';
import { NullFile, type OpenFile } from './file';
import { directory, FileTree } from './file-tree';
import { MemoryFile } from './memfd';
import { procOf } from './proc';
import type { System } from './system';
import { PAGE_SIZE, UserMemory, type Allocation } from './user-memory';
import { watchFile } from './watch';

/** RLIMIT_NOFILE's usual soft limit. */
const MOST_FILES = 1024;
const ACCESS_MODE = 3;

/** Access mode 3 of open(2) is neither for reading nor for writing, only for ioctls. */
function reads({ access }: OpenFile): boolean {
  return access === O_RDONLY || access === O_RDWR;
}

function writes({ access }: OpenFile): boolean {
  return access === O_WRONLY || access === O_RDWR;
}

export class SimulatedProcess implements Kernel {
  readonly backend = 'simulated';
  readonly version = 'simulated (Linux 7.3 uAPI)';
  readonly pageSize = PAGE_SIZE;
  readonly memory: UserMemory;
  readonly pid: number;
  /** The files it sees: everybody's, and /proc. */
  readonly files: FileTree;
  /** As setuid(2) and capset(2) change them. */
  credentials: Credentials;
  /** RLIMIT_MEMLOCK in bytes, as setrlimit(2) changes it. */
  memlock: number;
  readonly #files = new Map<number, OpenFile>();
  /** Every descriptor below this one is in use. */
  #lowestFree = 0;
  #callPage: SimulatedCallPage | undefined;

  constructor(
    readonly system: System,
    { memlock = DEFAULT_MEMLOCK, ...credentials }: ProcessOptions,
  ) {
    if (!(memlock >= 0)) throw new RangeError(`memlock is a number of bytes, not ${memlock}`);
    this.credentials = credentials;
    this.memlock = memlock;
    this.memory = new UserMemory(system.memory);
    this.pid = system.newPid();
    this.files = new FileTree(directory(() => ({ ...system.sysfs.root.entries(), proc: procOf(this) })));
    for (let standard = 0; standard < 3; standard++) this.install(new NullFile());
  }

  /** Whom the process's locked memory is counted for. */
  get user(): User {
    return this.system.user(this.credentials.uid);
  }

  /** Gives an open file the lowest free descriptor, which holds one reference to it. */
  install(file: OpenFile): number {
    while (this.#files.has(this.#lowestFree)) this.#lowestFree++;
    const fd = this.#lowestFree;
    if (fd >= MOST_FILES) return -errno.EMFILE;
    this.#files.set(fd, file.get());
    return fd;
  }

  file(fd: number): OpenFile | undefined {
    return this.#files.get(fd);
  }

  /**
   * Gives another process of the machine a descriptor for what `fd` of this one stands for, as a message over a Unix
   * socket does (SCM_RIGHTS). Returns the other's descriptor, or -errno. RangeError for a process of another machine.
   */
  sendDescriptor(fd: number, to: SimulatedProcess): number {
    checkInt32(fd, 'fd');
    if (to.system !== this.system) throw new RangeError('a descriptor stays within its machine');
    const file = this.#files.get(fd);
    return file ? to.install(file) : -errno.EBADF;
  }

  /** What an ioctl argument points to: the caller's bytes, or memory at an integer address. */
  userBytes(argument: Uint8Array | number): Uint8Array | undefined {
    return typeof argument === 'number' ? this.memory.rest(argument) : argument;
  }

  /** The process ends, as on exit or a kill: its memory goes, and every descriptor is closed. */
  exit(): void {
    this.memory.end();
    for (const fd of [...this.#files.keys()].sort((a, b) => b - a)) this.close(fd);
  }

  open(path: string, flags: number): number {
    checkPath(path);
    checkInt32(flags, 'flags');
    const file = this.system.open(path, flags, this);
    if (typeof file === 'number') return file;
    file.access = flags & ACCESS_MODE;
    return this.install(file);
  }

  close(fd: number): number {
    checkInt32(fd, 'fd');
    const file = this.#files.get(fd);
    if (!file) return -errno.EBADF;
    this.#files.delete(fd);
    this.#lowestFree = Math.min(this.#lowestFree, fd);
    file.put();
    return 0;
  }

  ioctl(fd: number, request: number, argument: Uint8Array | number = 0): number {
    checkInt32(fd, 'fd');
    checkUint32(request, 'request');
    if (typeof argument !== 'number') checkBytes(argument, 'argument');
    else checkInteger(argument, 'argument', Number.MIN_SAFE_INTEGER, Number.MAX_SAFE_INTEGER);
    return this.#files.get(fd)?.ioctl(this, request, argument) ?? -errno.EBADF;
  }

  callPage(): CallPage {
    return (this.#callPage ??= new SimulatedCallPage(this));
  }

  read(fd: number, bytes: Uint8Array): number {
    checkBytes(bytes);
    return this.#readable(fd)?.read(this, bytes) ?? -errno.EBADF;
  }

  write(fd: number, bytes: Uint8Array): number {
    checkBytes(bytes);
    return this.#writable(fd)?.write(this, bytes) ?? -errno.EBADF;
  }

  pread(fd: number, bytes: Uint8Array, offset: number): number {
    checkBytes(bytes);
    checkSize(offset, 'offset');
    if (this.#files.get(fd)?.seekable === false) return -errno.ESPIPE;
    return this.#readable(fd)?.pread(bytes, offset) ?? -errno.EBADF;
  }

  pwrite(fd: number, bytes: Uint8Array, offset: number): number {
    checkBytes(bytes);
    checkSize(offset, 'offset');
    if (this.#files.get(fd)?.seekable === false) return -errno.ESPIPE;
    return this.#writable(fd)?.pwrite(bytes, offset) ?? -errno.EBADF;
  }

  mmap(fd: number, offset: number, length: number, protection: number): DeviceMapping | number {
    checkInt32(fd, 'fd');
    checkSize(offset, 'offset');
    checkSize(length, 'length');
    checkInteger(protection, 'protection', 1, 3);
    const file = this.#files.get(fd);
    if (!file) return -errno.EBADF;
    if (length === 0 || offset % PAGE_SIZE) return -errno.EINVAL;
    // A shared mapping can do what the descriptor can.
    if (!reads(file) || (protection & PROT_WRITE && !writes(file))) return -errno.EACCES;
    return file.mmap(offset, length, protection);
  }

  poll(fd: number, events: number): number {
    checkInt32(fd, 'fd');
    checkEvents(events);
    const file = this.#files.get(fd);
    return file ? file.poll() & (events | POLLERR | POLLHUP) : -errno.EBADF;
  }

  watch(fd: number, events: number, callback: (ready: number) => void): Watch | number {
    checkInt32(fd, 'fd');
    checkEvents(events);
    if (typeof callback !== 'function') throw new TypeError('callback must be a function');
    const file = this.#files.get(fd);
    if (!file) return -errno.EBADF;
    return file.pollable ? watchFile(this.system, file, events, callback) : -errno.EPERM;
  }

  eventfd(initial: number, flags: number): number {
    checkUint32(initial, 'initial');
    checkInt32(flags, 'flags');
    if (flags & ~(EFD_SEMAPHORE | O_NONBLOCK | O_CLOEXEC)) return -errno.EINVAL;
    return this.install(new EventFile(initial, (flags & EFD_SEMAPHORE) !== 0));
  }

  allocate(length: number, options: AllocateOptions = {}): Memory | number {
    checkSize(length, 'length');
    if (length === 0) return -errno.EINVAL;
    const memory = this.#allocate(length, options.hugePages ?? false);
    if (!memory) return -errno.ENOMEM;
    const { buffer, address, frames } = memory;
    const fd = options.memfd ? this.install(new MemoryFile(frames)) : -1;
    if (options.memfd && fd < 0) {
      this.memory.unmap(memory);
      return fd;
    }
    let freed = false;
    return {
      bytes: new Uint8Array(buffer),
      address: BigInt(address),
      length: buffer.byteLength,
      fd,
      free: () => {
        if (freed) return;
        freed = true;
        if (fd >= 0) this.close(fd);
        this.memory.unmap(memory);
      },
    };
  }

  #allocate(length: number, huge: boolean): Allocation | undefined {
    try {
      return this.memory.allocate(length, huge);
    } catch {
      // The length is an integer: what is left to refuse is its size.
      return undefined;
    }
  }

  addressOf(bytes: ArrayBufferView): bigint {
    if (!ArrayBuffer.isView(bytes)) throw new TypeError('addressOf takes a typed array or DataView');
    return BigInt(this.memory.addressOf(bytes));
  }

  readdir(path: string): string[] | number {
    return this.files.readdir(path);
  }

  readFile(path: string): string | number {
    return this.files.readFile(path);
  }

  writeFile(path: string, text: string): number {
    return this.system.writeFile(path, text, this);
  }

  readlink(path: string): string | number {
    return this.files.readlink(path);
  }

  #readable(fd: number): OpenFile | undefined {
    checkInt32(fd, 'fd');
    const file = this.#files.get(fd);
    return file && reads(file) ? file : undefined;
  }

  #writable(fd: number): OpenFile | undefined {
    checkInt32(fd, 'fd');
    const file = this.#files.get(fd);
    return file && writes(file) ? file : undefined;
  }
}
