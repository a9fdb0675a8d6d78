/**
 * IOTLB. Intel VT-d Architecture Specification rev. 4.1, sections 6.2.4 "IOTLB" and 6.5.2 (what each invalidation drops).
 *
 * Direct-mapped, 4 KiB granules, four words an entry:
 *   0  input address 43:12
 *   1  input address 63:44 in bits 31:12, tag in 11:0 (0: empty)
 *   2  output address 31:12, page size code in 11:10, kind in 9:8, allowed requests in 7:0
 *   3  output address 51:32 in 19:0, snoop in 31
 * A tag is a small number for (domain id, PASID). A larger page is cached as the granules that were used, and any
 * invalidation that touches the page drops them all. Nothing but an invalidation or a colliding insert removes an entry:
 * stale entries are served.
 */

import type { FaultCache } from './caching-mode';
import {
  PagingStructureCache,
  STRUCTURES_FIRST_STAGE,
  STRUCTURES_SECOND_STAGE,
} from './paging-structure-cache';
import type { Walk } from './walk';

const ENTRIES = 4096;
const WORDS = 4 * ENTRIES;
export const MAX_TAGS = 4095;
const TAG_MASK = 0xfff;

// Kinds of entries, for what page-selective invalidations reach.
export const KIND_SECOND_STAGE = 0;
export const KIND_FIRST_STAGE = 1;
export const KIND_NESTED = 2;
export const KIND_PASS_THROUGH = 3;

// Word 3.
export const OUTPUT_HIGH = 0xf_ffff;
export const SNOOP = 1 << 31;

const KIND_SHIFT = 8;
const SIZE_SHIFT = 10;
/** Size and kind, in word 2. */
const COUNTED = (3 << SIZE_SHIFT) | (3 << KIND_SHIFT);

const kindOf = (word2: number): number => (word2 >>> KIND_SHIFT) & 3;
/** log2 of the entry's page in 4 KiB pages: 0, 9 or 18. */
const orderOf = (word2: number): number => ((word2 >>> SIZE_SHIFT) & 3) * 9;
const isFirstStage = (word2: number): boolean => {
  const kind = kindOf(word2);
  return kind === KIND_FIRST_STAGE || kind === KIND_NESTED;
};

/** Index of the first word of the entry that a granule, of page number 31:0, can be in. */
export function placeOf(tag: number, word0: number): number {
  return ((word0 ^ (word0 >>> 12) ^ (tag * 0x9e5)) & (ENTRIES - 1)) << 2;
}

export class Iotlb {
  /** Entries; {@link slot} gives an index into it. Readers only. */
  readonly words = new Int32Array(WORDS);
  private readonly tags = new Map<number, number>();
  private readonly domainOf = new Int32Array(MAX_TAGS + 1);
  private readonly pasidOf = new Int32Array(MAX_TAGS + 1);
  /** Goes with the IOTLB in all invalidations but those with IH = 1. */
  readonly structures = new PagingStructureCache();
  /** Set with caching mode: goes with the IOTLB, too. */
  faults: FaultCache | null = null;
  /** Entries of pages above 4 KiB, and of first-stage or nested kind: while there are none, ranges can be probed. */
  private large = 0;
  private firstStage = 0;

  /** True if {@link tagOf} could run out: clear everything that holds tags, then {@link reset}. */
  get tagsExhausted(): boolean {
    return this.tags.size === MAX_TAGS;
  }

  /** The tag of (domain id, PASID). RangeError when none is left. */
  tagOf(did: number, pasid: number): number {
    const key = did * 2 ** 20 + pasid;
    let tag = this.tags.get(key);
    if (tag === undefined) {
      tag = this.tags.size + 1;
      if (tag > MAX_TAGS) throw new RangeError('IOTLB tags are used up');
      this.tags.set(key, tag);
      this.domainOf[tag] = did;
      this.pasidOf[tag] = pasid;
    }
    return tag;
  }

  /** Index of the entry's first word if the granule of an address is cached, or -1. */
  slot(tag: number, high: number, low: number): number {
    const word0 = (high << 20) | (low >>> 12);
    const at = placeOf(tag, word0);
    return this.words[at] === word0 && this.words[at + 1] === ((high & ~TAG_MASK) | tag) ? at : -1;
  }

  /** Caches the translation of a granule, which `walk` has, at the index it returns. */
  insert(tag: number, kind: number, high: number, low: number, walk: Walk): number {
    const word0 = (high << 20) | (low >>> 12);
    const at = placeOf(tag, word0);
    const words = this.words;
    const size = walk.shift === 12 ? 0 : walk.shift === 21 ? 1 : 2;
    const word2 = (walk.low & ~0xfff) | (size << SIZE_SHIFT) | (kind << KIND_SHIFT) | walk.allowed;
    // 0 where there was none: what counts for nothing.
    const before = words[at + 2]!;
    if (((before ^ word2) & COUNTED) !== 0) {
      this.count(before, -1);
      this.count(word2, 1);
    }
    words[at] = word0;
    words[at + 1] = (high & ~TAG_MASK) | tag;
    words[at + 2] = word2;
    words[at + 3] = walk.high | walk.snoop;
    return at;
  }

  /** log2 of the page the entry at `at` belongs to. */
  shiftAt(at: number): number {
    return 12 + orderOf(this.words[at + 2]!);
  }

