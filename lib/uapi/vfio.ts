/**
 * The part of linux/vfio.h (Linux 7.3) for devices opened through /dev/vfio/devices/vfioN: constants,
 * structs and ioctls under their kernel names.
 *
 * VFIO's structs start with `argsz`. A row's minimumSize is the kernel's `minsz`: a smaller argsz is EINVAL.
 */
import {
  flexible,
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

/** VFIO_TYPE and VFIO_BASE: the letter and the first number of VFIO's ioctls. */
export const VFIO_TYPE = ';';
export const VFIO_BASE = 100;

// struct vfio_device_info.flags
export const VFIO_DEVICE_FLAGS_RESET = 1 << 0;
export const VFIO_DEVICE_FLAGS_PCI = 1 << 1;
export const VFIO_DEVICE_FLAGS_CAPS = 1 << 7;
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
// struct vfio_device_bind_iommufd.flags, attach and detach flags
export const VFIO_DEVICE_BIND_FLAG_TOKEN = 1 << 0;
export const VFIO_DEVICE_ATTACH_PASID = 1 << 0;
export const VFIO_DEVICE_DETACH_PASID = 1 << 0;

export const vfio_info_cap_header = struct('vfio_info_cap_header', { id: u16, version: u16, next: u32 });

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

/** Every VFIO device ioctl above, in the order of its number. */
export const vfioIoctls: readonly Ioctl[] = [
  VFIO_DEVICE_GET_INFO,
  VFIO_DEVICE_GET_REGION_INFO,
  VFIO_DEVICE_GET_IRQ_INFO,
  VFIO_DEVICE_SET_IRQS,
  VFIO_DEVICE_RESET,
  VFIO_DEVICE_BIND_IOMMUFD,
  VFIO_DEVICE_ATTACH_IOMMUFD_PT,
  VFIO_DEVICE_DETACH_IOMMUFD_PT,
] as unknown as readonly Ioctl[];
