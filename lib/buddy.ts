/** A buddy allocator over [0, size): blocks are powers of two, each at a multiple of its size. It owns no memory. */

/** The smallest block: a cache line, so that no two share one. */
export const SMALLEST_BLOCK = 64;

/** The block that holds so many bytes. */
export function blockSize(length: number): number {
  return 2 ** Math.ceil(Math.log2(Math.max(length, SMALLEST_BLOCK)));
}

export class Buddy {
  /** Bytes: a power of two. */
  readonly size: number;
  /** Free blocks by the logarithm of their size. */
  readonly #free: Set<number>[] = [];

  constructor(size: number) {
    this.size = size;
    for (let order = 0; order <= Math.log2(size); order++) this.#free.push(new Set());
    this.#free[Math.log2(size)].add(0);
  }

  /** Whether nothing is allocated. */
  get idle(): boolean {
    return this.#free[this.#free.length - 1].size === 1;
  }

  /** The offset of a free block of `size` bytes, a power of two; -1 if there is none. */
  allocate(size: number): number {
    const wanted = Math.log2(size);
    let order = wanted;
    while (order < this.#free.length && this.#free[order].size === 0) order++;
    if (order >= this.#free.length) return -1;
    const [offset] = this.#free[order];
    this.#free[order].delete(offset);
    while (order-- > wanted) this.#free[order].add(offset + 2 ** order);
    return offset;
  }

  /** Gives back what allocate(size) gave, and joins it with its neighbour while that is free. */
  free(offset: number, size: number): void {
    let at = offset;
    let order = Math.log2(size);
    for (; order < this.#free.length - 1; order++) {
      const length = 2 ** order;
      const buddy = (at / length) % 2 === 0 ? at + length : at - length;
      if (!this.#free[order].delete(buddy)) break;
      at = Math.min(at, buddy);
    }
    this.#free[order].add(at);
  }
}
