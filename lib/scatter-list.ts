import type { AddressSpace } from './address-space';
import { DmaBuffer } from './dma-buffer';
import { DmaSlice } from './dma-pool';
import { Handle, runAll } from './handle';
import { checkRange } from './iova';
import { Mapping } from './mapping';

/** A piece of memory for a scatter list. */
export interface ScatterPart {
  readonly buffer: DmaBuffer;
  /** First byte. Default 0. */
  readonly offset?: number | undefined;
  /** Bytes. Default: the rest of the buffer. */
  readonly length?: number | undefined;
}

/** What a scatter list is made of: buffers or parts of them, and what devices of the space reach already. */
export type ScatterSource = DmaBuffer | ScatterPart | Mapping | DmaSlice;

/** A stretch that a device reaches without a gap. */
export interface ScatterSegment {
  readonly iova: bigint;
  /** Bytes. */
  readonly length: number;
}

/** How devices may reach it. */
export interface ScatterOptions {
  /** Let devices read. Default true. */
  read?: boolean | undefined;
  /** Let devices write. Default true. */
  write?: boolean | undefined;
}

/**
 * The program's memory as one request sees it: bytes from several buffers, in order. The pages that they are in are pinned
 * and mapped for as long as the list is open; slices and mappings, which devices reach already, are used as they are.
 */
export class ScatterList extends Handle {
  readonly space: AddressSpace;
  /** In order; neighbours that touch are one. */
  readonly segments: readonly ScatterSegment[];
  /** Bytes of all. */
  readonly length: number;
  readonly #mappings: Mapping[] = [];

  /** @internal Use `space.mapScatter()`. */
  constructor(space: AddressSpace, sources: readonly ScatterSource[], options: ScatterOptions) {
    super();
    space.requireOpen({ request: 'IOMMU_IOAS_MAP' });
    if (!Array.isArray(sources) || sources.length === 0)
      throw new TypeError(
        'a scatter list is made of an array of buffers, parts of buffers, mappings or slices',
      );
    this.space = space;
    const segments: ScatterSegment[] = [];
    try {
      for (const source of sources) append(segments, this.#reach(source, options));
    } catch (error) {
      this.#unmapAll();
      throw error;
    }
    this.segments = segments;
    this.length = segments.reduce((sum, { length }) => sum + length, 0);
  }

  /** @internal */ override get label(): string {
    return `the scatter list of ${this.space.label}`;
  }

  #reach(source: ScatterSource, options: ScatterOptions): ScatterSegment {
    if (source instanceof DmaSlice) {
      if (source.pool.space !== this.space) throw new TypeError(`a slice belongs to ${source.pool.label}`);
      if (source.freed) throw new TypeError('a slice has been freed');
      return source;
    }
    if (source instanceof Mapping) {
      if (source.space !== this.space || !source.mapped)
        throw new TypeError(`a mapping is not, or no longer, one of ${this.space.label}`);
      return source;
    }
    const { buffer, ...part } = source instanceof DmaBuffer ? { buffer: source } : { ...source };
    if (!(buffer instanceof DmaBuffer))
      throw new TypeError(
        'memory for devices comes from iommu.allocateDma() or a pool: other memory could be moved or freed while a device uses it',
      );
    const { offset = 0 } = part as ScatterPart;
    const { length = buffer.length - offset } = part as ScatterPart;
    checkRange(offset, length, buffer.length);
    return this.#pin(buffer, offset, length, options);
  }

  /** Maps the whole pages that the bytes are in. */
  #pin(buffer: DmaBuffer, offset: number, length: number, { read, write }: ScatterOptions): ScatterSegment {
    const page = this.space.context.kernel.pageSize;
    const first = offset - (offset % page);
    const end = Math.ceil((offset + length) / page) * page;
    const mapping = this.space.map(buffer, { offset: first, length: end - first, read, write });
    this.#mappings.push(mapping);
    return { iova: mapping.iova + BigInt(offset - first), length };
  }

  #unmapAll(): void {
    runAll(this.#mappings.splice(0).map((mapping) => () => mapping.unmap()));
  }

  /** Takes the pages from the devices. They must be done with them. */
  protected override release(): void {
    this.#unmapAll();
  }
}

function append(segments: ScatterSegment[], { iova, length }: ScatterSegment): void {
  const last = segments.at(-1);
  if (last && last.iova + BigInt(last.length) === iova)
    segments[segments.length - 1] = { iova: last.iova, length: last.length + length };
  else segments.push({ iova, length });
}
