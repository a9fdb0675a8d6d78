/**
 * Paging-structure caches: what entries above a leaf say, so that a walk can begin below them.
 * Intel VT-d Architecture Specification rev. 4.1, sections 6.2.5 "Paging-Structure Caches" and 6.5.2 (what each invalidation
 * drops; descriptors with IH = 1 leave them alone).
 *
 * Direct-mapped, a part for each level: 2 (PDE) to 5 (PML5E). An entry of level n stands for all entries from the top table
 * down to that of level n, six words:
 *   0  input address from bit 12 + 9 * (n - 1) up, low 32 bits
 *   1  the rest of it in bits 23:13, stage in 12, tag in 11:0 (0: empty)
 *   2  address of the table of level n - 1, 63:32
 *   3  31:0
 *   4  flags that all those entries have, low words
 *   5  flags that one of them has, high words
 * Tags are the IOTLB's. Only walks that ended well leave entries, so that one that is not present is never cached (CAP.CM = 0).
 */
import { Walk } from './walk';

const SLOTS = 256;
const WORDS = 6;
const LEVEL_WORDS = SLOTS * WORDS;
const TOP_LEVEL = 5;
const TAG_MASK = 0xfff;

// Which stage's entries.
export const STRUCTURES_SECOND_STAGE = 0;
export const STRUCTURES_FIRST_STAGE = 1 << 12;

/** log2 of the range that an entry of `level` covers. */
const shiftOf = (level: number): number => 3 + 9 * level;

/** Bits `shift` and up of an address in halves: the low 32 of them, and the rest. `shift` is 21, 30, 39 or 48. */
const prefixLow = (shift: number, high: number, low: number): number =>
  shift < 32 ? (high << (32 - shift)) | (low >>> shift) : high >>> (shift - 32);
const prefixHigh = (shift: number, high: number): number => (shift < 32 ? high >>> shift : 0);

export class PagingStructureCache {
  /** Entries; {@link find} gives an index into it. Readers only. */
  readonly words = new Int32Array((TOP_LEVEL - 1) * LEVEL_WORDS);
  /** Level of the entry that {@link find} found. */
  level = 0;
  private count = 0;

  /** The entry nearest to the leaf for an address: index of its first word, or -1. `levels`: of the tables. */
  find(tag: number, stage: number, levels: number, high: number, low: number): number {
    const { words } = this;
    for (let level = 2; level <= levels; level++) {
      const at = placeOf(level, tag, high, low);
      const shift = shiftOf(level);
      if (
        words[at] === (prefixLow(shift, high, low) | 0) &&
        words[at + 1] === second(tag, stage, shift, high)
      ) {
        this.level = level;
        return at;
      }
    }
    return -1;
  }

  /** Keeps what a walk for an address, which ended well, has met above its leaf. Calls `inserted` with each new index. */
  remember(
    tag: number,
    stage: number,
    high: number,
    low: number,
    walk: Walk,
    inserted: ((at: number, level: number) => void) | null,
  ): void {
    const { words } = this;
    for (let level = walk.start; level > walk.leafLevel; level--) {
      const at = placeOf(level, tag, high, low);
      const shift = shiftOf(level);
      if (words[at + 1] === 0) this.count++;
      words[at] = prefixLow(shift, high, low);
      words[at + 1] = second(tag, stage, shift, high);
      words[at + 2] = walk.tableHigh[level - 1]!;
      words[at + 3] = walk.tableLow[level - 1]!;
      words[at + 4] = walk.commonAbove[level - 1]!;
      words[at + 5] = walk.anyHighAbove[level - 1]!;
      inserted?.(at, level);
    }
  }

  invalidateAll(): void {
    this.words.fill(0);
    this.count = 0;
  }

  /** Entries whose tag is one of `tags`, of either stage. */
  invalidateTags(tags: (tag: number) => boolean): void {
    this.dropWhere((_, word1) => tags(word1 & TAG_MASK));
  }

  /**
   * Entries of `tags` and `stage` on the way to the naturally aligned 2^`am` pages around an address; with `others`, all of the other
   * stage too.
   */
  invalidateRange(
    tags: (tag: number) => boolean,
    stage: number,
    high: number,
    low: number,
    am: number,
    others: boolean,
  ): void {
    this.dropWhere((at, word1, level) => {
      if (!tags(word1 & TAG_MASK)) return false;
      if ((word1 & STRUCTURES_FIRST_STAGE) !== stage) return others;
      const shift = shiftOf(level);
      const unit = 2 ** Math.max(0, 12 + am - shift);
      const mine = ((word1 >>> 13) * 2 ** 32 + (this.words[at]! >>> 0)) / unit;
      const named = (prefixHigh(shift, high >>> 0) * 2 ** 32 + (prefixLow(shift, high, low) >>> 0)) / unit;
      return Math.floor(mine) === Math.floor(named);
    });
  }

  private dropWhere(matches: (at: number, word1: number, level: number) => boolean): void {
    if (this.count === 0) return;
    const { words } = this;
    for (let at = 0; at < words.length; at += WORDS) {
      const word1 = words[at + 1]!;
      if (word1 === 0 || !matches(at, word1, Math.floor(at / LEVEL_WORDS) + 2)) continue;
      words[at + 1] = 0;
      this.count--;
    }
  }
}

/**
 * Where a walk begins, into `walk`: at the top table, with `common` for all entries, or below the entry that `structures` has
 * nearest to the leaf.
 */
export function beginWalk(
  walk: Walk,
  structures: PagingStructureCache | null,
  tag: number,
  stage: number,
  levels: number,
  rootHigh: number,
  rootLow: number,
  common: number,
  high: number,
  low: number,
): void {
  walk.depth = 0;
  walk.start = levels;
  walk.cachedAt = structures === null ? -1 : structures.find(tag, stage, levels, high, low);
  if (walk.cachedAt < 0) {
    walk.tableHigh[levels] = rootHigh;
    walk.tableLow[levels] = rootLow;
    walk.commonAbove[levels] = common;
    walk.anyHighAbove[levels] = 0;
    return;
  }
  const { words, level } = structures!;
  const at = walk.cachedAt;
  walk.start = level - 1;
  walk.tableHigh[level - 1] = words[at + 2]!;
  walk.tableLow[level - 1] = words[at + 3]!;
  walk.commonAbove[level - 1] = words[at + 4]!;
  walk.anyHighAbove[level - 1] = words[at + 5]!;
}

function second(tag: number, stage: number, shift: number, high: number): number {
  return tag | stage | (prefixHigh(shift, high) << 13);
}

function placeOf(level: number, tag: number, high: number, low: number): number {
  const prefix = prefixLow(shiftOf(level), high, low);
  return (level - 2) * LEVEL_WORDS + ((prefix ^ (prefix >>> 8) ^ (tag * 0x25)) & (SLOTS - 1)) * WORDS;
}
