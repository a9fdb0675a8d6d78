import type { Context } from './context';
import { DmaBuffer } from './dma-buffer';
import { refusal } from './errors';
import { checkRange } from './iova';
import { KernelManagedSpace, type KernelManagedForm } from './kernel-managed-space';
import { mapMemory } from './map-request';
import { Mapping } from './mapping';
import { MappingIndex, requireWhole } from './mapping-index';
import * as uapi from './uapi';

const U64_MAX = 2n ** 64n - 1n;

/** Options of a kernel-managed address space: what the page tables can do that attaching makes. */
export interface AddressSpaceOptions extends KernelManagedForm {
  owner?: 'kernel' | undefined;
  /** Of nested spaces only. */
  parent?: undefined;
  /** Of user-managed spaces only. */
  pageTable?: undefined;
  pasidTable?: undefined;
}

/** Options of `AddressSpace.map`. */
export interface MapOptions {
  /** The IOVA to map at, in bytes. Without it the kernel chooses a free one. */
  iova?: bigint | number | undefined;
  /** First byte of the source to map. Default 0. */
  offset?: number | undefined;
  /** Bytes. Default: the rest of the source. */
  length?: number | undefined;
  /** Let devices read. Default: true, or as the mapping that is shared. */
  read?: boolean | undefined;
  /** Let devices write. Default: true, or as the mapping that is shared. */
  write?: boolean | undefined;
}

/** A kernel-managed I/O address space with no parent: what its devices reach is the memory that map() put there. */
export class AddressSpace extends KernelManagedSpace {
  /** It is nested on nothing. */
  readonly parent = undefined;
  readonly #mappings = new MappingIndex<Mapping>();

  /** @internal Use `iommu.createAddressSpace()`. */
  constructor(context: Context, options: AddressSpaceOptions) {
    super(context, options);
  }

  /** The mappings there are, in the order of their IOVAs. */
  get mappings(): readonly Mapping[] {
    return [...this.#mappings];
  }

  /** @internal */
  override get reachable(): readonly Mapping[] {
    return this.mappings;
  }

  /** @internal */
  override overlapping(start: bigint, end: bigint): readonly Mapping[] {
    return this.#mappings.overlapping(start, end);
  }

  /**
   * Lets devices reach a buffer, or part of it, through this space and those nested on it. Given a mapping of another
   * space of this Iommu, it shares that one's memory: pinned and accounted once (IOMMU_IOAS_COPY). A buffer with a memfd
   * is mapped by its file (IOMMU_IOAS_MAP_FILE), so that changeProcess() can hand it over.
   *
   * Throws IommuError: EINVAL (misaligned or reserved IOVA), EEXIST (range is taken), ENOSPC (no room),
   * EOVERFLOW, EFAULT, ENOMEM (locked-memory limit), EPERM (more than the shared mapping allows).
   */
  map(source: DmaBuffer | Mapping, options: MapOptions = {}): Mapping {
    this.requireOpen({ request: 'IOMMU_IOAS_MAP' });
    const buffer = this.#checkSource(source);
    const shared = source instanceof Mapping ? source : undefined;
    const { iova, offset = 0, read = shared?.read ?? true, write = shared?.write ?? true } = options;
    const length = options.length ?? source.length - offset;
    checkRange(offset, length, source.length);
    if (!read && !write) throw new RangeError('a mapping is readable, writable or both');
    const wanted = iova === undefined ? undefined : uapi.toU64(iova, 'iova');
    const from = source instanceof Mapping ? { ioasId: source.space.ioasId, iova: source.iova } : source;
    const what = { ioasId: this.ioasId, source: from, offset, length, iova: wanted, read, write };
    const got = mapMemory(this.context, what);
    const bufferOffset = offset + (shared?.offset ?? 0);
    const mapping = new Mapping(this, buffer, { iova: got, length, offset: bufferOffset, read, write });
    const old = this.#mappings.add(mapping);
    buffer.mappings.add(mapping);
    try {
      // One that a raw ioctl has unmapped.
      if (old) this.#replaced(old);
      this.publish(mapping);
    } catch (error) {
      this.unmapOne(mapping);
      throw error;
    }
    return mapping;
  }

  /** The buffer that a source of map() is of. */
  #checkSource(source: DmaBuffer | Mapping): DmaBuffer {
    const request = 'IOMMU_IOAS_MAP';
    if (source instanceof Mapping) {
      if (source.space.context !== this.context) throw new TypeError('the mapping belongs to another Iommu');
      if (!source.mapped) throw refusal('ENOENT', 'the mapping to share is gone', { request });
      return source.buffer;
    }
    if (!(source instanceof DmaBuffer))
      throw new TypeError(
        'map takes a DmaBuffer from iommu.allocateDma(), or a mapping of one: other memory could be moved or freed while a device uses it',
      );
    source.requireOpen({ request });
    if (source.kernel !== this.context.kernel)
      throw new TypeError('the buffer belongs to another kernel than the address space');
    return source;
  }

  /**
   * Unmaps the whole mappings inside [iova, iova + length), here and in the spaces nested on this one, and returns the
   * bytes unmapped.
   *
   * Throws, with nothing unmapped: ENOENT if the range cuts a mapping or has none, EBUSY if a hardware queue lives in one.
   * (Asked itself, the kernel would by then have removed the mappings before it.)
   */
  unmap(iova: bigint | number, length: bigint | number): number {
    this.requireOpen({ request: 'IOMMU_IOAS_UNMAP' });
    const start = uapi.toU64(iova, 'iova');
    const bytes = uapi.toU64(length, 'length');
    const inside = requireWhole(this.#mappings, start, start + bytes);
    const unmapped = this.takeOut(inside, start, bytes);
    for (const mapping of inside) this.#forget(mapping);
    return unmapped;
  }

  /** Unmaps everything and returns the bytes unmapped. */
  unmapAll(): number {
    this.requireOpen({ request: 'IOMMU_IOAS_UNMAP' });
    const { mappings } = this;
    const unmapped = this.takeOut(mappings, 0n, U64_MAX);
    for (const mapping of mappings) this.#forget(mapping);
    return unmapped;
  }

  /** @internal Use `mapping.unmap()`. */
  unmapOne(mapping: Mapping): void {
    this.takeOut([mapping], mapping.iova, BigInt(mapping.length));
    this.#forget(mapping);
  }

  #replaced(mapping: Mapping): void {
    mapping.buffer.mappings.delete(mapping);
    this.withdraw(mapping);
  }

  #forget(mapping: Mapping): void {
    this.#mappings.remove(mapping);
    mapping.buffer.mappings.delete(mapping);
  }

  protected override releaseObjects(): void {
    super.releaseObjects();
    for (const mapping of this.mappings) this.#forget(mapping);
  }
}
