/** PCI devices as the kernel's PCI core and driver core know them: resources, drivers, reset. */
import type { PciFunction } from '../devices/pci-function';
import * as registers from '../devices/pci-registers';
import type { DmaAlias, IommuGroup, KernelPciDevice } from './iommu/core';
import type { PartialFaults } from './iommu/page-fault';
import type { IommufdDevice } from './iommufd/device';
import type { PciBus } from './pci-bus';
import { dmaAliasesOf } from './pci-topology';

/** The driver that gives devices to user space. */
export const VFIO_PCI = 'vfio-pci';

/** Drivers that do no DMA of their own, or manage it themselves (driver_managed_dma): a group can be owned beside them. */
export const MANAGED_DMA_DRIVERS: ReadonlySet<string> = new Set([VFIO_PCI, 'pcieport', 'pci-stub']);

/** The file through which a device is in the hands of user space. */
interface DeviceFile {
  /** What stands for the device in the iommufd it is bound to. */
  readonly iommufdDevice: IommufdDevice | undefined;
  /** The device was pulled out. */
  deviceGone(): void;
  /** Around each use of the device. */
  readonly power: { wake(): void; rest(): void } | undefined;
  /** A reset comes: nobody may reach the device's memory. */
  prepareReset(): void;
  /** It has happened, or not; the kernel's configuration is back. */
  finishReset(): void;
}

/** A register of configuration space and its value. */
interface Saved {
  readonly at: number;
  readonly width: 1 | 2 | 4;
  readonly value: number;
}

export class PciDevice implements KernelPciDevice {
  readonly partialFaults: PartialFaults = [];
  /** Name of the bound driver. */
  driver: string | undefined;
  /** Name of the kernel's own driver for it, if there is one. */
  nativeDriver: string | undefined;
  /** Name of the only driver that may bind, from sysfs. */
  driverOverride = '';
  /** VFIO gave it to programs although no IOMMU is in front of it. */
  noIommu = false;
  /** Of devices that no IOMMU is in front of, only while VFIO has them a group that can be seen. */
  group: IommuGroup<KernelPciDevice>;
  /** N of /dev/vfio/devices/vfioN while vfio-pci is bound, else -1. */
  vfioIndex = -1;
  /** The VFIO file that bound the device to an iommufd. */
  opened: DeviceFile | undefined;
  /** It was pulled out. */
  gone = false;
  /** Reset worked when it was opened last. */
  resetWorks = false;
  /** It was closed without a reset. */
  needsReset = false;
  /** Its Enable No Snoop bit is not hardwired to 0: it is 1 after reset. Conventional PCI has no such attribute. */
  readonly canNoSnoop: boolean;
  /** Requester IDs under which its requests come up. */
  readonly dmaAliases: readonly DmaAlias[];
  /** Configuration as it was when the device was opened. */
  #saved: readonly Saved[] = [];

  /** `quirkAliases`: requester IDs besides its own that its requests are known to leave with. */
  constructor(
    readonly bdf: string,
    readonly rid: number,
    readonly pci: PciFunction,
    group: IommuGroup<KernelPciDevice>,
    readonly bus: PciBus,
    /** Of a bridge, the bus behind it. */
    readonly subordinate: PciBus | undefined,
    readonly quirkAliases: readonly number[],
  ) {
    this.group = group;
    group.devices.push(this);
    bus.add(this);
    if (subordinate) subordinate.self = this;
    this.dmaAliases = dmaAliasesOf(this);
    const express = pci.config.capability(registers.CAPABILITY_EXPRESS);
    const control = express ? pci.config.read(express + registers.EXPRESS_DEVICE_CONTROL, 2) : 0;
    this.canNoSnoop = (control & registers.EXPRESS_NO_SNOOP) !== 0;
  }

  /** Number of the bus behind a bridge; 0 where there is none. */
  get secondaryBus(): number {
    return this.subordinate?.number ?? 0;
  }

  /** There are more functions in its device. */
  get multifunction(): boolean {
    const header = this.pci.config.read(registers.HEADER_TYPE, 1);
    return this.rid % 8 > 0 || (header & registers.HEADER_TYPE_MULTIFUNCTION) !== 0;
  }

  get path(): readonly string[] {
    return [...(this.bus.self?.path ?? []), this.bdf];
  }

  /** Leaves its group for another. */
  join(group: IommuGroup<KernelPciDevice>): void {
    const { devices } = this.group;
    devices.splice(devices.indexOf(this), 1);
    this.group = group;
    group.devices.push(this);
  }

  /** Name of its file in /dev/vfio/devices while vfio-pci is bound. */
  get vfioName(): string {
    return `${this.noIommu ? 'noiommu-' : ''}vfio${this.vfioIndex}`;
  }

  /** What vfio-pci does when a device is opened: a function in its reset state, memory on, bus master off. */
  enable(): void {
    this.#command(0, registers.COMMAND_BUS_MASTER | registers.COMMAND_INTERRUPT_DISABLE);
    this.#command(registers.COMMAND_MEMORY_SPACE, 0);
    this.resetWorks = this.reset();
    this.#saved = this.#save();
  }

