/**
 * The files under /sys and /dev by which programs find devices (Documentation/ABI/testing/sysfs-bus-pci,
 * sysfs-kernel-iommu_groups, sysfs-devices-vfio-dev), of a simulated system.
 */
import { errno } from '../../uapi/errno';
import { BAR_COUNT } from '../devices/pci-registers';
import { control, directory, FileTree, link, text, type Directory, type Node } from './file-tree';
import type { KernelPciDevice } from './iommu/core';
import {
  mdevBusDirectory,
  mdevClassDirectory,
  mdevVfioEntries,
  mdevVfioLink,
  parentEntries,
} from './mdev/sysfs';
import { VFIO_PCI, type PciDevice } from './pci';
import type { System } from './system';
import { vfioDevices, vfioGroupName } from './vfio/group';

const hex = (value: number, digits: number) => `0x${value.toString(16).padStart(digits, '0')}`;

function entriesOf<T>(
  items: Iterable<T>,
  name: (item: T) => string,
  node: (item: T) => Node,
): Record<string, Node> {
  return Object.fromEntries([...items].map((item) => [name(item), node(item)]));
}

/** The device's folder, from /sys/devices. */
function folderOf({ path }: KernelPciDevice): string {
  return ['pci0000:00', ...path].join('/');
}

/** What is on a bus, or in the folder of the bridge before it. */
function busEntries(system: System, devices: Iterable<PciDevice>): Record<string, Node> {
  return entriesOf(
    devices,
    (device) => device.bdf,
    (device) => deviceDirectory(system, device),
  );
}

/** Files and links of a device, and the folders of those behind it. */
function deviceDirectory(system: System, device: PciDevice): Directory {
  const { config } = device.pci;
  // To /sys, and to /sys/devices.
  const up = ['../..', ...device.path.map(() => '..')].join('/');
  const devices = up.slice('../'.length);
  return directory(() => ({
    ...busEntries(system, device.subordinate?.devices ?? []),
    vendor: text(() => hex(config.read(0x00, 2), 4)),
    device: text(() => hex(config.read(0x02, 2), 4)),
    subsystem_vendor: text(() => hex(config.read(0x2c, 2), 4)),
    subsystem_device: text(() => hex(config.read(0x2e, 2), 4)),
    revision: text(() => hex(config.read(0x08, 1), 2)),
    class: text(() => hex((config.read(0x08, 4) >>> 8) & 0xffffff, 6)),
    resource: text(() => resources(device)),
    enable: text(() => (config.memoryEnabled ? '1' : '0')),
    driver_override: {
      kind: 'file',
      read: () => `${device.driverOverride || '(null)'}\n`,
      write: (value) => {
        device.driverOverride = value.trim();
        return 0;
      },
    },
    subsystem: link(`${up}/bus/pci`),
    ...(device.group.id >= 0 ? { iommu_group: link(`${up}/kernel/iommu_groups/${device.group.id}`) } : {}),
    ...(system.iommu ? { iommu: link(`${devices}/virtual/iommu/dmar0`) } : {}),
    ...(device.driver ? { driver: link(`${up}/bus/pci/drivers/${device.driver}`) } : {}),
    ...(device.vfioIndex >= 0
      ? {
          'vfio-dev': directory(() => ({
            [device.vfioName]: directory(() => ({
              dev: text(() => `511:${device.vfioIndex}`),
              device: link(`../../../${device.bdf}`),
            })),
          })),
        }
      : {}),
    ...parentEntries(system, device),
  }));
}

/** Lines of `resource` after the BARs': expansion ROM, bridge windows. */
const OTHER_RESOURCES = 7;

/** Start, end and flags of each BAR, one per line, as in Linux. */
function resources(device: PciDevice): string {
  const wide = (value: number) => hex(value, 16);
  return Array.from({ length: BAR_COUNT }, (_, index) => {
    const bar = device.pci.config.bar(index);
    if (!bar) return [0, 0, 0];
    const start = device.pci.config.barAddress(index);
    const flags = 0x200 | 0x40000 | (bar.prefetchable ? 0x2008 : 0) | (bar.width === 64 ? 0x100004 : 0);
    return [start, start + bar.size - 1, flags];
  })
    .concat(Array.from({ length: OTHER_RESOURCES }, () => [0, 0, 0]))
    .map((row) => row.map(wide).join(' '))
    .join('\n');
}

function driverDirectory(system: System, name: string): Directory {
  const find = (value: string) => system.devices.get(value.trim());
  return directory(() => ({
    bind: control((value) => {
      const device = find(value);
      return device ? system.bindDriver(device, name) : -errno.ENODEV;
    }),
    unbind: control((value) => {
      const device = find(value);
      return device?.driver === name ? system.unbindDriver(device) : -errno.ENODEV;
    }),
    ...entriesOf(
      [...system.devices.values()].filter((device) => device.driver === name),
      (device) => device.bdf,
      (device) => link(`../../../../devices/${folderOf(device)}`),
    ),
  }));
}

/** Links to the devices, from a folder that has /sys `up` above it. */
function deviceLinks(up: string, devices: Iterable<PciDevice>): Record<string, Node> {
  return entriesOf(
    devices,
    (device) => device.bdf,
    (device) => link(`${up}/devices/${folderOf(device)}`),
  );
}

