/**
 * The part of linux/vfio.h (Linux 7.3) for VFIO containers and groups: the type1 IOMMU API, which /dev/iommu answers
 * too for programs older than iommufd, and the files /dev/vfio/N that put a group into a container.
 */
import {
  flexible,
  requestNumber,
  s32,
  struct,
  u32,
  u64,
  u8,
  type FieldName,
  type Ioctl,
  type Struct,
} from './layout';
import { VFIO_BASE, VFIO_TYPE } from './vfio';
import { vfio_info_cap_header } from './vfio-capabilities';

export const VFIO_API_VERSION = 0;

// Arguments of VFIO_CHECK_EXTENSION and VFIO_SET_IOMMU
export const VFIO_TYPE1_IOMMU = 1;
export const VFIO_SPAPR_TCE_IOMMU = 2;
export const VFIO_TYPE1v2_IOMMU = 3;
export const VFIO_DMA_CC_IOMMU = 4;
export const VFIO_EEH = 5;
export const __VFIO_RESERVED_TYPE1_NESTING_IOMMU = 6;
export const VFIO_SPAPR_TCE_v2_IOMMU = 7;
export const VFIO_NOIOMMU_IOMMU = 8;
export const VFIO_UNMAP_ALL = 9;
export const VFIO_UPDATE_VADDR = 10;

// struct vfio_group_status.flags
export const VFIO_GROUP_FLAGS_VIABLE = 1 << 0;
export const VFIO_GROUP_FLAGS_CONTAINER_SET = 1 << 1;
// struct vfio_iommu_type1_info.flags
export const VFIO_IOMMU_INFO_PGSIZES = 1 << 0;
export const VFIO_IOMMU_INFO_CAPS = 1 << 1;
// vfio_info_cap_header.id of capabilities of VFIO_IOMMU_GET_INFO
export const VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE = 1;
export const VFIO_IOMMU_TYPE1_INFO_CAP_MIGRATION = 2;
export const VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL = 3;
// struct vfio_iommu_type1_dma_map.flags
export const VFIO_DMA_MAP_FLAG_READ = 1 << 0;
export const VFIO_DMA_MAP_FLAG_WRITE = 1 << 1;
export const VFIO_DMA_MAP_FLAG_VADDR = 1 << 2;
// struct vfio_iommu_type1_dma_unmap.flags
export const VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP = 1 << 0;
export const VFIO_DMA_UNMAP_FLAG_ALL = 1 << 1;
export const VFIO_DMA_UNMAP_FLAG_VADDR = 1 << 2;
// struct vfio_iommu_type1_dirty_bitmap.flags
export const VFIO_IOMMU_DIRTY_PAGES_FLAG_START = 1 << 0;
export const VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP = 1 << 1;
export const VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP = 1 << 2;

export const vfio_group_status = struct('vfio_group_status', { argsz: u32, flags: u32 });

export const vfio_iommu_type1_info = struct('vfio_iommu_type1_info', {
  argsz: u32,
  flags: u32,
  iova_pgsizes: u64,
  cap_offset: u32,
  pad: u32,
});

/** `end` is the last byte. */
export const vfio_iova_range = struct('vfio_iova_range', { start: u64, end: u64 });

export const vfio_iommu_type1_info_cap_iova_range = struct('vfio_iommu_type1_info_cap_iova_range', {
  header: vfio_info_cap_header,
  nr_iovas: u32,
  reserved: u32,
  iova_ranges: flexible(vfio_iova_range),
});

export const vfio_iommu_type1_info_cap_migration = struct('vfio_iommu_type1_info_cap_migration', {
  header: vfio_info_cap_header,
  flags: u32,
  pgsize_bitmap: u64,
  max_dirty_bitmap_size: u64,
});

export const vfio_iommu_type1_info_dma_avail = struct('vfio_iommu_type1_info_dma_avail', {
  header: vfio_info_cap_header,
  avail: u32,
});

export const vfio_iommu_type1_dma_map = struct('vfio_iommu_type1_dma_map', {
  argsz: u32,
  flags: u32,
  vaddr: u64,
  iova: u64,
  size: u64,
});

/** `data` is the address of the bitmap. */
export const vfio_bitmap = struct('vfio_bitmap', { pgsize: u64, size: u64, data: u64 });

