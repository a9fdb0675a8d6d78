/**
 * What a simulated PCI function and the machine around it see of each other: requests upstream (DMA, address
 * translation, page requests), messages downstream (invalidations, page responses), and time.
 *
 * Addresses are two unsigned 32-bit halves, high first, so that the DMA path needs no BigInt.
 */

/** PASID argument of a request that carries none. */
export const NO_PASID = -1;

// Access bits of a request.
export const ACCESS_READ = 0;
export const ACCESS_WRITE = 1 << 0;
/** Execute requested (PASID requests only, PCIe base specification, PASID TLP prefix). */
export const ACCESS_EXECUTE = 1 << 1;
/** Privileged mode requested (PASID requests only). */
export const ACCESS_PRIVILEGED = 1 << 2;
/** The address comes from the device's own translation cache (AT = translated). */
export const ACCESS_TRANSLATED = 1 << 3;

/** The No Snoop attribute: memory is accessed without a look into the processors' caches (PCIe 6.0, 2.2.6.5). */
export const ACCESS_NO_SNOOP = 1 << 4;
/** An AtomicOp (PCIe base specification, FetchAdd, Swap, CAS): a read and a write of the same bytes. */
export const ACCESS_ATOMIC = 1 << 5;

/** A translation completion (PCIe ATS, section 10.2.3): one translated range. */
export interface TranslationCompletion {
  /** Completion status: false is Unsupported Request or Completer Abort, and the rest is meaningless. */
  readonly success: boolean;
  /** Translated address, high and low halves, aligned to `length`. */
  readonly high: number;
  readonly low: number;
  /** Bytes the translation covers: a power of two, 4096 or more. */
  readonly length: number;
  /** R and W permissions; both false means "no translation": ask with a page request. */
  readonly read: boolean;
  readonly write: boolean;
  readonly execute: boolean;
  readonly privileged: boolean;
  readonly global: boolean;
  /** U: only untranslated requests may use this range. */
  readonly untranslatedOnly: boolean;
  /** N: requests that use this range must not have the No Snoop attribute. */
  readonly snooped: boolean;
}

/** "No translation" (R = W = 0): the page is not mapped, or not as asked. */
export const NOT_MAPPED: TranslationCompletion = Object.freeze({
  success: true,
  high: 0,
  low: 0,
  length: 4096,
  read: false,
  write: false,
  execute: false,
  privileged: false,
  global: false,
  untranslatedOnly: false,
  snooped: false,
});

/** Unsupported Request: who may not ask gets this. */
export const REFUSED: TranslationCompletion = Object.freeze({ ...NOT_MAPPED, success: false });

/** A Page Request message (PCIe ATS, section 10.4.1). */
export interface PageRequest {
  readonly pasid: number;
  /** Page address, halves; the low 12 bits of `low` are zero. */
  readonly high: number;
  readonly low: number;
  readonly read: boolean;
  readonly write: boolean;
  readonly execute: boolean;
  readonly privileged: boolean;
  /** L: last request of its group. */
  readonly last: boolean;
  /** Page Request Group Index, 9 bits. */
  readonly prgIndex: number;
}

/** Response codes of a PRG Response message (PCIe ATS, section 10.4.2.1). */
export const PRG_SUCCESS = 0;
export const PRG_INVALID = 1;
export const PRG_FAILURE = 15;

/** The upstream side of a function: requests leave with its requester ID. */
export interface DmaPort {
  /**
   * Memory read of `length` bytes into `into` at `at`. Returns the number of bytes read before the first
   * page that was refused: `length` is success, less is a failed completion.
   */
  read(
    pasid: number,
    high: number,
    low: number,
    into: Uint8Array,
    at: number,
    length: number,
    access: number,
  ): number;
  /** Memory write, likewise. */
  write(
    pasid: number,
    high: number,
    low: number,
    from: Uint8Array,
    at: number,
    length: number,
    access: number,
  ): number;
  /** Translation request for the page at an address. `access` has ACCESS_WRITE where write is wanted (NW = 0). */
  translate(pasid: number, high: number, low: number, access: number): TranslationCompletion;
  /** Page Request message. False: the root refused it (page requests are off); no response will come. */
  requestPage(request: PageRequest): boolean;
  /** Runs `event` after `nanoseconds` of simulated time (0: as soon as the present event is over). */
  schedule(nanoseconds: number, event: () => void): void;
}

/** The downstream side: messages a function receives from the root. */
export interface AtsEndpoint {
  /** Invalidate request: drop cached translations of [address, address + length); length in bytes. */
  invalidateTranslations(pasid: number, high: number, low: number, length: number, global: boolean): void;
  pageGroupResponse(pasid: number, prgIndex: number, code: number): void;
}
