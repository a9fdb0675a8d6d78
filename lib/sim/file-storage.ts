/** A namespace in a file, which stays when the program ends. */
import {
  closeSync,
  constants,
  fstatSync,
  fsyncSync,
  ftruncateSync,
  openSync,
  readSync,
  writeSync,
} from 'node:fs';
import type { NvmeStorage } from './devices/nvme/storage';

const ZEROS = new Uint8Array(64 * 1024);

export class FileStorage implements NvmeStorage {
  readonly size: number;
  readonly #fd: number;

  /**
   * `size`: bytes; a file that is shorter is extended (sparsely), one that is longer is left alone. Default: what the file has;
   * then it must exist.
   */
  constructor(path: string, size?: number) {
    this.#fd = openSync(path, constants.O_RDWR | (size === undefined ? 0 : constants.O_CREAT));
    const there = fstatSync(this.#fd).size;
    this.size = size ?? there;
    if (!Number.isSafeInteger(this.size) || this.size <= 0) {
      closeSync(this.#fd);
      throw new RangeError(`${path}: ${this.size} is no number of bytes for a disk`);
    }
    if (there < this.size) ftruncateSync(this.#fd, this.size);
  }

  read(offset: number, bytes: Uint8Array): void {
    for (let done = 0; done < bytes.length;) {
      const moved = readSync(this.#fd, bytes, done, bytes.length - done, offset + done);
      if (moved === 0) throw new Error(`the file ends at ${offset + done}`);
      done += moved;
    }
  }

  write(offset: number, bytes: Uint8Array): void {
    for (let done = 0; done < bytes.length;)
      done += writeSync(this.#fd, bytes, done, bytes.length - done, offset + done);
  }

  zero(offset: number, length: number): void {
    for (let done = 0; done < length; done += ZEROS.length)
      this.write(offset + done, ZEROS.subarray(0, Math.min(ZEROS.length, length - done)));
  }

  flush(): void {
    fsyncSync(this.#fd);
  }

  /** The controller must not be used any more. */
  close(): void {
    closeSync(this.#fd);
  }
}
