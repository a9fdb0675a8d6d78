import type { Context } from './context';
import { refusal } from './errors';
import { runAll } from './handle';
import type { IovaRangeInput, MappedRange } from './iova';
import { KernelManagedSpace, type KernelManagedForm } from './kernel-managed-space';
import { hex } from './hex';
import { mapMemory } from './map-request';
import { Mapping } from './mapping';
import { MappingIndex, requireWhole } from './mapping-index';
import { intersect, NestedMapping, type ShadowPiece } from './nested-mapping';
import * as uapi from './uapi';

const U64_MAX = 2n ** 64n - 1n;

/** Options of a kernel-managed address space on top of another. */
export interface NestedAddressSpaceOptions extends KernelManagedForm {
  owner?: 'kernel' | undefined;
  /** The space that this one's output addresses are in. */
  parent: KernelManagedSpace;
  /** Of user-managed spaces only. */
  pageTable?: undefined;
  pasidTable?: undefined;
}

/** Options of `NestedAddressSpace.map`. */
export interface NestedMapOptions {
  /** The IOVA to map at, in bytes. */
  iova: bigint | number;
  /** Let devices read what the parent lets them. Default true. */
  read?: boolean | undefined;
  /** Let devices write what the parent lets them. Default true. */
  write?: boolean | undefined;
}

/**
 * A kernel-managed I/O address space nested on another in software (RFC, sections 1.1 and 4.3): map() says which range of
 * the parent an IOVA is. No hardware walks two tables: the shadow, what both together come to, is an IOAS of its own, kept
 * by IOMMU_IOAS_COPY from the parent's, so that memory stays pinned and accounted once.
 *
 * The shadow follows the parent, as a walk of both tables would: what the parent unmaps is out of reach here before it is
 * unmapped there, what it maps later is reached as soon as map() returns. The mappings here stay as they are.
 */
export class NestedAddressSpace extends KernelManagedSpace {
  readonly parent: KernelManagedSpace;
  readonly #mappings = new MappingIndex<NestedMapping>();
  readonly #shadow = new MappingIndex<ShadowPiece>();
  /** The shadow by what the parent has. */
  readonly #pieces = new Map<MappedRange, Set<ShadowPiece>>();

  /** @internal Use `iommu.createAddressSpace({ parent })`. */
  constructor(context: Context, options: NestedAddressSpaceOptions) {
    const { parent } = options;
    if (!(parent instanceof KernelManagedSpace))
      throw new TypeError('parent must be a kernel-managed address space');
    if (parent.context !== context) throw new TypeError('parent belongs to another Iommu');
    parent.requireOpen({ request: 'IOMMU_IOAS_ALLOC' });
    super(context, options);
    this.parent = parent;
    parent.children.add(this);
    parent.followers.add(this);
  }

