/**
 * A sorted list of intervals that do not overlap, for up to millions of them: a tree of nodes of bounded size (a B+ tree),
 * each of which knows the widest gap among its intervals. Finding, adding, removing and looking for room are logarithmic.
 */

/** [start, last], both inclusive, as in the kernel's interval trees. */
export interface Interval {
  readonly start: bigint;
  readonly last: bigint;
}

const MOST_IN_NODE = 64;

/** What is at one place of a node: an interval, or a node below. */
interface Entry {
  readonly start: bigint;
  readonly last: bigint;
}

abstract class Node<T extends Interval, E extends Entry> implements Entry {
  /** The values between each entry and the one before it, rounded as Number does; of the first it means nothing. */
  protected readonly gaps: number[] = [];
  /** The widest gap in here, or in what is below. */
  widest = 0;

  /** Never empty while it is part of a tree. */
  constructor(protected readonly entries: E[]) {
    this.update(0, entries.length);
  }

  get start(): bigint {
    return this.entries[0].start;
  }

  get last(): bigint {
    return this.entries[this.entries.length - 1].last;
  }

  get empty(): boolean {
    return this.entries.length === 0;
  }

  /** The first interval that ends at `value` or later. */
  abstract from(value: bigint): T | undefined;
  /** Adds an interval; returns what this node was too small for, which comes behind it. */
  abstract add(interval: T): this | undefined;
  /** Whether it was there. */
  abstract remove(interval: T): boolean;
  /**
   * The first value, from `start` on, with `length` values that no interval has, before the last one in here ends; else
   * the value behind that one.
   */
  abstract room(start: bigint, length: bigint, wide: number): { found: boolean; value: bigint };
  abstract [Symbol.iterator](): Iterator<T>;

  /** Index of the last entry that starts at `start` or below; -1 where there is none. */
  protected indexOf(start: bigint): number {
    const { entries } = this;
    let low = 0;
    let high = entries.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (entries[middle].start <= start) low = middle + 1;
      else high = middle;
    }
    return low - 1;
  }

  /** Entries [index, end) are new, or begin or end elsewhere than before. */
  protected update(index: number, end: number): void {
    const { entries, gaps } = this;
    for (let i = Math.max(index, 1); i <= end && i < entries.length; i++)
      gaps[i] = Number(entries[i].start - entries[i - 1].last - 1n);
    let widest = 0;
    for (let i = 1; i < entries.length; i++) if (gaps[i] > widest) widest = gaps[i];
    this.widest = Math.max(widest, this.widestBelow());
  }

  protected abstract widestBelow(): number;

  protected insert(index: number, entry: E): void {
    const { entries, gaps } = this;
    if (index === entries.length) {
      entries.push(entry);
      gaps.push(0);
    } else {
      entries.splice(index, 0, entry);
      gaps.splice(index, 0, 0);
    }
    this.update(index, index + 1);
  }

  protected drop(index: number): void {
    this.entries.splice(index, 1);
    this.gaps.splice(index, 1);
    this.update(index, index + 1);
  }

  /** Takes away what is more than a node holds: half of it, or the end alone where intervals come in ascending order. */
  protected overflow(added: number): E[] | undefined {
    const { entries, gaps } = this;
    if (entries.length <= MOST_IN_NODE) return undefined;
    const keep = added === entries.length - 1 ? added : entries.length >> 1;
    const rest = entries.splice(keep);
    gaps.length = keep;
    this.update(keep, keep);
    return rest;
  }
}

class Leaf<T extends Interval> extends Node<T, T> {
  override from(value: bigint): T | undefined {
    const { entries } = this;
    const at = Math.max(this.indexOf(value), 0);
    // Intervals do not overlap: it is that one or the next.
    return entries[at].last >= value ? entries[at] : entries[at + 1];
  }

  override add(interval: T): this | undefined {
    const index = this.indexOf(interval.start) + 1;
    this.insert(index, interval);
    const rest = this.overflow(index);
    return rest && (new Leaf(rest) as this);
  }

