/**
 * Hot reset, of all that shares a device's bus: VFIO_DEVICE_GET_PCI_HOT_RESET_INFO and VFIO_DEVICE_PCI_HOT_RESET for
 * devices that are opened through their own files. Who resets must own all of it.
 */
import { errno } from '../../../uapi/errno';
import {
  VFIO_DEVICE_GET_PCI_HOT_RESET_INFO,
  VFIO_DEVICE_PCI_HOT_RESET,
  VFIO_PCI_DEVID_NOT_OWNED,
  VFIO_PCI_DEVID_OWNED,
  VFIO_PCI_HOT_RESET_FLAG_DEV_ID,
  VFIO_PCI_HOT_RESET_FLAG_DEV_ID_OWNED,
  vfio_pci_dependent_device,
} from '../../../uapi/vfio';
import type { IommufdFile } from '../iommufd/file';
import type { PciDevice } from '../pci';

/** The device's id in `file`; 0 if it has none there, but its group is the iommufd's; -1 (unsigned) for everyone else's. */
function deviceId(device: PciDevice, file: IommufdFile): number {
  const bound = device.opened?.iommufdDevice;
  if (bound?.file === file) return bound.id;
  const owned = device.vfioIndex >= 0 && file.hasGroup(device.group);
  return owned ? VFIO_PCI_DEVID_OWNED : VFIO_PCI_DEVID_NOT_OWNED;
}

export function hotResetInfo({ bus }: PciDevice, file: IommufdFile, user: Uint8Array): number {
  const { struct, minimumSize } = VFIO_DEVICE_GET_PCI_HOT_RESET_INFO;
  if (user.length < minimumSize) return -errno.EFAULT;
  const { argsz } = struct.decode(user);
  if (argsz < minimumSize) return -errno.EINVAL;
  if (!bus.resettable) return -errno.ENODEV;
  const entry = vfio_pci_dependent_device;
  const count = bus.all.length;
  const enough = count <= Math.floor((argsz - struct.size) / entry.size);
  const ids = bus.all.map((device) => deviceId(device, file));
  if (enough) {
    if (user.length < struct.size + count * entry.size) return -errno.EFAULT;
    bus.all.forEach(({ rid }, i) => {
      const values = { devid: ids[i], bus: rid >> 8, devfn: rid & 0xff };
      user.set(entry.encode(values), struct.size + i * entry.size);
    });
  }
  const owned = ids.includes(VFIO_PCI_DEVID_NOT_OWNED) ? 0 : VFIO_PCI_HOT_RESET_FLAG_DEV_ID_OWNED;
  const flags = enough ? VFIO_PCI_HOT_RESET_FLAG_DEV_ID | owned : 0;
  user.set(struct.encode({ argsz, flags, count }));
  return enough ? 0 : -errno.ENOSPC;
}

export function hotReset({ bus }: PciDevice, file: IommufdFile, user: Uint8Array): number {
  const { struct, minimumSize } = VFIO_DEVICE_PCI_HOT_RESET;
  if (user.length < minimumSize) return -errno.EFAULT;
  const { argsz, flags, count } = struct.decode(user);
  // Descriptors of groups prove ownership of devices that were opened through groups.
  if (argsz < minimumSize || flags || count) return -errno.EINVAL;
  if (!bus.resettable) return -errno.ENODEV;
  if (!bus.isVfios) return -errno.EINVAL;
  const files = bus.all.map(({ opened }) => opened);
  for (const opened of files) opened?.power?.wake();
  const foreign = bus.all.findIndex((device) => deviceId(device, file) === VFIO_PCI_DEVID_NOT_OWNED);
  const prepared = foreign < 0 ? files : files.slice(0, foreign);
  for (const opened of prepared) opened?.prepareReset();
  if (foreign < 0) bus.reset();
  for (const opened of prepared) opened?.finishReset();
  for (const opened of files) opened?.power?.rest();
  return foreign < 0 ? 0 : -errno.EINVAL;
}
