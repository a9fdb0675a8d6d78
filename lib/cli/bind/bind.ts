/** `iommufd bind` and `iommufd unbind`: what is refused, and what is done. */
import { IommuError, refusal } from '../../errors';
import type { KernelFiles } from '../../kernel';
import { findPciDevice, listPciDevices, type PciDescription } from '../../sysfs';
import { errno } from '../../uapi/errno';
import { SELF, SELF_AS_ROOT, type System } from '../system';
import { list } from '../text-files';
import { othersInTheWay } from './group';
import { findHolders, holderName, holdersOf } from './holders';
import { DRIVERS, moveBack, moveToVfio, recordOf, takenFrom, VFIO_PCI } from './move';
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
  if (wantedOf(system, name, choices).length === 0) return [];
  const release = lockOrRefuse(records, name);
  try {
    // Another may have taken them in the meantime.
    return take(system, records, wantedOf(system, name, choices));
  } finally {
    release();
  }
}

/** The devices to take. Throws where one of them cannot or should not be taken. */
function wantedOf(system: System, name: string, choices: Choices): PciDescription[] {
  const { files } = system;
  const device = findPciDevice(files, name);
  const others = othersInTheWay(files, device);
  requirePossible(system, device);
  requireGroup(device, others, choices);
  const wanted = [device, ...others].filter(({ driver, path }) => driver !== VFIO_PCI && path === undefined);
  if (!choices.force) wanted.forEach((one) => requireUnused(system, one));
  return wanted;
}

function take({ files }: System, records: Records, wanted: readonly PciDescription[]): Moved[] {
  const begun: { now: DeviceRecord; earlier: DeviceRecord | undefined }[] = [];
  try {
    return wanted.map((one) => {
      const now = recordOf(files, one);
      // A device that was taken before and has not come back: its driver is the one from before that.
      const earlier = takenFrom(records, now);
      if (earlier === undefined) refuseUnwritable(records, one.bdf, () => records.save(now));
      begun.push({ now, earlier });
      const { path = null } = moveToVfio(files, now);
      return { bdf: one.bdf, from: now.driver, to: VFIO_PCI, path };
    });
  } catch (error) {
    for (const { now, earlier } of begun) {
      const isBack = moveBack(files, now) === now.driver;
      if (isBack && earlier === undefined) records.forget(now.bdf);
    }
    throw error;
  }
}

function lockOrRefuse(records: Records, name: string): () => void {
  return refuseUnwritable(records, name, () => records.lock());
}

/** Node's errors as refusals. */
function refuseUnwritable<T>(records: Records, name: string, action: () => T): T {
  try {
    return action();
  } catch (error) {
    if (error instanceof IommuError) throw error;
    const { code, errno: number = -errno.EIO } = error as NodeJS.ErrnoException;
    const byRoot = code === 'EACCES' || code === 'EPERM';
    const hint = byRoot
      ? `it takes root: ${SELF_AS_ROOT} bind ${name}`
      : 'without, unbind could not give it back';
    const where = { syscall: 'open', path: records.folder, hint };
    throw new IommuError(number, where, `nothing can be written to ${records.folder} (${code})`);
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
 * remembered of it, Linux chooses. Throws TypeError, IommuError; of several devices, all that can go back have gone.
 */
export function unbind(system: System, records: Records, name: string, choices: Choices): Moved[] {
  const release = lockIfWritable(records);
  try {
    return giveBack(system, records, name, choices);
  } finally {
    release();
  }
}

function giveBack(system: System, records: Records, name: string, choices: Choices): Moved[] {
  const { files } = system;
  const device = findPciDevice(files, name);
  const isTaken = (one: PciDescription) => takenFrom(records, recordOf(files, one)) !== undefined;
  const { bdf, driver, iommuGroup } = device;
  if (driver !== VFIO_PCI && !isTaken(device))
    throw refusal('ENODEV', `${bdf} has ${driver ?? 'no driver'}, not ${VFIO_PCI}`, { syscall: 'write' });
  const others = choices.group
    ? listPciDevices(files).filter((one) => one.iommuGroup === iommuGroup && one.bdf !== bdf && isTaken(one))
    : [];
  const wanted = [device, ...others];
  if (!choices.force) wanted.forEach((one) => requireClosed(system, one));
  const failed: Error[] = [];
  const moved: Moved[] = [];
  for (const one of wanted) {
    const result = giveOneBack(files, records, one);
    if (result instanceof Error) failed.push(result);
    else moved.push(result);
  }
  if (failed.length > 0) throw failed[0];
  return moved;
}

function giveOneBack(files: KernelFiles, records: Records, device: PciDescription): Moved | Error {
  const { bdf, driver: from = null } = device;
  const record = takenFrom(records, recordOf(files, device));
  const to = moveBack(files, record ?? { bdf });
  if (to === VFIO_PCI) return stillThere(device);
  // The record stays: the driver may come yet.
  if (record !== undefined && record.driver !== null && to !== record.driver)
    return notBack(bdf, record.driver, to);
  records.forget(bdf);
  return { bdf, from, to, path: null };
}

/** Where nothing can be written, nobody else can bind either. Throws where another process is at it. */
function lockIfWritable(records: Records): () => void {
  try {
    return records.lock();
  } catch (error) {
    if (error instanceof IommuError) throw error;
    return () => {};
  }
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

function notBack(bdf: string, driver: string, to: string | null): Error {
  return refusal('ENODEV', `${bdf} has ${to ?? 'no driver'} now: ${driver}, which it had, does not take it`, {
    syscall: 'write',
    path: DRIVERS,
    hint: `load it, as root: sudo modprobe ${driver}; then ${SELF_AS_ROOT} unbind ${bdf}`,
  });
}
