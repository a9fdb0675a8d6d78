/** Open files of the simulated kernel: what stands behind a file descriptor. */
import { O_RDWR, POLLIN, POLLOUT, POLLRDNORM, POLLWRNORM, type DeviceMapping } from '../../kernel';
import { errno } from '../../uapi/errno';
import type { SimulatedProcess } from './process';

/** What poll(2) says of a file that has no poll operation. */
const ALWAYS_READY = POLLIN | POLLOUT | POLLRDNORM | POLLWRNORM;

/**
 * An open file description. It lives until its last reference goes: a file descriptor is one, and the kernel
 * holds others (a bound device keeps its iommufd alive). Calls a file does not implement fail as in Linux.
 */
export abstract class OpenFile {
  /** O_RDONLY, O_WRONLY or O_RDWR, from open(2). */
  access = O_RDWR;
  #references = 0;
  #listeners = new Set<() => void>();

  /** Takes a reference. */
  get(): this {
    this.#references++;
    return this;
  }

  /** Drops a reference; the last one releases the file. */
  put(): void {
    if (--this.#references === 0) this.release();
  }

  /** The last reference is gone. */
  protected release(): void {}

  ioctl(_process: SimulatedProcess, _request: number, _argument: Uint8Array | number): number {
    return -errno.ENOTTY;
  }
  read(_process: SimulatedProcess, _bytes: Uint8Array): number {
    return -errno.EINVAL;
  }
  write(_process: SimulatedProcess, _bytes: Uint8Array): number {
    return -errno.EINVAL;
  }
  pread(_bytes: Uint8Array, _offset: number): number {
    return -errno.EINVAL;
  }
  pwrite(_bytes: Uint8Array, _offset: number): number {
    return -errno.EINVAL;
  }
  mmap(_offset: number, _length: number, _protection: number): DeviceMapping | number {
    return -errno.ENODEV;
  }
  /** Ready bits now (POLLIN, …). */
  poll(): number {
    return ALWAYS_READY;
  }
  /** Whether it can be waited for: epoll_ctl(2) is EPERM for a file without a poll operation. */
  get pollable(): boolean {
    return false;
  }

  /** Whether it has offsets: pread(2) and pwrite(2) are ESPIPE otherwise. */
  get seekable(): boolean {
    return true;
  }

  /** Calls `listener` whenever the file may have become ready. Returns the way to stop it. */
  listen(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Tells the listeners: to be called after anything that can add a ready bit. */
  protected wake(): void {
    for (const listener of this.#listeners) listener();
  }
}

/** A file that delivers events: it has no offsets, and one waits for it. */
export abstract class StreamFile extends OpenFile {
  override get seekable(): boolean {
    return false;
  }
  abstract override poll(): number;
  override get pollable(): boolean {
    return true;
  }
}

/** What a process has as its descriptors 0, 1 and 2: nothing to read, and everything written is gone. */
export class NullFile extends OpenFile {
  override read(): number {
    return 0;
  }
  override write(_process: SimulatedProcess, bytes: Uint8Array): number {
    return bytes.length;
  }
}
