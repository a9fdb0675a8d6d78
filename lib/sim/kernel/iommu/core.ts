/**
 * The kernel's IOMMU core: what iommufd asks of an IOMMU driver, and the state it keeps per group, in the
 * roles of Linux's iommu_ops, iommu_domain, iommu_group and iommu_attach_handle (include/linux/iommu.h).
 *
 * IOVAs are page numbers (IOVA >> 12) here: exact in a double over the whole 64-bit space, and no BigInt.
 */
import type { PciFunction } from '../../devices/pci-function';
import type { FaultGroup, PartialFaults } from './page-fault';

/** The PASID under which a group's RID attachment is kept, as in Linux. */
export const IOMMU_NO_PASID = 0;

export const IOMMU_READ = 1;
export const IOMMU_WRITE = 2;

/** A PCI device as the kernel knows it. */
export interface KernelDevice {
  /** 'domain:bus:device.function'. */
  readonly bdf: string;
  /** Requester ID: bus << 8 | device << 3 | function. */
  readonly rid: number;
  readonly pci: PciFunction;
  readonly group: IommuGroup;
  /** Page requests whose group is not complete. */
  readonly partialFaults: PartialFaults;
}

/** An I/O page table that a device can be attached to. */
export interface Domain {
  /** Frees the table. Nothing is attached to it any more. */
  free(): void;
}

/** A table the kernel fills (IOMMU_DOMAIN_UNMANAGED). */
export interface PagingDomain extends Domain {
  /** Smallest page of the format in bytes: the granule of map and unmap. */
  readonly granule: number;
  /** First and last IOVA that the table can translate. */
  readonly apertureStart: bigint;
  readonly apertureLast: bigint;
  /** Maps `pages` 4 KiB pages at IOVA page `page` to `physical`. 0 or -ENOMEM, and then nothing is mapped. */
  map(page: number, physical: number, pages: number, protection: number): number;
  /** Unmaps and invalidates every cache that may hold the translations, device TLBs included. */
  unmap(page: number, pages: number): void;
}

/** A table the user owns, walked before its parent. */
export interface NestedDomain extends Domain {
  /**
   * Handles one entry of IOMMU_HWPT_INVALIDATE: 0 or -errno. `supports` says whether `dataType` is known.
   */
  supports(dataType: number): boolean;
  invalidate(entry: Uint8Array): number;
}

/** Marks which device, or which PASID of it, is attached to what: how a page fault finds its owner. */
export interface AttachHandle {
  readonly domain: Domain;
  /** Takes the faults of the attachment, or is absent where nobody asked for them. */
  readonly deliver: ((group: FaultGroup) => void) | undefined;
}

/** The unit of isolation. */
export class IommuGroup {
  readonly devices: KernelDevice[] = [];
  /** Who does DMA through the group: undefined is the kernel's DMA API. */
  owner: object | undefined;
  ownerCount = 0;
  /** PASID → attachment; the RID's own is at IOMMU_NO_PASID. Absent is blocked while the group is owned. */
  readonly handles = new Map<number, AttachHandle>();

  constructor(readonly id: number) {}
}

/** What GET_HW_INFO reports. */
export interface HardwareInfo {
  readonly type: number;
  readonly data: Uint8Array;
  /** IOMMU_HW_CAP_* bits. */
  readonly capabilities: number;
  readonly maxPasidLog2: number;
}

/** One IOMMU's driver. Every call returns 0 or more, or -errno. */
export interface IommuDriver {
  hardwareInfo(device: KernelDevice): HardwareInfo;
  /** IOVA ranges no mapping may use, first to last byte. */
  reservedRegions(device: KernelDevice): readonly { start: bigint; last: bigint }[];
  /** `flags` are IOMMU_HWPT_ALLOC_* without FAULT_ID_VALID. */
  allocatePaging(device: KernelDevice, flags: number): PagingDomain | number;
  allocateNested(
    device: KernelDevice,
    parent: PagingDomain,
    flags: number,
    data: { type: number; bytes: Uint8Array },
  ): NestedDomain | number;
  /** Moves every device of the group to the attachment's domain; undefined blocks all DMA. */
  attachGroup(group: IommuGroup, handle: AttachHandle | undefined): number;
  attachPasid(device: KernelDevice, pasid: number, handle: AttachHandle | undefined): number;
  /** Undoes block-DMA: the group's devices belong to the kernel's own DMA API again. */
  releaseGroup(group: IommuGroup): void;
  /** Answers a page request group. `code` is an IOMMUFD_PAGE_RESP_*. */
  pageResponse(device: KernelDevice, pasid: number, grpid: number, code: number): void;
}
