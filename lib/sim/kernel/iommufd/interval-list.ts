/**
 * A sorted list of intervals that do not overlap, for up to millions of them: blocks of bounded size under an
 * index, so that finding is logarithmic and inserting moves one block's entries, not the whole list's.
 */

/** [start, last], both inclusive, as in the kernel's interval trees. */
export interface Interval {
  readonly start: bigint;
  readonly last: bigint;
}

const MOST_PER_BLOCK = 256;

export class IntervalList<T extends Interval> {
  /** Never holds an empty block. */
  #blocks: T[][] = [];
  #size = 0;

  get size(): number {
    return this.#size;
  }

  /** The first interval that shares a value with [start, last], or undefined. */
  first(start: bigint, last: bigint): T | undefined {
    let block = Math.max(this.#blockOf(start), 0);
    let index = block < this.#blocks.length ? Math.max(indexOf(this.#blocks[block], start), 0) : 0;
    // At most the interval found and its successor need a look: intervals do not overlap.
    for (; block < this.#blocks.length; block++, index = 0) {
      for (; index < this.#blocks[block].length; index++) {
        const interval = this.#blocks[block][index];
        if (interval.start > last) return undefined;
        if (interval.last >= start) return interval;
      }
    }
    return undefined;
  }

  /** Adds an interval that overlaps none of the list. */
  add(interval: T): void {
    this.#size++;
    const at = Math.max(this.#blockOf(interval.start), 0);
    const block = this.#blocks[at];
    if (!block) {
      this.#blocks.push([interval]);
      return;
    }
    block.splice(indexOf(block, interval.start) + 1, 0, interval);
    if (block.length > MOST_PER_BLOCK) this.#blocks.splice(at + 1, 0, block.splice(MOST_PER_BLOCK >> 1));
  }

  remove(interval: T): void {
    const at = this.#blockOf(interval.start);
    const block = this.#blocks[at];
    const index = block ? indexOf(block, interval.start) : -1;
    if (block?.[index] !== interval) throw new Error('no such interval');
    this.#size--;
    block.splice(index, 1);
    if (block.length === 0) this.#blocks.splice(at, 1);
  }

  *[Symbol.iterator](): Generator<T> {
    for (const block of this.#blocks) yield* block;
  }

  /** Index of the last block that starts at or below `start`; -1 where there is none. */
  #blockOf(start: bigint): number {
    let low = 0;
    let high = this.#blocks.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#blocks[middle][0].start <= start) low = middle + 1;
      else high = middle;
    }
    return low - 1;
  }
}

/** Index of the last interval of `block` that starts at or below `start`; -1 where there is none. */
function indexOf(block: readonly Interval[], start: bigint): number {
  let low = 0;
  let high = block.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (block[middle].start <= start) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}
