/**
 * The part of linux/vfio.h (Linux 7.3) for devices opened through /dev/vfio/devices/vfioN: constants,
 * structs and ioctls under their kernel names. Capability chains are in vfio-capabilities.ts, what DEVICE_FEATURE
 * carries in vfio-features.ts.
 *
 * VFIO's structs start with `argsz`. A row's minimumSize is the kernel's `minsz`: a smaller argsz is EINVAL.
 */
import {
  flexible,
  overlay,
  requestNumber,
  s32,
  struct,
  u16,
  u32,
  u64,
  u8,
  type FieldName,
  type Ioctl,
  type Struct,
} from './layout';
import { vfio_precopy_info } from './vfio-features';

/** VFIO_TYPE and VFIO_BASE: the letter and the first number of VFIO's ioctls. */
export const VFIO_TYPE = ';';
export const VFIO_BASE = 100;

// struct vfio_device_info.flags
export const VFIO_DEVICE_FLAGS_RESET = 1 << 0;
export const VFIO_DEVICE_FLAGS_PCI = 1 << 1;
export const VFIO_DEVICE_FLAGS_PLATFORM = 1 << 2;
export const VFIO_DEVICE_FLAGS_AMBA = 1 << 3;
export const VFIO_DEVICE_FLAGS_CCW = 1 << 4;
export const VFIO_DEVICE_FLAGS_AP = 1 << 5;
export const VFIO_DEVICE_FLAGS_FSL_MC = 1 << 6;
export const VFIO_DEVICE_FLAGS_CAPS = 1 << 7;
export const VFIO_DEVICE_FLAGS_CDX = 1 << 8;
// struct vfio_region_info.flags
export const VFIO_REGION_INFO_FLAG_READ = 1 << 0;
export const VFIO_REGION_INFO_FLAG_WRITE = 1 << 1;
export const VFIO_REGION_INFO_FLAG_MMAP = 1 << 2;
export const VFIO_REGION_INFO_FLAG_CAPS = 1 << 3;
// struct vfio_irq_info.flags
export const VFIO_IRQ_INFO_EVENTFD = 1 << 0;
export const VFIO_IRQ_INFO_MASKABLE = 1 << 1;
export const VFIO_IRQ_INFO_AUTOMASKED = 1 << 2;
export const VFIO_IRQ_INFO_NORESIZE = 1 << 3;
// struct vfio_irq_set.flags
export const VFIO_IRQ_SET_DATA_NONE = 1 << 0;
export const VFIO_IRQ_SET_DATA_BOOL = 1 << 1;
export const VFIO_IRQ_SET_DATA_EVENTFD = 1 << 2;
export const VFIO_IRQ_SET_ACTION_MASK = 1 << 3;
export const VFIO_IRQ_SET_ACTION_UNMASK = 1 << 4;
export const VFIO_IRQ_SET_ACTION_TRIGGER = 1 << 5;
export const VFIO_IRQ_SET_DATA_TYPE_MASK = 0x07;
export const VFIO_IRQ_SET_ACTION_TYPE_MASK = 0x38;
// VFIO-PCI region and interrupt indices
export const VFIO_PCI_BAR0_REGION_INDEX = 0;
export const VFIO_PCI_BAR1_REGION_INDEX = 1;
export const VFIO_PCI_BAR2_REGION_INDEX = 2;
export const VFIO_PCI_BAR3_REGION_INDEX = 3;
export const VFIO_PCI_BAR4_REGION_INDEX = 4;
export const VFIO_PCI_BAR5_REGION_INDEX = 5;
export const VFIO_PCI_ROM_REGION_INDEX = 6;
export const VFIO_PCI_CONFIG_REGION_INDEX = 7;
export const VFIO_PCI_VGA_REGION_INDEX = 8;
export const VFIO_PCI_NUM_REGIONS = 9;
export const VFIO_PCI_INTX_IRQ_INDEX = 0;
export const VFIO_PCI_MSI_IRQ_INDEX = 1;
export const VFIO_PCI_MSIX_IRQ_INDEX = 2;
export const VFIO_PCI_ERR_IRQ_INDEX = 3;
export const VFIO_PCI_REQ_IRQ_INDEX = 4;
export const VFIO_PCI_NUM_IRQS = 5;
// struct vfio_pci_hot_reset_info.flags
export const VFIO_PCI_HOT_RESET_FLAG_DEV_ID = 1 << 0;
export const VFIO_PCI_HOT_RESET_FLAG_DEV_ID_OWNED = 1 << 1;
// struct vfio_pci_dependent_device.devid: no ID, but of the caller's group; and -1, somebody else's
export const VFIO_PCI_DEVID_OWNED = 0;
export const VFIO_PCI_DEVID_NOT_OWNED = 0xffff_ffff;
// struct vfio_device_gfx_plane_info.flags
export const VFIO_GFX_PLANE_TYPE_PROBE = 1 << 0;
export const VFIO_GFX_PLANE_TYPE_DMABUF = 1 << 1;
export const VFIO_GFX_PLANE_TYPE_REGION = 1 << 2;
// struct vfio_device_ioeventfd.flags
export const VFIO_DEVICE_IOEVENTFD_8 = 1 << 0;
export const VFIO_DEVICE_IOEVENTFD_16 = 1 << 1;
export const VFIO_DEVICE_IOEVENTFD_32 = 1 << 2;
export const VFIO_DEVICE_IOEVENTFD_64 = 1 << 3;
export const VFIO_DEVICE_IOEVENTFD_SIZE_MASK = 0xf;
// struct vfio_device_feature.flags
export const VFIO_DEVICE_FEATURE_MASK = 0xffff;
export const VFIO_DEVICE_FEATURE_GET = 1 << 16;
export const VFIO_DEVICE_FEATURE_SET = 1 << 17;
export const VFIO_DEVICE_FEATURE_PROBE = 1 << 18;
// struct vfio_device_bind_iommufd.flags, attach and detach flags
export const VFIO_DEVICE_BIND_FLAG_TOKEN = 1 << 0;
export const VFIO_DEVICE_ATTACH_PASID = 1 << 0;
export const VFIO_DEVICE_DETACH_PASID = 1 << 0;

