/** Devices as sysfs shows them, and why one of them cannot be bound. */
import { posix } from 'node:path';
import { refusal } from './errors';
import type { KernelFiles } from './kernel';

/** A PCI function. */
export interface PciDescription {
  /** Domain, bus, device and function: '0000:00:04.0'. */
  readonly bdf: string;
  readonly vendorId: number;
  readonly deviceId: number;
  /** Class code, 24 bits: base class, subclass, programming interface. */
  readonly classCode: number;
  /** The kernel driver bound to it: 'vfio-pci' when it is ours to take. */
  readonly driver: string | undefined;
  /** Its IOMMU group; undefined when no IOMMU is in front of it. */
  readonly iommuGroup: number | undefined;
  /** Its VFIO character device, such as '/dev/vfio/devices/vfio0'. */
  readonly path: string | undefined;
  /** Of mediated devices only. */
  readonly uuid?: undefined;
}

/** A mediated device: a part of another, its parent. */
export interface MdevDescription {
  /** Its name, as it was made. */
  readonly uuid: string;
  /** The parent: a PCI address, or another name in /sys/class/mdev_bus. */
  readonly parent: string;
  /** Which of the parent's types it is. */
  readonly type: string;
  readonly driver: string | undefined;
  readonly iommuGroup: number | undefined;
  /** Its VFIO character device. */
  readonly path: string | undefined;
  /** Of PCI functions only. */
  readonly bdf?: undefined;
  readonly vendorId?: undefined;
  readonly deviceId?: undefined;
  readonly classCode?: undefined;
}

/** A device that programs can have, once it is VFIO's. */
export type DeviceDescription = PciDescription | MdevDescription;

export const PCI_DEVICES = '/sys/bus/pci/devices';
export const MDEV_DEVICES = '/sys/bus/mdev/devices';
const CDEVS = '/dev/vfio/devices';
const CDEV = /^\/dev\/vfio\/devices\/vfio\d+$/;
const BDF = /^(?:[0-9a-f]{4,}:)?[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]$/i;
export const UUID = /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

/** Every PCI function the kernel knows, by address, then every mediated device. */
export function listDevices(kernel: KernelFiles): DeviceDescription[] {
  const names = kernel.readdir(MDEV_DEVICES);
  const uuids = typeof names === 'number' ? [] : names;
  return [...listPciDevices(kernel), ...uuids.map((uuid) => describeMdev(kernel, uuid))];
}

/** Every PCI function the kernel knows, by address. */
export function listPciDevices(kernel: KernelFiles): PciDescription[] {
  const names = kernel.readdir(PCI_DEVICES);
  return typeof names === 'number' ? [] : names.map((bdf) => describe(kernel, bdf));
}

/** The mediated device of that name, if there is one. */
export function findMdev(kernel: KernelFiles, uuid: string): MdevDescription | undefined {
  const name = uuid.toLowerCase();
  const names = kernel.readdir(MDEV_DEVICES);
  return typeof names !== 'number' && names.includes(name) ? describeMdev(kernel, name) : undefined;
}

function describe(kernel: KernelFiles, bdf: string): PciDescription {
  const folder = `${PCI_DEVICES}/${bdf}`;
  const value = (name: string) => {
    const text = kernel.readFile(`${folder}/${name}`);
    return typeof text === 'number' ? 0 : Number(text.trim());
  };
  return {
    bdf,
    vendorId: value('vendor'),
    deviceId: value('device'),
    classCode: value('class'),
    ...describeBinding(kernel, folder),
  };
}

function describeMdev(kernel: KernelFiles, uuid: string): MdevDescription {
  const folder = `${MDEV_DEVICES}/${uuid}`;
  const place = kernel.readlink(folder);
  return {
    uuid,
    parent: typeof place === 'number' ? '' : posix.basename(posix.dirname(place)),
    type: target(kernel, `${folder}/mdev_type`) ?? '',
    ...describeBinding(kernel, folder),
  };
}

/** The name of what a link leads to. */
export function target(kernel: KernelFiles, path: string): string | undefined {
  const link = kernel.readlink(path);
  return typeof link === 'number' ? undefined : posix.basename(link);
}

/** Who has a device, and where programs find it. */
function describeBinding(kernel: KernelFiles, folder: string) {
  const cdevs = kernel.readdir(`${folder}/vfio-dev`);
  const cdev = typeof cdevs === 'number' ? undefined : cdevs.find((name) => name.startsWith('vfio'));
  const group = target(kernel, `${folder}/iommu_group`);
  return {
    driver: target(kernel, `${folder}/driver`),
    iommuGroup: group === undefined ? undefined : Number(group),
    path: cdev === undefined ? undefined : `${CDEVS}/${cdev}`,
  };
}

/**
 * The character device to open for a PCI address, a UUID or a path. Throws TypeError for a name that is neither an address nor
 * that of a VFIO device file: opening any other file could do who knows what. IommuError ENODEV for a device that
 * cannot be bound.
 */
