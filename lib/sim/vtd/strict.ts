/**
 * Strict mode: finds requests that are served from a cache although software has changed the tables since, without the
 * invalidation that Intel VT-d Architecture Specification rev. 4.1, section 6.5 asks for. Real hardware serves them as
 * well, or not, as its caches have it, and says nothing.
 *
 * What a cached entry was made from is remembered word by word, and looked at again whenever the entry is used.
 */
import { PhysicalMemory, UNREADABLE } from '../memory';
import { joinHalves } from './layout';
import { Walk } from './walk';

/** A request that was served from a cache, and by the tables of that moment would have ended otherwise. */
export interface StaleUse {
  readonly rid: number;
  /** NO_PASID, or the request's PASID. */
  readonly pasid: number;
  /** The request's address, halves, and ACCESS_* bits. */
  readonly high: number;
  readonly low: number;
  readonly access: number;
  readonly cache: 'context-cache' | 'PASID-cache' | 'paging-structure cache' | 'IOTLB';
  /** Physical address of the table's 64-bit word that was changed. */
  readonly entry: number;
  /** What it was when it was cached, and is now, [high, low]; null where there is no memory any more. */
  readonly was: readonly [number, number];
  readonly is: readonly [number, number] | null;
  /** The invalidation that software left out. */
  readonly missing: string;
}

/** 64-bit words and where they are. */
export interface Source {
  readonly addresses: number[];
  /** High and low halves in turn. */
  readonly words: number[];
}

/** What a translation was made from. */
interface Path extends Source {
  /** How many of the words are first-stage entries, nested: the others are the second stage's. */
  readonly outer: number;
}

/** Bits that hardware sets itself: A, D and EA of either stage. */
const MARKS = 0x760;
const MAX_PATH = 5;

type Found = Pick<StaleUse, 'cache' | 'entry' | 'was' | 'is' | 'missing'>;

export class StrictChecker {
  private found: Found | null = null;
  /** By the index of an IOTLB entry. */
  private readonly paths = new Map<number, Path>();
  /** By the index of an entry of the paging-structure caches. */
  private readonly structures = new Map<number, Source>();

  constructor(
    private readonly memory: PhysicalMemory,
    private readonly report: (use: StaleUse) => void,
  ) {}

  /** The words at `address`; `count` of 64 bits. */
  remember(source: Source, address: number, count: number): Source {
    for (let at = address; at < address + 8 * count; at += 8) {
      source.addresses.push(at);
      source.words.push(this.memory.read32(at + 4), this.memory.read32(at));
    }
    return source;
  }

  /** The entries that a translation, now in the IOTLB at index `at`, was made from. */
  rememberPath(at: number, walk: Walk): void {
    const source = this.visited(walk, walk.depth);
    this.paths.set(at, { ...source, outer: source.addresses.length });
  }

  /** And, nested, those of a second-stage walk. */
  extendPath(at: number, inner: Walk): void {
    this.addVisited(this.paths.get(at)!, inner, inner.depth);
  }

  /** The entries that one of the paging-structure caches, of `level` and at index `at`, was made from. */
  rememberStructures(at: number, walk: Walk, level: number): void {
    this.structures.set(at, this.visited(walk, walk.start - level + 1));
  }

  /** What a walk's first `count` entries were, and before them what it has from the paging-structure caches. */
  private visited(walk: Walk, count: number): Source {
    const above = this.structures.get(walk.cachedAt);
    const source: Source = { addresses: [...(above?.addresses ?? [])], words: [...(above?.words ?? [])] };
    return this.addVisited(source, walk, count);
  }

  private addVisited(source: Source, walk: Walk, count: number): Source {
    for (let i = 0; i < Math.min(count, MAX_PATH); i++) {
      this.remember(source, joinHalves(walk.entries[3 * i]!, walk.entries[3 * i + 1]!), 1);
    }
    return source;
  }

  /** A cached context or PASID entry is used. `ignored`: bits of the low words that say nothing. */
  checkEntry(cache: StaleUse['cache'], source: Source | null, missing: string, ignored = 0): void {
    if (source === null || this.found !== null) return;
    const index = this.changed(source, ignored);
    if (index >= 0) this.found = this.describe(cache, source, index, missing);
  }

  /** An IOTLB entry is used; `differs` asks whether a walk would end otherwise. `inner`: for the second stage, nested. */
  checkPath(at: number, differs: () => boolean, missing: string, inner: string): void {
    const path = this.paths.get(at);
    if (path === undefined || this.found !== null) return;
    const index = this.changed(path, MARKS);
    if (index < 0 || !differs()) return;
    this.found = this.describe('IOTLB', path, index, index < path.outer ? missing : inner);
  }

  /** An entry of the paging-structure caches is used; `differs` asks whether a walk from the top would end otherwise. */
  checkStructures(at: number, differs: () => boolean, missing: string): void {
    const source = this.structures.get(at);
    if (source === undefined || this.found !== null) return;
    const index = this.changed(source, MARKS);
    if (index >= 0 && differs()) this.found = this.describe('paging-structure cache', source, index, missing);
  }

  /** A request is over. */
  finish(rid: number, pasid: number, high: number, low: number, access: number): void {
    const { found } = this;
    if (found === null) return;
    this.found = null;
    this.report({ rid, pasid, high: high >>> 0, low: low >>> 0, access, ...found });
  }

  /** Index of the first word that is another now, or -1. */
  private changed({ addresses, words }: Source, ignored: number): number {
    return addresses.findIndex((entry, i) => {
      const [high, low] = [this.memory.read32(entry + 4), this.memory.read32(entry)];
      // UNREADABLE has no bits: it is compared as it is.
      if (low === UNREADABLE) return true;
      return high !== words[2 * i] || ((low ^ words[2 * i + 1]!) & ~ignored) !== 0;
    });
  }

  private describe(cache: StaleUse['cache'], source: Source, index: number, missing: string): Found {
    const entry = source.addresses[index]!;
    const [wasHigh, wasLow] = [source.words[2 * index]!, source.words[2 * index + 1]!];
    const [high, low] = [this.memory.read32(entry + 4), this.memory.read32(entry)];
    const is: [number, number] | null = low === UNREADABLE ? null : [high >>> 0, low >>> 0];
    return { cache, entry, was: [wasHigh >>> 0, wasLow >>> 0], is, missing };
  }
}

const hex = (high: number, low: number): string =>
  `0x${high.toString(16)}${low.toString(16).padStart(8, '0')}`.replace(/^0x0+(?=.)/, '0x');

/** One sentence about a stale use. */
export function describeStaleUse(use: StaleUse): string {
  const { rid, pasid, high, low, cache, entry, was, is, missing } = use;
  const who = `function 0x${rid.toString(16)}${pasid < 0 ? '' : `, PASID ${pasid}`}`;
  const change = `${hex(...was)} became ${is === null ? 'no memory' : hex(...is)}`;
  return (
    `stale use of the ${cache} by ${who} at ${hex(high, low)}: the word at 0x${entry.toString(16)}, ` +
    `${change}, and no ${missing} followed`
  );
}
