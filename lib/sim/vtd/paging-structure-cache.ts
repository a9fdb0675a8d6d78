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
function shiftOf(level: number): number {
  return 3 + 9 * level;
}

/** Bits `shift` and up of an address in halves: the low 32 of them, and the rest. `shift` is 21, 30, 39 or 48. */
function prefixLow(shift: number, high: number, low: number): number {
  return shift < 32 ? (high << (32 - shift)) | (low >>> shift) : high >>> (shift - 32);
}
function prefixHigh(shift: number, high: number): number {
  return shift < 32 ? high >>> shift : 0;
}

export class PagingStructureCache {
  /** Entries; {@link leafTable} gives an index into it. Readers only. */
  readonly words = new Int32Array((TOP_LEVEL - 1) * LEVEL_WORDS);
  private count = 0;

  /** Has a walk begin below the entry that is nearest to the leaf for an address; false where there is none. `levels`: of the tables. */
  begin(walk: Walk, tag: number, stage: number, levels: number, high: number, low: number): boolean {
    const { words } = this;
    for (let level = 2; level <= levels; level++) {
      const shift = shiftOf(level);
      const prefix = prefixLow(shift, high, low);
      const at = placeOf(level, tag, prefix);
      if (words[at] === prefix && words[at + 1] === second(tag, stage, shift, high)) {
        walk.cachedAt = at;
        walk.begin(level - 1, words[at + 2]!, words[at + 3]!, words[at + 4]!, words[at + 5]!);
        return true;
      }
    }
    return false;
  }

  /** Index of the first of the six words about the level-1 table for an address, or -1. */
  leafTable(tag: number, stage: number, high: number, low: number): number {
    const { words } = this;
    const prefix = (high << 11) | (low >>> 21);
    const at = placeOf(2, tag, prefix);
    const matches = words[at] === prefix && words[at + 1] === (tag | stage | ((high >>> 21) << 13));
    return matches ? at : -1;
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
    const { tables } = walk;
    for (let level = walk.start; level > walk.leafLevel; level--) {
      const shift = shiftOf(level);
      const prefix = prefixLow(shift, high, low);
      const at = placeOf(level, tag, prefix);
      if (words[at + 1] === 0) this.count++;
      words[at] = prefix;
      words[at + 1] = second(tag, stage, shift, high);
      const table = 4 * (level - 1);
      words[at + 2] = tables[table]!;
      words[at + 3] = tables[table + 1]!;
      words[at + 4] = tables[table + 2]!;
      words[at + 5] = tables[table + 3]!;
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

function second(tag: number, stage: number, shift: number, high: number): number {
  return tag | stage | (prefixHigh(shift, high) << 13);
}

function placeOf(level: number, tag: number, prefix: number): number {
  return (level - 2) * LEVEL_WORDS + ((prefix ^ (prefix >>> 8) ^ (tag * 0x25)) & (SLOTS - 1)) * WORDS;
}
