/**
 * What a comparison must have seen of each call: success ('0') and the refusals that iommufd and VFIO are known for.
 * The fixed suite alone shows all of it, so that what is not here any more has been lost.
 */
import type { IoctlCount } from './compare';
import type { IommuChoice } from './options';

/** The refusals of every extensible struct: no memory, too short, bytes that the kernel does not know. */
const STRUCT = ['EFAULT', 'EINVAL', 'E2BIG'] as const;
const FLAGS = [...STRUCT, 'EOPNOTSUPP'] as const;
const OBJECT = [...FLAGS, 'ENOENT'] as const;
const PLACE = [...OBJECT, 'EOVERFLOW', 'EEXIST'] as const;

export const expected: Readonly<Record<string, readonly string[]>> = {
  IOMMU_DESTROY: ['0', ...STRUCT, 'ENOENT', 'EBUSY'],
  IOMMU_IOAS_ALLOC: ['0', ...FLAGS],
  IOMMU_IOAS_ALLOW_IOVAS: ['0', ...OBJECT, 'EADDRINUSE'],
  IOMMU_IOAS_COPY: ['0', ...PLACE, 'EPERM'],
  IOMMU_IOAS_IOVA_RANGES: ['0', ...OBJECT, 'EMSGSIZE'],
  IOMMU_IOAS_MAP: ['0', ...PLACE, 'ENOSPC'],
  IOMMU_IOAS_UNMAP: ['0', ...STRUCT, 'ENOENT', 'EOVERFLOW', 'EBUSY'],
  IOMMU_OPTION: ['0', ...OBJECT, 'EBUSY'],
  IOMMU_VFIO_IOAS: ['0', ...OBJECT, 'ENODEV'],
  IOMMU_HWPT_ALLOC: ['0', ...OBJECT, 'EADDRINUSE'],
  IOMMU_GET_HW_INFO: ['0', ...OBJECT],
  IOMMU_HWPT_SET_DIRTY_TRACKING: ['0', ...OBJECT],
  IOMMU_HWPT_GET_DIRTY_BITMAP: ['0', ...OBJECT, 'EOVERFLOW'],
  IOMMU_HWPT_INVALIDATE: ['0', ...OBJECT],
  IOMMU_FAULT_QUEUE_ALLOC: ['0', ...FLAGS],
  IOMMU_IOAS_MAP_FILE: ['0', ...PLACE, 'EBADF'],
  IOMMU_VIOMMU_ALLOC: ['0', ...OBJECT],
  IOMMU_VDEVICE_ALLOC: ['0', ...STRUCT, 'ENOENT', 'EEXIST'],
  IOMMU_IOAS_CHANGE_PROCESS: ['0', ...FLAGS],
  IOMMU_VEVENTQ_ALLOC: ['0', ...OBJECT, 'EEXIST'],
  IOMMU_HW_QUEUE_ALLOC: ['0', ...OBJECT, 'EOVERFLOW'],
  IOMMU_IOAS_NOIOMMU_GET_PA: [...OBJECT],
  VFIO_GET_API_VERSION: ['0'],
  VFIO_CHECK_EXTENSION: ['0', 'ENODEV'],
  VFIO_SET_IOMMU: ['0', 'EINVAL', 'ENODEV', 'EADDRINUSE'],
  VFIO_IOMMU_GET_INFO: ['0', 'EFAULT', 'EINVAL', 'ENODEV'],
  VFIO_IOMMU_MAP_DMA: ['0', 'EFAULT', 'EINVAL', 'ENODEV', 'EEXIST', 'EOVERFLOW'],
  VFIO_IOMMU_UNMAP_DMA: ['0', 'EFAULT', 'EINVAL', 'ENODEV', 'ENOENT', 'EOVERFLOW'],
  VFIO_IOMMU_DIRTY_PAGES: ['ENOTTY'],
  VFIO_DEVICE_BIND_IOMMUFD: ['0', 'EFAULT', 'EINVAL', 'E2BIG', 'EBADF', 'EBADFD'],
  VFIO_DEVICE_ATTACH_IOMMUFD_PT: ['0', 'EFAULT', 'EINVAL', 'ENOENT', 'EADDRINUSE', 'ENODEV', 'ENOSPC'],
  VFIO_DEVICE_DETACH_IOMMUFD_PT: ['0', 'EFAULT', 'EINVAL'],
  VFIO_DEVICE_GET_INFO: ['0', 'EFAULT', 'EINVAL'],
  VFIO_DEVICE_GET_REGION_INFO: ['0', 'EFAULT', 'EINVAL'],
  VFIO_DEVICE_GET_IRQ_INFO: ['0', 'EFAULT', 'EINVAL'],
  VFIO_DEVICE_SET_IRQS: ['0', 'EFAULT', 'EINVAL', 'EBADF'],
  VFIO_DEVICE_RESET: ['0', 'EINVAL'],
  VFIO_DEVICE_GET_PCI_HOT_RESET_INFO: ['0', 'EFAULT', 'EINVAL', 'ENODEV', 'ENOSPC'],
  VFIO_DEVICE_PCI_HOT_RESET: ['0', 'EFAULT', 'EINVAL', 'ENODEV'],
  VFIO_DEVICE_QUERY_GFX_PLANE: ['ENOTTY'],
  VFIO_DEVICE_GET_GFX_DMABUF: ['ENOTTY'],
  VFIO_DEVICE_IOEVENTFD: ['0', 'EFAULT', 'EINVAL', 'EBADF', 'EEXIST', 'ENODEV', 'ENOSPC'],
  VFIO_DEVICE_FEATURE: ['0', 'EFAULT', 'EINVAL', 'EBADF', 'ENODEV', 'ENOMEM', 'ENOTTY', 'EOVERFLOW'],
  VFIO_MIG_GET_PRECOPY_INFO: ['ENOTTY'],
  read: ['0', 'EINVAL', 'ESPIPE'],
  write: ['0', 'EINVAL', 'ESPIPE'],
  mmap: ['0', 'ENODEV', 'ENXIO'],
  poll: ['0'],
  // A number that no ioctl has, or another direction in it.
  unknown: ['ENOTTY'],
};

/** What only a machine without an IOMMU shows. */
const expectedWithout: typeof expected = { IOMMU_IOAS_NOIOMMU_GET_PA: ['0', ...OBJECT] };

/** What has not been seen, as 'call: result'. */
export function missing(
  byIoctl: Readonly<Record<string, IoctlCount>>,
  iommu: IommuChoice = 'intel',
): string[] {
  return Object.entries(iommu === 'none' ? expectedWithout : expected).flatMap(([name, results]) =>
    results.filter((result) => !byIoctl[name]?.results[result]).map((result) => `${name}: ${result}`),
  );
}
