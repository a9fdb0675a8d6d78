import type { AttachTarget } from './attach-target';
import { BoundDevice } from './bound-device';
import type { Context } from './context';
import { probeFeatures, setLowPower, type DeviceFeatures } from './device-features';
import { readDeviceInfo, type DeviceInfo } from './device-info';
import { failure, refusal } from './errors';
import { runAll } from './handle';
import { hotReset, hotResetDevices, type HotResetDevice } from './hot-reset';
import { Interrupt, InterruptLines, type InterruptKind } from './interrupt';
import { attempt, attemptBytes, call } from './ioctl';
import { whyNotViable } from './iommu-group';
import { MemoryDecoding } from './memory-decoding';
import { hintNoSnoop } from './no-snoop';
import {
  listBars,
  PciConfig,
  readPowerState,
  writePowerState,
  type PciBar,
  type PowerState,
} from './pci-config';
import { Region, type RegionDescription } from './region';
import { NO_CAPABILITIES, readRegionCapabilities } from './region-capabilities';
import type { DeviceDescription } from './sysfs';
import * as uapi from './uapi';
import { VFIO_DEVICE_NO_SNOOP_HINT } from './uapi/proposal/no-snoop';

/** Regions of a PCI function by name, in the order of VFIO_PCI_*_REGION_INDEX. */
const REGION_NAMES = ['bar0', 'bar1', 'bar2', 'bar3', 'bar4', 'bar5', 'rom', 'config', 'vga'] as const;
export type RegionName = (typeof REGION_NAMES)[number];

/** A device bound to the Iommu through VFIO. */
export class Device extends BoundDevice {
  /** PCI address, such as '0000:00:04.0'; undefined where the device has none. */
  readonly bdf: string | undefined;
  /** The name of a mediated device; undefined for others. */
  readonly uuid: string | undefined;
  /** Its character device, such as '/dev/vfio/devices/vfio0'. */
  readonly path: string;
  /** Number of its IOMMU group; undefined where it has no PCI address. `iommu.groups()` has all of it. */
  readonly iommuGroup: number | undefined;
  /** The VFIO file descriptor, for raw calls. */
  readonly fd: number;
  protected override readonly attachRequest = 'VFIO_DEVICE_ATTACH_IOMMUFD_PT';
  protected override readonly detachRequest = 'VFIO_DEVICE_DETACH_IOMMUFD_PT';
  readonly #regions = new Map<number, Region>();
  readonly #lines = new Map<InterruptKind, InterruptLines>();
  #config: PciConfig | undefined;
  #decoding: MemoryDecoding | undefined;
  #softwareMediated: boolean | undefined;
  /** Low power is allowed: an access through a mapping would kill the process. */
  #mayRest = false;

  /** @internal Use `iommu.bind()`. */
  constructor(
    context: Context,
    values: {
      cookie: bigint;
      id: number;
      fd: number;
      path: string;
      description: DeviceDescription | undefined;
    },
  ) {
    super(context, values.cookie, values.id);
    this.fd = values.fd;
    this.path = values.path;
    this.bdf = values.description?.bdf;
    this.uuid = values.description?.uuid;
    this.iommuGroup = values.description?.bdf === undefined ? undefined : values.description.iommuGroup;
  }

  override get name(): string {
    return this.bdf ?? this.uuid ?? this.path;
  }

  /** @internal Such a device is no DEVICE object of iommufd's: the kernel does not know the ID as one. */
  override get softwareMediated(): boolean {
    if (this.uuid === undefined) return false;
    const { kernel, fd } = this.context;
    this.#softwareMediated ??=
      attempt(kernel, fd, uapi.IOMMU_GET_HW_INFO, { dev_id: this.id }).result === -uapi.errno.ENOENT;
    return this.#softwareMediated;
  }

  protected override get groupMates(): readonly Device[] {
    if (this.iommuGroup === undefined) return [];
    return [...this.context.devices].filter(
      (other): other is Device =>
        other !== this && other instanceof Device && other.iommuGroup === this.iommuGroup,
    );
  }

