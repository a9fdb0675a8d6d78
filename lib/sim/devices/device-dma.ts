/**
 * DMA of a simulated device as its author writes it: one call for a transfer of any length, which takes simulated time, finds
 * translations by ATS, asks for pages that are missing by PRI, and throws what went wrong. PCI Express Base Specification
 * 6.0, chapter 10.
 */
import {
  ACCESS_EXECUTE,
  ACCESS_NO_SNOOP,
  ACCESS_PRIVILEGED,
  ACCESS_READ,
  ACCESS_TRANSLATED,
  ACCESS_WRITE,
  NO_PASID,
  type PageRequest,
  PRG_FAILURE,
  PRG_SUCCESS,
  type TranslationCompletion,
} from '../bus';
import { PAGE_SIZE, pageHigh, pageLow, permits, type TranslationCache } from './atc';
import { PRG_INDICES } from './page-requests';
import type { Process } from './process';
import { accessNanoseconds, RESPONSE_NANOSECONDS, TRANSLATION_NANOSECONDS } from './timing';

/** One past the last page of 64-bit addresses. */
const PAGES = 2 ** 52;
/** Page requests for one page before the device gives up: each success without a mapping costs one. */
const PAGE_REQUEST_LIMIT = 8;

export interface DmaOptions {
  /** The PASID that requests carry; the function must have declared PASIDs, and software switched them on. */
  readonly pasid?: number | undefined;
  /** Requests in privileged mode. Needs a PASID. */
  readonly privileged?: boolean | undefined;
  /** Reads are of instructions. Needs a PASID. */
  readonly execute?: boolean | undefined;
  /** Requests have the No Snoop attribute where software allows it. */
  readonly noSnoop?: boolean | undefined;
  /** False: no translation requests, even where ATS is on. Default: ATS is used where software has switched it on. */
  readonly ats?: boolean | undefined;
  /** False: a page that is missing is not asked for, and ends the transfer ('no-access'). Default: it is, where that is on. */
  readonly pageRequests?: boolean | undefined;
}

/**
 * Why a transfer ended early: the root refused a read or write ('refused') or a translation request ('translation'); a page is
 * not mapped so, and page requests are off or did not help ('no-access'); a page request could not be sent ('page-request');
 * it was answered with Invalid Request or Response Failure ('page-invalid', 'page-failure').
 */
export type DmaFailure =
  'refused' | 'translation' | 'no-access' | 'page-request' | 'page-invalid' | 'page-failure';

/** A transfer that has ended early. What came before `address` has been moved. */
export class DmaError extends Error {
  constructor(
    readonly reason: DmaFailure,
    /** Where the access that failed began. */
    readonly address: bigint,
    /** It was a write. */
    readonly write: boolean,
    /** Bytes moved before it. */
    readonly done: number,
  ) {
    super(`DMA ${write ? 'write' : 'read'} at 0x${address.toString(16)}: ${reason}`);
    this.name = 'DmaError';
  }
}

/** What DMA needs of its function. */
export interface Requester {
  /** Undefined: no ATS is declared. */
  readonly cache: TranslationCache | undefined;
  atsEnabled(): boolean;
  pageRequestCredits(): number;
  read(
    pasid: number,
    high: number,
    low: number,
    into: Uint8Array,
    at: number,
    length: number,
    access: number,
  ): number;
  write(
    pasid: number,
    high: number,
    low: number,
    from: Uint8Array,
    at: number,
    length: number,
    access: number,
  ): number;
  translate(pasid: number, high: number, low: number, access: number): TranslationCompletion;
  requestPage(request: PageRequest): boolean;
  isGroupFree(prgIndex: number): boolean;
  schedule(nanoseconds: number, event: () => void): void;
}

/** A transfer under way. */
interface Transfer {
  readonly bytes: Uint8Array;
  readonly write: boolean;
  readonly pasid: number;
  /** Access bits of its requests. */
  readonly access: number;
  readonly ats: boolean;
  readonly pageRequests: boolean;
  page: number;
  offset: number;
  done: number;
}

