/**
 * Mediated devices, made as Linux has them made: a UUID written to the `create` of a type that a parent device offers
 * (Documentation/driver-api/vfio-mediated-device.rst).
 */
import { randomUUID } from 'node:crypto';
import { check, refusal } from './errors';
import type { Kernel } from './kernel';
import { findMdev, MDEV_DEVICES, UUID, type MdevDescription } from './sysfs';

/** A type of mediated devices that a parent offers. */
export interface MdevType {
  /** The parent device: a PCI address, or another name in /sys/class/mdev_bus. */
  readonly parent: string;
  /** The type's folder in mdev_supported_types: 'mtty-1'. */
  readonly type: string;
  /** For people. */
  readonly name: string;
  /** What VFIO shows of such devices: 'vfio-pci' is a PCI function. */
  readonly deviceApi: string;
  /** How many more can be made. */
  readonly available: number;
}

/** What `createMdev` makes. */
export interface MdevOptions {
  /** One of `mdevTypes()`, or its parent and type. */
  readonly parent: string;
  readonly type: string;
  /** The new device's name. Default: a random one. */
  readonly uuid?: string | undefined;
}

const PARENTS = '/sys/class/mdev_bus';
const TYPES = 'mdev_supported_types';

/** Every type of every parent, by name. */
export function listMdevTypes(kernel: Kernel): MdevType[] {
  const names = (path: string) => {
    const found = kernel.readdir(path);
    return typeof found === 'number' ? [] : found;
  };
  return names(PARENTS).flatMap((parent) =>
    names(`${PARENTS}/${parent}/${TYPES}`).map((type) => {
      const value = (file: string) => {
        const text = kernel.readFile(`${PARENTS}/${parent}/${TYPES}/${type}/${file}`);
        return typeof text === 'number' ? '' : text.trim();
      };
      const available = Number(value('available_instances'));
      return { parent, type, name: value('name'), deviceApi: value('device_api'), available };
    }),
  );
}

/** Throws TypeError, IommuError. */
export function createMdev(
  kernel: Kernel,
  { parent, type, uuid = randomUUID() }: MdevOptions,
): MdevDescription {
  for (const name of [parent, type])
    if (typeof name !== 'string' || !/^[\w.:-]+$/.test(name) || name.startsWith('.'))
      throw new TypeError(`'${String(name)}' is no name of a parent or a type: see mdevTypes()`);
  if (typeof uuid !== 'string' || !UUID.test(uuid)) throw new TypeError(`'${String(uuid)}' is no UUID`);
  const path = `${PARENTS}/${parent}/${TYPES}/${type}/create`;
  check(kernel.writeFile(path, uuid), { syscall: 'write', path, hint: hintFor(kernel, parent, type) });
  const made = findMdev(kernel, uuid);
  if (made) return made;
  throw refusal('ENODEV', `the kernel made ${uuid}, and it is gone`, { syscall: 'open', path: MDEV_DEVICES });
}

function hintFor(kernel: Kernel, parent: string, type: string): string {
  const types = listMdevTypes(kernel);
  const found = types.find((one) => one.parent === parent && one.type === type);
  if (found) return `${found.available} more of this type can be made; a UUID names one device`;
  const known = types.map((one) => `${one.parent} ${one.type}`);
  return `parents and their types: ${known.join(', ') || 'none: is the driver of the parent there?'}`;
}

/** Throws TypeError, IommuError. */
export function removeMdev(kernel: Kernel, uuid: string): void {
  if (typeof uuid !== 'string' || !UUID.test(uuid)) throw new TypeError(`'${String(uuid)}' is no UUID`);
  const path = `${MDEV_DEVICES}/${uuid.toLowerCase()}/remove`;
  check(kernel.writeFile(path, '1'), { syscall: 'write', path });
}