export function resolveDevice(
  kernel: KernelFiles,
  wanted: string | DeviceDescription,
): { path: string; description: DeviceDescription | undefined } {
  const name = typeof wanted === 'string' ? wanted : (wanted?.bdf ?? wanted?.uuid);
  if (typeof name !== 'string')
    throw new TypeError('bind takes a PCI address, a UUID, a path or one of devices()');
  const path = posix.normalize(name);
  if (CDEV.test(path)) return { path, description: listDevices(kernel).find((one) => one.path === path) };
  if (UUID.test(name)) return resolveMdev(kernel, name);
  if (!BDF.test(name))
    throw new TypeError(
      `'${name}' is neither a PCI address such as 0000:00:04.0, nor a UUID, nor a VFIO device file such as ${CDEVS}/vfio0`,
    );
  const description = findPciDevice(kernel, name);
  if (!description.path) throw unbindable(kernel, description);
  return { path: description.path, description };
}

/**
 * The PCI function at an address, whose domain may be left out: '00:04.0'. Throws TypeError for a name that is no address,
 * IommuError ENODEV where nothing is there.
 */
export function findPciDevice(kernel: KernelFiles, name: string): PciDescription {
  if (!BDF.test(name)) throw new TypeError(`'${name}' is no PCI address such as 0000:00:04.0`);
  const bdf = (/^[0-9a-f]{4,}:/i.test(name) ? name : `0000:${name}`).toLowerCase();
  const devices = listPciDevices(kernel);
  const description = devices.find((device) => device.bdf === bdf);
  if (!description) throw unknownAddress(bdf, devices);
  return description;
}

function resolveMdev(kernel: KernelFiles, uuid: string): { path: string; description: MdevDescription } {
  const description = findMdev(kernel, uuid);
  const where = { syscall: 'open', path: `${MDEV_DEVICES}/${uuid}` };
  if (!description)
    throw refusal('ENODEV', `there is no mediated device ${uuid}`, {
      ...where,
      hint: 'make one with createMdev()',
    });
  const { path } = description;
  if (path !== undefined) return { path, description };
  throw refusal('ENODEV', `${uuid} has no device file`, {
    ...where,
    hint: 'the kernel needs CONFIG_VFIO_DEVICE_CDEV, and the driver of the parent must be one for VFIO',
  });
}

const SHOWN = 16;

function unknownAddress(bdf: string, devices: readonly DeviceDescription[]): Error {
  const known = devices.slice(0, SHOWN).map((device) => device.bdf ?? device.uuid);
  const more = devices.length > SHOWN ? ` and ${devices.length - SHOWN} more` : '';
  return refusal('ENODEV', `there is no PCI device ${bdf}`, {
    syscall: 'open',
    path: `${PCI_DEVICES}/${bdf}`,
    hint: `is the address right? known devices: ${known.join(', ') || 'none'}${more}`,
  });
}

/** Takes a device from its driver. */
export function unbindCommand(bdf: string): string {
  return `echo ${bdf} | sudo tee ${PCI_DEVICES}/${bdf}/driver/unbind`;
}

/** Why a device that exists has no VFIO character device. */
function unbindable(kernel: KernelFiles, { bdf, driver, iommuGroup }: PciDescription): Error {
  const folder = `${PCI_DEVICES}/${bdf}`;
  const where = { syscall: 'open', path: folder };
  if (iommuGroup === undefined)
    return refusal('ENODEV', `${bdf} has no IOMMU group: the IOMMU is off or absent`, {
      ...where,
      hint: 'enable VT-d or AMD-Vi in the firmware and boot with intel_iommu=on (AMD: amd_iommu=on)',
    });
  const cdevs = kernel.readdir(`${folder}/vfio-dev`);
  if (typeof cdevs !== 'number' && cdevs.some((name) => name.startsWith('noiommu-')))
    return refusal('ENODEV', `no IOMMU is in front of ${bdf}: its DMA goes to physical addresses`, {
      ...where,
      hint: 'turn the IOMMU on (intel_iommu=on, AMD: amd_iommu=on); VFIO without one is for raw calls only (iommufd/kernel)',
    });
  if (driver === 'vfio-pci')
    return refusal('ENODEV', `${bdf} is bound to vfio-pci but has no device file`, {
      ...where,
      hint: 'the kernel needs CONFIG_VFIO_DEVICE_CDEV',
    });
  const commands = [
    'sudo modprobe vfio-pci',
    `echo vfio-pci | sudo tee ${folder}/driver_override`,
    ...(driver ? [unbindCommand(bdf)] : []),
    `echo ${bdf} | sudo tee /sys/bus/pci/drivers_probe`,
  ];
  return refusal(
    'ENODEV',
    `${bdf} is bound to ${driver ? `the driver ${driver}` : 'no driver'}, not to vfio-pci`,
    {
      ...where,
      hint: `bind it: ${commands.join(' && ')}`,
    },
  );
}
