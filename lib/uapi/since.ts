/**
 * Which Linux brought what: every ioctl of linux/iommufd.h and of VFIO's device files, and the flags and types that
 * an older kernel refuses though it knows the ioctl.
 *
 * From the pull requests and commits that added them ("iommufd updates" of 6.2, 6.6, 6.7, 6.8, 6.11, 6.13, 6.15, 6.17;
 * "vfio updates" of 6.6 and 6.15), held against the headers of 6.12, 6.17 and 7.3.
 */
import * as iommufd from './iommufd';
import * as vfio from './vfio';

/** The version that brought each request. */
export const SINCE: Readonly<Record<string, string>> = {
  IOMMU_DESTROY: '6.2',
  IOMMU_IOAS_ALLOC: '6.2',
  IOMMU_IOAS_ALLOW_IOVAS: '6.2',
  IOMMU_IOAS_COPY: '6.2',
  IOMMU_IOAS_IOVA_RANGES: '6.2',
  IOMMU_IOAS_MAP: '6.2',
  IOMMU_IOAS_UNMAP: '6.2',
  IOMMU_OPTION: '6.2',
  IOMMU_VFIO_IOAS: '6.2',
  IOMMU_HWPT_ALLOC: '6.6',
  IOMMU_GET_HW_INFO: '6.6',
  IOMMU_HWPT_SET_DIRTY_TRACKING: '6.7',
  IOMMU_HWPT_GET_DIRTY_BITMAP: '6.7',
  IOMMU_HWPT_INVALIDATE: '6.8',
  IOMMU_FAULT_QUEUE_ALLOC: '6.11',
  IOMMU_IOAS_MAP_FILE: '6.13',
  IOMMU_VIOMMU_ALLOC: '6.13',
  IOMMU_VDEVICE_ALLOC: '6.13',
  IOMMU_IOAS_CHANGE_PROCESS: '6.13',
  IOMMU_VEVENTQ_ALLOC: '6.15',
  IOMMU_HW_QUEUE_ALLOC: '6.17',
  IOMMU_IOAS_NOIOMMU_GET_PA: '7.3',
  VFIO_DEVICE_GET_INFO: '3.6',
  VFIO_DEVICE_GET_REGION_INFO: '3.6',
  VFIO_DEVICE_GET_IRQ_INFO: '3.6',
  VFIO_DEVICE_SET_IRQS: '3.6',
  VFIO_DEVICE_RESET: '3.6',
  VFIO_DEVICE_GET_PCI_HOT_RESET_INFO: '3.12',
  VFIO_DEVICE_PCI_HOT_RESET: '3.12',
  VFIO_DEVICE_QUERY_GFX_PLANE: '4.16',
  VFIO_DEVICE_GET_GFX_DMABUF: '4.16',
  VFIO_DEVICE_IOEVENTFD: '4.17',
  VFIO_DEVICE_FEATURE: '5.7',
  VFIO_DEVICE_BIND_IOMMUFD: '6.6',
  VFIO_DEVICE_ATTACH_IOMMUFD_PT: '6.6',
  VFIO_DEVICE_DETACH_IOMMUFD_PT: '6.6',
  VFIO_MIG_GET_PRECOPY_INFO: '6.2',
};

const constants = { ...iommufd, ...vfio };

/** A value of one field of a request that came later than the request: a flag, or a type. */
interface Addition {
  /** The constant's name in the kernel header. */
  readonly name: keyof typeof constants;
  readonly field: 'flags' | 'type' | 'data_type';
  readonly since: string;
}

const flag = (name: Addition['name'], since: string): Addition => ({ name, field: 'flags', since });

/** By request. */
export const ADDITIONS: Readonly<Record<string, readonly Addition[]>> = {
  IOMMU_HWPT_ALLOC: [
    flag('IOMMU_HWPT_ALLOC_NEST_PARENT', '6.7'),
    flag('IOMMU_HWPT_ALLOC_DIRTY_TRACKING', '6.7'),
    flag('IOMMU_HWPT_FAULT_ID_VALID', '6.11'),
    // In the header of 6.14 already, and accepted since 6.15.
    flag('IOMMU_HWPT_ALLOC_PASID', '6.15'),
    { field: 'data_type', name: 'IOMMU_HWPT_DATA_VTD_S1', since: '6.7' },
    { field: 'data_type', name: 'IOMMU_HWPT_DATA_ARM_SMMUV3', since: '6.13' },
    { field: 'data_type', name: 'IOMMU_HWPT_DATA_AMD_GUEST', since: '7.0' },
  ],
  IOMMU_GET_HW_INFO: [flag('IOMMU_HW_INFO_FLAG_INPUT_TYPE', '6.17')],
  IOMMU_HWPT_INVALIDATE: [
    { field: 'data_type', name: 'IOMMU_VIOMMU_INVALIDATE_DATA_ARM_SMMUV3', since: '6.13' },
  ],
  IOMMU_VIOMMU_ALLOC: [{ field: 'type', name: 'IOMMU_VIOMMU_TYPE_TEGRA241_CMDQV', since: '6.17' }],
  IOMMU_VEVENTQ_ALLOC: [{ field: 'type', name: 'IOMMU_VEVENTQ_TYPE_TEGRA241_CMDQV', since: '6.17' }],
  VFIO_DEVICE_BIND_IOMMUFD: [flag('VFIO_DEVICE_BIND_FLAG_TOKEN', '6.17')],
  VFIO_DEVICE_ATTACH_IOMMUFD_PT: [flag('VFIO_DEVICE_ATTACH_PASID', '6.15')],
  VFIO_DEVICE_DETACH_IOMMUFD_PT: [flag('VFIO_DEVICE_DETACH_PASID', '6.15')],
};

/**
 * What of a request is newer than the kernel `version` ('Linux 6.8.0-45'), with the version that brought it; undefined
 * where nothing is known to be. A version that cannot be read counts as old.
 */
export function newerThan(
  version: string,
  request: string,
  values: Readonly<Record<string, unknown>>,
): { readonly name: string; readonly since: string } | undefined {
  const used = (ADDITIONS[request] ?? []).filter(({ field, name }) => {
    const value = constants[name];
    return field === 'flags' ? (Number(values['flags']) & Number(value)) !== 0 : values[field] === value;
  });
  const whole = request in SINCE ? [{ name: request, since: SINCE[request] }] : [];
  const running = order(/\d+\.\d+/.exec(version)?.[0] ?? '0.0');
  return [...whole, ...used]
    .filter(({ since }) => order(since) > running)
    .sort((one, other) => order(other.since) - order(one.since))[0];
}

/** '6.17' as a number that compares. */
function order(version: string): number {
  const [major, minor] = version.split('.').map(Number);
  return major * 1000 + minor;
}