export const vfio_device_info = struct('vfio_device_info', {
  argsz: u32,
  flags: u32,
  num_regions: u32,
  num_irqs: u32,
  cap_offset: u32,
  pad: u32,
});

export const vfio_region_info = struct('vfio_region_info', {
  argsz: u32,
  flags: u32,
  index: u32,
  cap_offset: u32,
  size: u64,
  offset: u64,
});

export const vfio_irq_info = struct('vfio_irq_info', { argsz: u32, flags: u32, index: u32, count: u32 });

export const vfio_irq_set = struct('vfio_irq_set', {
  argsz: u32,
  flags: u32,
  index: u32,
  start: u32,
  count: u32,
  data: flexible(u8),
});

export const vfio_pci_dependent_device = struct('vfio_pci_dependent_device', {
  group_id: u32,
  devid: overlay(u32),
  segment: u16,
  bus: u8,
  devfn: u8,
});

export const vfio_pci_hot_reset_info = struct('vfio_pci_hot_reset_info', {
  argsz: u32,
  flags: u32,
  count: u32,
  devices: flexible(vfio_pci_dependent_device),
});

export const vfio_pci_hot_reset = struct('vfio_pci_hot_reset', {
  argsz: u32,
  flags: u32,
  count: u32,
  group_fds: flexible(s32),
});

export const vfio_device_gfx_plane_info = struct('vfio_device_gfx_plane_info', {
  argsz: u32,
  flags: u32,
  drm_plane_type: u32,
  drm_format: u32,
  drm_format_mod: u64,
  width: u32,
  height: u32,
  stride: u32,
  size: u32,
  x_pos: u32,
  y_pos: u32,
  x_hot: u32,
  y_hot: u32,
  region_index: u32,
  dmabuf_id: overlay(u32),
  reserved: u32,
});

export const vfio_device_ioeventfd = struct('vfio_device_ioeventfd', {
  argsz: u32,
  flags: u32,
  offset: u64,
  data: u64,
  fd: s32,
  reserved: u32,
});

export const vfio_device_feature = struct('vfio_device_feature', {
  argsz: u32,
  flags: u32,
  data: flexible(u8),
});

export const vfio_device_bind_iommufd = struct('vfio_device_bind_iommufd', {
  argsz: u32,
  flags: u32,
  iommufd: s32,
  out_devid: u32,
  token_uuid_ptr: u64,
});

export const vfio_device_attach_iommufd_pt = struct('vfio_device_attach_iommufd_pt', {
  argsz: u32,
  flags: u32,
  pt_id: u32,
  pasid: u32,
});

export const vfio_device_detach_iommufd_pt = struct('vfio_device_detach_iommufd_pt', {
  argsz: u32,
  flags: u32,
  pasid: u32,
});

function row<S extends Struct>(
  name: string,
  nr: number,
  struct: S,
  directions: { out?: FieldName<S>[]; inout?: FieldName<S>[]; minimumSize: number },
): Ioctl<S> {
  const { out = [], inout = [], minimumSize } = directions;
  return { name, request: requestNumber(VFIO_TYPE, VFIO_BASE + nr), struct, minimumSize, out, inout };
}

