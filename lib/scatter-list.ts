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

/**
 * What a scatter list is made of: arrays of the program's own, buffers or parts of them, and what devices of the space reach
 * already.
 */
export type ScatterSource = Uint8Array | DmaBuffer | ScatterPart | Mapping | DmaSlice;

/** A stretch that a device reaches without a gap. */
export interface ScatterSegment {
  readonly iova: bigint;
  /** Bytes. */
  readonly length: number;
}

/** Bytes that are to be mapped. */
interface Pin {
  readonly buffer: DmaBuffer;
  readonly offset: number;
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
 *
 * An array of the program's own must neither be transferred nor resized meanwhile. It shares its first and last page with
 * whatever else the program has there: only a device that may be trusted with that should get it.
 */
export class ScatterList extends Handle {
  readonly space: AddressSpace;
  /** In order; neighbours that touch are one. */
  readonly segments: readonly ScatterSegment[];
  /** Bytes of all. */
  readonly length: number;
  readonly #mappings: readonly Mapping[];
  /** Around arrays of the program's own. */
  readonly #around: DmaBuffer[] = [];

  /** @internal Use `space.mapScatter()`. */
  constructor(space: AddressSpace, sources: readonly ScatterSource[], options: ScatterOptions) {
    super();
    space.requireOpen({ request: 'IOMMU_IOAS_MAP' });
    if (!Array.isArray(sources) || sources.length === 0)
      throw new TypeError(
        'a scatter list is made of an array of buffers, parts of buffers, mappings or slices',
      );
    this.space = space;
    const { read, write } = options;
    let pieces: (ScatterSegment | Pin)[];
    try {
      pieces = sources.map((source) => this.#locate(source));
      const pins = pieces.filter((piece) => 'buffer' in piece);
      const entries = pins.map((pin) => ({ source: pin.buffer, ...this.#pagesOf(pin), read, write }));
      this.#mappings = space.mapMany(entries);
    } catch (error) {
      for (const buffer of this.#around) buffer.close();
      throw error;
    }
    const segments: ScatterSegment[] = [];
    let next = 0;
    for (const piece of pieces)
      append(segments, 'buffer' in piece ? pinned(piece, this.#mappings[next++]) : piece);
    this.segments = segments;
    this.length = segments.reduce((sum, { length }) => sum + length, 0);
  }

  /** @internal */ override get label(): string {
    return `the scatter list of ${this.space.label}`;
  }

  /** What devices reach already, or what is to be mapped. Throws TypeError, RangeError. */
  #locate(source: ScatterSource): ScatterSegment | Pin {
    if (source instanceof DmaSlice) {
      if (source.pool.space !== this.space) throw new TypeError(`a slice belongs to ${source.pool.label}`);
      if (source.freed) throw new TypeError('a slice has been freed');
      return { iova: source.iova, length: source.length };
    }
    if (source instanceof Mapping) {
      if (source.space !== this.space || !source.mapped)
        throw new TypeError(`a mapping is not, or no longer, one of ${this.space.label}`);
      return { iova: source.iova, length: source.length };
    }
    if (source instanceof Uint8Array) return this.#adopt(source);
    const { buffer, offset = 0, length } = source instanceof DmaBuffer ? { buffer: source } : source;
    if (!(buffer instanceof DmaBuffer))
      throw new TypeError(
        'a scatter list takes Uint8Arrays, buffers of iommu.allocateDma() or parts of them, mappings, and slices of a pool',
      );
    const bytes = length ?? buffer.length - offset;
    checkRange(offset, bytes, buffer.length);
    return { buffer, offset, length: bytes };
  }

  #adopt(bytes: Uint8Array): Pin {
    const { buffer: memory } = bytes;
    if (!(memory instanceof ArrayBuffer) || ('resizable' in memory && memory.resizable === true))
      throw new TypeError(
        'memory for devices is an ArrayBuffer of a fixed length: other memory could go away',
      );
    if (bytes.length === 0)
      throw new RangeError('an array without bytes, or detached, has nothing for a device');
    const buffer = DmaBuffer.around(this.space.context, bytes as Uint8Array<ArrayBuffer>);
    this.#around.push(buffer);
    const offset = Number(this.space.context.kernel.addressOf(bytes) - buffer.address);
    return { buffer, offset, length: bytes.length };
  }

  /** The whole pages that the bytes are in. */
  #pagesOf({ offset, length }: Pin): { offset: number; length: number } {
    const page = this.space.context.kernel.pageSize;
    const first = offset - (offset % page);
    return { offset: first, length: Math.ceil((offset + length) / page) * page - first };
  }

  /** Takes the pages from the devices. They must be done with them. */
  protected override release(): void {
    runAll([
      ...this.#mappings.map((mapping) => () => mapping.unmap()),
      ...this.#around.map((buffer) => () => buffer.close()),
    ]);
  }
}

function pinned({ offset, length }: Pin, mapping: Mapping): ScatterSegment {
  return { iova: mapping.iova + BigInt(offset - mapping.offset), length };
}

function append(segments: ScatterSegment[], { iova, length }: ScatterSegment): void {
  const last = segments.at(-1);
  if (last && last.iova + BigInt(last.length) === iova)
    segments[segments.length - 1] = { iova: last.iova, length: last.length + length };
  else segments.push({ iova, length });
}
