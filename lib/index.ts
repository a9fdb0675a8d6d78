/**
 * Own a device's DMA: /dev/iommu (iommufd) and VFIO on Linux, a software IOMMU everywhere else.
 *
 *     const iommu = Iommu.open();
 *     const device = iommu.bind('0000:00:04.0', { cookie: 42n });
 *     const space = iommu.createAddressSpace();
 *     device.attach(space);
 *     const { iova } = space.map(iommu.allocateDma(4096));
 */
export { Iommu, type OpenOptions } from './iommu';
export type { Backend, MachineLike } from './open-kernel';
export { IommuError } from './errors';
export type { GroupMember, IommuGroup, MemberUse } from './iommu-group';
export type { MdevOptions, MdevType } from './mdev';
export type { DeviceDescription, MdevDescription, PciDescription } from './sysfs';
export { BoundDevice, type AttachOptions } from './bound-device';
export { Device, type RegionName } from './device';
export type { DeviceInfo, PasidCapability } from './device-info';
export type { DeviceFeatures, FeatureName } from './device-features';
export type { HotResetDevice } from './hot-reset';
export type { AmdInfo, HardwareInfo, HardwareType, SmmuInfo, Tegra241Info, VtdInfo } from './hardware-info';
export type { IommuDeviceInfo } from './iommu-device-info';
export type { TableFormat } from './table-formats';
export type {
  DescribedBuffer,
  DescribedDevice,
  DescribedFault,
  DescribedFaultQueue,
  DescribedGroup,
  DescribedMapping,
  DescribedSpace,
  DescribedVirtualMachine,
  IommuDescription,
} from './describe';
export { extensionNames, type Extension } from './extensions';
export { Region } from './region';
export type { CapabilityName, PciCapability } from './pci-capabilities';
export { PCI_HEADER, PCI_POWER_MANAGEMENT, PciConfig, type PciBar, type PowerState } from './pci-config';
export {
  defineRegisters,
  RegisterMap,
  type FieldBits,
  type FieldValues,
  type RawValue,
  type RegisterAccess,
  type RegisterDefinition,
  type RegisterDefinitions,
  type RegisterInput,
  type RegisterSpace,
  type RegisterValue,
} from './register-map';
export { Register, type RegisterCondition, type RegisterOf, type Registers } from './registers';
export { RegisterArray } from './register-cell';
export type { PollOptions, WaitOptions } from './wait';
export type { RegionCapabilities } from './region-capabilities';
export { Interrupt, type InterruptEvents, type InterruptKind } from './interrupt';
export { AttachTarget, type Attachment } from './attach-target';
export { IoAddressSpace } from './io-address-space';
export { AddressSpace, type AddressSpaceOptions, type MapEntry, type MapOptions } from './address-space';
export { KernelManagedSpace } from './kernel-managed-space';
export {
  NestedAddressSpace,
  type NestedAddressSpaceOptions,
  type NestedMapOptions,
} from './nested-address-space';
export { NestedMapping } from './nested-mapping';
export { UserAddressSpace, type UserAddressSpaceOptions } from './user-address-space';
export { PageTable } from './page-table';
export type { PageTableOptions } from './explicit-page-table';
export type { AmdTable, RawTable, SmmuTable, UserPageTable, UserPasidTable, VtdTable } from './table-data';
export type {
  CacheType,
  CacheInvalidation,
  Invalidation,
  RawInvalidation,
  SmmuInvalidation,
  VtdInvalidation,
} from './invalidation';
export type { DirtyOptions } from './dirty';
export { VirtualMachine, type GuestPasid, type RestoreOptions, type SavedPasids } from './virtual-machine';
export { VirtualDevice, VirtualIommu, type VirtualIommuOptions } from './virtual-iommu';
export { EventQueue, type EventQueueOptions } from './event-queue';
export type { LostEvents, RawEvent, SmmuEvent, Tegra241Event, VirtualEvent } from './virtual-event';
export { HardwareQueue, type HardwareQueueOptions } from './hardware-queue';
export { NoSnoopWatch, type EnforceSnoop } from './no-snoop';
export type { IovaRange, IovaRangeInput, MappedRange } from './iova';
export type { LockedMemory } from './locked-memory';
export { Mapping } from './mapping';
export { DmaBuffer } from './dma-buffer';
export { DmaPool, DmaSlice, type DmaPoolOptions } from './dma-pool';
export {
  ScatterList,
  type ScatterOptions,
  type ScatterPart,
  type ScatterSegment,
  type ScatterSource,
} from './scatter-list';
export type { AllocateOptions, DeviceMapping, Kernel, Memory, Watch } from './kernel';
export { Fault, type FaultRecord, type FaultResponse } from './fault';
export { FaultConsumer } from './fault-consumer';
export { FaultQueue, type FaultQueueOptions } from './fault-queue';
export { FaultView } from './fault-view';
export type { DescriptorShare, MemoryShare, RingShare } from './ring-share';
export { RecordConsumer, type ConsumerEvents } from './record-consumer';
export type { RingCounters } from './rings/ring';
export { MockDevice, type MockFault } from './mock-device';
export type { Hex } from './hex';
