/** A simulated machine: memory, an IOMMU, PCI devices, and a kernel that runs on them. */
import type { Kernel } from '../kernel';
import { Clock } from './clock';
import { PciBridge } from './devices/bridge';
import { DmaEngine } from './devices/dma-engine';
import { Edu } from './devices/edu';
import type { PciFunction } from './devices/pci-function';
import * as pci from './devices/pci-registers';
import { FaultInjector, type FaultOptions } from './fault-injector';
import type { ProcessOptions } from './kernel/credentials';
import { IntelIommu } from './kernel/intel/driver';
import { MockIommu } from './kernel/mock/driver';
import { parseBdf, VFIO_PCI, type PciDevice } from './kernel/pci';
import { SimulatedProcess } from './kernel/process';
import { Pasids, type PasidSpaces } from './kernel/pasids';
import { System, type AccessRule } from './kernel/system';
import { PhysicalMemory } from './memory';
import { RootComplex, type MessageSink, type UnsnoopedDma } from './root-complex';
import { SimulatedVm } from './vm';
import { describeStaleUse, VtdUnit, type StaleUse, type VtdCapabilities } from './vtd';

const MEBIBYTE = 2 ** 20;
/** Where 32-bit BARs are placed, up to the fixed hardware. */
const MMIO_BASE = 0xc000_0000;
const MMIO_LIMIT = 0xfec0_0000;
/** Events run per turn of the event loop before the program gets its turn. */
const EVENTS_PER_TURN = 1000;

/** A device and how the kernel finds it. */
export interface DeviceOptions {
  readonly device: PciFunction;
  /** Driver bound at boot; default vfio-pci, of ports pcieport, of other bridges none. null for none. */
  readonly driver?: string | null;
  /** Number of the IOMMU group; default as Linux derives it from where the device sits, its ACS and its aliases. */
  readonly group?: number;
  /**
   * The address of a function of the same bus whose requester ID the device's requests leave with, instead of its own, as
   * some hardware has it. Interrupt messages have the device's own. The kernel knows of it (a quirk).
   */
  readonly dmaAlias?: string;
}

/** The simulated VT-d unit. */
export interface VtdOptions {
  /** Changes to the unit's CAP_REG and ECAP_REG fields, and its host address width HAW. */
  readonly capabilities?: Partial<VtdCapabilities>;
  /** False: the unit has no interrupt remapping, and binding a device gives EPERM, as on real hardware. */
  readonly interruptRemapping?: boolean;
  /**
   * True: the kernel was started with iommu=pt. Devices that nobody has taken reach all of memory, untranslated; default:
   * nothing. Needs ECAP_REG.PT.
   */
  readonly passthrough?: boolean;
  /**
   * Called for every request that a cache of the unit has served although its tables were changed since and not
   * invalidated: what real hardware hides. Default: nothing, or an error where IOMMUFD_STRICT is 1.
   */
  readonly strict?: (use: StaleUse) => void;
}

