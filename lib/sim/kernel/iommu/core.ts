/**
 * The kernel's IOMMU core: what iommufd asks of an IOMMU driver, and the state it keeps per group, in the
 * roles of Linux's iommu_ops, iommu_domain, iommu_group and iommu_attach_handle (include/linux/iommu.h).
 *
 * IOVAs of map and unmap are page numbers here, in units of the domain's granule: exact in a double over the
 * whole 64-bit space, and no BigInt.
 */
import type { PciFunction } from '../../devices/pci-function';
import type { MessageSource } from '../interrupts';
import type { FaultGroup, PartialFaults } from './page-fault';
import type { ViommuOperations } from './viommu';

/** The PASID under which a group's RID attachment is kept, as in Linux. */
export const IOMMU_NO_PASID = 0;

export const IOMMU_READ = 1;
export const IOMMU_WRITE = 2;

/** A device behind an IOMMU. */
export interface KernelDevice {
  readonly group: IommuGroup;
  /** It can make requests that do not snoop; absent where nobody knows, and then it has to be assumed. */
  readonly canNoSnoop?: boolean;
  /** Page requests whose group is not complete. */
  readonly partialFaults: PartialFaults;
}

/** A requester ID under which requests of a device may come up. */
export interface DmaAlias {
  readonly rid: number;
  /** Number of the bus that the function whose doing it is sits on: the device itself, or a bridge above it. */
  readonly bus: number;
}

/** A PCI device as the kernel knows it. */
export interface KernelPciDevice extends KernelDevice {
  /** 'domain:bus:device.function'. */
  readonly bdf: string;
  /** Folders of /sys/devices/pci0000:00 down to its own: those of the bridges it is behind, then its address. */
  readonly path: readonly string[];
  /** Requester ID: bus << 8 | device << 3 | function. */
  readonly rid: number;
  /** Its own requester ID first, those that it has from bridges last. */
  readonly dmaAliases: readonly DmaAlias[];
  readonly pci: PciFunction;
  readonly group: IommuGroup<KernelPciDevice>;
}

/** An I/O page table that a device can be attached to. */
export interface Domain {
  /** True for a table of the user's, walked before another. */
  readonly nested?: boolean;
  /** Frees the table. Nothing is attached to it any more. */
  free(): void;
}

/** The dirty bits of a table (iommu_dirty_ops): one for each of its pages, as large as they were mapped. */
export interface DirtyTracking {
  /** Makes the hardware set them, or not. 0 or -errno. */
  setTracking(enabled: boolean): number;
  /**
   * Tells `record` every dirty page that [start, last] touches, whole, and cleans it unless `keep`. All of the range
   * is mapped.
   */
  read(start: bigint, last: bigint, keep: boolean, record: (start: bigint, length: bigint) => void): void;
}

/** A table the kernel fills (IOMMU_DOMAIN_UNMANAGED). */
export interface PagingDomain extends Domain {
  /** Smallest page of the format in bytes: the unit of map and unmap. A power of two, 4096 at most to be of use. */
  readonly granule: number;
  /** Page sizes of the format in bytes, as a sum: `granule` is the lowest. */
  readonly pageSizes: bigint;
  /** First and last IOVA that the table can translate. */
  readonly apertureStart: bigint;
  readonly apertureLast: bigint;
  /**
   * The physical address that `iova` leads to, 0 where it leads nowhere. Present in a table that no hardware walks: it is
   * there to be asked.
   */
  physicalOf?(iova: bigint): number;
  /** Present in a table made for it (IOMMU_HWPT_ALLOC_DIRTY_TRACKING). */
  readonly dirty?: DirtyTracking | undefined;
  /**
   * Makes all DMA through the table coherent with caches, whatever the devices ask for: before anything is mapped. False:
   * not possible.
   */
  enforceCoherency?(): boolean;
  /**
   * Maps `pages` pages at IOVA `page` × granule to the memory from `physical` on. 0 or -errno, and then nothing is mapped.
   */
  map(page: number, physical: number, pages: number, protection: number): number;
  /** Unmaps and invalidates every cache that may hold the translations, device TLBs included. */
  unmap(page: number, pages: number): void;
}

