import { AttachTarget, type AttachAttempt } from './attach-target';
import { destroy, type Context } from './context';
import { DirtyReader, setDirtyTracking, type DirtyOptions } from './dirty';
import { refusal, type IommuError } from './errors';
import type { FaultQueue } from './fault-queue';
import { closing, runAll, type Handle } from './handle';
import { encodeInvalidation, invalidate, type Invalidation } from './invalidation';
import { attempt, refused } from './ioctl';
import type { IovaRange } from './iova';
import type { KernelManagedSpace } from './kernel-managed-space';
import type { RawTable } from './table-data';
import * as uapi from './uapi';

/** What a page table is made on, and whose it is. */
export interface Base {
  /** Object ID of the IOAS, page table or virtual IOMMU. */
  readonly id: number;
  /** Closes the table with itself. None: the address space that made it lets it go when nobody uses it. */
  readonly owner?: { readonly children: Set<Handle> };
  /** The address space whose mappings it has; none for a nested table. */
  readonly space?: KernelManagedSpace;
  /** The page table it nests on. */
  readonly parent?: PageTable;
  /** Adds what is known about a refusal. */
  readonly explain?: (result: number) => string | undefined;
}

/** What a table can do. */
export interface PageTableForm {
  /** Let PASIDs of a device be attached (and the device itself, beside them). */
  pasid?: boolean | undefined;
  /** Report page faults of attached devices here; the devices need PRI. Without it a missing page is an error. */
  faults?: FaultQueue | undefined;
  /** Let user-managed tables and virtual IOMMUs nest on this one. Excludes `faults`. */
  nestParent?: boolean | undefined;
  /** Let trackDirty() be used. Devices whose IOMMU cannot are refused then. */
  dirtyTracking?: boolean | undefined;
}

/**
 * A hardware page table: the HWPT of iommufd, for one IOMMU. Attaching a device to an address space makes one where one
 * is needed; `iommu.createPageTable()` makes one that stays until it is closed.
 */
export class PageTable extends AttachTarget {
  /** The kernel's object ID, for raw calls. */
  readonly id: number;
  /** The address space whose mappings it has; undefined for a nested table, whose entries the user writes. */
  readonly space: KernelManagedSpace | undefined;
  /** The page table that a nested one's output addresses are in. */
  readonly parent: PageTable | undefined;
  readonly nestParent: boolean;
  readonly dirtyTracking: boolean;
  /** @internal Slots attached to it, and what nests on it. */
  readonly users = new Set<object>();
  /** @internal Explicit tables and virtual IOMMUs on this one; closed first. */
  readonly children = new Set<Handle>();
  readonly #owner: Base['owner'] | undefined;
  readonly #dirty = new DirtyReader();

  /** @internal */
  constructor(context: Context, id: number, base: Base, form: PageTableForm) {
    super(context, { pasid: form.pasid ?? false, faults: form.faults, ioasid: base.space?.ioasid });
    this.id = id;
    this.space = base.space;
    this.parent = base.parent;
    this.nestParent = form.nestParent ?? false;
    this.dirtyTracking = form.dirtyTracking ?? false;
    this.#owner = base.owner;
    base.parent?.users.add(this);
    if (!base.owner) return;
    base.owner.children.add(this);
    form.faults?.users.add(this);
    if (!base.space) context.ioasids.add(this.ioasid);
  }

  /** @internal */
  override get label(): string {
    return `page table ${this.id}`;
  }

  override get pageTableIds(): readonly number[] {
    return [this.id];
  }

  /** @internal */
  override connect(attempt: AttachAttempt): PageTable {
    const result = attempt.attach(this.id);
    if (result < 0) throw attempt.failure(result);
    return this;
  }

  /**
   * Switches the recording of what devices write on or off (IOMMU_HWPT_SET_DIRTY_TRACKING). Switching it on forgets what
   * was recorded before. Needs `dirtyTracking`.
   */
  trackDirty(on = true): void {
    this.requireOpen({ request: 'IOMMU_HWPT_SET_DIRTY_TRACKING' });
    setDirtyTracking(this.context, this.id, on);
    if (on) this.#dirty.forget();
  }

  /**
   * What devices have written through this table since it was read last, by IOVA. Whole mappings are read: where the
   * range asked for cuts one, the answer has the rest of it too (a page of the table may be larger than the part, and
   * the kernel would clear it without a report). What is unmapped is forgotten: read first. Throws RangeError, IommuError.
   */
  readDirty(options: DirtyOptions = {}): IovaRange[] {
    this.requireOpen({ request: 'IOMMU_HWPT_GET_DIRTY_BITMAP' });
    if (!this.space)
      throw refusal('EINVAL', 'a nested page table has no mappings', {
        request: 'IOMMU_HWPT_GET_DIRTY_BITMAP',
        hint: 'read the page table it nests on',
      });
    return this.#dirty.read(this.context, [this.id], this.space, options);
  }

  /**
   * Makes the IOMMU forget what it has cached of this nested table. Needed after any entry that was present has changed.
   * Throws RangeError, IommuError.
   */
  invalidate(what: Invalidation): void {
    this.requireOpen({ request: 'IOMMU_HWPT_INVALIDATE' });
    invalidate(this.context, this.id, encodeInvalidation(what));
  }

  /** Closes what nests on it, detaches everybody, then destroys it. */
  protected override release(): void {
    runAll([
      ...closing(this.children),
      ...this.detachments(),
      () => destroyPageTable(this.context, this),
      () => {
        this.#owner?.children.delete(this);
        this.faults?.users.delete(this);
        if (!this.space) this.context.ioasids.delete(this.ioasid);
      },
    ]);
  }
}

/** IOMMU_HWPT_ALLOC: the table, or the error. `data` is the driver's, as of a user-managed table. */
export function allocatePageTable(
  context: Context,
  deviceId: number,
  base: Base,
  form: PageTableForm,
  data?: RawTable,
): PageTable | IommuError {
  const { kernel, fd } = context;
  const values = {
    flags:
      (form.faults ? uapi.IOMMU_HWPT_FAULT_ID_VALID : 0) |
      (form.pasid ? uapi.IOMMU_HWPT_ALLOC_PASID : 0) |
      (form.nestParent ? uapi.IOMMU_HWPT_ALLOC_NEST_PARENT : 0) |
      (form.dirtyTracking ? uapi.IOMMU_HWPT_ALLOC_DIRTY_TRACKING : 0),
    dev_id: deviceId,
    pt_id: base.id,
    fault_id: form.faults?.id ?? 0,
    data_type: data?.type ?? uapi.IOMMU_HWPT_DATA_NONE,
    data_len: data?.bytes.length ?? 0,
    data_uptr: data ? kernel.addressOf(data.bytes) : 0n,
  };
  const { result, out } = attempt(kernel, fd, uapi.IOMMU_HWPT_ALLOC, values, data?.bytes);
  if (result >= 0) return new PageTable(context, out.out_hwpt_id, base, form);
  return refused(kernel, uapi.IOMMU_HWPT_ALLOC, values, result, { hint: base.explain?.(result) });
}

/** IOMMU_DESTROY of a table that nobody uses. */
export function destroyPageTable(context: Context, table: PageTable): void {
  destroy(context, table.id);
  table.parent?.users.delete(table);
}
