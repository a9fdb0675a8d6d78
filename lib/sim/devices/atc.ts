/**
 * Address translation cache of a device: completions of translation requests, until they are invalidated.
 * PCI Express Base Specification 6.0, sections 10.1.2 and 10.3.
 *
 * Addresses are page numbers here (address / 4096): below 2^52, so exact as float64.
 */
import {
  ACCESS_EXECUTE,
  ACCESS_PRIVILEGED,
  ACCESS_WRITE,
  NO_PASID,
  type TranslationCompletion,
} from '../bus';

/** The smallest translation unit. */
export const PAGE_SIZE = 4096;

/** The page number of an address given as halves. */
export function pageNumber(high: number, low: number): number {
  return (high >>> 0) * 2 ** 20 + (low >>> 12);
}

/** The halves of a page's address. */
export function pageHigh(page: number): number {
  return Math.floor(page / 2 ** 20);
}
export function pageLow(page: number): number {
  return ((page % 2 ** 20) * PAGE_SIZE) >>> 0;
}

/**
 * Whether a completion permits an access (ACCESS_* bits). Permissions hold for one mode: Priv says which, and those
 * for the other mode are no permission (10.2.3).
 */
export function permits(completion: TranslationCompletion, access: number): boolean {
  return flagsPermit(completionFlags(completion), access);
}

const READ = 1 << 0;
const WRITE = 1 << 1;
const EXECUTE = 1 << 2;
const PRIVILEGED = 1 << 3;
const GLOBAL = 1 << 4;
const UNTRANSLATED_ONLY = 1 << 5;
const SNOOPED = 1 << 6;

function completionFlags(completion: TranslationCompletion): number {
  return (
    (completion.read ? READ : 0) |
    (completion.write ? WRITE : 0) |
    (completion.execute ? EXECUTE : 0) |
    (completion.privileged ? PRIVILEGED : 0) |
    (completion.global ? GLOBAL : 0) |
    (completion.untranslatedOnly ? UNTRANSLATED_ONLY : 0) |
    (completion.snooped ? SNOOPED : 0)
  );
}

function flagsPermit(flags: number, access: number): boolean {
  if (((flags & PRIVILEGED) !== 0) !== ((access & ACCESS_PRIVILEGED) !== 0)) return false;
  if ((access & ACCESS_WRITE) !== 0) return (flags & WRITE) !== 0;
  return (flags & READ) !== 0 && ((access & ACCESS_EXECUTE) === 0 || (flags & EXECUTE) !== 0);
}

export class TranslationCache {
  private readonly pasids: Int32Array;
  private readonly pages: Float64Array;
  /** Pages an entry covers; 0 for an entry not in use. */
  private readonly counts: Float64Array;
  private readonly translated: Float64Array;
  private readonly flags: Uint8Array;
  private victim = 0;

  /** `capacity`: entries, searched in order as in a fully associative cache. */
  constructor(readonly capacity = 32) {
    if (!Number.isInteger(capacity) || capacity < 1) throw new RangeError(`no cache has ${capacity} entries`);
    this.pasids = new Int32Array(capacity);
    this.pages = new Float64Array(capacity);
    this.counts = new Float64Array(capacity);
    this.translated = new Float64Array(capacity);
    this.flags = new Uint8Array(capacity);
  }

  /** Entries in use. */
  get size(): number {
    let used = 0;
    for (const count of this.counts) if (count > 0) used++;
    return used;
  }

  /** The entry that translates a page for this access (ACCESS_* bits), or -1. */
  find(pasid: number, page: number, access: number): number {
    for (let entry = 0; entry < this.capacity; entry++) {
      const first = this.pages[entry];
      if (page < first || page >= first + this.counts[entry]) continue;
      if (this.matches(entry, pasid) && flagsPermit(this.flags[entry], access)) return entry;
    }
    return -1;
  }

  /** The page an entry translates `page` to. */
  translate(entry: number, page: number): number {
    return this.translated[entry] + (page - this.pages[entry]);
  }

  /** U was set: the range must be accessed with untranslated requests. */
  untranslatedOnly(entry: number): boolean {
    return (this.flags[entry] & UNTRANSLATED_ONLY) !== 0;
  }

  /** N was set: requests to the range have no No Snoop attribute. */
  snooped(entry: number): boolean {
    return (this.flags[entry] & SNOOPED) !== 0;
  }

  /**
   * Keeps the completion of a translation request for `page`. One without permissions is not kept: a device asks
   * again after its page request was answered (10.2.3.2).
   */
  insert(pasid: number, page: number, completion: TranslationCompletion): void {
    if (!completion.success || (!completion.read && !completion.write)) return;
    const count = completion.length / PAGE_SIZE;
    const first = page - (page % count);
    this.drop(pasid, first, count, false);
    const entry = this.freeEntry();
    this.pasids[entry] = pasid;
    this.pages[entry] = first;
    this.counts[entry] = count;
    this.translated[entry] = pageNumber(completion.high, completion.low);
    this.flags[entry] = completionFlags(completion);
  }

  /**
   * Invalidate request: drops what overlaps [address, address + length). With a PASID, entries of that PASID;
   * with `global`, of every PASID; with NO_PASID, those of requests without PASID. Returns the entries dropped.
   */
  invalidate(pasid: number, high: number, low: number, length: number, global: boolean): number {
    return this.drop(pasid, pageNumber(high, low), Math.ceil(((low & 0xfff) + length) / PAGE_SIZE), global);
  }

  clear(): void {
    this.counts.fill(0);
  }

  private drop(pasid: number, page: number, count: number, global: boolean): number {
    let dropped = 0;
    for (let entry = 0; entry < this.capacity; entry++) {
      if (this.counts[entry] === 0) continue;
      const first = this.pages[entry];
      if (first >= page + count || page >= first + this.counts[entry]) continue;
      const tagged = this.pasids[entry] !== NO_PASID;
      if (global ? !tagged : !this.matches(entry, pasid)) continue;
      this.counts[entry] = 0;
      dropped++;
    }
    return dropped;
  }

  private matches(entry: number, pasid: number): boolean {
    if (this.pasids[entry] === pasid) return true;
    // A global translation was obtained for one PASID and holds for all.
    return (this.flags[entry] & GLOBAL) !== 0 && pasid !== NO_PASID && this.pasids[entry] !== NO_PASID;
  }

  private freeEntry(): number {
    const free = this.counts.indexOf(0);
    if (free >= 0) return free;
    this.victim = (this.victim + 1) % this.capacity;
    return this.victim;
  }
}
