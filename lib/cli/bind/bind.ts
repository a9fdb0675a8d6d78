/** `iommufd bind` and `iommufd unbind`: what is refused, and what is done. */
import { refusal } from '../../errors';
import { findPciDevice, listPciDevices, type PciDescription } from '../../sysfs';
import { SELF, SELF_AS_ROOT, type System } from '../system';
import { list } from '../text-files';
import { othersInTheWay } from './group';
import { findHolders, holderName, holdersOf } from './holders';
import { DRIVERS, moveBack, moveToVfio, recordOf, VFIO_PCI } from './move';
import type { DeviceRecord, Records } from './records';
import { claimsOf, usesOf } from './uses';

export interface Choices {
  /** Go on though the device is in use. */
  readonly force: boolean;
  /** Take the other devices of its IOMMU group too. */
  readonly group: boolean;
}

/** A device that has changed hands. */
export interface Moved {
  readonly bdf: string;
  readonly from: string | null;
  readonly to: string | null;
  /** Its VFIO device file. */
  readonly path: string | null;
}

const BRIDGE = 0x0604;

/**
 * Gives a device to vfio-pci, and its group's other devices that are in the way. Says which have moved: none, where it
 * was vfio-pci's already. Throws TypeError, IommuError; then every device is whose it was.
 */
export function bind(system: System, records: Records, name: string, choices: Choices): Moved[] {
  const { files } = system;
  const device = findPciDevice(files, name);
  const others = othersInTheWay(files, device);
  requirePossible(system, device);
  requireGroup(device, others, choices);
  const wanted = [device, ...others].filter(({ driver, path }) => driver !== VFIO_PCI && path === undefined);
  if (!choices.force) wanted.forEach((one) => requireUnused(system, one));
  const moved: Moved[] = [];
  const saved: DeviceRecord[] = [];
  try {
    for (const one of wanted) {
      const record = recordOf(files, one);
      save(records, record);
      saved.push(record);
      const { path = null } = moveToVfio(files, record);
      moved.push({ bdf: one.bdf, from: record.driver, to: VFIO_PCI, path });
    }
  } catch (error) {
    for (const record of saved) {
      moveBack(files, record);
      records.forget(record.bdf);
    }
    throw error;
  }
  return moved;
}

function save(records: Records, record: DeviceRecord): void {
  try {
    records.save(record);
  } catch (error) {
    throw refusal('EACCES', `nothing can be written to ${records.folder}: ${String(error)}`, {
      syscall: 'open',
      path: records.folder,
      hint: `it takes root: ${SELF_AS_ROOT} bind ${record.bdf}`,
    });
  }
}

function requirePossible({ files }: System, { bdf, classCode, iommuGroup }: PciDescription): void {
  const where = { syscall: 'write', path: DRIVERS };
  if (classCode >>> 8 === BRIDGE)
    throw refusal('EINVAL', `${bdf} is a bridge: VFIO takes what is behind it only`, where);
  if (iommuGroup === undefined)
    throw refusal('ENODEV', `no IOMMU is in front of ${bdf}`, { ...where, hint: `${SELF} doctor says why` });
  if (!list(files, DRIVERS).includes(VFIO_PCI))
    throw refusal('ENOENT', `the driver ${VFIO_PCI} is not loaded`, {
      ...where,
      hint: 'sudo modprobe vfio-pci',
    });
}

function requireGroup(
  { bdf, iommuGroup }: PciDescription,
  others: readonly PciDescription[],
  { group }: Choices,
): void {
  if (group || others.length === 0) return;
  const names = others.map((one) => `${one.bdf} (driver ${one.driver})`).join(', ');
  throw refusal('EBUSY', `group ${iommuGroup} of ${bdf} also has ${names}, which must go with it`, {
    syscall: 'write',
    hint: `take them all: ${SELF_AS_ROOT} bind --group ${bdf}`,
  });
}

function requireUnused({ files }: System, { bdf }: PciDescription): void {
  const seen = usesOf(files, bdf);
  const uses = (seen.length > 0 ? seen : claimsOf(files, bdf)).map(({ says }) => says);
  if (uses.length === 0) return;
  throw refusal('EBUSY', `${bdf} is in use: ${uses.join(', ')}`, {
    syscall: 'write',
    hint: '--force takes it all the same; what uses it fails then',
  });
}

/**
 * Gives a device back to the driver it had, and with `group` the others of its group that `bind` took. Where nothing is
 * remembered of it, Linux chooses. Throws TypeError, IommuError.
 */
export function unbind(system: System, records: Records, name: string, choices: Choices): Moved[] {
  const { files } = system;
  const device = findPciDevice(files, name);
  const others = choices.group ? takenWith(system, records, device) : [];
  const wanted = [device, ...others].filter(({ driver }) => driver === VFIO_PCI);
  if (wanted.length === 0)
    throw refusal('ENODEV', `${device.bdf} has ${device.driver ?? 'no driver'}, not ${VFIO_PCI}`, {
      syscall: 'write',
    });
  if (!choices.force) wanted.forEach((one) => requireClosed(system, one));
  return wanted.map((one) => {
    const record = records.find(one);
    const to = moveBack(files, record ?? { bdf: one.bdf });
    if (to === VFIO_PCI) throw stillThere(one);
    records.forget(one.bdf);
    return { bdf: one.bdf, from: VFIO_PCI, to, path: null };
  });
}

function takenWith(
  { files }: System,
  records: Records,
  { bdf, iommuGroup }: PciDescription,
): PciDescription[] {
  return listPciDevices(files).filter(
    (one) => one.iommuGroup === iommuGroup && one.bdf !== bdf && records.find(one) !== undefined,
  );
}

/** Linux waits until the last program has closed a device, for as long as it takes. */
function requireClosed({ files }: System, device: PciDescription): void {
  const holders = holdersOf(findHolders(files), device).map(holderName);
  if (holders.length === 0) return;
  throw refusal('EBUSY', `${device.bdf} is open in ${holders.join(', ')}`, {
    syscall: 'write',
    hint: 'end that first; with --force, Linux waits until it ends',
  });
}

function stillThere({ bdf }: PciDescription): Error {
  return refusal('EACCES', `${bdf} cannot be taken from ${VFIO_PCI}`, {
    syscall: 'write',
    path: DRIVERS,
    hint: `it takes root: ${SELF_AS_ROOT} unbind ${bdf}; or a program has it open`,
  });
}