  override remove(interval: T): boolean {
    const index = this.indexOf(interval.start);
    if (this.entries[index] !== interval) return false;
    this.drop(index);
    return true;
  }

  override room(start: bigint, length: bigint, _wide: number): { found: boolean; value: bigint } {
    const { entries } = this;
    let value = start;
    for (let i = Math.max(this.indexOf(start), 0); i < entries.length; i++) {
      if (entries[i].start - value >= length) return { found: true, value };
      if (entries[i].last >= value) value = entries[i].last + 1n;
    }
    return { found: false, value };
  }

  override *[Symbol.iterator](): Generator<T> {
    yield* this.entries;
  }

  protected override widestBelow(): number {
    return 0;
  }
}

class Branch<T extends Interval> extends Node<T, Node<T, Entry>> {
  override from(value: bigint): T | undefined {
    const { entries } = this;
    const at = Math.max(this.indexOf(value), 0);
    return entries[at].last >= value ? entries[at].from(value) : entries[at + 1]?.from(value);
  }

  override add(interval: T): this | undefined {
    const at = Math.max(this.indexOf(interval.start), 0);
    const more = this.entries[at].add(interval);
    if (more) this.insert(at + 1, more);
    this.update(at, at + 1);
    const rest = this.overflow(more ? at + 1 : -1);
    return rest && (new Branch<T>(rest) as unknown as this);
  }

  override remove(interval: T): boolean {
    const at = this.indexOf(interval.start);
    if (at < 0 || !this.entries[at].remove(interval)) return false;
    if (this.entries[at].empty) this.drop(at);
    else this.update(at, at + 1);
    return true;
  }

  override room(start: bigint, length: bigint, wide: number): { found: boolean; value: bigint } {
    const { entries } = this;
    let value = start;
    for (let i = Math.max(this.indexOf(start), 0); i < entries.length; i++) {
      const entry = entries[i];
      if (entry.start - value >= length) return { found: true, value };
      if (entry.last < value) continue;
      // Rounding keeps the order: a gap that seems too narrow is.
      if (entry.widest >= wide) {
        const below = entry.room(value, length, wide);
        if (below.found) return below;
      }
      value = entry.last + 1n;
    }
    return { found: false, value };
  }

  /** Its only entry, where a tree has grown too high. */
  get only(): Node<T, Entry> | undefined {
    return this.entries.length === 1 ? this.entries[0] : undefined;
  }

  override *[Symbol.iterator](): Generator<T> {
    for (const entry of this.entries) yield* entry;
  }

  protected override widestBelow(): number {
    let widest = 0;
    for (const entry of this.entries) if (entry.widest > widest) widest = entry.widest;
    return widest;
  }
}

export class IntervalList<T extends Interval> {
  /** Undefined while there is nothing. */
  #root: Node<T, Entry> | undefined;
  #size = 0;

  get size(): number {
    return this.#size;
  }

  /** The first interval that shares a value with [start, last], or undefined. */
  first(start: bigint, last: bigint): T | undefined {
    const found = this.#root?.from(start);
    return found && found.start <= last ? found : undefined;
  }

  /** The first value, from `start` on, from which on `length` values are in no interval. */
  room(start: bigint, length: bigint): bigint {
    return this.#root?.room(start, length, Number(length)).value ?? start;
  }

  /** Adds an interval that overlaps none of the list. */
  add(interval: T): void {
    this.#size++;
    if (!this.#root) {
      this.#root = new Leaf([interval]);
      return;
    }
    const more = this.#root.add(interval);
    if (more) this.#root = new Branch<T>([this.#root, more]);
  }

  remove(interval: T): void {
    if (!this.#root?.remove(interval)) throw new Error('no such interval');
    this.#size--;
    if (this.#root.empty) this.#root = undefined;
    else if (this.#root instanceof Branch) this.#root = (this.#root as Branch<T>).only ?? this.#root;
  }

  *[Symbol.iterator](): Generator<T> {
    if (this.#root) yield* this.#root;
  }
}
