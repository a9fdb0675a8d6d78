/** An NVMe disk of 64 MiB at 0000:00:05.0 on both backends: a simulated controller, and QEMU's. */
import { NvmeDriver, type NvmeOptions } from '../../examples/drivers/nvme/driver';
import { Iommu } from '../../lib';
import { Machine, NvmeController } from '../../lib/sim';
import { backend, kernel } from './support';

export const NVME = '0000:00:05.0';

/** What the kernel's own driver has, vfio-pci gets; and back. */
export function giveTo(driver: 'vfio-pci' | '\n', disk = NVME): void {
  const raw = kernel();
  const folder = `/sys/bus/pci/devices/${disk}`;
  raw.writeFile(`${folder}/driver_override`, driver);
  raw.writeFile(`${folder}/driver/unbind`, disk);
  raw.writeFile('/sys/bus/pci/drivers_probe', disk);
}

const opened: { iommu: Iommu; disk: NvmeDriver }[] = [];

/** Closes what openDisk() has opened. */
export async function closeDisks(): Promise<void> {
  for (const { iommu, disk } of opened.splice(0)) {
    await disk.close();
    iommu.close();
  }
}

export async function openDisk(options: NvmeOptions = {}): Promise<NvmeDriver> {
  const iommu = Iommu.open({
    backend: backend === 'linux' ? backend : new Machine({ devices: { [NVME]: new NvmeController() } }),
  });
  try {
    const disk = await NvmeDriver.open(iommu, NVME, options);
    opened.push({ iommu, disk });
    return disk;
  } catch (error) {
    iommu.close();
    throw error;
  }
}
