/** memfd_create(2): memory that has a file descriptor. Its size is sealed (F_SEAL_SHRINK, F_SEAL_GROW). */
import { BLOCK_BYTES, PROT_READ, PROT_WRITE, type DeviceMapping } from '../../kernel';
import { errno } from '../../uapi/errno';
import { OpenFile } from './file';
import { PAGE_SIZE, type Frames, type Pin } from './frames';
import type { SimulatedProcess } from './process';

const HUGE_PAGE_SIZE = 2 * 1024 * 1024;

export class MemoryFile extends OpenFile {
  /** Bytes, whole pages. */
  readonly length: number;
  /** Where read(2) and write(2) go on. */
  #position = 0;

  constructor(readonly frames: Frames) {
    super();
    frames.hold();
    this.length = this.bytes.length;
  }

  /** The memory, as it is for whoever maps it now. */
  get bytes(): Uint8Array {
    const { buffer } = this.frames;
    if (!buffer) throw new Error('the memory of an open file is gone');
    return new Uint8Array(buffer);
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
    const source = this.bytes.subarray(offset, offset + bytes.length);
    bytes.set(source);
    return source.length;
  }

  override pwrite(bytes: Uint8Array, offset: number): number {
    // Files of huge pages have no write operation.
    if (this.frames.huge) return -errno.EINVAL;
    const room = this.#room(offset, bytes.length);
    if (room > 0) this.bytes.set(bytes.subarray(0, room), offset);
    else if (bytes.length > 0) return -errno.EPERM;
    return room;
  }

  override mmap(offset: number, length: number, protection: number): DeviceMapping | number {
    if (this.frames.huge && offset % HUGE_PAGE_SIZE) return -errno.EINVAL;
    if (offset + length > this.length) return -errno.EINVAL;
    return new MemoryMapping(this, offset, length, protection);
  }

  /** Pins pages [first, end). Undefined where the file does not have them. */
  pin(first: number, end: number): Pin | undefined {
    return end * PAGE_SIZE <= this.length ? this.frames.pin(first, end) : undefined;
  }

  protected override release(): void {
    this.frames.drop();
  }

  /** How much of a write is done: Linux writes in pieces up to the next 2 MiB, and refuses one that would grow the file. */
  #room(offset: number, length: number): number {
    if (offset + length <= this.length) return length;
    const lastPiece = this.length - (this.length % HUGE_PAGE_SIZE);
    return Math.max(lastPiece - offset, 0);
  }
}

/** mmap(2) of the file. */
class MemoryMapping implements DeviceMapping {
  #mapped = true;

  constructor(
    readonly file: MemoryFile,
    readonly offset: number,
    readonly length: number,
    readonly protection: number,
  ) {
    file.get();
  }

  load(offset: number, width: 1 | 2 | 4): number {
    const view = this.#view(offset, width, PROT_READ);
    if (width === 1) return view.getUint8(0);
    return width === 2 ? view.getUint16(0, true) : view.getUint32(0, true);
  }

  load64(offset: number): bigint {
    return this.#view(offset, 8, PROT_READ).getBigUint64(0, true);
  }

  store(offset: number, width: 1 | 2 | 4, value: number): void {
    const view = this.#view(offset, width, PROT_WRITE);
    if (width === 1) view.setUint8(0, value);
    else if (width === 2) view.setUint16(0, value, true);
    else view.setUint32(0, value, true);
  }

  store64(offset: number, value: bigint): void {
    this.#view(offset, 8, PROT_WRITE).setBigUint64(0, value, true);
  }

  storeBlock(offset: number, bytes: Uint8Array): number {
    const { buffer, byteOffset } = this.#view(offset, BLOCK_BYTES, PROT_WRITE);
    new Uint8Array(buffer, byteOffset, BLOCK_BYTES).set(bytes);
    return 0;
  }

  unmap(): void {
    if (!this.#mapped) return;
    this.#mapped = false;
    this.file.put();
  }

  #view(offset: number, width: number, access: number): DataView {
    if (!this.#mapped) throw new TypeError('mapping must be one that has not been unmapped');
    if (!(this.protection & access))
      throw new TypeError(`mapping must be ${access === PROT_READ ? 'readable' : 'writable'}`);
    if (!Number.isInteger(offset) || offset < 0 || offset % width || offset + width > this.length)
      throw new RangeError(`no aligned ${width}-byte access at ${offset} of a ${this.length}-byte mapping`);
    const { buffer, byteOffset } = this.file.bytes;
    return new DataView(buffer, byteOffset + this.offset + offset, width);
  }
}
