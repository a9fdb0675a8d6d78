/** IOMMU groups: Linux gives a device away only with all of its group. */
import type { KernelFiles } from '../../kernel';
import { listPciDevices, type PciDescription } from '../../sysfs';

/**
 * Drivers that leave the DMA of their device to whoever owns the group (`driver_managed_dma` in Linux), apart from
 * those that give it to programs, which a VFIO device file tells.
 */
const YIELDING: readonly string[] = ['vfio-pci', 'pcieport', 'pci-stub'];

/** The other devices of its group that have drivers of the kernel's own: while they do, Linux gives none away (EBUSY). */
export function othersInTheWay(files: KernelFiles, device: PciDescription): PciDescription[] {
  if (device.iommuGroup === undefined) return [];
  return listPciDevices(files).filter(
    ({ bdf, driver, iommuGroup, path }) =>
      iommuGroup === device.iommuGroup &&
      bdf !== device.bdf &&
      driver !== undefined &&
      path === undefined &&
      !YIELDING.includes(driver),
  );
}
