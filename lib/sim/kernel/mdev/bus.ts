/** The mdev bus of a system: parents, and the devices made of them (drivers/vfio/mdev's role). */
import { errno } from '../../../uapi/errno';
import { ChannelEngine } from '../../devices/channel-engine';
import * as pci from '../../devices/pci-registers';
import type { PciDevice } from '../pci';
import type { System } from '../system';
import { MdevDevice, MdevParent } from './device';
import { MDEV_TYPES, type MdevType } from './types';

/** The driver that hands out the channels of a channel engine. */
export const CHANNEL_DRIVER = 'channel-engine';
/** And the one of the devices. */
export const MDEV_DRIVER = 'vfio-channel-engine';

const UUID = /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\n?$/i;

export class MdevBus {
  /** By their PCI addresses. */
  readonly parents = new Map<string, MdevParent>();
  /** By their UUIDs. */
  readonly devices = new Map<string, MdevDevice>();

  constructor(readonly system: System) {}

  /** The driver takes a device. Others than channel engines have nothing to hand out. */
  probe(device: PciDevice): void {
    const { iommu, pasids } = this.system;
    if (!(device.pci instanceof ChannelEngine) || !iommu) return;
    const { config } = device.pci;
    const on = pci.COMMAND_MEMORY_SPACE | pci.COMMAND_BUS_MASTER;
    config.write(pci.COMMAND, 2, config.read(pci.COMMAND, 2) | on);
    const hasPasids = iommu.driver.hardwareInfo(device)?.maxPasidLog2;
    // Without PASIDs the IOMMU cannot keep them apart.
    const types = MDEV_TYPES.filter((type) => !type.isolated || hasPasids);
    const spaces = { perRid: pasids.perRid(), global: pasids.global };
    this.parents.set(device.bdf, new MdevParent(device, device.pci, spaces, iommu.driver, types));
  }

  /** Somebody uses a device that was made of this one. */
  inUse(device: PciDevice): boolean {
    const parent = this.parents.get(device.bdf);
    return parent?.pci === device && parent.devices.some(({ opened }) => opened);
  }

  /** And gives it up, with what it handed out. EBUSY while somebody uses any of that. */
  remove(device: PciDevice): number {
    const parent = this.parents.get(device.bdf);
    if (!parent || parent.pci !== device) return 0;
    if (this.inUse(device)) return -errno.EBUSY;
    for (const mdev of [...parent.devices]) this.destroy(mdev);
    this.parents.delete(device.bdf);
    return 0;
  }

  available(parent: MdevParent): number {
    return parent.engine.channels.length - parent.devices.length;
  }

  /** Writing a UUID to a type's `create`. */
  create(parent: MdevParent, type: MdevType, text: string): number {
    if (!UUID.test(text)) return -errno.EINVAL;
    const uuid = text.trim().toLowerCase();
    if (this.devices.has(uuid)) return -errno.EEXIST;
    const channel = parent.freeChannel();
    if (channel < 0) return -errno.EUSERS;
    const defaultPasid = type.isolated ? parent.pasids.allocate() : -1;
    if (type.isolated && defaultPasid < 0) return defaultPasid;
    const mdev = new MdevDevice(uuid, type, parent, channel, defaultPasid);
    mdev.vfioIndex = this.system.freeVfioIndex();
    parent.devices.push(mdev);
    this.devices.set(uuid, mdev);
    return 0;
  }

  /** Writing anything but 0 to a device's `remove`. Linux would wait for the user; a single-threaded program for itself. */
  destroy(mdev: MdevDevice): number {
    if (mdev.opened) return -errno.EBUSY;
    const { parent, defaultPasid } = mdev;
    parent.devices.splice(parent.devices.indexOf(mdev), 1);
    this.devices.delete(mdev.uuid);
    if (defaultPasid >= 0) parent.pasids.free(defaultPasid);
    return 0;
  }
}
