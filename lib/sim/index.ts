/** Simulated machines, and the parts they are made of: `iommufd/sim`. */
export * from './bus';
export { ChannelEngine } from './devices/channel-engine';
export * from './devices/channel-engine-registers';
export { Clock } from './clock';
export {
  EXIT_ENQCMD_PASID_TRANSLATION,
  EXIT_EPT_VIOLATION,
  IA32_PASID_VALID,
  Vcpu,
  type EnqcmdResult,
} from './cpu/vcpu';
export { ACS_ISOLATION, PciBridge, type BridgeKind, type BridgeOptions } from './devices/bridge';
export { DmaEngine } from './devices/dma-engine';
export { Dsa, DSA_DEVICE_ID, DSA_VENDOR_ID } from './devices/dsa';
export * from './devices/dma-engine-registers';
export { Edu, edu, type EduOptions } from './devices/edu';
export { DmaError, type DeviceDma, type DmaFailure, type DmaOptions } from './devices/device-dma';
export { endpoint, type EndpointDescription } from './devices/endpoint';
export { NvmeController } from './devices/nvme/controller';
export type { NvmeNamespace, NvmeOptions } from './devices/nvme/config';
export { MemoryStorage, type NvmeStorage } from './devices/nvme/storage';
export { FileStorage } from './file-storage';
export { PciDevice } from './devices/pci-device';
export type { Process, Suspension } from './devices/process';
export type { DeviceRegisters, RegisterHandler, RegisterHandlers } from './devices/register-bank';
export { FaultInjector, type FaultKind, type FaultOptions, type InjectedFault } from './fault-injector';
export { PciFunction, type Halves } from './devices/pci-function';
export type { Capability, ExtendedCapability } from './devices/capabilities';
export type { BarDescription, ConfigSpace, FunctionDescription } from './devices/config-space';
export { Machine, type DeviceOptions, type MachineOptions, type VtdOptions } from './machine';
export { PhysicalMemory } from './memory';
export type { UnsnoopedDma } from './root-complex';
export type { RefusedDma } from './kernel/intel/fault-log';
export type { Credentials, ProcessCapability, ProcessOptions } from './kernel/credentials';
export type { SimulatedProcess } from './kernel/process';
export type { PasidSpaces } from './kernel/pasids';
export type { AccessRule, System } from './kernel/system';
export { SimulatedVm } from './vm';
export { describeStaleUse, VtdUnit } from './vtd';
export type { StaleUse, VtdCapabilities, VtdUnitOptions } from './vtd';
export * as vtd from './vtd';