export const VFIO_DEVICE_GET_INFO = row('VFIO_DEVICE_GET_INFO', 7, vfio_device_info, {
  minimumSize: 16,
  out: ['flags', 'num_regions', 'num_irqs', 'cap_offset'],
  inout: ['argsz'],
});
export const VFIO_DEVICE_GET_REGION_INFO = row('VFIO_DEVICE_GET_REGION_INFO', 8, vfio_region_info, {
  minimumSize: 32,
  out: ['flags', 'cap_offset', 'size', 'offset'],
  inout: ['argsz'],
});
export const VFIO_DEVICE_GET_IRQ_INFO = row('VFIO_DEVICE_GET_IRQ_INFO', 9, vfio_irq_info, {
  minimumSize: 16,
  out: ['flags', 'count'],
});
export const VFIO_DEVICE_SET_IRQS = row('VFIO_DEVICE_SET_IRQS', 10, vfio_irq_set, { minimumSize: 20 });
/** Takes no argument. */
export const VFIO_DEVICE_RESET = row('VFIO_DEVICE_RESET', 11, struct('', {}), { minimumSize: 0 });
export const VFIO_DEVICE_GET_PCI_HOT_RESET_INFO = row(
  'VFIO_DEVICE_GET_PCI_HOT_RESET_INFO',
  12,
  vfio_pci_hot_reset_info,
  { minimumSize: 12, out: ['flags', 'count', 'devices'] },
);
export const VFIO_DEVICE_PCI_HOT_RESET = row('VFIO_DEVICE_PCI_HOT_RESET', 13, vfio_pci_hot_reset, {
  minimumSize: 12,
});
/** For mediated devices with a display. */
export const VFIO_DEVICE_QUERY_GFX_PLANE = row(
  'VFIO_DEVICE_QUERY_GFX_PLANE',
  14,
  vfio_device_gfx_plane_info,
  {
    minimumSize: 60,
    out: [
      ...(['drm_format', 'drm_format_mod', 'width', 'height', 'stride', 'size'] as const),
      ...(['x_pos', 'y_pos', 'x_hot', 'y_hot', 'region_index', 'dmabuf_id'] as const),
    ],
  },
);
/** Takes the `dmabuf_id` of a plane; the result is a descriptor. */
export const VFIO_DEVICE_GET_GFX_DMABUF = row(
  'VFIO_DEVICE_GET_GFX_DMABUF',
  15,
  struct('', { dmabuf_id: u32 }),
  { minimumSize: 4 },
);
export const VFIO_DEVICE_IOEVENTFD = row('VFIO_DEVICE_IOEVENTFD', 16, vfio_device_ioeventfd, {
  minimumSize: 28,
});
/** What follows the struct is the feature's; the result of GET with FEATURE_DMA_BUF is a descriptor. */
export const VFIO_DEVICE_FEATURE = row('VFIO_DEVICE_FEATURE', 17, vfio_device_feature, {
  minimumSize: 8,
  inout: ['data'],
});
export const VFIO_DEVICE_BIND_IOMMUFD = row('VFIO_DEVICE_BIND_IOMMUFD', 18, vfio_device_bind_iommufd, {
  minimumSize: 16,
  out: ['out_devid'],
});
export const VFIO_DEVICE_ATTACH_IOMMUFD_PT = row(
  'VFIO_DEVICE_ATTACH_IOMMUFD_PT',
  19,
  vfio_device_attach_iommufd_pt,
  { minimumSize: 12, inout: ['pt_id'] },
);
export const VFIO_DEVICE_DETACH_IOMMUFD_PT = row(
  'VFIO_DEVICE_DETACH_IOMMUFD_PT',
  20,
  vfio_device_detach_iommufd_pt,
  { minimumSize: 8 },
);

/** Of the file that VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE opens, not of the device's. */
export const VFIO_MIG_GET_PRECOPY_INFO = row('VFIO_MIG_GET_PRECOPY_INFO', 21, vfio_precopy_info, {
  minimumSize: 24,
  out: ['flags', 'initial_bytes', 'dirty_bytes'],
});

/** Every ioctl above, in the order of its number. */
export const vfioIoctls: readonly Ioctl[] = [
  VFIO_DEVICE_GET_INFO,
  VFIO_DEVICE_GET_REGION_INFO,
  VFIO_DEVICE_GET_IRQ_INFO,
  VFIO_DEVICE_SET_IRQS,
  VFIO_DEVICE_RESET,
  VFIO_DEVICE_GET_PCI_HOT_RESET_INFO,
  VFIO_DEVICE_PCI_HOT_RESET,
  VFIO_DEVICE_QUERY_GFX_PLANE,
  VFIO_DEVICE_GET_GFX_DMABUF,
  VFIO_DEVICE_IOEVENTFD,
  VFIO_DEVICE_FEATURE,
  VFIO_DEVICE_BIND_IOMMUFD,
  VFIO_DEVICE_ATTACH_IOMMUFD_PT,
  VFIO_DEVICE_DETACH_IOMMUFD_PT,
  VFIO_MIG_GET_PRECOPY_INFO,
] as unknown as readonly Ioctl[];
