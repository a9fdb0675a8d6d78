/** Configuration space of a PCI function, as its driver sees it through VFIO. */
import { refusal } from './errors';
import {
  findCapability,
  listCapabilities,
  type CapabilityName,
  type PciCapability,
} from './pci-capabilities';
import type { Region } from './region';
import { defineRegisters, type RegisterMap } from './register-map';
import type { Registers } from './registers';

/** The header of a function that is no bridge (PCI Express Base Specification 6.0, 7.5.1). */
export const PCI_HEADER = defineRegisters({
  VENDOR_ID: { offset: 0x00, width: 16, access: 'ro' },
  DEVICE_ID: { offset: 0x02, width: 16, access: 'ro' },
  COMMAND: {
    offset: 0x04,
    width: 16,
    fields: { IO_SPACE: 0, MEMORY_SPACE: 1, BUS_MASTER: 2, PARITY: 6, SERR: 8, INTX_DISABLE: 10 },
  },
  STATUS: {
    offset: 0x06,
    width: 16,
    access: 'w1c',
    fields: {
      INTERRUPT: 3,
      CAPABILITIES: 4,
      MASTER_PARITY_ERROR: 8,
      SIGNALED_TARGET_ABORT: 11,
      RECEIVED_TARGET_ABORT: 12,
      RECEIVED_MASTER_ABORT: 13,
      SIGNALED_SYSTEM_ERROR: 14,
      PARITY_ERROR: 15,
    },
  },
  REVISION_ID: { offset: 0x08, width: 8, access: 'ro' },
  PROGRAMMING_INTERFACE: { offset: 0x09, width: 8, access: 'ro' },
  SUBCLASS: { offset: 0x0a, width: 8, access: 'ro' },
  BASE_CLASS: { offset: 0x0b, width: 8, access: 'ro' },
  CACHE_LINE_SIZE: { offset: 0x0c, width: 8 },
  LATENCY_TIMER: { offset: 0x0d, width: 8 },
  HEADER_TYPE: { offset: 0x0e, width: 8, access: 'ro', fields: { LAYOUT: [6, 0], MULTIFUNCTION: 7 } },
  BAR: { offset: 0x10, width: 32, count: 6 },
  SUBSYSTEM_VENDOR_ID: { offset: 0x2c, width: 16, access: 'ro' },
  SUBSYSTEM_ID: { offset: 0x2e, width: 16, access: 'ro' },
  CAPABILITIES_POINTER: { offset: 0x34, width: 8, access: 'ro' },
  INTERRUPT_LINE: { offset: 0x3c, width: 8 },
  INTERRUPT_PIN: { offset: 0x3d, width: 8, access: 'ro' },
});

/** The power management capability (7.5.2). */
export const PCI_POWER_MANAGEMENT = defineRegisters({
  CAPABILITIES: {
    offset: 0x02,
    width: 16,
    access: 'ro',
    fields: { VERSION: [2, 0], D1: 9, D2: 10, PME_FROM: [15, 11] },
  },
  // The low byte of the control and status register: PME_Status, in the other, is cleared by writing a one.
  CONTROL: { offset: 0x04, width: 8, fields: { POWER_STATE: [1, 0], NO_SOFT_RESET: 3 } },
});

/** Configuration space, its header and its capabilities. */
export class PciConfig {
  /** For reads and writes of any offset and width. */
  readonly region: Region;
  readonly header: Registers<typeof PCI_HEADER>;

  /** @internal Use `device.config`. */
  constructor(region: Region) {
    this.region = region;
    this.header = region.registers(PCI_HEADER);
  }

  /** The capabilities, in the order in which the function lists them; those that VFIO hides are not there. */
  capabilities(): PciCapability[] {
    return listCapabilities(this.region);
  }

  /** The first capability of this name, if the function has it. */
  capability(name: CapabilityName): PciCapability | undefined {
    return findCapability(this.region, name);
  }

  /**
   * Declared registers of a capability, whose offsets count from its start. Throws IommuError EOPNOTSUPP where the function
   * has it not.
   */
  registers<M extends RegisterMap>(name: CapabilityName, map: M): Registers<M> {
    const found = this.capability(name);
    if (!found)
      throw refusal('EOPNOTSUPP', `there is no ${name} capability in ${this.region.label}`, {
        syscall: 'pread',
      });
    return this.region.registers(map, found.offset);
  }
}

/** A base address register of a function. */
export interface PciBar {
  /** 0 to 5; a 64-bit one takes the next number too. */
  readonly index: number;
  /** Bytes. */
  readonly size: number;
  readonly kind: 'memory' | 'io';
  /** Bits of its address. */
  readonly width: 32 | 64;
  readonly prefetchable: boolean;
}

const BAR_IO = 1 << 0;
const BAR_64BIT = 1 << 2;
const BAR_PREFETCHABLE = 1 << 3;
const BAR_COUNT = 6;

/**
 * The BARs that a function has. `sizeOf` asks VFIO, which knows from when the kernel found the device: the registers need not
 * be overwritten to learn it, as on bare metal.
 */
export function listBars(config: PciConfig, sizeOf: (index: number) => number): PciBar[] {
  const bars: PciBar[] = [];
  for (let index = 0; index < BAR_COUNT; index++) {
    const size = sizeOf(index);
    if (size === 0) continue;
    const flags = config.header.BAR.at(index).read();
    const io = (flags & BAR_IO) !== 0;
    const width = !io && (flags & BAR_64BIT) !== 0 ? 64 : 32;
    const prefetchable = !io && (flags & BAR_PREFETCHABLE) !== 0;
    bars.push({ index, size, kind: io ? 'io' : 'memory', width, prefetchable });
    if (width === 64) index++;
  }
  return bars;
}

const POWER_STATES = ['d0', 'd1', 'd2', 'd3hot'] as const;
/** Power states of a function (7.5.2.2); every function has 'd0'. */
export type PowerState = (typeof POWER_STATES)[number];

/** A function without power management is in D0. */
export function readPowerState(config: PciConfig): PowerState {
  if (!config.capability('power-management')) return 'd0';
  const registers = config.registers('power-management', PCI_POWER_MANAGEMENT);
  return POWER_STATES[registers.CONTROL.field('POWER_STATE')];
}

/** Throws TypeError; IommuError EOPNOTSUPP (the function has no such state), EBUSY (its BARs are mapped). */
export function writePowerState(config: PciConfig, state: PowerState): void {
  const POWER_STATE = POWER_STATES.indexOf(state);
  if (POWER_STATE < 0)
    throw new TypeError(`power states are ${POWER_STATES.join(', ')}, not ${String(state)}`);
  if (readPowerState(config) === state) return;
  config.registers('power-management', PCI_POWER_MANAGEMENT).CONTROL.update({ POWER_STATE });
  const now = readPowerState(config);
  if (now !== state)
    throw refusal('EOPNOTSUPP', `the function is in ${now}: it has no ${state}`, { syscall: 'pwrite' });
}
