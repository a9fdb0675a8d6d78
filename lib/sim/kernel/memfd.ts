/** memfd_create(2): memory that has a file descriptor. */
import { errno } from '../../uapi/errno';
import { POLLIN, POLLOUT } from '../../kernel';
import { OpenFile } from './file';

export class MemoryFile extends OpenFile {
  constructor(readonly buffer: ArrayBuffer) {
    super();
  }

  override pread(bytes: Uint8Array, offset: number): number {
    const source = new Uint8Array(this.buffer).subarray(offset, offset + bytes.length);
    bytes.set(source);
    return source.length;
  }

  override pwrite(bytes: Uint8Array, offset: number): number {
    // The memory is sealed at its size: simulated pages are handed out whole and cannot grow.
    if (offset + bytes.length > this.buffer.byteLength) return -errno.EPERM;
    new Uint8Array(this.buffer).set(bytes, offset);
    return bytes.length;
  }

  override poll(): number {
    return POLLIN | POLLOUT;
  }
}
