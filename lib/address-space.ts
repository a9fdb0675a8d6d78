import type { Context } from './context';
import { DmaBuffer } from './dma-buffer';
import { DmaPool, type DmaPoolOptions } from './dma-pool';
import { refusal } from './errors';
import { checkRange } from './iova';
import { KernelManagedSpace, type KernelManagedForm } from './kernel-managed-space';
import { mapMany, mapMemory, type MapRequest } from './map-request';
import { Mapping } from './mapping';
import { MappingIndex, requireWhole } from './mapping-index';
import { ScatterList, type ScatterOptions, type ScatterSource } from './scatter-list';
import { toU64 } from './uapi/layout';

const U64_MAX = 2n ** 64n - 1n;
const MAP = { request: 'IOMMU_IOAS_MAP' };
const UNMAP = { request: 'IOMMU_IOAS_UNMAP' };

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

/** An entry of `AddressSpace.mapMany`: what to map, and how. */
export interface MapEntry extends MapOptions {
  readonly source: DmaBuffer | Mapping;
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
    this.requireOpen(MAP);
    const request = this.#request(source, options);
    return this.#publish(this.#add(source, request, mapMemory(this.context, request)));
  }

  /**
   * As map() for each entry, in their order, with few crossings into the kernel: for many small mappings. All of them or
   * none: where one is refused, those before it are unmapped again.
   *
   * Throws what map() throws, which says which entry it was.
   */
  mapMany(entries: Iterable<MapEntry>): Mapping[] {
    this.requireOpen(MAP);
    const list = [...entries];
    const requests = list.map((entry) => this.#request(entry?.source, entry ?? {}));
    const mappings: Mapping[] = [];
    const refused = mapMany(this.context, requests, (i, iova) =>
      mappings.push(this.#add(list[i].source, requests[i], iova)),
    );
    try {
      if (refused) throw refused;
      if (!this.alone) for (const mapping of mappings) this.publish(mapping);
    } catch (error) {
      this.#unmapEach(mappings);
      throw error;
    }
    return mappings;
  }

  /** What the kernel is asked for. Throws TypeError, RangeError, IommuError. */
  #request(source: DmaBuffer | Mapping, options: MapOptions): MapRequest {
    const shared = source instanceof Mapping ? source : undefined;
    this.#checkSource(source);
    const { iova, offset = 0, read = shared?.read ?? true, write = shared?.write ?? true } = options;
    const length = options.length ?? source.length - offset;
    checkRange(offset, length, source.length);
    if (!read && !write) throw new RangeError('a mapping is readable, writable or both');
    return {
      ioasId: this.ioasId,
      source: source instanceof Mapping ? { ioasId: source.space.ioasId, iova: source.iova } : source,
      offset,
      length,
      iova: iova === undefined ? undefined : toU64(iova, 'iova'),
      read,
      write,
    };
  }

  /** The kernel has mapped it at `iova`. */
  #add(source: DmaBuffer | Mapping, request: MapRequest, iova: bigint): Mapping {
    const { length, read, write } = request;
    const shared = source instanceof Mapping;
    const offset = shared ? request.offset + source.offset : request.offset;
    const mapping = new Mapping(this, shared ? source.buffer : source, { iova, length, offset, read, write });
    const old = this.#mappings.add(mapping);
    // One that a raw ioctl has unmapped.
    if (old) this.#replaced(old);
    return mapping;
  }

  /** Spaces nested here reach it too; where one cannot, it is unmapped. */
  #publish(mapping: Mapping): Mapping {
    if (this.alone) return mapping;
    try {
      this.publish(mapping);
    } catch (error) {
      this.unmapOne(mapping);
      throw error;
    }
    return mapping;
  }

  /** Makes a pool of memory that is mapped here, for queues and for what requests need. Throws TypeError, RangeError. */
  createPool(options: DmaPoolOptions = {}): DmaPool {
    return new DmaPool(this, options);
  }

  /**
   * Lets devices reach bytes of several buffers, or parts of them, for as long as the list is open: the memory of one request.
   * Devices reach the rest of the first and last page of each too: an IOMMU knows whole pages.
   *
   * Throws TypeError, RangeError; IommuError as map(), and maps nothing.
   */
  mapScatter(sources: readonly ScatterSource[], options: ScatterOptions = {}): ScatterList {
    return new ScatterList(this, sources, options);
  }

  #checkSource(source: DmaBuffer | Mapping): void {
    if (source instanceof Mapping) {
      if (source.space.context !== this.context) throw new TypeError('the mapping belongs to another Iommu');
      if (!source.mapped) throw refusal('ENOENT', 'the mapping to share is gone', MAP);
      return;
    }
    if (!(source instanceof DmaBuffer))
      throw new TypeError(
        'map takes a DmaBuffer from iommu.allocateDma(), or a mapping of one: other memory could be moved or freed while a device uses it',
      );
    source.requireOpen(MAP);
    if (source.kernel !== this.context.kernel)
      throw new TypeError('the buffer belongs to another kernel than the address space');
  }

  /**
   * Unmaps the whole mappings inside [iova, iova + length), here and in the spaces nested on this one, and returns the
   * bytes unmapped.
   *
   * Throws, with nothing unmapped: ENOENT if the range cuts a mapping or has none, EBUSY if a hardware queue lives in one.
   * (Asked itself, the kernel would by then have removed the mappings before it.)
   */
  unmap(iova: bigint | number, length: bigint | number): number {
    this.requireOpen(UNMAP);
    const start = toU64(iova, 'iova');
    const bytes = toU64(length, 'length');
    const inside = requireWhole(this.#mappings, start, start + bytes);
    const unmapped = this.takeOut(inside, start, bytes);
    for (const mapping of inside) this.#forget(mapping);
    return unmapped;
  }

  /** Unmaps everything and returns the bytes unmapped. */
  unmapAll(): number {
    this.requireOpen(UNMAP);
    const { mappings } = this;
    const unmapped = this.takeOut(mappings, 0n, U64_MAX);
    for (const mapping of mappings) this.#forget(mapping);
    return unmapped;
  }

  /**
   * Unmaps mappings of this space one after the other, with few crossings into the kernel. Those that are gone already are
   * passed over. Throws TypeError; IommuError, and nothing is unmapped, EBUSY if a hardware queue lives in one. Where the
   * kernel refuses one, those before it are gone, and `mapped` of each says so.
   */
  unmapMany(mappings: Iterable<Mapping>): void {
    this.requireOpen(UNMAP);
    const list = new Set(mappings);
    for (const mapping of list)
      if (!(mapping instanceof Mapping) || mapping.space !== this)
        throw new TypeError('unmapMany takes mappings of this address space');
    this.#unmapEach([...list].filter(({ mapped }) => mapped));
  }

  #unmapEach(mappings: readonly Mapping[]): void {
    this.takeOutEach(mappings, (index) => this.#forget(mappings[index]));
  }

  /** @internal Use `mapping.unmap()`. */
  unmapOne(mapping: Mapping): void {
    if (this.alone) this.unmapRange(mapping.iova, mapping.length);
    else this.takeOut([mapping], mapping.iova, BigInt(mapping.length));
    this.#forget(mapping);
  }

  #replaced(mapping: Mapping): void {
    mapping.forget();
    this.withdraw(mapping);
  }

  #forget(mapping: Mapping): void {
    this.#mappings.remove(mapping);
    mapping.forget();
  }

  protected override releaseObjects(): void {
    super.releaseObjects();
    for (const mapping of this.mappings) this.#forget(mapping);
  }
}