  /** The group's devices are in one space: which of them is in another. */
  protected override whyRefused(
    result: number,
    pasid: number | undefined,
    target: AttachTarget,
  ): string | undefined {
    if (result !== -uapi.errno.EINVAL) return undefined;
    for (const other of this.groupMates) {
      const attached = other.attached(pasid);
      if (attached && attached !== target)
        return (
          `${other.name} is in the same IOMMU group, ${this.iommuGroup}, and attached to ${attached.label}: ` +
          'attach to that, or detach it first'
        );
    }
    return undefined;
  }

  protected override hintNoSnoop(used: boolean | undefined): void {
    if (this.softwareMediated)
      throw refusal(
        'EOPNOTSUPP',
        `no IOMMU takes part in the DMA of ${this.name}: its driver does it, and that snoops`,
        {
          request: VFIO_DEVICE_NO_SNOOP_HINT.name,
          hint: 'leave noSnoop out',
        },
      );
    hintNoSnoop(this.context, this.fd, used);
  }

  protected override attachTo(ptId: number, pasid: number | undefined): number {
    const { kernel } = this.context;
    const { result, out } = attempt(kernel, this.fd, uapi.VFIO_DEVICE_ATTACH_IOMMUFD_PT, {
      ...(pasid === undefined && { argsz: uapi.VFIO_DEVICE_ATTACH_IOMMUFD_PT.minimumSize }),
      flags: pasid === undefined ? 0 : uapi.VFIO_DEVICE_ATTACH_PASID,
      pt_id: ptId,
      pasid: pasid ?? 0,
    });
    return result < 0 ? result : out.pt_id;
  }

  protected override detachFrom(pasid: number | undefined): number {
    const { kernel } = this.context;
    return attempt(kernel, this.fd, uapi.VFIO_DEVICE_DETACH_IOMMUFD_PT, {
      ...(pasid === undefined && { argsz: uapi.VFIO_DEVICE_DETACH_IOMMUFD_PT.minimumSize }),
      flags: pasid === undefined ? 0 : uapi.VFIO_DEVICE_DETACH_PASID,
      pasid: pasid ?? 0,
    }).result;
  }

  /** What the device offers. Throws IommuError. */
  info(): DeviceInfo {
    this.requireOpen({ request: 'VFIO_DEVICE_GET_INFO' });
    return readDeviceInfo(this.context.kernel, this.fd);
  }

  /**
   * A region by name or VFIO index: its registers. The same object until it is closed.
   * Throws IommuError: EINVAL (no such region), ENODEV (the device has nothing there).
   */
  region(which: RegionName | number): Region {
    this.requireOpen({ request: 'VFIO_DEVICE_GET_REGION_INFO' });
    const index = typeof which === 'number' ? which : REGION_NAMES.indexOf(which);
    if (!Number.isInteger(index) || index < 0 || index >= 2 ** 32)
      throw new RangeError(`no region is called ${String(which)}: ${REGION_NAMES.join(', ')}, or an index`);
    const known = this.#regions.get(index);
    if (known) return known;
    const description = this.#describeRegion(index);
    const region = new Region(this.context.kernel, this.fd, description, () => this.#regions.delete(index));
    this.#regions.set(index, region);
    return region;
  }

  #describeRegion(index: number): RegionDescription {
    const { kernel } = this.context;
    const row = uapi.VFIO_DEVICE_GET_REGION_INFO;
    const info = call(kernel, this.fd, row, { index });
    const name = `${REGION_NAMES[index] ?? `region ${index}`} of ${this.name}`;
    if (info.size === 0n) throw refusal('ENODEV', `there is no ${name}`, { request: row.name });
    const capabilities =
      info.flags & uapi.VFIO_REGION_INFO_FLAG_CAPS
        ? readRegionCapabilities(kernel, this.fd, index, info.argsz)
        : NO_CAPABILITIES;
    const whole = (info.flags & uapi.VFIO_REGION_INFO_FLAG_MMAP) !== 0 && !capabilities.mappableAreas;
    return {
      name,
      flags: info.flags,
      size: Number(info.size),
      fileOffset: Number(info.offset),
      mappable: whole && !this.#mayRest && this.#decodesMemory(),
      capabilities,
      ...(index === uapi.VFIO_PCI_CONFIG_REGION_INDEX && {
        beforeWrite: (offset: number, bytes: Uint8Array) => this.#guardMappings(offset, bytes),
      }),
    };
  }

