/**
 * The simulated kernel of one machine: devices and their drivers, groups, the files programs open. Processes
 * (process.ts) make its system calls.
 */
import { O_RDONLY, O_WRONLY } from '../../kernel';
import { errno } from '../../uapi/errno';
import { PciBridge } from '../devices/bridge';
import type { PciFunction } from '../devices/pci-function';
import type { PhysicalMemory } from '../memory';
import { isCapable, User, type Credentials } from './credentials';
import type { OpenFile } from './file';
import type { FileTree, TextFile } from './file-tree';
import { InterruptController, type MessageSource } from './interrupts';
import { IommuGroup, type IommuDriver, type KernelPciDevice } from './iommu/core';
import { IommufdFile } from './iommufd/file';
import { CHANNEL_DRIVER, MdevBus } from './mdev/bus';
import { MdevFile } from './mdev/file';
import type { MockIommu } from './mock/driver';
import { DEFAULT_PASID_SPACES, Pasids } from './pasids';
import { MANAGED_DMA_DRIVERS, parseBdf, PciDevice, VFIO_PCI } from './pci';
import { PciBus } from './pci-bus';
import { enableAcs, sharedGroup } from './pci-topology';
import { OpenDirectory, OpenTextFile } from './plain-files';
import { BUILT_IN_DRIVERS, sysfsOf } from './sysfs';
import { VfioFile } from './vfio/cdev';
import { VfioGroupFile, vfioGroupName } from './vfio/group';

const ACCESS_MODE = 3;
const O_DIRECTORY = 0o200000;
/** The group of a device that is in none. */
const NO_GROUP = -1;

/** Permission bits of what can be opened: only root may, unless `grant` says otherwise. */
export interface AccessRule {
  (path: string, credentials: Credentials): boolean;
}

/** The files that a process sees, and may open. */
interface View {
  readonly files: FileTree;
  readonly credentials: Credentials;
}

export interface Iommu {
  readonly driver: IommuDriver;
  /** What devices have that the kernel's drivers use: tables of their own, or all of memory (as sysfs names them). */
  readonly defaultDomain: 'DMA' | 'identity';
  /** Interrupt remapping keeps devices from sending each other's interrupts: without it bind is EPERM. */
  readonly isolatedMsi: boolean;
}

export class System {
  readonly interrupts = new InterruptController();
  /** Names of the drivers there are. */
  readonly drivers = new Set(BUILT_IN_DRIVERS);
  readonly devices = new Map<string, PciDevice>();
  readonly groups: IommuGroup<KernelPciDevice>[] = [];
  readonly mdevs = new MdevBus(this);
  /** Hands out the PASIDs that hardware sees of mediated devices. */
  pasids = new Pasids(DEFAULT_PASID_SPACES);
  /** /sys and /dev. */
  readonly sysfs: FileTree = sysfsOf(this);
  /** Called before a program reads a register: simulated time passes while a driver polls. */
  onRegisterAccess: () => void = () => {};
  /** Simulated events are happening while the programs wait: what becomes ready ends their wait in this turn. */
  programsWait = false;
  /** A kernel built with CONFIG_PM: a device that is allowed to sleeps when nobody uses it. */
  powerManagement = true;
  /** Present on a kernel built with CONFIG_IOMMUFD_TEST. */
  selftest: MockIommu | undefined;
  /** Absent: DMA of devices goes to physical addresses. */
  iommu: Iommu | undefined;
  /** vfio.enable_unsafe_noiommu_mode: programs may have devices that no IOMMU is in front of. */
  unsafeNoIommu = false;
  /** Groups whose files in /dev/vfio are open. */
  readonly groupFiles = new Map<IommuGroup<KernelPciDevice>, VfioGroupFile>();
  readonly #users = new Map<number, User>();
  #lastPid = 0;
  readonly #buses = new Map<number, PciBus>();

  constructor(
    readonly memory: PhysicalMemory,
    readonly allows: AccessRule = (_path, { uid }) => uid === 0,
  ) {}

  newPid(): number {
    return ++this.#lastPid;
  }

