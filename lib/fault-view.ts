import { answeredAlready, isInvalid, type Fault, type FaultResponse } from './fault';
import { FAULT_RECORD_BYTES, faultRecord, TIMESTAMP_BYTES } from './rings/layout';
import * as uapi from './uapi';

const FLAGS = faultRecord.flags >> 2;
const PASID = faultRecord.pasid >> 2;
const GROUP = faultRecord.group >> 2;
const PERMISSIONS = faultRecord.permissions >> 2;
const ADDRESS = faultRecord.address >> 2;
const LENGTH = faultRecord.length >> 2;
const COOKIE = faultRecord.cookie >> 2;
const IOASID = faultRecord.ioasid >> 2;
/** In 64-bit words. */
const TIMESTAMP = (FAULT_RECORD_BYTES - TIMESTAMP_BYTES) >> 3;

// Copies: members of a module that another hands on are looked up in it each time.
const { IOMMU_PGFAULT_FLAGS_PASID_VALID: PASID_VALID, IOMMU_PGFAULT_FLAGS_LAST_PAGE: LAST_PAGE } = uapi;
const { IOMMU_PGFAULT_PERM_READ: READ, IOMMU_PGFAULT_PERM_WRITE: WRITE } = uapi;
const { IOMMUFD_PAGE_RESP_INVALID: INVALID, IOMMUFD_PAGE_RESP_SUCCESS: SUCCESS } = uapi;
const { IOMMU_PGFAULT_PERM_EXEC: EXECUTE, IOMMU_PGFAULT_PERM_PRIV: PRIVILEGED } = uapi;

/**
 * A fault in the ring, for drain(callback): the same object for every record, good during the call. Nothing is allocated
 * but by the fields that are bigints; their halves are there as numbers.
 */
export class FaultView {
  /** @internal */
  readonly words: Int32Array;
  /** @internal The first word of its record. */
  at = 0;
  /** @internal What the callback did: the response code that it gave; -1: none, or it has kept the fault. */
  answer = -1;
  /** @internal */
  kept: Fault | undefined;
  readonly #wide: BigUint64Array;
  readonly #keep: () => Fault;

  /** @internal */
  constructor(words: Int32Array, keep: () => Fault) {
    this.words = words;
    this.#wide = new BigUint64Array(words.buffer);
    this.#keep = keep;
  }

  /** @internal The same for a fault that is an object already. */
  static of(fault: Fault): FaultView {
    const view = new FaultView(fault.words, () => fault);
    view.kept = fault;
    return view;
  }

  /** @internal The record whose first word this is. */
  moveTo(at: number): void {
    this.at = at;
    this.answer = -1;
    this.kept = undefined;
  }

  /** The I/O address space in which the page is missing. */
  get ioasid(): number {
    return this.words[this.at + IOASID] >>> 0;
  }
  /** The cookie of the device that asked. */
  get cookie(): bigint {
    return this.#wide[(this.at + COOKIE) >> 1];
  }
  get cookieHigh(): number {
    return this.words[this.at + COOKIE + 1] >>> 0;
  }
  get cookieLow(): number {
    return this.words[this.at + COOKIE] >>> 0;
  }
  /** The PASID of its request, if it carried one. */
  get pasid(): number | undefined {
    const valid = this.words[this.at + FLAGS] & PASID_VALID;
    return valid ? this.words[this.at + PASID] >>> 0 : undefined;
  }
  /** The address asked for. */
  get address(): bigint {
    return this.#wide[(this.at + ADDRESS) >> 1];
  }
  get addressHigh(): number {
    return this.words[this.at + ADDRESS + 1] >>> 0;
  }
  get addressLow(): number {
    return this.words[this.at + ADDRESS] >>> 0;
  }
  /** What the device wants to do there. */
  get read(): boolean {
    return this.#may(READ);
  }
  get write(): boolean {
    return this.#may(WRITE);
  }
  get execute(): boolean {
    return this.#may(EXECUTE);
  }
  get privileged(): boolean {
    return this.#may(PRIVILEGED);
  }
  /** Bytes wanted beyond the one page, a hint; 0 where the hardware gives none. */
  get length(): number {
    return this.words[this.at + LENGTH] >>> 0;
  }
  /** The page request group index. */
  get group(): number {
    return this.words[this.at + GROUP] >>> 0;
  }
  /** This is the last request of its group. */
  get last(): boolean {
    return (this.words[this.at + FLAGS] & LAST_PAGE) !== 0;
  }
  /** When it was read from the kernel: nanoseconds of CLOCK_MONOTONIC. */
  get timestamp(): bigint {
    return this.#wide[(this.at >> 1) + TIMESTAMP];
  }

  /** As Fault.respond. A fault that the callback neither answers nor keeps stays in `pending`. */
  respond(response: FaultResponse): void {
    const code = isInvalid(response) ? INVALID : SUCCESS;
    if (this.answer >= 0) throw answeredAlready(this.address);
    if (this.kept !== undefined) this.kept.respond(response);
    else this.answer = code;
  }

  /** The fault as an object, to be answered later. */
  keep(): Fault {
    if (this.answer >= 0 || this.kept?.answered) throw answeredAlready(this.address);
    this.kept ??= this.#keep();
    return this.kept;
  }

  #may(permission: number): boolean {
    return (this.words[this.at + PERMISSIONS] & permission) !== 0;
  }
}