export const vfio_iommu_type1_dma_unmap = struct('vfio_iommu_type1_dma_unmap', {
  argsz: u32,
  flags: u32,
  iova: u64,
  size: u64,
  data: flexible(u8),
});

export const vfio_iommu_type1_dirty_bitmap = struct('vfio_iommu_type1_dirty_bitmap', {
  argsz: u32,
  flags: u32,
  data: flexible(u8),
});

export const vfio_iommu_type1_dirty_bitmap_get = struct('vfio_iommu_type1_dirty_bitmap_get', {
  iova: u64,
  size: u64,
  bitmap: vfio_bitmap,
});

/** No struct: the ioctl's argument is an integer, or there is none. */
const nothing = struct('', {});
/** The ioctl's argument points to a file descriptor. */
const descriptor = struct('', { fd: s32 });

function row<S extends Struct>(
  name: string,
  nr: number,
  struct: S,
  directions: { out?: FieldName<S>[]; inout?: FieldName<S>[]; minimumSize?: number } = {},
): Ioctl<S> {
  const { out = [], inout = [], minimumSize = struct.size } = directions;
  return { name, request: requestNumber(VFIO_TYPE, VFIO_BASE + nr), struct, minimumSize, out, inout };
}

/** Takes no argument. */
export const VFIO_GET_API_VERSION = row('VFIO_GET_API_VERSION', 0, nothing);
/** The argument itself is the extension: VFIO_TYPE1_IOMMU, … */
export const VFIO_CHECK_EXTENSION = row('VFIO_CHECK_EXTENSION', 1, nothing);
/** The argument itself is the type: VFIO_TYPE1_IOMMU, … */
export const VFIO_SET_IOMMU = row('VFIO_SET_IOMMU', 2, nothing);
export const VFIO_IOMMU_GET_INFO = row('VFIO_IOMMU_GET_INFO', 12, vfio_iommu_type1_info, {
  minimumSize: 16,
  out: ['flags', 'iova_pgsizes', 'cap_offset', 'pad'],
  inout: ['argsz'],
});
export const VFIO_IOMMU_MAP_DMA = row('VFIO_IOMMU_MAP_DMA', 13, vfio_iommu_type1_dma_map);
export const VFIO_IOMMU_UNMAP_DMA = row('VFIO_IOMMU_UNMAP_DMA', 14, vfio_iommu_type1_dma_unmap, {
  inout: ['size'],
});
export const VFIO_IOMMU_DIRTY_PAGES = row('VFIO_IOMMU_DIRTY_PAGES', 17, vfio_iommu_type1_dirty_bitmap);

/** The ioctls of containers, in the order of their numbers: /dev/iommu answers them all but the last. */
export const vfioContainerIoctls: readonly Ioctl[] = [
  VFIO_GET_API_VERSION,
  VFIO_CHECK_EXTENSION,
  VFIO_SET_IOMMU,
  VFIO_IOMMU_GET_INFO,
  VFIO_IOMMU_MAP_DMA,
  VFIO_IOMMU_UNMAP_DMA,
  VFIO_IOMMU_DIRTY_PAGES,
] as unknown as readonly Ioctl[];

export const VFIO_GROUP_GET_STATUS = row('VFIO_GROUP_GET_STATUS', 3, vfio_group_status, { out: ['flags'] });
export const VFIO_GROUP_SET_CONTAINER = row('VFIO_GROUP_SET_CONTAINER', 4, descriptor);
/** Takes no argument. */
export const VFIO_GROUP_UNSET_CONTAINER = row('VFIO_GROUP_UNSET_CONTAINER', 5, nothing);
/** The argument points to the device's name, a string that ends with a null byte. Returns a descriptor. */
export const VFIO_GROUP_GET_DEVICE_FD = row('VFIO_GROUP_GET_DEVICE_FD', 6, nothing);

/** The ioctls of group files, in the order of their numbers. */
export const vfioGroupIoctls: readonly Ioctl[] = [
  VFIO_GROUP_GET_STATUS,
  VFIO_GROUP_SET_CONTAINER,
  VFIO_GROUP_UNSET_CONTAINER,
  VFIO_GROUP_GET_DEVICE_FD,
] as unknown as readonly Ioctl[];
