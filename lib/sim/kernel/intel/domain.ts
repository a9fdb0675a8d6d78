/** VT-d domains: page tables the kernel owns, and user-owned first stages nested on them. */
import { errno } from '../../../uapi/errno';
import {
  IOMMU_HWPT_INVALIDATE_DATA_VTD_S1,
  IOMMU_VTD_INV_FLAGS_LEAF,
  iommu_hwpt_vtd_s1,
  iommu_hwpt_vtd_s1_invalidate,
} from '../../../uapi/iommufd';
import type { Values } from '../../../uapi/layout';
import type { VtdCapabilities } from '../../vtd/capabilities';
import * as inv from '../../vtd/invalidation-descriptors';
import { IOMMU_WRITE, type NestedDomain, type PagingDomain } from '../iommu/core';
import type { DeviceState } from './device-state';
import type { InvalidationQueue } from './invalidation-queue';
import { SECOND_STAGE, type PageTable } from './page-table';

const U64_MAX = (1n << 64n) - 1n;
/** The domain id of pass-through, as Linux has it (FLPT_DEFAULT_DID). */
const IDENTITY_DID = 1;
/** Order that stands for "everything": more 4 KiB pages than a 57-bit space has. */
export const ALL_PAGES = 52;
/** Largest address mask of page-selective invalidation that is used (CAP_REG.MAMV allows more). */
const LARGEST_MASK = 18;

/** One place a domain is in use. */
export interface Attachment {
  readonly state: DeviceState;
  /** 0 is the RID's own. */
  readonly pasid: number;
}

/** A range as hardware invalidates it: 2^order pages, aligned. */
interface Block {
  readonly high: number;
  readonly low: number;
  readonly order: number;
}

/** The smallest aligned power of two that covers the pages. */
function blockOf(page: number, pages: number): Block {
  let order = 0;
  const last = page + pages - 1;
  while (order < ALL_PAGES && Math.floor(page / 2 ** order) !== Math.floor(last / 2 ** order)) order++;
  if (order >= ALL_PAGES) return { high: 0, low: 0, order: ALL_PAGES };
  const start = Math.floor(page / 2 ** order) * 2 ** order;
  return { high: Math.floor(start / 2 ** 20), low: ((start % 2 ** 20) << 12) >>> 0, order };
}

/** What all VT-d domains share: an id for the hardware's cache tags, and the places to invalidate. */
abstract class VtdDomain {
  readonly attachments = new Set<Attachment>();

  constructor(
    /** Domain id (DID): tags the hardware's cached translations. */
    readonly did: number,
    protected readonly queue: InvalidationQueue,
    protected readonly freeDid: (did: number) => void,
  ) {}

  /** Device-TLB invalidations of a block, for every attachment whose device caches translations. */
  deviceTlbDescriptors(block: Block): Int32Array[] {
    return [...this.attachments]
      .filter(({ state }) => state.atsEnabled)
      .map(({ state, pasid }) =>
        pasid === 0
          ? inv.encodeDeviceTlbInvalidate(state.rid, block.high, block.low, block.order)
          : inv.encodePasidDeviceTlbInvalidate(state.rid, pasid, block.high, block.low, block.order),
      );
  }
}

export class VtdPagingDomain extends VtdDomain implements PagingDomain {
  readonly granule = 4096;
  readonly pageSizes: bigint;
  readonly apertureStart = 0n;
  /** First stages nested on this domain. */
  readonly children = new Set<VtdNestedDomain>();

  constructor(
    did: number,
    queue: InvalidationQueue,
    freeDid: (did: number) => void,
    readonly table: PageTable,
    readonly apertureLast: bigint,
    readonly nestParent: boolean,
    /** Of the unit: CM, and SC, are what matters here. */
    readonly capabilities: VtdCapabilities,
  ) {
    super(did, queue, freeDid);
    this.pageSizes = table.pageSizes;
  }

  enforceCoherency(): boolean {
    this.table.snoop = this.capabilities.SC === 1;
    return this.table.snoop;
  }

  get secondStage(): boolean {
    return this.table.format === SECOND_STAGE;
  }