export interface MachineOptions {
  /** Bytes of RAM for the kernel's own tables; a multiple of 4096. Memory of programs comes on top. */
  readonly memory?: number;
  /**
   * The VT-d unit; 'mock' is the default unit with `selftest` beside it. 'none': the machine has no IOMMU, and its kernel
   * was started with vfio.enable_unsafe_noiommu_mode=1. Devices do DMA to physical addresses; a process with
   * CAP_SYS_RAWIO has them as /dev/vfio/devices/noiommu-vfioN, and asks IOMMU_IOAS_NOIOMMU_GET_PA where its memory is.
   */
  readonly iommu?: VtdOptions | 'mock' | 'none';
  /**
   * True: the kernel is one built with CONFIG_IOMMUFD_TEST. It has the selftest ("mock") IOMMU as well, with devices
   * that exist only for tests, and answers IOMMU_TEST_CMD; any other kernel gives ENOTTY.
   */
  readonly selftest?: boolean;
  /**
   * False: the kernel is one built without CONFIG_PM, and no device sleeps of itself (VFIO_DEVICE_FEATURE_LOW_POWER_*).
   * Default true, as every distribution has it.
   */
  readonly powerManagement?: boolean;
  /**
   * PCI address → device. A PciBridge has a bus behind it; a bus without one hangs from a root port of its own, with ACS,
   * that nobody sees. Default: `edu` at 0000:00:04.0 and a DMA engine with ATS, PRI, PASID at 0000:00:05.0.
   */
  readonly devices?: Readonly<Record<string, PciFunction | DeviceOptions>>;
  /** Where the PASIDs begin that hardware sees of mediated devices; users never see them. Default 1, and 2^19 for the global ones. */
  readonly pasids?: PasidSpaces;
  /** True: simulated time passes only in `step` and `idle`. Default: by itself, whenever the program waits. */
  readonly manual?: boolean;
  /** Which files a process may open; default: root all of them, others none. */
  readonly permissions?: AccessRule;
}

function refuseStaleUse(use: StaleUse): never {
  throw new Error(describeStaleUse(use));
}

function defaultDevices(): Record<string, PciFunction> {
  return {
    '0000:00:04.0': new Edu({ dmaMask: (1n << 64n) - 1n }),
    '0000:00:05.0': new DmaEngine(),
  };
}

/** As the kernel finds them: a bus after those that lead to it. The order within a bus stays. */
function inBusOrder(devices: NonNullable<MachineOptions['devices']>) {
  return Object.entries(devices).sort(([one], [other]) => (parseBdf(one) >> 8) - (parseBdf(other) >> 8));
}

/**
 * Two machines share nothing. Time is simulated: it passes when events run, and no test depends on how fast the
 * host is.
 */
export class Machine {
  readonly memory: PhysicalMemory;
  /** The simulated kernel. */
  readonly system: System;
  readonly #clock = new Clock();
  readonly #root: RootComplex;
  readonly #unit: VtdUnit | undefined;
  readonly #driver: IntelIommu | undefined;
  readonly #manual: boolean;
  #process: SimulatedProcess | undefined;
  #nextBar = MMIO_BASE;
  #arranged = false;

