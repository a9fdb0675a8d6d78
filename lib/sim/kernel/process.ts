/** A simulated process: file descriptors, memory, and the system calls of the seam. */
import type { AllocateOptions, DeviceMapping, Kernel, Memory, Watch } from '../../kernel';
import { errno } from '../../uapi/errno';
import { EventFile } from './eventfd';
import type { OpenFile } from './file';
import { MemoryFile } from './memfd';
import type { System } from './system';
import { PAGE_SIZE, UserMemory } from './user-memory';
import { watchFile } from './watch';

/** RLIMIT_NOFILE's usual soft limit. */
const MOST_FILES = 1024;
/** 0, 1 and 2 are taken, as in any process. */
const FIRST_FD = 3;

export interface Credentials {
  /** User id; 0 may open everything. */
  readonly uid: number;
}

export class SimulatedProcess implements Kernel {
  readonly backend = 'simulated';
  readonly version = 'simulated (Linux 7.3 uAPI)';
  readonly pageSize = PAGE_SIZE;
  readonly memory: UserMemory;
  readonly #files = new Map<number, OpenFile>();

  constructor(
    readonly system: System,
    readonly credentials: Credentials,
  ) {
    this.memory = new UserMemory(system.memory);
  }

  /** Gives an open file the lowest free descriptor, which holds one reference to it. */
  install(file: OpenFile): number {
    let fd = FIRST_FD;
    while (this.#files.has(fd)) fd++;
    if (fd >= MOST_FILES) return -errno.EMFILE;
    this.#files.set(fd, file.get());
    return fd;
  }

  file(fd: number): OpenFile | undefined {
    return this.#files.get(fd);
  }

  /** What an ioctl argument points to: the caller's bytes, or memory at an integer address. */
  userBytes(argument: Uint8Array | number): Uint8Array | undefined {
    return typeof argument === 'number' ? undefined : argument;
  }

  /** The process ends, as on exit or a kill: every descriptor is closed. */
  exit(): void {
    for (const fd of [...this.#files.keys()].sort((a, b) => b - a)) this.close(fd);
  }

  open(path: string, flags: number): number {
    if (typeof path !== 'string') throw new TypeError('path must be a string');
    const file = this.system.open(path, flags, this.credentials);
    return typeof file === 'number' ? file : this.install(file);
  }

  close(fd: number): number {
    const file = this.#files.get(fd);
    if (!file) return -errno.EBADF;
    this.#files.delete(fd);
    file.put();
    return 0;
  }

  ioctl(fd: number, request: number, argument: Uint8Array | number = 0): number {
    return this.#files.get(fd)?.ioctl(this, request >>> 0, argument) ?? -errno.EBADF;
  }

  read(fd: number, bytes: Uint8Array): number {
    return this.#files.get(fd)?.read(this, bytes) ?? -errno.EBADF;
  }

  write(fd: number, bytes: Uint8Array): number {
    return this.#files.get(fd)?.write(this, bytes) ?? -errno.EBADF;
  }

  pread(fd: number, bytes: Uint8Array, offset: number): number {
    return this.#files.get(fd)?.pread(bytes, checkOffset(offset)) ?? -errno.EBADF;
  }

  pwrite(fd: number, bytes: Uint8Array, offset: number): number {
    return this.#files.get(fd)?.pwrite(bytes, checkOffset(offset)) ?? -errno.EBADF;
  }

  mmap(fd: number, offset: number, length: number, protection: number): DeviceMapping | number {
    const file = this.#files.get(fd);
    if (!file) return -errno.EBADF;
    if (checkOffset(length) === 0 || checkOffset(offset) % PAGE_SIZE) return -errno.EINVAL;
    return file.mmap(offset, length, protection);
  }

  poll(fd: number, events: number): number {
    const file = this.#files.get(fd);
    return file ? file.poll() & events : -errno.EBADF;
  }

  watch(fd: number, events: number, callback: (ready: number) => void): Watch | number {
    const file = this.#files.get(fd);
    return file ? watchFile(file, events, callback) : -errno.EBADF;
  }

  eventfd(initial: number, _flags: number): number {
    if (!Number.isInteger(initial) || initial < 0 || initial > 0xffffffff)
      throw new RangeError(`eventfd count ${initial} is not an unsigned 32-bit integer`);
    return this.install(new EventFile(initial));
  }

  allocate(length: number, options: AllocateOptions = {}): Memory | number {
    if (checkOffset(length) === 0) return -errno.EINVAL;
    const { buffer, address } = this.memory.allocate(length, options.hugePages ?? false);
    const fd = options.memfd ? this.install(new MemoryFile(buffer)) : -1;
    if (options.memfd && fd < 0) {
      this.memory.unmap(address);
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
        this.memory.unmap(address);
      },
    };
  }

  addressOf(bytes: ArrayBufferView): bigint {
    if (!ArrayBuffer.isView(bytes)) throw new TypeError('addressOf takes a typed array or DataView');
    return BigInt(this.memory.addressOf(bytes));
  }

  readdir(path: string): string[] | number {
    return this.system.sysfs.readdir(path);
  }

  readFile(path: string): string | number {
    return this.system.sysfs.readFile(path);
  }

  writeFile(path: string, text: string): number {
    return this.system.sysfs.writeFile(path, text);
  }

  readlink(path: string): string | number {
    return this.system.sysfs.readlink(path);
  }
}

function checkOffset(value: number): number {
  if (!Number.isSafeInteger(value) || value < 0) throw new RangeError(`${value} is not an offset or length`);
  return value;
}
