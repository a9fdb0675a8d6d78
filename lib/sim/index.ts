/** Simulated machines, and the parts they are made of: `iommufd/sim`. */
export * from './bus';
export { Clock } from './clock';
export { DmaEngine } from './devices/dma-engine';
export * from './devices/dma-engine-registers';
export { Edu, edu, type EduOptions } from './devices/edu';
export { PciFunction, type Halves } from './devices/pci-function';
export type { FunctionDescription } from './devices/config-space';
export { Machine, type DeviceOptions, type MachineOptions } from './machine';
export { PhysicalMemory } from './memory';
export type { Credentials } from './kernel/process';
export { VtdUnit, type VtdUnitOptions } from './vtd';
export * as vtd from './vtd';
