import { AddressSpace } from './address-space';
import type { BoundDevice } from './bound-device';
import type { Context } from './context';
import { failure, IommuError, refusal } from './errors';
import type { FaultQueue } from './fault-queue';
import { IoAddressSpace, type TryAttach } from './io-address-space';
import { attempt } from './ioctl';
import { allocatePageTable, destroyPageTable, type PageTable } from './page-table';
import * as uapi from './uapi';

const U64_MAX = 2n ** 64n - 1n;

/** A page table the user keeps: VT-d first-stage format (Intel VT-d specification, section 3.6). */
export interface UserPageTable {
  /** Address of its root in the parent's input space; a multiple of 4096. */
  readonly address: bigint | number;
  /** Input address width in bits: 48 (4 levels) or 57 (5 levels). */
  readonly width: 48 | 57;
  readonly flags?: {
    /** Supervisor requests are allowed. */
    readonly sre?: boolean | undefined;
    /** The extended-accessed bit is set by hardware. */
    readonly eafe?: boolean | undefined;
    /** Supervisor writes honour read-only pages. */
    readonly wpe?: boolean | undefined;
  };
}

/** Options of a user-managed address space. */
export interface UserAddressSpaceOptions {
  /** The kernel-managed space (made with `nestParent`) that this one's output addresses are in. */
  parent: AddressSpace;
  pageTable: UserPageTable;
  /** Report page faults of this table here. */
  faults?: FaultQueue | undefined;
  /** Let PASIDs of a device be attached. */
  pasid?: boolean | undefined;
}

/** What `invalidate` drops: `pages` pages of 4096 bytes from `iova`; `leaf`: only their last-level entries. */
export interface Invalidation {
  readonly iova: bigint | number;
  readonly pages: bigint | number;
  readonly leaf?: boolean | undefined;
}

/**
 * A user-managed I/O address space: the user writes its page table, in memory the parent space maps, and
 * tells the IOMMU with invalidate() when entries change.
 */
export class UserAddressSpace extends IoAddressSpace {
  readonly parent: AddressSpace;
  readonly #data: Uint8Array<ArrayBuffer>;
  readonly #address: bigint;

  /** @internal Use `iommu.createAddressSpace({ parent, pageTable })`. */
  constructor(context: Context, options: UserAddressSpaceOptions) {
    context.requireOpen({ request: 'IOMMU_HWPT_ALLOC' });
    const { parent, pageTable } = options;
    if (!(parent instanceof AddressSpace))
      throw new TypeError('parent must be a kernel-managed AddressSpace');
    if (!pageTable) throw new TypeError('a user-managed address space needs pageTable: { address, width }');
    parent.requireOpen({ request: 'IOMMU_HWPT_ALLOC' });
    options.faults?.requireOpen({ request: 'IOMMU_HWPT_ALLOC' });
    if (parent.context !== context) throw new TypeError('parent belongs to another Iommu');
    if (!parent.nestParent)
      throw refusal('EINVAL', `address space ${parent.ioasid} cannot be a parent`, {
        request: 'IOMMU_HWPT_ALLOC',
        hint: 'make it with nestParent: true',
      });
    super(context, { pasid: options.pasid ?? false, faults: options.faults });
    this.parent = parent;
    this.#data = encodePageTable(pageTable);
    this.#address = context.kernel.addressOf(this.#data);
    this.register();
    parent.children.add(this);
  }

