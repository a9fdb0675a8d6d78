/**
 * Caching mode, CAP_REG.CM = 1: what was not present, or erroneous, is cached too, and software has to invalidate after every
 * change, also one that makes an entry present. Intel VT-d Architecture Specification rev. 4.1, section 6.1 "Caching Mode".
 *
 * Cached so are context entries and PASID table entries, under domain id 0, and second-stage translations, under their own.
 * First-stage and nested ones never are.
 */
import { isFunctionOf } from './context-cache';

/** What is kept of each kind; the oldest goes first. */
const MOST = 1024;

/** A look-up that ended in a fault. */
export interface CachedFault {
  readonly reason: number;
  readonly fpd: boolean;
}

interface FaultedPage {
  readonly tag: number;
  /** Address of the page, halves. */
  readonly high: number;
  readonly low: number;
  readonly reason: number;
}

export class FaultCache {
  private readonly contexts = new Map<number, CachedFault>();
  private readonly pasids = new Map<number, CachedFault>();
  private readonly pages = new Map<string, FaultedPage>();

  findContext(rid: number): CachedFault | undefined {
    return this.contexts.get(rid);
  }

  keepContext(rid: number, fault: CachedFault): void {
    put(this.contexts, rid, fault);
  }

  findPasid(rid: number, pasid: number): CachedFault | undefined {
    return this.pasids.get(rid * 2 ** 20 + pasid);
  }

  keepPasid(rid: number, pasid: number, fault: CachedFault): void {
    put(this.pasids, rid * 2 ** 20 + pasid, fault);
  }

  /** The reason that a request of `kind` for the page of an address was refused for, or 0. */
  findPage(tag: number, kind: number, high: number, low: number): number {
    return this.pages.get(keyOf(tag, kind, high, low))?.reason ?? 0;
  }

  keepPage(tag: number, kind: number, high: number, low: number, reason: number): void {
    put(this.pages, keyOf(tag, kind, high, low), { tag, high, low, reason });
  }

  clear(): void {
    this.contexts.clear();
    this.pasids.clear();
    this.pages.clear();
  }

  /** Context-cache invalidation: of a domain, or of all where it is undefined. */
  dropContexts(did?: number): void {
    if (did === undefined || did === 0) this.contexts.clear();
  }

  /** Context-cache invalidation of a function, and those that mask `fm` adds. */
  dropContextsOf(sid: number, fm: number): void {
    drop(this.contexts, (_, rid) => isFunctionOf(rid, sid, fm));
  }

  /** PASID-cache invalidation: of a domain, or of all where it is undefined. */
  dropPasids(did?: number): void {
    if (did === undefined || did === 0) this.pasids.clear();
  }

  /** PASID-cache invalidation of a PASID, by whatever domain the new entry has. */
  dropPasid(pasid: number): void {
    drop(this.pasids, (_, key) => key % 2 ** 20 === pasid);
  }

  /** IOTLB invalidation of tags; with `range`, of the naturally aligned 2^`am` pages around an address. */
  dropPages(
    tags: (tag: number) => boolean,
    range?: { readonly high: number; readonly low: number; readonly am: number },
  ): void {
    drop(this.pages, (page) => tags(page.tag) && (range === undefined || isWithin(page, range)));
  }
}

function put<K, V>(map: Map<K, V>, key: K, value: V): void {
  map.delete(key);
  map.set(key, value);
  if (map.size > MOST) map.delete(map.keys().next().value!);
}

function drop<K, V>(map: Map<K, V>, matches: (value: V, key: K) => boolean): void {
  for (const [key, value] of map) if (matches(value, key)) map.delete(key);
}

const keyOf = (tag: number, kind: number, high: number, low: number): string =>
  `${tag} ${kind} ${high >>> 0} ${low >>> 12}`;

function isWithin(page: FaultedPage, range: { high: number; low: number; am: number }): boolean {
  const order = 2 ** range.am;
  const numberOf = ({ high, low }: { high: number; low: number }): number =>
    Math.floor(((high >>> 0) * 2 ** 20 + (low >>> 12)) / order);
  return numberOf(page) === numberOf(range);
}
