/** The call page of a kernel that takes structs as bytes: what the addon does for Linux. */
import { CALL_PAGE_BYTES, CALL_STRUCTS_AT, MOST_CALLS, type CallPage, type Kernel } from '../../kernel';
import { errno } from '../../uapi/errno';
import { IOMMUFD_TYPE } from '../../uapi/iommufd-ioctls';
import { checkInt32, checkInteger, checkUint32 } from './arguments';

const VFIO_TYPE = IOMMUFD_TYPE.charCodeAt(0);
/** _IOC_TYPE, _IOC_SIZE (asm-generic/ioctl.h). */
const typeOf = (request: number) => (request >>> 8) & 0xff;
const sizeOf = (request: number) => (request >>> 16) & 0x3fff;

interface Call {
  fd: number;
  request: number;
  offset: number;
  result: number;
}

export class SimulatedCallPage implements CallPage {
  readonly buffer = new ArrayBuffer(CALL_PAGE_BYTES);
  readonly address: bigint;
  readonly #view = new DataView(this.buffer);
  /** The page from an offset on: one for each offset that was used. */
  readonly #structs: Uint8Array[] = [];
  readonly #calls: Call[] = [];

  constructor(private readonly kernel: Pick<Kernel, 'addressOf' | 'ioctl'>) {
    this.address = kernel.addressOf(this.#view);
  }

  ioctl(fd: number, request: number, offset: number): number {
    checkInt32(fd, 'fd');
    checkUint32(request, 'request');
    checkUint32(offset, 'offset');
    this.#check(request, offset);
    return this.#make(fd, request, offset);
  }

  describe(index: number, fd: number, request: number, offset: number): void {
    checkInteger(index, 'index', 0, MOST_CALLS - 1);
    checkInt32(fd, 'fd');
    checkUint32(request, 'request');
    checkUint32(offset, 'offset');
    this.#calls[index] = { fd, request, offset, result: 0 };
  }

  run(count: number): number {
    checkInteger(count, 'count', 0, MOST_CALLS);
    const calls = Array.from({ length: count }, (_, i) => this.#calls[i]);
    for (const call of calls) this.#check(call?.request ?? 0, call?.offset ?? 0);
    for (const [i, call] of calls.entries()) {
      // Looked at again: a call before it may have written into its struct.
      const fits = this.#fits(call.request, call.offset);
      call.result = fits ? this.#make(call.fd, call.request, call.offset) : -errno.EFAULT;
      if (call.result < 0) return i;
    }
    return count;
  }

  result(index: number): number {
    checkInteger(index, 'index', 0, MOST_CALLS - 1);
    return this.#calls[index]?.result ?? 0;
  }

  #make(fd: number, request: number, offset: number): number {
    const struct = (this.#structs[offset] ??= new Uint8Array(this.buffer, offset));
    return this.kernel.ioctl(fd, request, struct);
  }

  #check(request: number, offset: number): void {
    if (!this.#fits(request, offset))
      throw new RangeError('offset must be that of a struct within the call page');
  }

  #fits(request: number, offset: number): boolean {
    if (offset < CALL_STRUCTS_AT || offset > CALL_PAGE_BYTES - 4) return false;
    const size = typeOf(request) === VFIO_TYPE ? this.#view.getUint32(offset, true) : sizeOf(request);
    return size <= CALL_PAGE_BYTES - offset;
  }
}
