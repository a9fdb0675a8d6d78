/** Open files that are no devices: the text files and directories of sysfs and /dev. */
import { errno } from '../../uapi/errno';
import { OpenFile } from './file';
import type { TextFile } from './file-tree';
import type { SimulatedProcess } from './process';

/** The contents are those of the first read, as in sysfs. */
export class OpenTextFile extends OpenFile {
  #contents: Uint8Array | undefined;
  #position = 0;

  constructor(readonly node: TextFile) {
    super();
  }

  override read(_process: SimulatedProcess, bytes: Uint8Array): number {
    const done = this.pread(bytes, this.#position);
    if (done > 0) this.#position += done;
    return done;
  }

  override pread(bytes: Uint8Array, offset: number): number {
    if (!this.node.read) return -errno.EIO;
    this.#contents ??= Buffer.from(this.node.read());
    const part = this.#contents.subarray(offset, offset + bytes.length);
    bytes.set(part);
    return part.length;
  }

  override write(_process: SimulatedProcess, bytes: Uint8Array): number {
    return this.pwrite(bytes);
  }

  override pwrite(bytes: Uint8Array): number {
    if (!this.node.write) return -errno.EIO;
    return this.node.write(Buffer.from(bytes).toString()) || bytes.length;
  }
}

export class OpenDirectory extends OpenFile {
  override read(): number {
    return -errno.EISDIR;
  }
  override pread(): number {
    return -errno.EISDIR;
  }
}
