import type { AttachAttempt } from './attach-target';
import { deviceOf, type Context } from './context';
import { refusal, type IommuError } from './errors';
import type { FaultQueue } from './fault-queue';
import {
  encodeCaches,
  encodeInvalidation,
  invalidate,
  isCacheInvalidation,
  type CacheInvalidation,
  type Invalidation,
} from './invalidation';
import { IoAddressSpace } from './io-address-space';
import { KernelManagedSpace } from './kernel-managed-space';
import { allocatePageTable, destroyPageTable, PageTable } from './page-table';
import { encodeUserPageTable, type RawTable, type UserPageTable, type UserPasidTable } from './table-data';
import { formatMismatch } from './table-formats';
import { errno } from './uapi';

interface UserSpaceForm {
  owner?: 'user' | undefined;
  /** The kernel-managed space (made with `nestParent`) that this one's output addresses are in. */
  parent: KernelManagedSpace;
  /** Report page faults of this table here. */
  faults?: FaultQueue | undefined;
  /** Let PASIDs of a device be attached. */
  pasid?: boolean | undefined;
}

/** Options of a user-managed address space: one page table, or a whole PASID table with a page table for each PASID. */
export type UserAddressSpaceOptions = UserSpaceForm &
  (
    | { pageTable: UserPageTable; pasidTable?: undefined }
    /** EOPNOTSUPP today: see `UserPasidTable`. */
    | { pasidTable: UserPasidTable; pageTable?: undefined }
  );

/**
 * A user-managed I/O address space: the user writes its page table, in memory the parent space maps, and
 * tells the IOMMU with invalidate() when entries change.
 */
export class UserAddressSpace extends IoAddressSpace {
  /** Who keeps the page table (RFC, IOASID_ALLOC). */
  readonly owner = 'user';
  readonly parent: KernelManagedSpace;
  readonly #data: RawTable;

  /** @internal Use `iommu.createAddressSpace({ parent, pageTable })`. */
  constructor(context: Context, options: UserAddressSpaceOptions) {
    context.requireOpen({ request: 'IOMMU_HWPT_ALLOC' });
    const { parent, pageTable, pasidTable } = options;
    if (!(parent instanceof KernelManagedSpace))
      throw new TypeError('parent must be a kernel-managed address space');
    const table = pageTable ?? pasidTable;
    if (!table || (pageTable && pasidTable))
      throw new TypeError(
        'a user-managed address space needs pageTable, such as { address, width }, or pasidTable',
      );
    parent.requireOpen({ request: 'IOMMU_HWPT_ALLOC' });
    options.faults?.requireOpen({ request: 'IOMMU_HWPT_ALLOC' });
    if (parent.context !== context) throw new TypeError('parent belongs to another Iommu');
    if (!parent.nestParent)
      throw refusal('EINVAL', `address space ${parent.ioasid} cannot be a parent`, {
        request: 'IOMMU_HWPT_ALLOC',
        hint: 'make it with nestParent: true',
      });
    const data = encodeUserPageTable(table);
    if (pasidTable) throw noPasidTables();
    super(context, { pasid: options.pasid ?? false, faults: options.faults });
    this.parent = parent;
    this.#data = data;
    this.register();
    parent.children.add(this);
  }

  /**
   * Makes the IOMMU forget what it has cached of this table: needed after any entry that was present has changed. By device,
   * PASID, range and cache (`CacheInvalidation`), or in the terms of the hardware. Nothing is cached where nothing is attached.
   *
   * Throws TypeError, RangeError; IommuError: EOPNOTSUPP (a cache that the kernel does not invalidate, a format it has no
   * ranges for), ENODEV (no such cookie), ENOENT (the device or PASID is not attached here).
   */
  invalidate(what: Invalidation | CacheInvalidation): void {
    this.requireOpen({ request: 'IOMMU_HWPT_INVALIDATE' });
    const cached = isCacheInvalidation(what);
    const entries = cached ? encodeCaches(what, this.#data.type) : encodeInvalidation(what);
    const tables = cached ? this.#tablesOf(what) : this.tables;
    for (const table of tables) invalidate(this.context, table.id, entries);
  }

  /** The tables that translate for a device or a PASID. */
  #tablesOf({ device: cookie, pasid }: CacheInvalidation): readonly PageTable[] {
    if (cookie === undefined && pasid === undefined) return this.tables;
    const request = 'IOMMU_HWPT_INVALIDATE';
    const device = cookie === undefined ? undefined : deviceOf(this.context, cookie, request);
    const slots = this.attachments.filter(
      (slot) => (!device || slot.device === device) && (pasid === undefined || slot.pasid === pasid),
    );
    const who = [device?.label, pasid === undefined ? undefined : `PASID ${String(pasid)}`].filter(Boolean);
    if (slots.length === 0)
      throw refusal('ENOENT', `${who.join(', ')} is not attached to ${this.label}`, { request });
    return this.tables.filter((table) => slots.some((slot) => table.users.has(slot)));
  }

  /** @internal Existing tables first, then a new one on each parent table, then one on a new parent table. */
  override connect(attempt: AttachAttempt): PageTable {
    const existing = this.tryExisting(attempt);
    if (existing) return existing;
    for (const parent of this.parent.parentTables) {
      const outcome = this.#connectOn(parent, attempt);
      if (outcome instanceof PageTable) return outcome;
    }
    const parent = this.parent.makeTable(attempt.device);
    try {
      const outcome = this.#connectOn(parent, attempt);
      if (!(outcome instanceof PageTable)) throw outcome;
      return outcome;
    } catch (error) {
      this.parent.destroyUnused(parent);
      throw error;
    }
  }

  /** One attempt on one parent table: the table, or EINVAL where the parent does not fit the device. */
  #connectOn(parent: PageTable, attempt: AttachAttempt): PageTable | IommuError {
    const { faults, pasid } = this;
    const { device } = attempt;
    const explain = () => formatMismatch(device.hardwareInfo(), this.#data.type);
    const base = { id: parent.id, parent, explain };
    const table = allocatePageTable(this.context, device.id, base, { faults, pasid }, this.#data);
    if (!(table instanceof PageTable)) return orThrow(table);
    const result = attempt.attach(table.id);
    if (result < 0) {
      destroyPageTable(this.context, table);
      return orThrow(attempt.failure(result));
    }
    this.tables.push(table);
    return table;
  }

  /** @internal Also lets the parent's table go when this was its last user. */
  override destroyUnused(table: PageTable): void {
    super.destroyUnused(table);
    if (table.parent) this.parent.destroyUnused(table.parent);
  }

  protected override releaseObjects(): void {
    this.parent.children.delete(this);
  }
}

/** EINVAL is returned, to try elsewhere; anything else is thrown. */
function orThrow(error: IommuError): IommuError {
  if (error.errno !== -errno.EINVAL) throw error;
  return error;
}

function noPasidTables(): IommuError {
  return refusal('EOPNOTSUPP', 'an address space cannot be a whole PASID table of the user’s yet', {
    request: 'IOMMU_HWPT_ALLOC',
    hint: 'on hardware that has them, make one by hand: createPageTable(device, { parent, pageTable: { ste } or { dte } })',
  });
}