  #decodesMemory(): boolean {
    const config = this.region('config');
    this.#decoding ??= new MemoryDecoding(config);
    return this.#decoding.isOn(config);
  }

  /** Refuses a write to configuration space after which an access to a mapped BAR would kill the process. */
  #guardMappings(offset: number, bytes: Uint8Array): void {
    const duty = this.#decoding?.endedBy(offset, bytes);
    if (duty && [...this.#regions.values()].some((region) => region.mapped))
      throw refusal('EBUSY', `${this.name} must ${duty} while its BARs are mapped`, {
        syscall: 'pwrite',
        hint: 'close the regions first',
      });
  }

  /**
   * Switches on an interrupt vector. One kind at a time; a vector once. MSI and MSI-X need enableBusMaster().
   * Throws RangeError (no such vector), IommuError.
   */
  interrupt(kind: InterruptKind, vector = 0): Interrupt {
    const lines = this.#linesOf(kind);
    if (lines.count === 0)
      throw refusal('EOPNOTSUPP', `${this.name} has no ${kind} interrupt`, {
        request: 'VFIO_DEVICE_SET_IRQS',
      });
    if (!Number.isInteger(vector) || vector < 0 || vector >= lines.count)
      throw new RangeError(`${kind} vector ${vector} is outside 0 to ${lines.count - 1}`);
    return new Interrupt(lines, vector);
  }

  /** How many vectors of a kind the device has; 0 if it has not that kind. Throws IommuError. */
  interruptVectors(kind: InterruptKind): number {
    return this.#linesOf(kind).count;
  }

  #linesOf(kind: InterruptKind): InterruptLines {
    this.requireOpen({ request: 'VFIO_DEVICE_SET_IRQS' });
    if (kind !== 'intx' && kind !== 'msi' && kind !== 'msix')
      throw new TypeError(`interrupts are 'intx', 'msi' or 'msix', not ${String(kind)}`);
    let lines = this.#lines.get(kind);
    if (!lines) this.#lines.set(kind, (lines = new InterruptLines(this.context.kernel, this.fd, kind)));
    return lines;
  }

  /** Configuration space: its header and its capabilities by name. */
  get config(): PciConfig {
    if (!this.#config || this.#config.region.closed) this.#config = new PciConfig(this.region('config'));
    return this.#config;
  }

  /** The BARs there are, with their sizes; `region('bar0')` opens one. Throws IommuError. */
  bars(): PciBar[] {
    const { kernel } = this.context;
    return listBars(this.config, (index) =>
      Number(call(kernel, this.fd, uapi.VFIO_DEVICE_GET_REGION_INFO, { index }).size),
    );
  }

  /**
   * Lets the device start DMA and send MSIs, or stops it: Bus Master Enable in its command register. VFIO hands devices over
   * with it off.
   */
  enableBusMaster(on = true): void {
    this.config.header.COMMAND.update({ BUS_MASTER: on ? 1 : 0 });
  }

  /**
   * The power state, written to the power management capability. In 'd3hot' the function answers configuration accesses only.
   *
   * Setting it throws TypeError; IommuError EBUSY (a BAR is mapped: close the regions first), EOPNOTSUPP (the function has
   * not that state).
   */
  get powerState(): PowerState {
    return readPowerState(this.config);
  }

  set powerState(state: PowerState) {
    writePowerState(this.config, state);
  }

  /** Resets the device: its registers, not what is attached. Throws IommuError where it has no reset. */
  reset(): void {
    this.requireOpen({ request: 'VFIO_DEVICE_RESET' });
    const result = attemptBytes(this.context.kernel, this.fd, uapi.VFIO_DEVICE_RESET);
    if (result < 0) throw failure(result, { syscall: 'ioctl', request: 'VFIO_DEVICE_RESET' });
  }

  /**
   * What hotReset() resets: this device and all that shares its bus, in the order of their addresses.
   * Throws IommuError: ENODEV (nothing can reset the bus).
   */
  hotResetDevices(): HotResetDevice[] {
    this.requireOpen({ request: 'VFIO_DEVICE_GET_PCI_HOT_RESET_INFO' });
    return hotResetDevices(this.context.kernel, this.fd);
  }

  /**
   * Resets the device's bus, and every device on it: a stronger reset than reset(), and one for devices that have no
   * other. Attachments, interrupts and configuration stay.
   *
   * Throws IommuError: ENODEV (nothing can reset the bus: the root bus, for one), EINVAL (a device on it is not this
   * Iommu's: hotResetDevices() tells which).
   */
  hotReset(): void {
    this.requireOpen({ request: 'VFIO_DEVICE_PCI_HOT_RESET' });
    hotReset(this.context.kernel, this.fd);
  }

  /** Which of VFIO's features the device, its driver and this kernel have. Throws IommuError. */
  features(): DeviceFeatures {
    this.requireOpen({ request: 'VFIO_DEVICE_FEATURE' });
    return probeFeatures(this.context.kernel, this.fd);
  }

  /**
   * Lets the device sleep while nobody uses it; each call on it wakes it. With `wakeup`, an eventfd of the kernel that
   * this device is open on, the first call after it slept signals that eventfd, and low power ends.
   *
   * Until forbidLowPower(), BARs are not mapped: an access through a mapping would kill the process.
   * Throws IommuError: EBUSY (a BAR is mapped now), EINVAL (allowed already, or not an eventfd), EBADF, ENOTTY.
   */
  allowLowPower(options: { wakeup?: number | undefined } = {}): void {
    const { wakeup } = options;
    this.requireOpen({ request: 'VFIO_DEVICE_FEATURE' });
    this.#requireUnmapped();
    const { kernel } = this.context;
    if (wakeup === undefined) setLowPower(kernel, this.fd, 'VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY');
    else {
      const data = uapi.vfio_device_low_power_entry_with_wakeup.encode({ wakeup_eventfd: wakeup });
      setLowPower(kernel, this.fd, 'VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY_WITH_WAKEUP', data);
    }
    this.#mayRest = true;
  }

  /** Keeps the device awake from now on. Does nothing if it was. Throws IommuError. */
  forbidLowPower(): void {
    this.requireOpen({ request: 'VFIO_DEVICE_FEATURE' });
    setLowPower(this.context.kernel, this.fd, 'VFIO_DEVICE_FEATURE_LOW_POWER_EXIT');
    this.#mayRest = false;
  }

  #requireUnmapped(): void {
    if ([...this.#regions.values()].some((region) => region.mapped))
      throw refusal('EBUSY', `${this.name} cannot rest while its BARs are mapped`, {
        request: 'VFIO_DEVICE_FEATURE',
        hint: 'close the regions first',
      });
  }

  /** Interrupts and mappings first: a mapped BAR would keep the device bound. */
  protected override unbind(): void {
    const interrupts = [...this.#lines.values()].flatMap((lines) => [...lines.open.values()]);
    runAll([
      ...interrupts.map((interrupt) => () => interrupt.close()),
      ...[...this.#regions.values()].map((region) => () => region.close()),
      () => void this.context.kernel.close(this.fd),
    ]);
  }
}

/**
 * Opens and binds a VFIO device. `cookie` is checked already. Throws IommuError and leaves nothing open.
 */
export function bindDevice(
  context: Context,
  target: { path: string; description: DeviceDescription | undefined },
  cookie: bigint,
  openFlags: number,
): Device {
  const { kernel } = context;
  const { path, description } = target;
  const fd = kernel.open(path, openFlags);
  if (fd < 0) throw failure(fd, { syscall: 'open', path });
  const row = uapi.VFIO_DEVICE_BIND_IOMMUFD;
  const { result, out } = attempt(kernel, fd, row, { argsz: row.minimumSize, iommufd: context.fd });
  if (result < 0) {
    kernel.close(fd);
    const blocked = result === -uapi.errno.EPERM && description && whyNotViable(kernel, description);
    throw failure(result, { syscall: 'ioctl', request: row.name, path, hint: blocked || undefined });
  }
  return new Device(context, { cookie, id: out.out_devid, fd, path, description });
}
