/** Hot reset: of a device with all that shares its bus. */
import { failure } from './errors';
import { attemptBytes, call } from './ioctl';
import type { Kernel } from './kernel';
import * as uapi from './uapi';

/** A device that a hot reset meets. */
export interface HotResetDevice {
  /** Its PCI address. */
  readonly bdf: string;
  /** Its kernel object ID in the same Iommu; undefined if it is not bound there. */
  readonly id: number | undefined;
  /** It is bound to the same Iommu, or in the IOMMU group of a device that is. All must be, for a reset. */
  readonly owned: boolean;
}

const hex = (value: number, digits: number) => value.toString(16).padStart(digits, '0');

function describe({ devid, segment, bus, devfn }: ReturnType<typeof uapi.vfio_pci_dependent_device.decode>) {
  const named = devid !== uapi.VFIO_PCI_DEVID_OWNED && devid !== uapi.VFIO_PCI_DEVID_NOT_OWNED;
  return {
    bdf: `${hex(segment, 4)}:${hex(bus, 2)}:${hex(devfn >> 3, 2)}.${devfn & 7}`,
    id: named ? devid : undefined,
    owned: devid !== uapi.VFIO_PCI_DEVID_NOT_OWNED,
  };
}

/** Throws IommuError: ENODEV (nothing can reset the device's bus). */
export function hotResetDevices(kernel: Kernel, fd: number): HotResetDevice[] {
  const row = uapi.VFIO_DEVICE_GET_PCI_HOT_RESET_INFO;
  const { struct } = row;
  const entry = uapi.vfio_pci_dependent_device;
  // Devices may come while they are counted.
  for (let room = 8; ;) {
    const bytes = new Uint8Array(struct.size + room * entry.size);
    bytes.set(struct.encode({ argsz: bytes.length }));
    const result = attemptBytes(kernel, fd, row, bytes);
    const { count } = struct.decode(bytes);
    if (result === 0)
      return Array.from({ length: count }, (_, i) =>
        describe(entry.decode(bytes, struct.size + i * entry.size)),
      );
    if (result !== -uapi.errno.ENOSPC || count <= room)
      throw failure(result, { syscall: 'ioctl', request: row.name });
    room = count;
  }
}

/** Throws IommuError: ENODEV, EINVAL (somebody else has a device on the bus). */
export function hotReset(kernel: Kernel, fd: number): void {
  call(kernel, fd, uapi.VFIO_DEVICE_PCI_HOT_RESET, {});
}