  /** Global invalidation. */
  invalidateAll(): void {
    this.structures.invalidateAll();
    this.faults?.dropPages(() => true);
    this.words.fill(0);
    this.large = 0;
    this.firstStage = 0;
  }

  /** Pass-through entries, which no table says anything about, go when protected memory changes. */
  forgetPassThrough(): void {
    for (let at = 0; at < WORDS; at += 4) {
      if ((this.words[at + 1]! & TAG_MASK) !== 0 && kindOf(this.words[at + 2]!) === KIND_PASS_THROUGH)
        this.drop(at);
    }
  }

  /** Forgets entries and tags. */
  reset(): void {
    this.invalidateAll();
    this.tags.clear();
  }

  /** Domain-selective: every entry of the domain. */
  invalidateDomain(did: number): void {
    const { words, domainOf } = this;
    const isOfDomain = (tag: number): boolean => domainOf[tag] === did;
    this.structures.invalidateTags(isOfDomain);
    this.faults?.dropPages(isOfDomain);
    for (let at = 0; at < WORDS; at += 4) {
      const tag = words[at + 1]! & TAG_MASK;
      if (tag !== 0 && domainOf[tag] === did) this.drop(at);
    }
  }

  /**
   * Page-selective-within-domain: second-stage entries of 2^`am` pages around the address, and every first-stage and
   * nested entry of the domain, whose second-stage addresses are not in the IOTLB. `hint`: IH, only leaf entries have changed.
   */
  invalidatePages(did: number, high: number, low: number, am: number, hint: boolean): void {
    const isOfDomain = (tag: number): boolean => this.domainOf[tag] === did;
    if (!hint) this.structures.invalidateRange(isOfDomain, STRUCTURES_SECOND_STAGE, high, low, am, true);
    this.faults?.dropPages(isOfDomain, { high, low, am });
    if (this.large === 0 && this.firstStage === 0 && am <= 6) {
      for (let tag = 1; tag <= this.tags.size; tag++) {
        if (this.domainOf[tag] === did) this.probe(tag, high, low, am, false);
      }
      return;
    }
    const { words, domainOf } = this;
    for (let at = 0; at < WORDS; at += 4) {
      const tag = words[at + 1]! & TAG_MASK;
      if (tag === 0 || domainOf[tag] !== did) continue;
      if (isFirstStage(words[at + 2]!) || (this.isSecondStage(at) && this.touches(at, high, low, am)))
        this.drop(at);
    }
  }

  /** PASID-selective: every entry of (domain, PASID). */
  invalidatePasid(did: number, pasid: number): void {
    const tag = this.tags.get(did * 2 ** 20 + pasid);
    if (tag === undefined) return;
    this.structures.invalidateTags((other) => other === tag);
    this.faults?.dropPages((other) => other === tag);
    for (let at = 0; at < WORDS; at += 4) if ((this.words[at + 1]! & TAG_MASK) === tag) this.drop(at);
  }

  /** Page-selective-within-PASID: first-stage and nested entries of 2^`am` pages around the address. */
  invalidatePasidPages(
    did: number,
    pasid: number,
    high: number,
    low: number,
    am: number,
    hint: boolean,
  ): void {
    const tag = this.tags.get(did * 2 ** 20 + pasid);
    if (tag === undefined) return;
    const isTag = (other: number): boolean => other === tag;
    if (!hint) this.structures.invalidateRange(isTag, STRUCTURES_FIRST_STAGE, high, low, am, false);
    if (this.large === 0 && am <= 6) {
      this.probe(tag, high, low, am, true);
      return;
    }
    for (let at = 0; at < WORDS; at += 4) {
      if ((this.words[at + 1]! & TAG_MASK) !== tag) continue;
      if (isFirstStage(this.words[at + 2]!) && this.touches(at, high, low, am)) this.drop(at);
    }
  }

  private probe(tag: number, high: number, low: number, am: number, firstStage: boolean): void {
    const first = low & (-1 << (12 + am));
    for (let i = 0; i < 1 << am; i++) {
      const at = this.slot(tag, high, first + (i << 12));
      if (at >= 0 && (firstStage ? isFirstStage(this.words[at + 2]!) : this.isSecondStage(at))) this.drop(at);
    }
  }

  private isSecondStage(at: number): boolean {
    return kindOf(this.words[at + 2]!) === KIND_SECOND_STAGE;
  }

  /** Whether the entry's page overlaps the naturally aligned 2^`am` pages around an address. */
  private touches(at: number, high: number, low: number, am: number): boolean {
    const order = Math.max(am, orderOf(this.words[at + 2]!));
    const lowDifference = this.words[at]! ^ ((high << 20) | (low >>> 12));
    const highDifference = (this.words[at + 1]! ^ high) >>> 12;
    if (order >= 32) return highDifference >>> (order - 32) === 0;
    return highDifference === 0 && (lowDifference & (-1 << order)) === 0;
  }

  private count(word2: number, change: number): void {
    if (orderOf(word2) !== 0) this.large += change;
    if (isFirstStage(word2)) this.firstStage += change;
  }

  private drop(at: number): void {
    this.count(this.words[at + 2]!, -1);
    this.words[at + 1] = 0;
    this.words[at] = 0;
    this.words[at + 2] = 0;
  }
}
