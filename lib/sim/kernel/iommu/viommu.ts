/**
 * Virtual IOMMUs as iommufd and an IOMMU driver share them: the roles of Linux's iommufd_viommu_ops
 * (include/linux/iommufd.h) and of what iommufd exports to drivers (drivers/iommu/iommufd/driver.c).
 */
import type { KernelDevice, NestedDomain, PagingDomain, UserData } from './core';

/** An array of structs in user space that only a driver understands. */
export interface UserDataArray {
  /** IOMMU_VIOMMU_INVALIDATE_DATA_*. */
  readonly type: number;
  /** Entries. */
  readonly count: number;
  /** Copies one entry into the `size` bytes that the driver knows. Or -errno: EFAULT, or E2BIG where it says more. */
  copy(index: number, size: number): Uint8Array | number;
}

/** What iommufd does for the driver's part of a virtual IOMMU. */
export interface ViommuCore {
  /** The device that the guest knows under this id. */
  deviceOf(virtualId: bigint): KernelDevice | undefined;
  /** The id under which the guest knows a device. */
  virtualIdOf(device: KernelDevice): bigint | undefined;
  /** Queues an event of the IOMMU for user space. `type` is an IOMMU_VEVENTQ_TYPE_*. 0, or EOPNOTSUPP: no queue. */
  reportEvent(type: number, data: Uint8Array): number;
  /** Lets programs map `memory`, whole pages of it. Returns the offset that mmap(2) takes. */
  offerPages(memory: ArrayBuffer): number;
  /** Takes back what was offered at an offset. */
  withdrawPages(offset: number): void;
}

/** What iommufd does for the driver's part of a hardware queue. */
export interface HwQueueCore {
  /** Keeps the queue from being destroyed, until `release`: another one depends on it. */
  hold(): void;
  release(): void;
}

/** A driver's part of a hardware queue. */
export interface DriverHwQueue {
  /** Ends it: the hardware does not use its memory any more. */
  free(): void;
}

export interface HwQueueOperations {
  /** `type` is an IOMMU_HW_QUEUE_TYPE_*. */
  supports(type: number): boolean;
  /** Makes queue number `index`. `physical` is the address of its memory, which is contiguous. */
  create(core: HwQueueCore, index: number, physical: number): DriverHwQueue | number;
}

/** A driver's part of a virtual IOMMU. What is absent is EOPNOTSUPP. */
export interface DriverViommu {
  /** `flags` are IOMMU_HWPT_ALLOC_* without FAULT_ID_VALID. */
  allocateNested?(flags: number, data: UserData): NestedDomain | number;
  /** Handles the entries of an IOMMU_HWPT_INVALIDATE; `done` of them before the first that is wrong. */
  invalidate?(entries: UserDataArray): { result: number; done: number };
  readonly queues?: HwQueueOperations;
  /** Nothing uses it any more. */
  free(): void;
}

/** A driver whose IOMMU can be virtualized has these. */
export interface ViommuOperations {
  /** `type` is an IOMMU_VIOMMU_TYPE_*. */
  supports(type: number): boolean;
  /** `parent` translates what the guest takes for physical addresses. `data` is present where the user gave any. */
  create(core: ViommuCore, parent: PagingDomain, data?: UserData): DriverViommu | number;
}