  /** Messages that reach the kernel when the device sends them. */
  messagesOf(device: PciDevice): MessageSource {
    return this.iommu?.driver.messagesOf?.(device) ?? this.interrupts;
  }

  user(uid: number): User {
    let user = this.#users.get(uid);
    if (!user) this.#users.set(uid, (user = new User(uid)));
    return user;
  }

  /** A function was found at `bdf`; it is in no group yet. `quirkAliases`: see PciDevice. */
  addDevice(bdf: string, pci: PciFunction, quirkAliases: readonly number[] = []): PciDevice {
    if (this.devices.has(bdf)) throw new RangeError(`there is a device at ${bdf} already`);
    const rid = parseBdf(bdf);
    const none = new IommuGroup<KernelPciDevice>(NO_GROUP);
    const behind = pci instanceof PciBridge ? this.#bus(pci.bus) : undefined;
    const device = new PciDevice(bdf, rid, pci, none, this.#bus(rid >> 8), behind, quirkAliases);
    this.devices.set(bdf, device);
    if (this.iommu) enableAcs(device);
    return device;
  }

  /** Its IOMMU group follows from where a device sits, unless `groupId` names one. Without an IOMMU there is none. */
  joinGroup(device: PciDevice, groupId?: number): void {
    if (!this.iommu) return;
    const shared = groupId === undefined ? sharedGroup(device) : undefined;
    device.join(shared ?? this.#group(groupId ?? this.#freeGroupId()));
  }

  /** The bus of this number, if any device is on it or before it. */
  bus(number: number): PciBus | undefined {
    return this.#buses.get(number);
  }

  /** The IOMMU's driver could not take the device in: it is in no group, and its DMA stays blocked. */
  leaveGroup(device: PciDevice): void {
    const { group } = device;
    device.join(new IommuGroup<KernelPciDevice>(NO_GROUP));
    if (group.devices.length === 0) this.#forget(group);
  }

  /** The device was pulled out. Whoever has it open keeps a dead device until the file is closed. */
  removeDevice(device: PciDevice): void {
    this.devices.delete(device.bdf);
    device.gone = true;
    if (device.opened) device.opened.deviceGone();
    else if (!this.mdevs.inUse(device)) this.releaseDevice(device);
  }

  /** Nobody uses the device that was pulled out any more. */
  releaseDevice(device: PciDevice): void {
    this.unbindDriver(device);
    this.leaveGroup(device);
    device.bus.remove(device);
    if (device.subordinate?.self === device) device.subordinate.self = undefined;
    this.iommu?.driver.remove(device);
  }

  /** Writing an address to a driver's `bind`. */
  bindDriver(device: PciDevice, name: string): number {
    if (device.driver) return -errno.EBUSY;
    const { group } = device;
    const usesDmaApi = !MANAGED_DMA_DRIVERS.has(name);
    // A group in user space's hands does not have the kernel's DMA API (iommu_device_use_default_domain).
    if (usesDmaApi && group.owner) return -errno.EBUSY;
    // vfio-pci knows no device ids of its own: driver_override must name it.
    if (device.driverOverride ? device.driverOverride !== name : name === VFIO_PCI) return -errno.ENODEV;
    if (name === VFIO_PCI) {
      // Bridges are not for programs, nor is what the IOMMU's driver has not taken in.
      if (device.subordinate || (this.iommu && group.id === NO_GROUP)) return -errno.EINVAL;
      if (!this.iommu && !this.unsafeNoIommu) return -errno.EINVAL;
      if (!this.iommu) {
        device.noIommu = true;
        device.join(this.#group(this.#freeGroupId(), 'vfio-noiommu'));
      }
      device.vfioIndex = this.freeVfioIndex();
    } else if (usesDmaApi) group.ownerCount++;
    device.driver = name;
    if (name === CHANNEL_DRIVER) this.mdevs.probe(device);
    return 0;
  }

  unbindDriver(device: PciDevice): number {
    // Linux asks the user for the device and waits; a single-threaded program would wait for itself.
    if (device.opened || this.mdevs.remove(device)) return -errno.EBUSY;
    if (device.driver && !MANAGED_DMA_DRIVERS.has(device.driver)) device.group.ownerCount--;
    device.driver = undefined;
    device.vfioIndex = -1;
    if (device.noIommu) {
      this.#forget(device.group);
      device.join(new IommuGroup<KernelPciDevice>(NO_GROUP));
      device.noIommu = false;
    }
    return 0;
  }

  /** Writing an address to drivers_probe: it is no error if no driver wants the device. */
  probe(device: PciDevice): number {
    const name = device.driverOverride || device.nativeDriver;
    if (!device.driver && name && this.drivers.has(name)) this.bindDriver(device, name);
    return 0;
  }

  open(path: string, flags: number, { files, credentials }: View): OpenFile | number {
    const found = files.resolve(path);
    if (typeof found === 'number') return found;
    const { node } = found;
    const access = flags & ACCESS_MODE;
    if (node.kind === 'directory') return access === O_RDONLY ? new OpenDirectory() : -errno.EISDIR;
    if (flags & O_DIRECTORY) return -errno.ENOTDIR;
    const device = this.#deviceFile(found.path);
    if (device) return this.allows(found.path, credentials) ? device(credentials) : -errno.EACCES;
    return this.#openText(found.path, node, access, credentials);
  }

  /** Writes a text file: the bytes written, or -errno. Only those may who could open it for writing. */
  writeFile(path: string, text: string, { files, credentials }: View): number {
    const found = files.resolve(path);
    if (typeof found === 'number') return found;
    if (found.node.kind === 'file' && !this.allows(found.path, credentials)) return -errno.EACCES;
    return files.writeFile(path, text) || Buffer.byteLength(text);
  }

  #bus(number: number): PciBus {
    let bus = this.#buses.get(number);
    if (!bus) this.#buses.set(number, (bus = new PciBus(number)));
    return bus;
  }

  #deviceFile(path: string): ((credentials: Credentials) => OpenFile | number) | undefined {
    if (path === '/dev/iommu') return () => new IommufdFile(this);
    for (const device of this.devices.values())
      if (device.vfioIndex >= 0 && path === `/dev/vfio/devices/${device.vfioName}`)
        return (credentials) =>
          device.noIommu && !isCapable(credentials, 'CAP_SYS_RAWIO')
            ? -errno.EPERM
            : new VfioFile(this, device);
    for (const mdev of this.mdevs.devices.values())
      if (path === `/dev/vfio/devices/vfio${mdev.vfioIndex}`) return () => new MdevFile(this, mdev);
    for (const group of this.groups)
      if (path === `/dev/vfio/${vfioGroupName(this, group)}`)
        return (credentials) => VfioGroupFile.open(this, group, credentials);
    return undefined;
  }

  #openText(path: string, node: TextFile, access: number, credentials: Credentials): OpenFile | number {
    if (access !== O_WRONLY && !node.read) return -errno.EACCES;
    if (access !== O_RDONLY && (!node.write || !this.allows(path, credentials))) return -errno.EACCES;
    return new OpenTextFile(node);
  }

  #group(id: number, name?: string): IommuGroup<KernelPciDevice> {
    let group = this.groups.find((candidate) => candidate.id === id);
    if (!group) this.groups.push((group = new IommuGroup<KernelPciDevice>(id, name)));
    return group;
  }

  #forget(group: IommuGroup<KernelPciDevice>): void {
    const index = this.groups.indexOf(group);
    if (index >= 0) this.groups.splice(index, 1);
  }

  #freeGroupId(): number {
    return this.groups.reduce((next, group) => Math.max(next, group.id + 1), 0);
  }

  /** The lowest N that no /dev/vfio/devices/vfioN has. */
  freeVfioIndex(): number {
    const all = [...this.devices.values(), ...this.mdevs.devices.values()];
    const taken = new Set(all.map(({ vfioIndex }) => vfioIndex));
    let index = 0;
    while (taken.has(index)) index++;
    return index;
  }
}