/** Where a page is. */
interface Target {
  readonly page: number;
  readonly translated: boolean;
  readonly snooped: boolean;
}

export class DeviceDma {
  readonly #requester: Requester;
  /** Page request groups without an answer. */
  readonly #pending = new Map<number, (code: number) => void>();
  /** Who waits for credits. */
  #waiting: (() => void)[] = [];
  #lastGroup = -1;

  constructor(requester: Requester) {
    this.#requester = requester;
  }

  /** Reads `length` bytes of memory. Throws DmaError. */
  *read(address: bigint | number, length: number, options: DmaOptions = {}): Process<Uint8Array> {
    const bytes = new Uint8Array(length);
    yield* this.readInto(address, bytes, options);
    return bytes;
  }

  /** Reads memory into `bytes`, all of them. Throws DmaError. */
  *readInto(address: bigint | number, bytes: Uint8Array, options: DmaOptions = {}): Process {
    yield* this.#move(transfer(address, bytes, false, options));
  }

  /** Writes `bytes` to memory. Throws DmaError. */
  *write(address: bigint | number, bytes: Uint8Array, options: DmaOptions = {}): Process {
    yield* this.#move(transfer(address, bytes, true, options));
  }

  /** The answer to a page request group. A Response Failure is the last: no other group gets one (10.4.2.1). */
  respond(prgIndex: number, code: number): void {
    const answered = code === PRG_FAILURE ? [...this.#pending.keys()] : [prgIndex];
    for (const index of answered) {
      const resume = this.#pending.get(index);
      this.#pending.delete(index);
      resume?.(code);
    }
    for (const next of this.#waiting.splice(0)) this.#requester.schedule(RESPONSE_NANOSECONDS, next);
  }

  /** Forgets what was under way. */
  reset(): void {
    this.#pending.clear();
    this.#waiting = [];
  }

  /** Page by page; what a page's access moves is moved at once, and has taken its time when this goes on. */
  *#move(transfer: Transfer): Process {
    while (transfer.done < transfer.bytes.length) {
      const length = Math.min(transfer.bytes.length - transfer.done, PAGE_SIZE - transfer.offset);
      const target = yield* this.#resolve(transfer);
      const moved = this.#request(transfer, target, length);
      advance(transfer, moved);
      if (moved < length) throw failed(transfer, 'refused');
      yield (resume) => this.#requester.schedule(accessNanoseconds(length), resume);
    }
  }

  #request({ bytes, write, pasid, access, offset, done }: Transfer, target: Target, length: number): number {
    if (target.page >= PAGES) return 0;
    const high = pageHigh(target.page);
    const low = pageLow(target.page) + offset;
    const snoop = target.snooped ? access & ~ACCESS_NO_SNOOP : access;
    // A translated request has no PASID prefix, and what the prefix says was checked with the translation.
    const sent = target.translated ? (snoop & (ACCESS_WRITE | ACCESS_NO_SNOOP)) | ACCESS_TRANSLATED : snoop;
    const prefix = target.translated ? NO_PASID : pasid;
    return write
      ? this.#requester.write(prefix, high, low, bytes, done, length, sent)
      : this.#requester.read(prefix, high, low, bytes, done, length, sent);
  }

