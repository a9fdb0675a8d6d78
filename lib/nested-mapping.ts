import type { MappedRange } from './iova';
import type { NestedAddressSpace } from './nested-address-space';

/** A range of the parent space that devices attached to a nested space reach at addresses of that one. */
export class NestedMapping {
  /** Where it is. */
  readonly space: NestedAddressSpace;
  /** First I/O virtual address. */
  readonly iova: bigint;
  /** What that is in the parent space. */
  readonly parentIova: bigint;
  /** Bytes. */
  readonly length: number;
  /** Whether devices may read, where the parent lets them. */
  readonly read: boolean;
  /** Whether devices may write, where the parent lets them. */
  readonly write: boolean;

  /** @internal Use `space.map()`. */
  constructor(
    space: NestedAddressSpace,
    values: { iova: bigint; parentIova: bigint; length: number; read: boolean; write: boolean },
  ) {
    this.space = space;
    this.iova = values.iova;
    this.parentIova = values.parentIova;
    this.length = values.length;
    this.read = values.read;
    this.write = values.write;
  }

  /** The first IOVA after the mapping. */
  get end(): bigint {
    return this.iova + BigInt(this.length);
  }

  /** The first address of the parent space after the mapping. */
  get parentEnd(): bigint {
    return this.parentIova + BigInt(this.length);
  }

  /** Whether it is there. */
  get mapped(): boolean {
    return this.space.has(this);
  }

  /**
   * What of it reaches memory now, in the order of the IOVAs: the parts that the parent space maps, with the rights that
   * both give.
   */
  get shadow(): readonly MappedRange[] {
    return this.mapped ? this.space.overlapping(this.iova, this.end) : [];
  }

  /** Removes the mapping. Does nothing if it is gone already. */
  unmap(): void {
    if (this.mapped) this.space.unmap(this.iova, this.length);
  }

  [Symbol.dispose](): void {
    this.unmap();
  }
}

/** A part of a nested mapping that one mapping of the parent space has memory for: one area of the shadow. */
export class ShadowPiece implements MappedRange {
  /** What the parent space has there. */
  readonly source: MappedRange;
  readonly iova: bigint;
  /** First byte of the source. */
  readonly offset: number;
  readonly length: number;
  readonly read: boolean;
  readonly write: boolean;

  constructor(
    source: MappedRange,
    values: { iova: bigint; offset: number; length: number; read: boolean; write: boolean },
  ) {
    this.source = source;
    this.iova = values.iova;
    this.offset = values.offset;
    this.length = values.length;
    this.read = values.read;
    this.write = values.write;
  }

  get end(): bigint {
    return this.iova + BigInt(this.length);
  }
}

/**
 * What a nested mapping and one of the parent's have in common: the addresses of both, the rights of both. Undefined
 * where that is nothing.
 */
export function intersect(mapping: NestedMapping, source: MappedRange): ShadowPiece | undefined {
  const start = mapping.parentIova > source.iova ? mapping.parentIova : source.iova;
  const end = mapping.parentEnd < source.end ? mapping.parentEnd : source.end;
  const read = mapping.read && source.read;
  const write = mapping.write && source.write;
  if (end <= start || !(read || write)) return undefined;
  const iova = mapping.iova + (start - mapping.parentIova);
  const offset = Number(start - source.iova);
  return new ShadowPiece(source, { iova, offset, length: Number(end - start), read, write });
}
