import { refusal } from './errors';

/** What an index holds: [iova, end). */
interface Placed {
  readonly iova: bigint;
  readonly end: bigint;
}

/** A chunk that grows beyond this is cut in two. */
const MOST_IN_CHUNK = 512;

/**
 * The mappings of an address space by IOVA; no two overlap. They are kept in sorted chunks, so that finding one is
 * two binary searches, and adding or removing one moves a chunk's worth of entries at most.
 */
export class MappingIndex<T extends Placed> implements Iterable<T> {
  /** None is empty, unless it is the only one. */
  #chunks: T[][] = [[]];

  /** Adds a mapping; returns the one it takes the place of, at the same IOVA. */
  add(mapping: T): T | undefined {
    const at = this.#chunkOf(mapping.iova);
    const chunk = this.#chunks[at];
    const place = firstFrom(chunk, mapping.iova);
    const old = chunk[place]?.iova === mapping.iova ? chunk[place] : undefined;
    // At the end and alone is how most come and go; splice() makes an array of what it removes.
    if (place === chunk.length) chunk.push(mapping);
    else chunk.splice(place, old ? 1 : 0, mapping);
    if (chunk.length > MOST_IN_CHUNK) this.#chunks.splice(at + 1, 0, chunk.splice(MOST_IN_CHUNK / 2));
    return old;
  }

  /** Removes a mapping, if it is there. */
  remove(mapping: T): void {
    const at = this.#chunkOf(mapping.iova);
    const chunk = this.#chunks[at];
    const place = firstFrom(chunk, mapping.iova);
    if (chunk[place] !== mapping) return;
    if (place === chunk.length - 1) chunk.pop();
    else chunk.splice(place, 1);
    if (chunk.length === 0 && this.#chunks.length > 1) this.#chunks.splice(at, 1);
  }

  /** Those that have bytes in [start, end), in the order of their IOVAs. */
  overlapping(start: bigint, end: bigint): T[] {
    const found: T[] = [];
    let at = this.#chunkOf(start);
    // The last one at or before `start` may reach into the range.
    let place = Math.max(0, firstFrom(this.#chunks[at], start + 1n) - 1);
    for (; at < this.#chunks.length; at++, place = 0)
      for (const chunk = this.#chunks[at]; place < chunk.length; place++) {
        const mapping = chunk[place];
        if (mapping.iova >= end) return found;
        if (mapping.end > start) found.push(mapping);
      }
    return found;
  }

  [Symbol.iterator](): Iterator<T> {
    return this.#chunks.flat()[Symbol.iterator]();
  }

  /** The last chunk that begins at or before `iova`; the first where none does. */
  #chunkOf(iova: bigint): number {
    let low = 0;
    let high = this.#chunks.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >>> 1;
      if (this.#chunks[middle][0].iova <= iova) low = middle;
      else high = middle - 1;
    }
    return low;
  }
}

/** Position of the first mapping at `iova` or later. */
function firstFrom(chunk: readonly Placed[], iova: bigint): number {
  let low = 0;
  let high = chunk.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (chunk[middle].iova < iova) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** The mappings inside [start, end), for unmapping. Throws ENOENT if the range cuts one. */
export function requireWhole<T extends Placed>(index: MappingIndex<T>, start: bigint, end: bigint): T[] {
  const inside = end > start ? index.overlapping(start, end) : [];
  for (const mapping of inside)
    if (mapping.iova < start || mapping.end > end)
      throw refusal(
        'ENOENT',
        `the range cuts the mapping at 0x${mapping.iova.toString(16)} of ${mapping.end - mapping.iova} bytes`,
        { request: 'IOMMU_IOAS_UNMAP', hint: 'unmap takes whole mappings; nothing was unmapped' },
      );
  return inside;
}
