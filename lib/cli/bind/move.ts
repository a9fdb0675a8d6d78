/** Takes a device from its driver and gives it to another (Documentation/ABI/testing/sysfs-bus-pci). */
import { check, refusal } from '../../errors';
import type { KernelFiles } from '../../kernel';
import { findPciDevice, PCI_DEVICES, target, type PciDescription } from '../../sysfs';
import { SELF_AS_ROOT } from '../system';
import { readWord } from '../text-files';
import type { DeviceRecord, Records } from './records';

export const VFIO_PCI = 'vfio-pci';
export const DRIVERS = '/sys/bus/pci/drivers';
const PROBE = '/sys/bus/pci/drivers_probe';
/** As sysfs says that there is no driver_override. */
const NONE = '(null)';

/** What to remember of a device: how it is now. */
export function recordOf(files: KernelFiles, device: PciDescription): DeviceRecord {
  const { bdf, vendorId, deviceId, driver = null } = device;
  const override = readWord(files, `${PCI_DEVICES}/${bdf}/driver_override`);
  const driverOverride = override === undefined || override === '' || override === NONE ? null : override;
  const boot = readWord(files, '/proc/sys/kernel/random/boot_id') ?? null;
  return { bdf, vendorId, deviceId, driver, driverOverride, boot };
}

/**
 * What is remembered of a device from before it was taken for VFIO; undefined where nothing is, or where somebody has
 * given it to another driver since: then what it is now counts. `now` is what recordOf says.
 */
export function takenFrom(records: Records, now: DeviceRecord): DeviceRecord | undefined {
  const isTaken = now.driver === null || now.driver === VFIO_PCI || now.driverOverride === VFIO_PCI;
  return isTaken ? records.find(now) : undefined;
}

/** Gives a device to vfio-pci. Throws IommuError; then it may be half of the way there. */
export function moveToVfio(files: KernelFiles, { bdf, driver }: DeviceRecord): PciDescription {
  write(files, `${PCI_DEVICES}/${bdf}/driver_override`, VFIO_PCI);
  if (driver !== null) write(files, `${PCI_DEVICES}/${bdf}/driver/unbind`, bdf);
  write(files, PROBE, bdf);
  if (target(files, `${PCI_DEVICES}/${bdf}/driver`) === VFIO_PCI) return findPciDevice(files, bdf);
  throw refusal('ENODEV', `${VFIO_PCI} does not take ${bdf}`, {
    syscall: 'write',
    path: PROBE,
    hint: 'the log of the kernel says why: sudo dmesg | grep vfio',
  });
}

/**
 * Gives a device back to whom it was, or, where that is not known, to whom Linux chooses. Says which driver has it
 * then. Goes on where a step fails: half of the way back is better than none.
 */
export function moveBack(
  files: KernelFiles,
  before: DeviceRecord | Pick<DeviceRecord, 'bdf'>,
): string | null {
  const { bdf } = before;
  const folder = `${PCI_DEVICES}/${bdf}`;
  const known = 'driver' in before;
  const current = () => target(files, `${folder}/driver`) ?? null;
  files.writeFile(`${folder}/driver_override`, (known && before.driverOverride) || '\n');
  if (known && current() === before.driver) return before.driver;
  if (current() !== null) files.writeFile(`${folder}/driver/unbind`, bdf);
  if (!known) files.writeFile(PROBE, bdf);
  else if (before.driver !== null && files.writeFile(`${DRIVERS}/${before.driver}/bind`, bdf) < 0)
    files.writeFile(PROBE, bdf);
  return current();
}

function write(files: KernelFiles, path: string, text: string): void {
  const result = files.writeFile(path, text);
  const where = { syscall: 'write', path };
  check(result, { ...where, hint: `it takes root: ${SELF_AS_ROOT} …` });
}