  /** The mappings there are, in the order of their IOVAs. */
  get mappings(): readonly NestedMapping[] {
    return [...this.#mappings];
  }

  /** What devices reach: the mappings, merged with the parent's, in the order of their IOVAs. */
  get shadow(): readonly MappedRange[] {
    return this.reachable;
  }

  /** @internal */
  override get reachable(): readonly ShadowPiece[] {
    return [...this.#shadow];
  }

  /** @internal */
  override overlapping(start: bigint, end: bigint): readonly ShadowPiece[] {
    return this.#shadow.overlapping(start, end);
  }

  /** @internal Whether the mapping is there. */
  has(mapping: NestedMapping): boolean {
    return this.#mappings.overlapping(mapping.iova, mapping.iova + 1n)[0] === mapping;
  }

  /**
   * Gives devices a range of the parent space at `iova`. They reach what the parent maps there, now and later; where
   * that is nothing, or less than what is asked for here, they reach nothing, or have the parent's rights only.
   *
   * Throws TypeError, RangeError; IommuError, and nothing is mapped: EEXIST (something is mapped at `iova`), EINVAL
   * (misaligned or reserved IOVA), EOVERFLOW, ENOMEM, EFAULT.
   */
  map(range: IovaRangeInput | Mapping | NestedMapping, options: NestedMapOptions): NestedMapping {
    this.requireOpen({ request: 'IOMMU_IOAS_COPY' });
    const mapping = this.#check(range, options);
    const [taken] = this.#mappings.overlapping(mapping.iova, mapping.end);
    if (taken)
      throw refusal('EEXIST', `${hex(taken.iova)}-${hex(taken.end - 1n)} is mapped already`, {
        request: 'IOMMU_IOAS_COPY',
        hint: 'unmap it first',
      });
    this.#mappings.add(mapping);
    try {
      for (const source of this.parent.overlapping(mapping.parentIova, mapping.parentEnd))
        this.#add(intersect(mapping, source));
    } catch (error) {
      mapping.unmap();
      throw error;
    }
    return mapping;
  }

  #check(range: IovaRangeInput | Mapping | NestedMapping, options: NestedMapOptions): NestedMapping {
    if (typeof range !== 'object' || range === null)
      throw new TypeError('map takes a range of the parent space: { iova, length }, or a mapping of it');
    if ((range instanceof Mapping || range instanceof NestedMapping) && range.space !== this.parent)
      throw new TypeError(`the mapping is of ${range.space.label}, not of the parent of ${this.label}`);
    const { iova, read = true, write = true } = options ?? {};
    if (iova === undefined) throw new TypeError('a nested space does not choose addresses: give { iova }');
    if (!read && !write) throw new RangeError('a mapping is readable, writable or both');
    const length = uapi.toU64(range.length, 'length');
    if (length === 0n || length > Number.MAX_SAFE_INTEGER)
      throw new RangeError(`length ${length} is outside 1 to ${Number.MAX_SAFE_INTEGER}`);
    const [at, from] = [uapi.toU64(iova, 'iova'), uapi.toU64(range.iova, 'iova of the range')];
    for (const start of [at, from])
      if (start + length > U64_MAX)
        throw refusal('EOVERFLOW', `${length} bytes at ${hex(start)} reach past the last address`, {
          request: 'IOMMU_IOAS_COPY',
        });
    return new NestedMapping(this, { iova: at, parentIova: from, length: Number(length), read, write });
  }

  /** Lets devices reach a piece. */
  #add(piece: ShadowPiece | undefined): void {
    if (!piece || this.#shadow.overlapping(piece.iova, piece.end).length > 0) return;
    const { source, iova, offset, length, read, write } = piece;
    const from = { ioasId: this.parent.ioasId, iova: source.iova };
    mapMemory(this.context, { ioasId: this.ioasId, source: from, offset, length, iova, read, write });
    this.#shadow.add(piece);
    const pieces = this.#pieces.get(source) ?? new Set();
    this.#pieces.set(source, pieces.add(piece));
    try {
      this.publish(piece);
    } catch (error) {
      this.#remove(piece);
      throw error;
    }
  }

  #remove(piece: ShadowPiece): void {
    this.takeOut([piece], piece.iova, BigInt(piece.length));
    this.#forget(piece);
  }

  #forget(piece: ShadowPiece): void {
    this.#shadow.remove(piece);
    const pieces = this.#pieces.get(piece.source);
    pieces?.delete(piece);
    if (pieces?.size === 0) this.#pieces.delete(piece.source);
  }

  /** @internal The parent has something new. It has few mappings and they change seldom: all of ours are looked at. */
  follow(source: MappedRange): void {
    for (const mapping of this.#mappings) this.#add(intersect(mapping, source));
  }

  /** @internal The parent is about to lose something. */
  unfollow(source: MappedRange): void {
    for (const piece of this.partsOf(source)) this.#remove(piece);
  }

  /** @internal What comes from a range that the parent has. */
  partsOf(source: MappedRange): readonly ShadowPiece[] {
    return [...(this.#pieces.get(source) ?? [])];
  }

  /**
   * Unmaps the whole mappings inside [iova, iova + length) and returns their bytes, whether the parent mapped them or not.
   * Throws, with nothing unmapped: ENOENT if the range cuts a mapping or has none, EBUSY if a hardware queue lives in one.
   */
  unmap(iova: bigint | number, length: bigint | number): number {
    const request = 'IOMMU_IOAS_UNMAP';
    this.requireOpen({ request });
    const start = uapi.toU64(iova, 'iova');
    const bytes = uapi.toU64(length, 'length');
    const inside = requireWhole(this.#mappings, start, start + bytes);
    if (inside.length === 0)
      throw refusal('ENOENT', `nothing is mapped from ${hex(start)} on, ${bytes} bytes`, { request });
    return this.#unmap(inside, start, bytes);
  }

  /** Unmaps everything and returns the bytes unmapped. */
  unmapAll(): number {
    this.requireOpen({ request: 'IOMMU_IOAS_UNMAP' });
    return this.#unmap(this.mappings, 0n, U64_MAX);
  }

  #unmap(mappings: readonly NestedMapping[], iova: bigint, length: bigint): number {
    const pieces = this.#shadow.overlapping(iova, iova + length);
    if (pieces.length > 0) this.takeOut(pieces, iova, length);
    for (const piece of pieces) this.#forget(piece);
    for (const mapping of mappings) this.#mappings.remove(mapping);
    return mappings.reduce((sum, mapping) => sum + mapping.length, 0);
  }

  protected override releaseObjects(): void {
    runAll([
      () => super.releaseObjects(),
      () => {
        this.parent.children.delete(this);
        this.parent.followers.delete(this);
        for (const mapping of this.mappings) this.#mappings.remove(mapping);
        for (const piece of this.reachable) this.#forget(piece);
      },
    ]);
  }
}