  /**
   * Makes the IOMMU forget cached translations of this table: a range, several, or everything. Needed after
   * any entry that was present has changed.
   */
  invalidate(what: Invalidation | readonly Invalidation[] | 'all'): void {
    this.requireOpen({ request: 'IOMMU_HWPT_INVALIDATE' });
    const list = what === 'all' ? [{ iova: 0n, pages: U64_MAX }] : 'iova' in what ? [what] : what;
    const entry = uapi.iommu_hwpt_vtd_s1_invalidate;
    const bytes = new Uint8Array(Math.max(1, list.length) * entry.size);
    const view = new DataView(bytes.buffer);
    list.forEach((item: Invalidation, i) => {
      const addr = uapi.toU64(item.iova, 'iova');
      if (addr % 4096n !== 0n) throw new RangeError(`iova 0x${addr.toString(16)} is not a multiple of 4096`);
      const npages = uapi.toU64(item.pages, 'pages');
      entry.write(view, i * entry.size, {
        addr,
        npages,
        flags: item.leaf ? uapi.IOMMU_VTD_INV_FLAGS_LEAF : 0,
      });
    });
    const { kernel, fd } = this.context;
    for (const table of this.tables) {
      const { result } = attempt(
        kernel,
        fd,
        uapi.IOMMU_HWPT_INVALIDATE,
        {
          hwpt_id: table.id,
          data_uptr: kernel.addressOf(bytes),
          data_type: uapi.IOMMU_HWPT_INVALIDATE_DATA_VTD_S1,
          entry_len: entry.size,
          entry_num: list.length,
        },
        bytes,
      );
      if (result < 0) throw failure(result, { syscall: 'ioctl', request: 'IOMMU_HWPT_INVALIDATE' });
    }
  }

  /** @internal Existing tables first, then a new one on each parent table, then one on a new parent table. */
  override connect(device: BoundDevice, request: string, tryAttach: TryAttach): PageTable | undefined {
    const existing = this.tryExisting(request, tryAttach);
    if (existing) return existing;
    for (const parent of this.parent.parentTables) {
      const outcome = this.#connectOn(parent, device, request, tryAttach);
      if (!(outcome instanceof IommuError)) return outcome;
    }
    const parent = this.parent.makeParentTable(device);
    try {
      const outcome = this.#connectOn(parent, device, request, tryAttach);
      if (outcome instanceof IommuError) throw outcome;
      return outcome;
    } catch (error) {
      this.parent.destroyUnused(parent);
      throw error;
    }
  }

  /** One attempt on one parent table: the table, or EINVAL where the parent does not fit the device. */
  #connectOn(
    parent: PageTable,
    device: BoundDevice,
    request: string,
    tryAttach: TryAttach,
  ): PageTable | IommuError {
    const table = allocatePageTable(this.context, device.id, parent, {
      flags:
        (this.faults ? uapi.IOMMU_HWPT_FAULT_ID_VALID : 0) | (this.pasid ? uapi.IOMMU_HWPT_ALLOC_PASID : 0),
      faultId: this.faults?.id ?? 0,
      dataType: uapi.IOMMU_HWPT_DATA_VTD_S1,
      data: { address: this.#address, length: this.#data.length, bytes: this.#data },
    });
    if (typeof table === 'number') return orThrow(table, 'IOMMU_HWPT_ALLOC');
    const result = tryAttach(table.id);
    if (result < 0) {
      destroyPageTable(this.context, table);
      return orThrow(result, request);
    }
    this.tables.push(table);
    return this.use(table);
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
function orThrow(result: number, request: string): IommuError {
  const error = failure(result, { syscall: 'ioctl', request });
  if (result !== -uapi.errno.EINVAL) throw error;
  return error;
}

function encodePageTable({ address, width, flags = {} }: UserPageTable): Uint8Array<ArrayBuffer> {
  if (width !== 48 && width !== 57)
    throw new RangeError(`page table width ${String(width)} is neither 48 nor 57`);
  const root = uapi.toU64(address, 'page table address');
  if (root % 4096n !== 0n)
    throw new RangeError(`page table address 0x${root.toString(16)} is not a multiple of 4096`);
  return uapi.iommu_hwpt_vtd_s1.encode({
    flags:
      (flags.sre ? uapi.IOMMU_VTD_S1_SRE : 0) |
      (flags.eafe ? uapi.IOMMU_VTD_S1_EAFE : 0) |
      (flags.wpe ? uapi.IOMMU_VTD_S1_WPE : 0),
    pgtbl_addr: root,
    addr_width: width,
  });
}
