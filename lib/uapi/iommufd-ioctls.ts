/**
 * The ioctls of linux/iommufd.h, Linux 7.3: one row each.
 *
 * A row's minimumSize is where the kernel's dispatch table draws the line below which `size` gives EINVAL
 * (drivers/iommu/iommufd/main.c, iommufd_ioctl_ops); unless a row says otherwise it is the whole struct.
 */
import { requestNumber, type FieldName, type Ioctl, type Struct } from './layout';
import * as uapi from './iommufd';

/** IOMMUFD_TYPE: the letter of every iommufd ioctl. */
export const IOMMUFD_TYPE = ';';

function row<S extends Struct>(
  name: string,
  nr: number,
  struct: S,
  directions: { out?: FieldName<S>[]; inout?: FieldName<S>[]; minimumSize?: number } = {},
): Ioctl<S> {
  const { out = [], inout = [], minimumSize = struct.size } = directions;
  return { name, request: requestNumber(IOMMUFD_TYPE, nr), struct, minimumSize, out, inout };
}

export const IOMMU_DESTROY = row('IOMMU_DESTROY', 0x80, uapi.iommu_destroy);
export const IOMMU_IOAS_ALLOC = row('IOMMU_IOAS_ALLOC', 0x81, uapi.iommu_ioas_alloc, {
  out: ['out_ioas_id'],
});
export const IOMMU_IOAS_ALLOW_IOVAS = row('IOMMU_IOAS_ALLOW_IOVAS', 0x82, uapi.iommu_ioas_allow_iovas);
export const IOMMU_IOAS_COPY = row('IOMMU_IOAS_COPY', 0x83, uapi.iommu_ioas_copy, { inout: ['dst_iova'] });
export const IOMMU_IOAS_IOVA_RANGES = row('IOMMU_IOAS_IOVA_RANGES', 0x84, uapi.iommu_ioas_iova_ranges, {
  out: ['out_iova_alignment'],
  inout: ['num_iovas'],
});
export const IOMMU_IOAS_MAP = row('IOMMU_IOAS_MAP', 0x85, uapi.iommu_ioas_map, { inout: ['iova'] });
export const IOMMU_IOAS_UNMAP = row('IOMMU_IOAS_UNMAP', 0x86, uapi.iommu_ioas_unmap, { inout: ['length'] });
export const IOMMU_OPTION = row('IOMMU_OPTION', 0x87, uapi.iommu_option, { inout: ['val64'] });
export const IOMMU_VFIO_IOAS = row('IOMMU_VFIO_IOAS', 0x88, uapi.iommu_vfio_ioas, { inout: ['ioas_id'] });
export const IOMMU_HWPT_ALLOC = row('IOMMU_HWPT_ALLOC', 0x89, uapi.iommu_hwpt_alloc, {
  out: ['out_hwpt_id'],
  minimumSize: 24,
});
export const IOMMU_GET_HW_INFO = row('IOMMU_GET_HW_INFO', 0x8a, uapi.iommu_hw_info, {
  out: ['out_data_type', 'out_max_pasid_log2', 'out_capabilities'],
  inout: ['data_len'],
  minimumSize: 32,
});
export const IOMMU_HWPT_SET_DIRTY_TRACKING = row(
  'IOMMU_HWPT_SET_DIRTY_TRACKING',
  0x8b,
  uapi.iommu_hwpt_set_dirty_tracking,
);
export const IOMMU_HWPT_GET_DIRTY_BITMAP = row(
  'IOMMU_HWPT_GET_DIRTY_BITMAP',
  0x8c,
  uapi.iommu_hwpt_get_dirty_bitmap,
);
export const IOMMU_HWPT_INVALIDATE = row('IOMMU_HWPT_INVALIDATE', 0x8d, uapi.iommu_hwpt_invalidate, {
  inout: ['entry_num'],
});
export const IOMMU_FAULT_QUEUE_ALLOC = row('IOMMU_FAULT_QUEUE_ALLOC', 0x8e, uapi.iommu_fault_alloc, {
  out: ['out_fault_id', 'out_fault_fd'],
});
export const IOMMU_IOAS_MAP_FILE = row('IOMMU_IOAS_MAP_FILE', 0x8f, uapi.iommu_ioas_map_file, {
  inout: ['iova'],
});
export const IOMMU_VIOMMU_ALLOC = row('IOMMU_VIOMMU_ALLOC', 0x90, uapi.iommu_viommu_alloc, {
  out: ['out_viommu_id'],
  minimumSize: 24,
});
export const IOMMU_VDEVICE_ALLOC = row('IOMMU_VDEVICE_ALLOC', 0x91, uapi.iommu_vdevice_alloc, {
  out: ['out_vdevice_id'],
});
export const IOMMU_IOAS_CHANGE_PROCESS = row(
  'IOMMU_IOAS_CHANGE_PROCESS',
  0x92,
  uapi.iommu_ioas_change_process,
);
export const IOMMU_VEVENTQ_ALLOC = row('IOMMU_VEVENTQ_ALLOC', 0x93, uapi.iommu_veventq_alloc, {
  out: ['out_veventq_id', 'out_veventq_fd'],
  minimumSize: 28,
});
export const IOMMU_HW_QUEUE_ALLOC = row('IOMMU_HW_QUEUE_ALLOC', 0x94, uapi.iommu_hw_queue_alloc, {
  out: ['out_hw_queue_id'],
});
export const IOMMU_IOAS_NOIOMMU_GET_PA = row(
  'IOMMU_IOAS_NOIOMMU_GET_PA',
  0x95,
  uapi.iommu_ioas_noiommu_get_pa,
  { out: ['out_phys'], inout: ['length'] },
);

/** Every iommufd ioctl, in the order of its number. */
export const iommufdIoctls: readonly Ioctl[] = [
  IOMMU_DESTROY,
  IOMMU_IOAS_ALLOC,
  IOMMU_IOAS_ALLOW_IOVAS,
  IOMMU_IOAS_COPY,
  IOMMU_IOAS_IOVA_RANGES,
  IOMMU_IOAS_MAP,
  IOMMU_IOAS_UNMAP,
  IOMMU_OPTION,
  IOMMU_VFIO_IOAS,
  IOMMU_HWPT_ALLOC,
  IOMMU_GET_HW_INFO,
  IOMMU_HWPT_SET_DIRTY_TRACKING,
  IOMMU_HWPT_GET_DIRTY_BITMAP,
  IOMMU_HWPT_INVALIDATE,
  IOMMU_FAULT_QUEUE_ALLOC,
  IOMMU_IOAS_MAP_FILE,
  IOMMU_VIOMMU_ALLOC,
  IOMMU_VDEVICE_ALLOC,
  IOMMU_IOAS_CHANGE_PROCESS,
  IOMMU_VEVENTQ_ALLOC,
  IOMMU_HW_QUEUE_ALLOC,
  IOMMU_IOAS_NOIOMMU_GET_PA,
] as unknown as readonly Ioctl[];
