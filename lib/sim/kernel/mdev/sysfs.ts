/** Files of mediated devices and their parents (Documentation/ABI/testing/sysfs-bus-vfio-mdev). */
import { errno } from '../../../uapi/errno';
import { control, directory, link, text, type Directory, type Node } from '../file-tree';
import type { PciDevice } from '../pci';
import type { System } from '../system';
import { CHANNEL_DRIVER, MDEV_DRIVER, type MdevBus } from './bus';
import type { MdevDevice, MdevParent } from './device';
import type { MdevType } from './types';

/** The name of a type's folder. */
function folderOf({ sysfsName }: MdevType): string {
  return `${CHANNEL_DRIVER}-${sysfsName}`;
}

function typeDirectory(bus: MdevBus, parent: MdevParent, type: MdevType): Directory {
  const made = () => parent.devices.filter((mdev) => mdev.type === type);
  return directory(() => ({
    create: control((value) => bus.create(parent, type, value)),
    device_api: text(() => 'vfio-pci'),
    name: text(() => type.prettyName),
    available_instances: text(() => String(bus.available(parent))),
    devices: directory(() => Object.fromEntries(made().map(({ uuid }) => [uuid, link(`../../../${uuid}`)]))),
  }));
}

function mdevDirectory(bus: MdevBus, mdev: MdevDevice): Directory {
  const name = `vfio${mdev.vfioIndex}`;
  // To /sys: 'devices', the root bus, the bridges and the parent, and the device itself.
  const up = ['../../..', ...mdev.parent.pci.path.map(() => '..')].join('/');
  return directory(() => ({
    remove: control((value) => {
      const number = Number(value.trim() || NaN);
      if (!Number.isSafeInteger(number) || number < 0) return -errno.EINVAL;
      return number === 0 ? 0 : bus.destroy(mdev);
    }),
    mdev_type: link(`../mdev_supported_types/${folderOf(mdev.type)}`),
    driver: link(`${up}/bus/mdev/drivers/${MDEV_DRIVER}`),
    subsystem: link(`${up}/bus/mdev`),
    'vfio-dev': directory(() => ({
      [name]: directory(() => ({
        dev: text(() => `511:${mdev.vfioIndex}`),
        device: link(`../../../${mdev.uuid}`),
      })),
    })),
  }));
}

/** What a parent has in its folder of /sys/devices besides a PCI device's files. */
export function parentEntries(system: System, device: PciDevice): Record<string, Node> {
  const { mdevs } = system;
  const parent = mdevs.parents.get(device.bdf);
  if (!parent) return {};
  return {
    mdev_supported_types: directory(() =>
      Object.fromEntries(parent.types.map((type) => [folderOf(type), typeDirectory(mdevs, parent, type)])),
    ),
    ...Object.fromEntries(parent.devices.map((mdev) => [mdev.uuid, mdevDirectory(mdevs, mdev)])),
  };
}

/** A device's folder, from /sys. */
function pathOf(mdev: MdevDevice): string {
  return `${parentPath(mdev.parent)}/${mdev.uuid}`;
}

function parentPath({ pci }: MdevParent): string {
  return ['devices/pci0000:00', ...pci.path].join('/');
}

/** /sys/bus/mdev. */
export function mdevBusDirectory({ mdevs }: System): Directory {
  const links = () =>
    Object.fromEntries(
      [...mdevs.devices.values()].map((mdev) => [mdev.uuid, link(`../../../${pathOf(mdev)}`)]),
    );
  return directory(() => ({
    devices: directory(links),
    drivers: directory(() => ({
      [MDEV_DRIVER]: directory(() =>
        Object.fromEntries(
          [...mdevs.devices.values()].map((mdev) => [mdev.uuid, link(`../../../../${pathOf(mdev)}`)]),
        ),
      ),
    })),
  }));
}

/** /sys/class/mdev_bus: the parents. */
export function mdevClassDirectory({ mdevs }: System): Directory {
  return directory(() =>
    Object.fromEntries([...mdevs.parents].map(([bdf, parent]) => [bdf, link(`../../${parentPath(parent)}`)])),
  );
}

/** Of the mediated devices, /sys/class/vfio-dev's links and /dev/vfio/devices' names. */
export function mdevVfioEntries({ mdevs }: System, node: (mdev: MdevDevice, name: string) => Node) {
  return Object.fromEntries(
    [...mdevs.devices.values()].map((mdev) => {
      const name = `vfio${mdev.vfioIndex}`;
      return [name, node(mdev, name)];
    }),
  );
}

export function mdevVfioLink(mdev: MdevDevice, name: string): Node {
  return link(`../../${pathOf(mdev)}/vfio-dev/${name}`);
}
