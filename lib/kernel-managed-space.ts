import type { AttachAttempt } from './attach-target';
import type { BoundDevice } from './bound-device';
import { destroy, type Context } from './context';
import { DirtyReader, setDirtyTracking, type DirtyOptions } from './dirty';
import { refusal, type IommuError } from './errors';
import { closing, runAll, type Handle } from './handle';
import { IoAddressSpace } from './io-address-space';
import { MOST_IN_BATCH } from './hot-calls';
import { call, refused } from './ioctl';
import {
  readIovaRanges,
  writeAllowedRanges,
  type IovaRange,
  type IovaRangeInput,
  type MappedRange,
} from './iova';
import { hex } from './hex';
import type { NestedAddressSpace } from './nested-address-space';
import {
  checkEnforceSnoop,
  NOT_ENFORCING,
  requireEnforcement,
  setEnforceSnoop,
  type EnforceSnoop,
} from './no-snoop';
import { getOption, setOption } from './option';
import { allocatePageTable, destroyPageTable, PageTable, type Base, type PageTableForm } from './page-table';
import * as uapi from './uapi';
import { findUnpinnable } from './unpinnable';

/** What all kernel-managed spaces can be told. */
export interface KernelManagedForm extends PageTableForm {
  /** Whether all DMA through the space snoops the processors' caches. Default 'auto'. */
  enforceSnoop?: EnforceSnoop | undefined;
}

/**
 * A kernel-managed I/O address space: an IOAS of iommufd, with hardware page tables of its own where an option asks
 * for something the automatic ones do not have. What is mapped in it is its subclasses' matter.
 */
export abstract class KernelManagedSpace extends IoAddressSpace {
  /** Who keeps the page table (RFC, IOASID_ALLOC). */
  readonly owner = 'kernel';
  /** The kernel's object ID (IOMMU_IOAS_ALLOC), for raw calls. */
  readonly ioasId: number;
  /** Whether user-managed spaces can nest on this one in hardware. */
  readonly nestParent: boolean;
  /** Whether trackDirty() can be used. */
  readonly dirtyTracking: boolean;
  /** Whether all DMA through it snoops. */
  readonly enforceSnoop: EnforceSnoop;
  /** @internal Spaces nested on this one, and explicit page tables; closed first. */
  readonly children = new Set<Handle>();
  /** @internal Those of the children that follow what is mapped here. */
  readonly followers = new Set<NestedAddressSpace>();
  /** @internal Memory that hardware queues have pinned. */
  readonly pinned = new Set<IovaRange>();
  readonly #form: PageTableForm;
  /** The kernel refuses devices whose IOMMU cannot enforce snooping, where that is asked for. */
  readonly #kernelEnforces: boolean;
  readonly #dirty = new DirtyReader();
  /** Undefined: nobody has asked yet. */
  #tracking: boolean | undefined;

  /** @internal */
  protected constructor(context: Context, options: KernelManagedForm) {
    context.requireOpen({ request: 'IOMMU_IOAS_ALLOC' });
    options.faults?.requireOpen({ request: 'IOMMU_HWPT_ALLOC' });
    super(context, { pasid: options.pasid ?? false, faults: options.faults });
    this.#form = { ...options };
    this.nestParent = options.nestParent ?? false;
    this.dirtyTracking = options.dirtyTracking ?? false;
    this.enforceSnoop = checkEnforceSnoop(options.enforceSnoop);
    if (this.nestParent && this.faults)
      throw refusal('EOPNOTSUPP', 'a parent space cannot report faults', {
        request: 'IOMMU_HWPT_ALLOC',
        hint: 'give the fault queue to the user-managed space that nests on it',
      });
    this.ioasId = call(context.kernel, context.fd, uapi.IOMMU_IOAS_ALLOC, {}).out_ioas_id;
    try {
      this.#kernelEnforces = setEnforceSnoop(context, this.ioasId, this.enforceSnoop);
    } catch (error) {
      destroy(context, this.ioasId);
      throw error;
    }
    this.register();
  }

  /** @internal What devices reach that has bytes in [start, end), in the order of the IOVAs. */
  abstract overlapping(start: bigint, end: bigint): readonly MappedRange[];

  /** @internal All that devices reach. */
  abstract get reachable(): readonly MappedRange[];

  /**
   * @internal What is mapped now: spaces nested here reach it too. Does nothing where they do. Throws IommuError where one
   * of them cannot: then it must be taken out, here and there.
   */
  protected publish(range: MappedRange): void {
    for (const follower of this.followers) follower.follow(range);
  }

  /** @internal Spaces nested here do not reach it any more. */
  protected withdraw(range: MappedRange): void {
    for (const follower of this.followers) follower.unfollow(range);
  }

  /**
   * @internal Unmaps [iova, iova + length), which has `gone` and nothing else; the bytes unmapped. Spaces nested here
   * lose it first: at no moment does one reach what this one does not. Throws IommuError, and nothing is unmapped.
   */
  protected takeOut(gone: readonly MappedRange[], iova: bigint, length: bigint): number {
    this.checkPinned(gone);
    try {
      for (const range of gone) this.withdraw(range);
      return this.unmapRange(iova, length);
    } catch (error) {
      return this.#restore(gone, error);
    }
  }

