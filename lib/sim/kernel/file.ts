/** Open files of the simulated kernel: what stands behind a file descriptor. */
import type { DeviceMapping } from '../../kernel';
import { errno } from '../../uapi/errno';
import type { SimulatedProcess } from './process';

/**
 * An open file description. It lives until its last reference goes: a file descriptor is one, and the kernel
 * holds others (a bound device keeps its iommufd alive). Calls a file does not implement fail as in Linux.
 */
export abstract class OpenFile {
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
    return -errno.ESPIPE;
  }
  pwrite(_bytes: Uint8Array, _offset: number): number {
    return -errno.ESPIPE;
  }
  mmap(_offset: number, _length: number, _protection: number): DeviceMapping | number {
    return -errno.ENODEV;
  }
  /** Ready bits now (POLLIN, …). Files that never wait are always ready. */
  poll(): number {
    return 0;
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