  map(page: number, physical: number, pages: number, protection: number): number {
    // Erratum 772415 of Sapphire Rapids, which GET_HW_INFO reports: a nesting parent has no read-only pages.
    if (this.nestParent && !(protection & IOMMU_WRITE)) return -errno.EINVAL;
    const result = this.table.map(page, physical, pages, protection);
    // With caching mode (CAP_REG.CM) hardware may have cached that there was nothing; of a first stage it never does.
    if (result === 0 && this.capabilities.CM && this.secondStage)
      this.queue.submit(...this.#iotlbDescriptors(blockOf(page, pages), false));
    return result;
  }

  unmap(page: number, pages: number): void {
    const emptied = this.table.unmap(page, pages);
    const block = blockOf(page, pages);
    this.queue.submit(
      ...this.#iotlbDescriptors(block, emptied.length === 0),
      ...this.deviceTlbDescriptors(block),
    );
    for (const child of this.children) child.invalidateAll();
    for (const table of emptied) this.table.memory.freePage(table);
  }

  free(): void {
    this.table.free();
    this.freeDid(this.did);
  }

  /** `leavesOnly`: no table went away, so that cached upper levels may stay. */
  #iotlbDescriptors({ high, low, order }: Block, leavesOnly: boolean): Int32Array[] {
    const ADDR = high * 2 ** 32 + low;
    const selective = order <= LARGEST_MASK;
    const IH = leavesOnly ? 1 : 0;
    if (this.secondStage)
      return [
        selective
          ? inv.encodeIotlbInvalidate({ G: inv.G_PAGE, DID: this.did, AM: order, IH, ADDR })
          : inv.encodeIotlbInvalidate({ G: inv.G_DOMAIN, DID: this.did }),
      ];
    const pasids = new Set([...this.attachments].map(({ pasid }) => pasid));
    return [...pasids].map((PASID) =>
      selective
        ? inv.encodePasidIotlbInvalidate({
            G: inv.PASID_IOTLB_G_PAGE,
            DID: this.did,
            PASID,
            AM: order,
            IH,
            ADDR,
          })
        : inv.encodePasidIotlbInvalidate({ G: inv.PASID_IOTLB_G_PASID, DID: this.did, PASID }),
    );
  }
}

/** Pass-through: requests reach the physical address that they name. One for all devices. */
export class VtdIdentityDomain extends VtdDomain {
  constructor(queue: InvalidationQueue) {
    super(IDENTITY_DID, queue, () => {});
  }
}

export class VtdNestedDomain extends VtdDomain implements NestedDomain {
  readonly nested = true;
  readonly entrySize = iommu_hwpt_vtd_s1_invalidate.size;

  constructor(
    did: number,
    queue: InvalidationQueue,
    freeDid: (did: number) => void,
    readonly parent: VtdPagingDomain,
    readonly configuration: Values<typeof iommu_hwpt_vtd_s1.fields>,
  ) {
    super(did, queue, freeDid);
    parent.children.add(this);
  }

  supports(dataType: number): boolean {
    return dataType === IOMMU_HWPT_INVALIDATE_DATA_VTD_S1;
  }

  /** One struct iommu_hwpt_vtd_s1_invalidate: a range of the user's table, or all of it. */
  invalidate(entry: Uint8Array): number {
    const { addr, npages, flags, __reserved } = iommu_hwpt_vtd_s1_invalidate.decode(entry);
    if (flags & ~IOMMU_VTD_INV_FLAGS_LEAF || __reserved) return -errno.EOPNOTSUPP;
    if (addr & 0xfffn || (npages === U64_MAX && addr !== 0n)) return -errno.EINVAL;
    if (npages === U64_MAX || npages >= 1n << BigInt(ALL_PAGES)) this.invalidateAll();
    else if (npages > 0n)
      this.#invalidate(
        blockOf(Number(addr >> 12n), Number(npages)),
        (flags & IOMMU_VTD_INV_FLAGS_LEAF) !== 0,
      );
    return 0;
  }

  invalidateAll(): void {
    this.#invalidate({ high: 0, low: 0, order: ALL_PAGES }, false);
  }

  free(): void {
    this.parent.children.delete(this);
    this.freeDid(this.did);
  }

  #invalidate(block: Block, leavesOnly: boolean): void {
    const ADDR = block.high * 2 ** 32 + block.low;
    const pasids = new Set([...this.attachments].map(({ pasid }) => pasid));
    const iotlb = [...pasids].map((PASID) =>
      block.order <= LARGEST_MASK
        ? inv.encodePasidIotlbInvalidate({
            G: inv.PASID_IOTLB_G_PAGE,
            DID: this.did,
            PASID,
            AM: block.order,
            IH: leavesOnly ? 1 : 0,
            ADDR,
          })
        : inv.encodePasidIotlbInvalidate({ G: inv.PASID_IOTLB_G_PASID, DID: this.did, PASID }),
    );
    this.queue.submit(...iotlb, ...this.deviceTlbDescriptors(block));
  }
}

/** What a slot can hold. */
export type AttachableDomain = VtdPagingDomain | VtdNestedDomain | VtdIdentityDomain;
