import type { AttachAttempt } from './attach-target';
import type { BoundDevice } from './bound-device';
import { destroy, type Context } from './context';
import { DirtyReader, setDirtyTracking, type DirtyOptions } from './dirty';
import { DmaBuffer } from './dma-buffer';
import { refusal } from './errors';
import { closing, runAll, type Handle } from './handle';
import { IoAddressSpace } from './io-address-space';
import { call } from './ioctl';
import { checkRange, readIovaRanges, writeAllowedRanges, type IovaRange, type IovaRangeInput } from './iova';
import { hex, mapMemory } from './map-request';
import { Mapping } from './mapping';
import { MappingIndex } from './mapping-index';
import { getOption, setOption } from './option';
import { allocatePageTable, destroyPageTable, PageTable, type Base, type PageTableForm } from './page-table';
import * as uapi from './uapi';
import { findUnpinnable } from './unpinnable';

const U64_MAX = 2n ** 64n - 1n;

/** Options of a kernel-managed address space: what the page tables can do that attaching makes. */
export interface AddressSpaceOptions extends PageTableForm {
  /** Of user-managed spaces only. */
  parent?: undefined;
  pageTable?: undefined;
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

/**
 * A kernel-managed I/O address space: what its devices reach is what map() put there. An IOAS of iommufd,
 * with hardware page tables of its own where an option asks for something the automatic ones do not have.
 */
export class AddressSpace extends IoAddressSpace {
  /** The kernel's object ID (IOMMU_IOAS_ALLOC), for raw calls. */
  readonly ioasId: number;
  /** Whether user-managed spaces can nest on this one. */
  readonly nestParent: boolean;
  /** Whether trackDirty() can be used. */
  readonly dirtyTracking: boolean;
  /** @internal User-managed spaces on top of this one, and explicit page tables; closed first. */
  readonly children = new Set<Handle>();
  /** @internal Memory that hardware queues have pinned. */
  readonly pinned = new Set<IovaRange>();
  readonly #mappings = new MappingIndex();
  readonly #form: PageTableForm;
  readonly #dirty = new DirtyReader();
  #tracking = false;

  /** @internal Use `iommu.createAddressSpace()`. */
  constructor(context: Context, options: AddressSpaceOptions) {
    context.requireOpen({ request: 'IOMMU_IOAS_ALLOC' });
    options.faults?.requireOpen({ request: 'IOMMU_HWPT_ALLOC' });
    super(context, { pasid: options.pasid ?? false, faults: options.faults });
    this.#form = { ...options };
    this.nestParent = options.nestParent ?? false;
    this.dirtyTracking = options.dirtyTracking ?? false;
    if (this.nestParent && this.faults)
      throw refusal('EOPNOTSUPP', 'a parent space cannot report faults', {
        request: 'IOMMU_HWPT_ALLOC',
        hint: 'give the fault queue to the user-managed space that nests on it',
      });
    this.ioasId = call(context.kernel, context.fd, uapi.IOMMU_IOAS_ALLOC, {}).out_ioas_id;
    this.register();
  }

