/** PCI devices as the kernel's PCI core and driver core know them: resources, drivers, reset. */
import type { PciFunction } from '../devices/pci-function';
import * as registers from '../devices/pci-registers';
import type { IommuGroup, KernelDevice } from './iommu/core';
import type { PartialFaults } from './iommu/page-fault';

/** The driver that gives devices to user space. */
export const VFIO_PCI = 'vfio-pci';

/** An open file of a device. */
interface DeviceFile {
  /** The device was pulled out. */
  deviceGone(): void;
}

export class PciDevice implements KernelDevice {
  readonly partialFaults: PartialFaults = [];
  /** Name of the bound driver. */
  driver: string | undefined;
  /** Name of the only driver that may bind, from sysfs. */
  driverOverride = '';
  /** N of /dev/vfio/devices/vfioN while vfio-pci is bound, else -1. */
  vfioIndex = -1;
  /** The VFIO file that bound the device to an iommufd. */
  opened: DeviceFile | undefined;
  /** BAR registers as the firmware set them. */
  readonly #bars: readonly number[];

  constructor(
    readonly bdf: string,
    readonly rid: number,
    readonly pci: PciFunction,
    readonly group: IommuGroup,
  ) {
    group.devices.push(this);
    this.#bars = Array.from({ length: registers.BAR_COUNT }, (_, i) => pci.config.read(barRegister(i), 4));
  }

  /** What vfio-pci does when a device is opened: a function in its reset state, memory on, bus master off. */
  enable(): void {
    this.reset();
    this.#command(registers.COMMAND_MEMORY_SPACE, registers.COMMAND_BUS_MASTER);
  }

  /** And when it is closed: quiet, and nothing of its last user left. */
  disable(): void {
    this.#command(0, registers.COMMAND_BUS_MASTER);
    this.reset();
    this.#command(0, registers.COMMAND_MEMORY_SPACE);
  }

  /** Function reset with the kernel's state (BARs, command, interrupts, ATS and PASID enables) put back. */
  reset(): void {
    const { config } = this.pci;
    const command = config.read(registers.COMMAND, 2);
    const kept = this.#keptRegisters().map(({ at, width }) => ({ at, width, value: config.read(at, width) }));
    this.pci.reset();
    this.#bars.forEach((value, i) => config.write(barRegister(i), 4, value));
    for (const { at, width, value } of kept) config.write(at, width, value);
    config.write(registers.COMMAND, 2, command);
  }

  /** Registers that belong to the kernel and outlive a reset by the user, in the order they are written back. */
  #keptRegisters(): { at: number; width: number }[] {
    const { config } = this.pci;
    const register = (id: number, offset: number, width: number) => {
      const at = config.extendedCapability(id);
      return at ? [{ at: at + offset, width }] : [];
    };
    return [
      ...register(registers.EXTENDED_CAPABILITY_PASID, registers.PASID_CONTROL, 2),
      ...register(registers.EXTENDED_CAPABILITY_ATS, registers.ATS_CONTROL, 2),
      ...register(registers.EXTENDED_CAPABILITY_PRI, registers.PRI_ALLOCATION, 4),
      ...register(registers.EXTENDED_CAPABILITY_PRI, registers.PRI_CONTROL, 2),
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