/** A struct in user space that only a driver understands. */
export interface UserData {
  /** IOMMU_HWPT_DATA_* or IOMMU_VIOMMU_TYPE_*. */
  readonly type: number;
  /** Bytes. */
  readonly length: number;
  /** Copies it. Undefined: EFAULT. */
  read(): Uint8Array | undefined;
  /** Writes it back, as far as its length reaches. False: EFAULT. */
  write(bytes: Uint8Array): boolean;
}

/** A table the user owns, walked before its parent. */
export interface NestedDomain extends Domain {
  readonly nested: true;
  /**
   * Handles one entry of IOMMU_HWPT_INVALIDATE, `entrySize` bytes: 0 or -errno. `supports` says whether `dataType`
   * is known.
   */
  supports(dataType: number): boolean;
  readonly entrySize: number;
  invalidate(entry: Uint8Array): number;
}

/** Marks which device, or which PASID of it, is attached to what: how a page fault finds its owner. */
export interface AttachHandle {
  readonly domain: Domain;
  /** Takes the faults of the attachment, or is absent where nobody asked for them. */
  readonly deliver: ((group: FaultGroup) => void) | undefined;
}

/** The unit of isolation. */
export class IommuGroup<Device extends KernelDevice = KernelDevice> {
  readonly devices: Device[] = [];
  /** Who does DMA through the group: undefined is the kernel's DMA API. */
  owner: object | undefined;
  /** Devices that the owner holds, or that drivers of the kernel do DMA with. */
  ownerCount = 0;
  /** PASID → attachment; the RID's own is at IOMMU_NO_PASID. Absent is blocked while the group is owned. */
  readonly handles = new Map<number, AttachHandle>();

  /** `name`: what sysfs calls it, where it has a name. Nobody sees a group whose `id` is below 0. */
  constructor(
    readonly id: number,
    readonly name?: string,
  ) {}
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
  /** The driver that writes the tables, where this one stands before another: theirs are the formats. */
  readonly behind?: IommuDriver;
  /** Users own the PASID tables of nested RIDs: faults of PASIDs nobody attached go to the RID's handle. */
  readonly userPasidTable?: boolean;
  /** Present where the IOMMU can be virtualized. */
  readonly viommu?: ViommuOperations;
  /** Undefined: there is no hardware. */
  hardwareInfo(device: KernelDevice): HardwareInfo | undefined;
  /** Whether the IOMMU makes DMA of the device coherent with caches whatever the device asks for. Absent: it does not. */
  enforcesCoherency?(device: KernelDevice): boolean;
  /** IOVA ranges no mapping may use, first to last byte. */
  reservedRegions(device: KernelDevice): readonly { start: bigint; last: bigint }[];
  /** `flags` are IOMMU_HWPT_ALLOC_* without FAULT_ID_VALID; `data`, where the user gave any, says more. */
  allocatePaging(device: KernelDevice, flags: number, data?: UserData): PagingDomain | number;
  /** Absent: the IOMMU has none. */
  allocateNested?(
    device: KernelDevice,
    parent: PagingDomain,
    flags: number,
    data: UserData,
  ): NestedDomain | number;
  /** Moves every device of the group to the attachment's domain; undefined blocks all DMA. */
  attachGroup(group: IommuGroup, handle: AttachHandle | undefined): number;
  /** The same for a PASID of theirs. Devices without PASIDs are passed over. */
  attachGroupPasid(group: IommuGroup, pasid: number, handle: AttachHandle | undefined): number;
  /** Interrupt messages for a device behind an IOMMU that remaps them; undefined where it does not. */
  messagesOf?(device: KernelPciDevice): MessageSource | undefined;
  /** The device is gone: its tables go too. Nothing is attached to it any more. */
  remove(device: KernelDevice): void;
  /** Undoes block-DMA: the group's devices belong to the kernel's own DMA API again. */
  releaseGroup(group: IommuGroup): void;
  /** Answers a page request group. `code` is an IOMMUFD_PAGE_RESP_*. */
  pageResponse(device: KernelDevice, pasid: number, grpid: number, code: number): void;
}