  /** And when it is closed: quiet, and nothing of its last user left. */
  disable(): void {
    this.setPowerState(registers.POWER_STATE_D0);
    this.#command(0, registers.COMMAND_BUS_MASTER);
    this.needsReset = !this.resetWorks || !this.reset();
    this.#restore(this.#saved);
    this.#command(0, registers.COMMAND_MEMORY_SPACE);
  }

  /** Function reset, with the kernel's state put back. False: the function has none of its own, nor its bus for itself. */
  reset(): boolean {
    const alone = this.bus.resettable && this.bus.devices.length === 1;
    if (!this.pci.resettable && !alone) return false;
    this.#keepingState(() => this.pci.reset());
    return true;
  }

  /** What a reset of its bus does to the function. */
  resetByBus(): void {
    this.setPowerState(registers.POWER_STATE_D0);
    this.#keepingState(() => this.pci.reset());
  }

  /** D0 or D3hot (PCI_PM_CTRL's encoding); the function has no other. */
  setPowerState(state: number): void {
    const { config } = this.pci;
    const pm = config.capability(registers.CAPABILITY_POWER_MANAGEMENT);
    if (!pm || (state !== registers.POWER_STATE_D0 && state !== registers.POWER_STATE_D3HOT)) return;
    const at = pm + registers.PM_CONTROL_STATUS;
    const now = config.read(at, 2);
    const move = () => config.write(at, 2, (now & ~registers.PM_POWER_STATE) | state);
    // On its way back from D3hot a function may reset itself.
    if (state === registers.POWER_STATE_D0 && this.asleep) this.#keepingState(move);
    else move();
  }

  /** The BARs answer. */
  get memoryEnabled(): boolean {
    return this.pci.config.memoryEnabled && !this.asleep;
  }

  /** In D3hot: memory space does not answer. */
  get asleep(): boolean {
    const pm = this.pci.config.capability(registers.CAPABILITY_POWER_MANAGEMENT);
    return (
      pm > 0 && (this.pci.config.read(pm + registers.PM_CONTROL_STATUS, 2) & registers.PM_POWER_STATE) > 0
    );
  }

  /** Something that loses what configuration space holds: pci_save_state and pci_restore_state. */
  #keepingState(action: () => void): void {
    const saved = this.#save();
    action();
    this.#restore(saved);
  }

  #save(): readonly Saved[] {
    const { config } = this.pci;
    return this.#keptRegisters().map(({ at, width }) => ({ at, width, value: config.read(at, width) }));
  }

  #restore(saved: readonly Saved[]): void {
    for (const { at, width, value } of saved) this.pci.config.write(at, width, value);
  }

  /** Registers that the kernel puts back after a reset and at close, in the order they are written. */
  #keptRegisters(): Omit<Saved, 'value'>[] {
    const { config } = this.pci;
    const register = (at: number, offset: number, width: 1 | 2 | 4) =>
      at ? [{ at: at + offset, width }] : [];
    const pasid = config.extendedCapability(registers.EXTENDED_CAPABILITY_PASID);
    const ats = config.extendedCapability(registers.EXTENDED_CAPABILITY_ATS);
    const pri = config.extendedCapability(registers.EXTENDED_CAPABILITY_PRI);
    const acs = config.extendedCapability(registers.EXTENDED_CAPABILITY_ACS);
    return [
      ...register(config.capability(registers.CAPABILITY_EXPRESS), registers.EXPRESS_DEVICE_CONTROL, 2),
      ...register(pasid, registers.PASID_CONTROL, 2),
      ...register(ats, registers.ATS_CONTROL, 2),
      ...register(pri, registers.PRI_ALLOCATION, 4),
      ...register(pri, registers.PRI_CONTROL, 2),
      ...register(acs, registers.ACS_CONTROL, 2),
      ...Array.from({ length: registers.BAR_COUNT }, (_, i) => ({ at: barRegister(i), width: 4 as const })),
      { at: registers.CACHE_LINE_SIZE, width: 1 },
      { at: registers.LATENCY_TIMER, width: 1 },
      { at: registers.INTERRUPT_LINE, width: 1 },
      { at: registers.COMMAND, width: 2 },
    ];
  }

  #command(set: number, clear: number): void {
    const now = this.pci.config.read(registers.COMMAND, 2);
    this.pci.config.write(registers.COMMAND, 2, (now & ~clear) | set);
  }
}

function barRegister(index: number): number {
  return registers.BASE_ADDRESS_REGISTERS + 4 * index;
}

/** The requester ID of 'domain:bus:device.function'. RangeError for anything else, or another domain than 0. */
export function parseBdf(bdf: string): number {
  const match = /^0000:([0-9a-f]{2}):([01][0-9a-f])\.([0-7])$/.exec(bdf);
  if (!match) throw new RangeError(`'${bdf}' is not a PCI address such as 0000:00:04.0`);
  return (parseInt(match[1], 16) << 8) | (parseInt(match[2], 16) << 3) | Number(match[3]);
}