  /** Asks until the page may be accessed: an invalidation may come while a translation is under way. */
  *#resolve(transfer: Transfer): Process<Target> {
    const { pasid, page, ats } = transfer;
    const access = transfer.access & ~ACCESS_NO_SNOOP;
    const { cache } = this.#requester;
    for (let requests = 0; ats && cache && this.#requester.atsEnabled() && page < PAGES;) {
      const entry = cache.find(pasid, page, access);
      if (entry >= 0) {
        const snooped = cache.snooped(entry);
        if (cache.untranslatedOnly(entry)) return { page, translated: false, snooped };
        return { page: cache.translate(entry, page), translated: true, snooped };
      }
      const completion = this.#requester.translate(pasid, pageHigh(page), pageLow(page), access);
      if (!completion.success) throw failed(transfer, 'translation');
      const permitted = permits(completion, access);
      if (permitted) cache.insert(pasid, page, completion);
      yield (resume) => this.#requester.schedule(TRANSLATION_NANOSECONDS, resume);
      if (permitted) continue;
      if (!transfer.pageRequests || requests++ === PAGE_REQUEST_LIMIT) throw failed(transfer, 'no-access');
      yield* this.#askPage(transfer, access);
    }
    return { page, translated: false, snooped: false };
  }

  /** One page request, in a group of its own, and its answer. Waits for a credit while others are in flight. */
  *#askPage(transfer: Transfer, access: number): Process {
    const requester = this.#requester;
    while (requester.pageRequestCredits() === 0) {
      if (this.#pending.size === 0) throw failed(transfer, 'no-access');
      yield (resume) => this.#waiting.push(resume);
    }
    const prgIndex = this.#freeGroup();
    if (prgIndex < 0) throw failed(transfer, 'page-request');
    const request: PageRequest = {
      pasid: transfer.pasid,
      high: pageHigh(transfer.page),
      low: pageLow(transfer.page),
      read: !transfer.write,
      write: transfer.write,
      execute: (access & ACCESS_EXECUTE) !== 0,
      privileged: (access & ACCESS_PRIVILEGED) !== 0,
      last: true,
      prgIndex,
    };
    let answer = -1;
    let resume: (() => void) | undefined;
    this.#pending.set(prgIndex, (code) => {
      answer = code;
      if (resume) requester.schedule(RESPONSE_NANOSECONDS, resume);
    });
    if (!requester.requestPage(request)) {
      this.#pending.delete(prgIndex);
      throw failed(transfer, 'page-request');
    }
    // The root may have answered at once.
    if (answer < 0) yield (next) => (resume = next);
    if (answer === PRG_FAILURE) throw failed(transfer, 'page-failure');
    if (answer !== PRG_SUCCESS) throw failed(transfer, 'page-invalid');
  }

  /** The next index that no request in flight uses, or -1. */
  #freeGroup(): number {
    for (let i = 1; i <= PRG_INDICES; i++) {
      const prgIndex = (this.#lastGroup + i) % PRG_INDICES;
      if (!this.#requester.isGroupFree(prgIndex) || this.#pending.has(prgIndex)) continue;
      this.#lastGroup = prgIndex;
      return prgIndex;
    }
    return -1;
  }
}

function transfer(
  address: bigint | number,
  bytes: Uint8Array,
  write: boolean,
  { pasid = NO_PASID, privileged, execute, noSnoop, ats = true, pageRequests = true }: DmaOptions,
): Transfer {
  const wide = BigInt(address);
  const access =
    (write ? ACCESS_WRITE : ACCESS_READ) |
    (privileged ? ACCESS_PRIVILEGED : 0) |
    (execute && !write ? ACCESS_EXECUTE : 0) |
    (noSnoop ? ACCESS_NO_SNOOP : 0);
  const page = Number(wide / BigInt(PAGE_SIZE));
  const offset = Number(wide % BigInt(PAGE_SIZE));
  return { bytes, write, pasid, access, ats, pageRequests, page, offset, done: 0 };
}

function advance(transfer: Transfer, length: number): void {
  transfer.done += length;
  const offset = transfer.offset + length;
  transfer.page += Math.floor(offset / PAGE_SIZE);
  transfer.offset = offset % PAGE_SIZE;
}

function failed({ page, offset, write, done }: Transfer, reason: DmaFailure): DmaError {
  return new DmaError(reason, BigInt(page) * BigInt(PAGE_SIZE) + BigInt(offset), write, done);
}