/** /sys/bus. */
function busTree(system: System): Directory {
  return directory(() => ({
    ...(system.mdevs.parents.size > 0 ? { mdev: mdevBusDirectory(system) } : {}),
    pci: directory(() => ({
      devices: directory(() => deviceLinks('../../..', system.devices.values())),
      drivers: directory(() => entriesOf(system.drivers, String, (name) => driverDirectory(system, name))),
      drivers_probe: control((value) => {
        const device = system.devices.get(value.trim());
        return device ? system.probe(device) : -errno.ENODEV;
      }),
    })),
  }));
}

/** First byte, last byte and kind of what no device of a group can have translated: interrupt messages, all of it. */
function reservedRegions(system: System, devices: Iterable<KernelPciDevice>): string {
  const lines = [...devices].flatMap((device) =>
    (system.iommu?.driver.reservedRegions(device) ?? []).map(
      ({ start, last }) =>
        `${[start, last].map((at) => `0x${at.toString(16).padStart(16, '0')}`).join(' ')} msi`,
    ),
  );
  return [...new Set(lines)].join('\n');
}

/** /sys/kernel/iommu_groups. */
function groupsTree(system: System): Directory {
  return directory(() =>
    entriesOf(
      system.groups,
      (group) => String(group.id),
      ({ devices, name }) =>
        directory(() => ({
          ...(name === undefined ? {} : { name: text(() => name) }),
          devices: directory(() =>
            entriesOf(
              devices,
              (device) => device.bdf,
              (device) => link(`../../../../devices/${folderOf(device)}`),
            ),
          ),
          type: text(() => system.iommu?.defaultDomain ?? 'unknown'),
          reserved_regions: text(() => reservedRegions(system, devices)),
        })),
    ),
  );
}

/** /sys/devices. */
function devicesTree(system: System): Directory {
  const unit = directory(() => ({
    devices: directory(() =>
      entriesOf(
        system.devices.values(),
        (device) => device.bdf,
        (device) => link(`../../../../${folderOf(device)}`),
      ),
    ),
    'intel-iommu': directory(() => ({})),
    subsystem: link('../../../../class/iommu'),
  }));
  return directory(() => ({
    'pci0000:00': directory(() =>
      busEntries(
        system,
        [...system.devices.values()].filter(({ bus }) => !bus.self),
      ),
    ),
    virtual: directory(() => ({ iommu: directory(() => (system.iommu ? { dmar0: unit } : {})) })),
  }));
}

/** /sys/module/vfio/parameters. */
function vfioParameters(system: System): Directory {
  return directory(() => ({
    enable_unsafe_noiommu_mode: {
      kind: 'file',
      read: () => (system.unsafeNoIommu ? 'Y\n' : 'N\n'),
      write: (value) => {
        const chosen = parseBoolean(value);
        if (chosen === undefined) return -errno.EINVAL;
        system.unsafeNoIommu = chosen;
        return 0;
      },
    },
  }));
}

/** As the kernel reads a parameter that is yes or no: by its first letter, or 'on' and 'off'. */
function parseBoolean(value: string): boolean | undefined {
  if (/^([yt1]|on)/i.test(value)) return true;
  return /^([nf0]|of)/i.test(value) ? false : undefined;
}

export function sysfsOf(system: System): FileTree {
  const perVfioDevice = (node: (device: PciDevice, name: string) => Node) => {
    const devices = [...system.devices.values()].filter((device) => device.vfioIndex >= 0);
    const name = (device: PciDevice) => device.vfioName;
    return entriesOf(devices, name, (device) => node(device, name(device)));
  };
  const sys = directory(() => ({
    bus: busTree(system),
    class: directory(() => ({
      iommu: directory(() => (system.iommu ? { dmar0: link('../../devices/virtual/iommu/dmar0') } : {})),
      ...(system.mdevs.parents.size > 0 ? { mdev_bus: mdevClassDirectory(system) } : {}),
      'vfio-dev': directory(() => ({
        ...perVfioDevice((device, name) => link(`../../devices/${folderOf(device)}/vfio-dev/${name}`)),
        ...mdevVfioEntries(system, mdevVfioLink),
      })),
    })),
    devices: devicesTree(system),
    kernel: directory(() => ({ iommu_groups: groupsTree(system) })),
    module: directory(() => ({ vfio: directory(() => ({ parameters: vfioParameters(system) })) })),
  }));
  // Opening them is the kernel's business (System.open); writing text to them is an error.
  const node = control(() => -errno.EINVAL);
  const dev = directory(() => ({
    iommu: node,
    vfio: directory(() => {
      const nodes = { ...perVfioDevice(() => node), ...mdevVfioEntries(system, () => node) };
      const groups = system.groups.filter((group) => vfioDevices(system, group).length > 0);
      return {
        ...entriesOf(
          groups,
          (group) => vfioGroupName(system, group),
          () => node,
        ),
        ...(Object.keys(nodes).length > 0 ? { devices: directory(() => nodes) } : {}),
      };
    }),
  }));
  return new FileTree(directory(() => ({ sys, dev })));
}

/** Drivers that every simulated system has, apart from those that devices are bound to. */
export const BUILT_IN_DRIVERS: readonly string[] = [VFIO_PCI];
