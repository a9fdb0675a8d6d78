/**
 * The simulated kernel of one machine: devices and their drivers, groups, the files programs open. Processes
 * (process.ts) make its system calls.
 */
import { errno } from '../../uapi/errno';
import type { PciFunction } from '../devices/pci-function';
import type { PhysicalMemory } from '../memory';
import type { OpenFile } from './file';
import type { FileTree } from './file-tree';
import { InterruptController } from './interrupts';
import { IommuGroup, type IommuDriver } from './iommu/core';
import { IommufdFile } from './iommufd/file';
import { parseBdf, PciDevice, VFIO_PCI } from './pci';
import type { Credentials } from './process';
import { BUILT_IN_DRIVERS, sysfsOf } from './sysfs';
import { VfioFile } from './vfio/cdev';

/** Permission bits of what can be opened: only root may, unless `grant` says otherwise. */
export interface AccessRule {
  (path: string, credentials: Credentials): boolean;
}

export interface Iommu {
  readonly driver: IommuDriver;
  /** Interrupt remapping keeps devices from sending each other's interrupts: without it bind is EPERM. */
  readonly isolatedMsi: boolean;
}

export class System {
  readonly interrupts = new InterruptController();
  readonly devices = new Map<string, PciDevice>();
  readonly groups: IommuGroup[] = [];
  readonly sysfs: FileTree = sysfsOf(this);
  /** Called before a program reads a register: simulated time passes while a driver polls. */
  onRegisterAccess: () => void = () => {};
  #iommu: Iommu | undefined;

  constructor(
    readonly memory: PhysicalMemory,
    readonly allows: AccessRule = (_path, { uid }) => uid === 0,
  ) {}

  get iommu(): Iommu {
    if (!this.#iommu) throw new Error('the IOMMU driver has not started');
    return this.#iommu;
  }

  set iommu(iommu: Iommu) {
    this.#iommu = iommu;
  }

  /** A function was found at `bdf`. Devices of one `group` are not isolated from each other. */
  addDevice(bdf: string, pci: PciFunction, groupId = this.#freeGroupId()): PciDevice {
    if (this.devices.has(bdf)) throw new RangeError(`there is a device at ${bdf} already`);
    let group = this.groups.find((candidate) => candidate.id === groupId);
    if (!group) this.groups.push((group = new IommuGroup(groupId)));
    const device = new PciDevice(bdf, parseBdf(bdf), pci, group);
    this.devices.set(bdf, device);
    return device;
  }

  /** The device was pulled out. Whoever has it open keeps a dead device until the file is closed. */
  removeDevice(device: PciDevice): void {
    this.devices.delete(device.bdf);
    device.opened?.deviceGone();
  }

  /** Names of the drivers there are. */
  drivers(): Set<string> {
    const bound = [...this.devices.values()].flatMap(({ driver }) => (driver ? [driver] : []));
    return new Set([...BUILT_IN_DRIVERS, ...bound]);
  }

  /** Writing an address to a driver's `bind`. */
  bindDriver(device: PciDevice, name: string): number {
    if (device.driver) return -errno.EBUSY;
    // vfio-pci knows no device ids of its own: driver_override must name it.
    if (device.driverOverride ? device.driverOverride !== name : name === VFIO_PCI) return -errno.ENODEV;
    device.driver = name;
    if (name === VFIO_PCI) device.vfioIndex = this.#freeVfioIndex();
    return 0;
  }

  unbindDriver(device: PciDevice): number {
    // Linux asks the user for the device and waits; a single-threaded program would wait for itself.
    if (device.opened) return -errno.EBUSY;
    device.driver = undefined;
    device.vfioIndex = -1;
    return 0;
  }

  /** Writing an address to drivers_probe. */
  probe(device: PciDevice): number {
    return device.driverOverride ? this.bindDriver(device, device.driverOverride) : 0;
  }

  open(path: string, _flags: number, credentials: Credentials): OpenFile | number {
    const file = this.#file(path);
    if (typeof file === 'number') return file;
    return this.allows(path, credentials) ? file() : -errno.EACCES;
  }

  #file(path: string): (() => OpenFile) | number {
    if (path === '/dev/iommu') return () => new IommufdFile(this);
    const index = /^\/dev\/vfio\/devices\/vfio(\d+)$/.exec(path)?.[1];
    if (index === undefined) return -errno.ENOENT;
    for (const device of this.devices.values())
      if (device.vfioIndex === Number(index)) return () => new VfioFile(this, device);
    return -errno.ENOENT;
  }

  #freeGroupId(): number {
    return this.groups.reduce((next, group) => Math.max(next, group.id + 1), 0);
  }

  #freeVfioIndex(): number {
    const taken = new Set([...this.devices.values()].map(({ vfioIndex }) => vfioIndex));
    let index = 0;
    while (taken.has(index)) index++;
    return index;
  }
}
