/** memfd_create(2): memory that has a file descriptor. */
import { errno } from '../../uapi/errno';
import { OpenFile } from './file';
import type { SimulatedProcess } from './process';

export class MemoryFile extends OpenFile {
  /** Where read(2) and write(2) go on. */
  #position = 0;

  constructor(readonly buffer: ArrayBuffer) {
    super();
  }

  override read(_process: SimulatedProcess, bytes: Uint8Array): number {
    const done = this.pread(bytes, this.#position);
    this.#position += done;
    return done;
  }

  override write(_process: SimulatedProcess, bytes: Uint8Array): number {
    const done = this.pwrite(bytes, this.#position);
    if (done > 0) this.#position += done;
    return done;
  }

  override pread(bytes: Uint8Array, offset: number): number {
    const source = new Uint8Array(this.buffer).subarray(offset, offset + bytes.length);
    bytes.set(source);
    return source.length;
  }

  override pwrite(bytes: Uint8Array, offset: number): number {
    // The memory is sealed at its size (F_SEAL_GROW): simulated pages are handed out whole and cannot grow.
    if (offset + bytes.length > this.buffer.byteLength) return -errno.EPERM;
    new Uint8Array(this.buffer).set(bytes, offset);
    return bytes.length;
  }
}