  /** The mappings there are, in the order of their IOVAs. */
  get mappings(): readonly Mapping[] {
    return [...this.#mappings];
  }

  /** @internal */
  overlapping(start: bigint, end: bigint): readonly Mapping[] {
    return this.#mappings.overlapping(start, end);
  }

  /**
   * Lets devices reach a buffer, or part of it, through this space. Given a mapping of another space of this Iommu, it
   * shares that one's memory: pinned and accounted once (IOMMU_IOAS_COPY). A buffer with a memfd is mapped by its file
   * (IOMMU_IOAS_MAP_FILE), so that changeProcess() can hand it over.
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
    const what = { ioasId: this.ioasId, source, offset, length, iova: wanted, read, write };
    const got = mapMemory(this.context, what);
    const bufferOffset = offset + (shared?.offset ?? 0);
    const mapping = new Mapping(this, buffer, { iova: got, length, offset: bufferOffset, read, write });
    const old = this.#mappings.add(mapping);
    // One that a raw ioctl has unmapped.
    old?.buffer.mappings.delete(old);
    buffer.mappings.add(mapping);
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
   * Unmaps the whole mappings inside [iova, iova + length) and returns the bytes unmapped.
   *
   * Throws, with nothing unmapped: ENOENT if the range cuts a mapping or has none, EBUSY if a hardware queue lives in one.
   * (Asked itself, the kernel would by then have removed the mappings before it.)
   */
  unmap(iova: bigint | number, length: bigint | number): number {
    this.requireOpen({ request: 'IOMMU_IOAS_UNMAP' });
    const start = uapi.toU64(iova, 'iova');
    const bytes = uapi.toU64(length, 'length');
    const end = start + bytes;
    const inside = bytes === 0n ? [] : this.#mappings.overlapping(start, end);
    for (const mapping of inside)
      if (mapping.iova < start || mapping.end > end)
        throw refusal(
          'ENOENT',
          `the range cuts the mapping at ${hex(mapping.iova)} of ${mapping.length} bytes`,
          { request: 'IOMMU_IOAS_UNMAP', hint: 'unmap takes whole mappings; nothing was unmapped' },
        );
    this.#checkPinned(inside);
    const unmapped = this.#unmap(start, bytes);
    for (const mapping of inside) this.#forget(mapping);
    return unmapped;
  }

  #checkPinned(mappings: readonly Mapping[]): void {
    for (const { iova, length } of this.pinned)
      if (mappings.some((mapping) => mapping.iova < iova + length && iova < mapping.end))
        throw refusal('EBUSY', `a hardware queue lives at ${hex(iova)}`, {
          request: 'IOMMU_IOAS_UNMAP',
          hint: 'close the queue first; nothing was unmapped',
        });
  }

  /** Unmaps everything and returns the bytes unmapped. */
  unmapAll(): number {
    this.requireOpen({ request: 'IOMMU_IOAS_UNMAP' });
    this.#checkPinned(this.mappings);
    const unmapped = this.#unmap(0n, U64_MAX);
    for (const mapping of this.mappings) this.#forget(mapping);
    return unmapped;
  }

  /** @internal Use `mapping.unmap()`. */
  unmapOne(mapping: Mapping): void {
    this.#checkPinned([mapping]);
    this.#unmap(mapping.iova, BigInt(mapping.length));
    this.#forget(mapping);
  }

  #unmap(iova: bigint, length: bigint): number {
    const values = { ioas_id: this.ioasId, iova, length };
    return Number(call(this.context.kernel, this.context.fd, uapi.IOMMU_IOAS_UNMAP, values).length);
  }