  constructor(options: MachineOptions = {}) {
    this.memory = new PhysicalMemory(options.memory ?? 256 * MEBIBYTE);
    this.system = new System(this.memory, options.permissions);
    this.system.powerManagement = options.powerManagement ?? true;
    if (options.pasids) this.system.pasids = new Pasids(options.pasids);
    const { iommu = {} } = options;
    const vtd = typeof iommu === 'object' ? iommu : {};
    if (options.selftest ?? iommu === 'mock') this.system.selftest = new MockIommu();
    // Delivered as an event of its own: a handler must not run in the middle of what sent it.
    const message: MessageSink = (low, data) =>
      this.#clock.schedule(0, () => this.system.interrupts.deliver(low, data));
    if (iommu !== 'none') this.#unit = this.#makeUnit(vtd, message);
    this.#root = new RootComplex(this.memory, this.#clock, this.#unit, message);
    if (this.#unit) {
      const passthrough = vtd.passthrough ?? false;
      this.#driver = new IntelIommu(this.memory, this.#unit, this.system.interrupts, passthrough);
      const defaultDomain = passthrough ? 'identity' : 'DMA';
      this.system.iommu = { driver: this.#driver, isolatedMsi: this.#driver.remapsInterrupts, defaultDomain };
    } else {
      this.system.unsafeNoIommu = true;
    }
    this.#manual = options.manual ?? false;
    if (!this.#manual) {
      this.#clock.onScheduled = () => this.#arrange();
      // A driver that polls a register in a loop gives nobody else a turn: each read lets one event happen.
      this.system.onRegisterAccess = () => {
        this.#clock.step();
      };
    }
    // The kernel finds all devices before it looks at any.
    const devices = inBusOrder(options.devices ?? defaultDevices()).map(([bdf, entry]) => {
      const each = 'device' in entry ? entry : { device: entry };
      return [this.#place(bdf, each), each] as const;
    });
    for (const [found, each] of devices) this.#start(found, each);
  }

  /** The VT-d unit. Throws where the machine has none. */
  get unit(): VtdUnit {
    if (!this.#unit) throw new Error("a machine made with `iommu: 'none'` has no VT-d unit");
    return this.#unit;
  }

  /** Nanoseconds of simulated time since the machine was made. */
  get now(): number {
    return this.#clock.now;
  }

  /** Runs the next event. False if there is none. */
  step(): boolean {
    return this.#clock.step();
  }

  /** Runs events until none is left; returns how many. Throws where a device schedules events without end. */
  idle(limit?: number): number {
    return this.#clock.idle(limit);
  }

  /** DMAs that the IOMMU refused and the kernel logged, oldest first, the last 256 at most. */
  get refusedDma() {
    return this.#driver?.faults.entries ?? [];
  }

  /**
   * DMA that did not look into the processors' caches: it had the No Snoop attribute, and the tables let it. Oldest first,
   * the last 256 at most.
   */
  get unsnoopedDma(): readonly UnsnoopedDma[] {
    return this.#root.unsnooped;
  }

  /** Interrupt messages that the IOMMU blocked and the kernel logged, likewise. */
  get refusedInterrupts() {
    return this.#driver?.faults.interrupts ?? [];
  }

  /** Plugs a device in and boots its driver. RangeError for a bad or taken address or bus number. */
  plug(bdf: string, options: DeviceOptions): void {
    this.#start(this.#place(bdf, options), options);
  }

  /** Puts a device where the kernel finds it. */
  #place(bdf: string, { device, group, dmaAlias }: DeviceOptions): PciDevice {
    const rid = parseBdf(bdf);
    const alias = dmaAlias === undefined ? rid : parseBdf(dmaAlias);
    if (this.system.devices.has(bdf)) throw new RangeError(`there is a device at ${bdf} already`);
    if (group !== undefined && !this.#driver) throw new RangeError('without an IOMMU there are no groups');
    if (alias >> 8 !== rid >> 8) throw new RangeError(`${dmaAlias} is not on the bus of ${bdf}`);
    if (device instanceof PciBridge) this.#checkBus(rid >> 8, device.bus);
    this.#root.plug(rid, device, alias);
    this.#placeBars(device);
    if (device instanceof PciBridge) this.#numberBuses(device);
    return this.system.addDevice(bdf, device, alias === rid ? [] : [alias]);
  }

  /** What the kernel does with a device: its group, its IOMMU, its driver. */
  #start(found: PciDevice, options: DeviceOptions): void {
    const { device } = options;
    this.system.joinGroup(found, options.group);
    if (this.#driver && this.#driver.probe(found) < 0) this.system.leaveGroup(found);
    const { driver = device instanceof PciBridge ? device.nativeDriver : VFIO_PCI } = options;
    if (driver === null) return;
    if (driver === VFIO_PCI) {
      found.driverOverride = driver;
    } else {
      found.nativeDriver = driver;
      this.system.drivers.add(driver);
    }
    this.system.bindDriver(found, driver);
  }

  /**
   * Pulls a device out while it may be in use, and what is behind it: registers read as ones, and no DMA arrives any more.
   */
  unplug(bdf: string): void {
    const device = this.system.devices.get(bdf);
    if (!device) throw new RangeError(`there is no device at ${bdf}`);
    const below = device.subordinate?.devices ?? [];
    for (const { bdf: next } of below.filter(({ gone }) => !gone)) this.unplug(next);
    this.#root.unplug(device.rid);
    this.system.removeDevice(device);
  }

  /**
   * Makes a device misbehave: what it sends is refused, corrupted, lost or late, or the device is gone, by a seed or on command.
   * RangeError for an address where no device is, and for what is no probability.
   */
  injectFaults(bdf: string, options: FaultOptions): FaultInjector {
    const device = this.device(bdf);
    if (!device) throw new RangeError(`there is no device at ${bdf}`);
    return new FaultInjector(device, options, () => {
      if (device.connected) this.unplug(bdf);
    });
  }

  /** The device at an address. */
  device(bdf: string): PciFunction | undefined {
    return this.system.devices.get(bdf)?.pci;
  }

  /** The kernel as the machine's first process, run by root, sees it: always the same one. */
  process(): Kernel {
    return this.#firstProcess();
  }

  /** A new process: root's, unless `options` says otherwise. RangeError for a `memlock` that is no size. */
  createProcess(options: ProcessOptions = { uid: 0 }): SimulatedProcess {
    return new SimulatedProcess(this.system, options);
  }

  /** A virtual machine whose VMM is `process`, by default the machine's first. */
  createVm(process = this.#firstProcess()): SimulatedVm {
    return new SimulatedVm(process);
  }

  #firstProcess(): SimulatedProcess {
    return (this.#process ??= this.createProcess());
  }

  #makeUnit(options: VtdOptions, message: MessageSink): VtdUnit {
    const { capabilities, interruptRemapping = true } = options;
    const withoutRemapping = interruptRemapping ? {} : { IR: 0 };
    const strict = options.strict ?? (process.env['IOMMUFD_STRICT'] === '1' ? refuseStaleUse : undefined);
    return new VtdUnit({
      memory: this.memory,
      ...(strict && { strict }),
      // Access and dirty bits are there once the kernel side reads them back.
      capabilities: { SSADS: 0, ...capabilities, ...withoutRemapping },
      interrupt: (_high, low, data) => message(low, data),
      endpoint: (rid) => this.#root.function(rid),
    });
  }

  /** A bus has one bridge before it, and a number above those on the way to it. */
  #checkBus(primary: number, secondary: number): void {
    const bus = this.system.bus(secondary);
    if (secondary <= primary)
      throw new RangeError(`behind bus ${primary} no bus has the number ${secondary}`);
    if (bus && (bus.self || bus.devices.length > 0))
      throw new RangeError(`there is a bus ${secondary} already`);
  }

  /** What firmware does: the numbers of the buses before and behind a bridge, here and on the way up. */
  #numberBuses(bridge: PciBridge): void {
    const primary = bridge.requesterId >> 8;
    bridge.config.write(pci.PRIMARY_BUS, 1, primary);
    bridge.config.write(pci.SECONDARY_BUS, 1, bridge.bus);
    bridge.config.write(pci.SUBORDINATE_BUS, 1, bridge.bus);
    for (let above = this.system.bus(primary)?.self; above; above = above.bus.self) {
      const last = Math.max(above.pci.config.read(pci.SUBORDINATE_BUS, 1), bridge.bus);
      above.pci.config.write(pci.SUBORDINATE_BUS, 1, last);
    }
  }

  /** What firmware does: an address for each BAR, aligned to its size. */
  #placeBars(device: PciFunction): void {
    for (const { bar, size } of device.config.bars) {
      const base = Math.ceil(this.#nextBar / size) * size;
      if (base + size > MMIO_LIMIT) throw new RangeError(`no room for a BAR of ${size} bytes`);
      device.config.write(pci.BASE_ADDRESS_REGISTERS + 4 * bar, 4, base);
      this.#nextBar = base + size;
    }
  }

  /** Lets events happen once the program waits. */
  #arrange(): void {
    if (this.#arranged) return;
    this.#arranged = true;
    setImmediate(() => {
      this.#arranged = false;
      this.system.programsWait = true;
      try {
        for (let i = 0; i < EVENTS_PER_TURN && this.#clock.step(); i++);
      } finally {
        this.system.programsWait = false;
        if (this.#clock.pending > 0) this.#arrange();
      }
    });
  }
}