  /** Spaces nested here reach again what stays mapped, because of an error, which is thrown. */
  #restore(ranges: readonly MappedRange[], error: unknown): never {
    const first = () => {
      throw error;
    };
    runAll([first, ...ranges.map((range) => () => this.publish(range))]);
    throw error;
  }

  /**
   * @internal Unmaps ranges, each a mapping of its own, one after the other, and tells which are gone. Spaces nested here
   * lose them all first. Throws IommuError where one cannot be unmapped: those from it on stay mapped, here and there.
   */
  protected takeOutEach(ranges: readonly MappedRange[], gone: (index: number) => void): void {
    this.checkPinned(ranges);
    let done = 0;
    try {
      for (const range of ranges) this.withdraw(range);
      const result = this.#unmapEach(ranges, (index) => {
        done = index + 1;
        gone(index);
      });
      if (result < 0)
        throw this.#unmapFailure(result, `the first ${done} of the ${ranges.length} mappings are gone`);
    } catch (error) {
      this.#restore(ranges.slice(done), error);
    }
  }

  /** 0, or the -errno of the first range that stays. */
  #unmapEach(ranges: readonly MappedRange[], gone: (index: number) => void): number {
    const { hot } = this.context;
    for (let first = 0; first < ranges.length; first += MOST_IN_BATCH) {
      const count = Math.min(MOST_IN_BATCH, ranges.length - first);
      for (let i = 0; i < count; i++) {
        const { iova, length } = ranges[first + i];
        hot.add(i, hot.writeUnmap(i, this.ioasId, iova, length));
      }
      const done = hot.run(count);
      const result = done < count ? hot.result(done) : 0;
      for (let i = 0; i < done; i++) gone(first + i);
      if (result < 0) return result;
    }
    return 0;
  }

  /** @internal IOMMU_IOAS_UNMAP, and nothing else; the bytes unmapped. Throws IommuError. */
  protected unmapRange(iova: bigint, length: bigint | number): number {
    const { hot } = this.context;
    const result = hot.make(hot.writeUnmap(0, this.ioasId, iova, length));
    if (result < 0) throw this.#unmapFailure(result);
    return hot.unmapped;
  }

  #unmapFailure(result: number, also?: string): IommuError {
    return refused(this.context.kernel, uapi.IOMMU_IOAS_UNMAP, {}, result, { also });
  }

  /** @internal Nothing depends on what is mapped here: no space nested on this one, and no hardware queue. */
  protected get alone(): boolean {
    return this.followers.size === 0 && this.pinned.size === 0;
  }

  /** @internal Throws EBUSY if a hardware queue lives in one of the ranges, here or in a space nested here. */
  checkPinned(ranges: readonly MappedRange[]): void {
    for (const { iova, length } of this.pinned)
      if (ranges.some((range) => range.iova < iova + length && iova < range.end))
        throw refusal('EBUSY', `a hardware queue lives at ${hex(iova)}`, {
          request: 'IOMMU_IOAS_UNMAP',
          hint: 'close the queue first; nothing was unmapped',
        });
    for (const follower of this.followers)
      follower.checkPinned(ranges.flatMap((range) => follower.partsOf(range)));
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
   * that attaching made, those too that went with their last device. This call is enough: the first starts the recording,
   * and has nothing to report. Throws RangeError, IommuError.
   */
  readDirty(options: DirtyOptions = {}): IovaRange[] {
    const request = 'IOMMU_HWPT_GET_DIRTY_BITMAP';
    this.requireOpen({ request });
    this.#requireDirtyTracking(request);
    const first = this.#tracking === undefined;
    const ids = first ? [] : this.tables.map(({ id }) => id);
    const found = this.#dirty.read(this.context, ids, this, options);
    if (first) this.trackDirty();
    return found;
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
    this.#requireSnoop(attempt.device);
    const refuse = (result: number) => attempt.failure(result, this.#whyRefused(attempt.device, result));
    const plain = !this.faults && !this.pasid && !this.nestParent && !this.dirtyTracking;
    // Whatever the tables of others can do: this device has none.
    if (plain || attempt.device.softwareMediated) {
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

  /** Throws IommuError for a device that a space with enforceSnoop: 'enable' cannot have. */
  #requireSnoop(device: BoundDevice): void {
    if (this.enforceSnoop === 'enable') requireEnforcement(device, this.label, this.#kernelEnforces);
  }

  /** What the kernel's errno does not say. For EFAULT, the first mapping whose memory is gone: it pins only now. */
  #whyRefused(device: BoundDevice, result: number): string | undefined {
    if (result === -uapi.errno.EINVAL && this.nestParent && this.#readOnlyUnder(device))
      return 'under a nested table its IOMMU takes no read-only mappings (erratum 772415): map with write, or without nestParent';
    if (result === -uapi.errno.EINVAL && this.enforceSnoop === 'enable')
      return `its IOMMU may be one that cannot enforce snooping: ${NOT_ENFORCING}`;
    if (result !== -uapi.errno.EFAULT) return undefined;
    const gone = findUnpinnable(this.context, device.id, this.ioasId, this.reachable);
    const which = gone
      ? `of the mapping at ${hex(gone.iova)}, ${gone.length} bytes,`
      : 'mapped by a raw call';
    return `memory is pinned when the first device attaches, and that ${which} is not there: unmap it`;
  }

  #readOnlyUnder(device: BoundDevice): boolean {
    return (
      device.hardwareInfo().vtd?.noReadOnlyParents === true && this.reachable.some(({ write }) => !write)
    );
  }

  /** @internal What page tables for `device` are made on. */
  baseFor(device: BoundDevice): Base {
    this.#requireSnoop(device);
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
  }
}