  #forget(mapping: Mapping): void {
    this.#mappings.remove(mapping);
    mapping.buffer.mappings.delete(mapping);
  }

  /** The IOVAs that the attached devices' IOMMUs can translate, mapped or not. Attaching narrows them. */
  iovaRanges(): IovaRange[] {
    this.requireOpen({ request: 'IOMMU_IOAS_IOVA_RANGES' });
    return readIovaRanges(this.context, this.ioasId).ranges;
  }

  /** What IOVAs and lengths must be a multiple of, in bytes; 1 while nothing is attached. */
  get alignment(): number {
    this.requireOpen({ request: 'IOMMU_IOAS_IOVA_RANGES' });
    return Number(readIovaRanges(this.context, this.ioasId).alignment);
  }

  /**
   * Limits where map() without `iova` places mappings; an empty list lifts the limit. Ranges must not overlap
   * nor touch reserved addresses (EINVAL, EADDRINUSE).
   */
  allow(ranges: readonly IovaRangeInput[]): void {
    this.requireOpen({ request: 'IOMMU_IOAS_ALLOW_IOVAS' });
    writeAllowedRanges(this.context, this.ioasId, ranges);
  }

  /**
   * Whether the kernel may join neighbouring pages into larger ones of the IOMMU (IOMMU_OPTION_HUGE_PAGES); true at first.
   * Switching it off throws IommuError EINVAL once something is both mapped and attached.
   */
  get hugePages(): boolean {
    this.requireOpen({ request: 'IOMMU_OPTION' });
    return getOption(this.context, uapi.IOMMU_OPTION_HUGE_PAGES, this.ioasId) !== 0n;
  }

  set hugePages(on: boolean) {
    this.requireOpen({ request: 'IOMMU_OPTION' });
    setOption(this.context, uapi.IOMMU_OPTION_HUGE_PAGES, this.ioasId, on ? 1n : 0n);
  }

  /**
   * Switches the recording of what devices write on or off, for all page tables that attaching made or will make.
   * Switching it on forgets what was recorded before. Needs `dirtyTracking`. Throws IommuError.
   */
  trackDirty(on = true): void {
    const request = 'IOMMU_HWPT_SET_DIRTY_TRACKING';
    this.requireOpen({ request });
    this.#requireDirtyTracking(request);
    for (const { id } of this.tables) setDirtyTracking(this.context, id, on);
    if (on) this.#dirty.forget();
    this.#tracking = on;
  }

  /**
   * What attached devices have written since it was read last, by IOVA: as `PageTable.readDirty`, for all page tables
   * that attaching made, those too that went with their last device. Throws RangeError, IommuError.
   */
  readDirty(options: DirtyOptions = {}): IovaRange[] {
    const request = 'IOMMU_HWPT_GET_DIRTY_BITMAP';
    this.requireOpen({ request });
    this.#requireDirtyTracking(request);
    const ids = this.tables.map(({ id }) => id);
    return this.#dirty.read(this.context, ids, this, options);
  }

  #requireDirtyTracking(request: string): void {
    if (!this.dirtyTracking)
      throw refusal('EOPNOTSUPP', `${this.label} has no dirty tracking`, {
        request,
        hint: 'make it with dirtyTracking: true',
      });
  }

  /** @internal */
  override connect(attempt: AttachAttempt): PageTable | undefined {
    const refuse = (result: number) => attempt.failure(result, this.#whyRefused(attempt.device, result));
    if (!this.faults && !this.pasid && !this.nestParent && !this.dirtyTracking) {
      const result = attempt.attach(this.ioasId);
      if (result < 0) throw refuse(result);
      return undefined;
    }
    const existing = this.tryExisting(attempt);
    if (existing) return existing;
    const table = this.makeTable(attempt.device);
    const result = attempt.attach(table.id);
    if (result >= 0) return table;
    this.destroyUnused(table);
    throw refuse(result);
  }

  /** For EFAULT, the first mapping whose memory is gone: the kernel pins only now, and says no more. */
  #whyRefused(device: BoundDevice, result: number): string | undefined {
    if (result !== -uapi.errno.EFAULT) return undefined;
    const gone = findUnpinnable(this.context, device.id, this.ioasId, this.mappings);
    const which = gone
      ? `of the mapping at ${hex(gone.iova)}, ${gone.length} bytes,`
      : 'mapped by a raw call';
    return `memory is pinned when the first device attaches, and that ${which} is not there: unmap it`;
  }

  /** @internal What page tables for `device` are made on. */
  baseFor(device: BoundDevice): Base {
    return {
      id: this.ioasId,
      space: this,
      explain: (result) => this.#whyRefused(device, result),
    };
  }

  /** @internal A table that fits `device`, for attaching or for nesting; `destroyUnused` gives it back. */
  makeTable(device: BoundDevice): PageTable {
    const table = allocatePageTable(this.context, device.id, this.baseFor(device), this.#form);
    if (!(table instanceof PageTable)) throw table;
    try {
      if (this.#tracking) setDirtyTracking(this.context, table.id, true);
    } catch (error) {
      destroyPageTable(this.context, table);
      throw error;
    }
    this.tables.push(table);
    return table;
  }

  /** @internal The tables user-managed spaces can nest on; made with `makeTable` where none fits. */
  get parentTables(): readonly PageTable[] {
    return [...this.tables];
  }

  /** @internal What was written through the table is kept for the next report. */
  override destroyUnused(table: PageTable): void {
    try {
      if (this.#tracking && table.users.size === 0 && !this.closed && this.tables.includes(table))
        this.#dirty.keep(this.context, table.id, this);
    } finally {
      super.destroyUnused(table);
    }
  }

  /** Closes what is on top first. */
  protected override release(): void {
    runAll([...closing(this.children), () => super.release()]);
  }

  protected override releaseObjects(): void {
    destroy(this.context, this.ioasId);
    for (const mapping of this.mappings) this.#forget(mapping);
  }
}
