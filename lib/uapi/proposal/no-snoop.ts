/**
 * No-snoop DMA as the RFC has it (section 1.5), and mainline Linux has not: whether an I/O address space makes DMA snoop the
 * processors' caches, what a device is used for, and whether KVM has to handle DMA that does not. Only the simulated
 * kernel answers these.
 */
import { requestNumber, s32, struct, u32, type Ioctl, type Struct } from '../layout';

/** Not in the RFC: its IOASID_ALLOC has the flag, here it is a property of an IOAS that nothing is attached to yet. */
export const iommu_ioasid_enforce_snoop = struct('iommu_ioasid_enforce_snoop', {
  size: u32,
  flags: u32,
  ioas_id: u32,
  /** IOMMU_IOASID_ENFORCE_SNOOP_*. */
  mode: u32,
});
/** Where the IOMMU can: what mainline does. */
export const IOMMU_IOASID_ENFORCE_SNOOP_AUTO = 0;
/** A device whose IOMMU cannot is refused (EINVAL). */
export const IOMMU_IOASID_ENFORCE_SNOOP_ENABLE = 1;
export const IOMMU_IOASID_ENFORCE_SNOOP_DISABLE = 2;

/** Whether any device that is attached needs no-snoop handling. */
export const iommu_no_snoop_query = struct('iommu_no_snoop_query', {
  size: u32,
  flags: u32,
  /** 1 or 0. */
  out_needed: u32,
  __reserved: u32,
});

/** An eventfd that is signalled each time the answer changes; -1 for none. There is one: a new one takes its place. */
export const iommu_no_snoop_notify = struct('iommu_no_snoop_notify', {
  size: u32,
  flags: u32,
  eventfd: s32,
  __reserved: u32,
});

/** What attachments of the device are used for, from now on. */
export const vfio_device_no_snoop_hint = struct('vfio_device_no_snoop_hint', {
  argsz: u32,
  flags: u32,
  /** VFIO_DEVICE_NO_SNOOP_*. */
  hint: u32,
});
/** As the kernel knows the device: used, unless it cannot. */
export const VFIO_DEVICE_NO_SNOOP_DEFAULT = 0;
export const VFIO_DEVICE_NO_SNOOP_USED = 1;
export const VFIO_DEVICE_NO_SNOOP_UNUSED = 2;

function row<S extends Struct>(name: string, nr: number, layout: S, out: Ioctl<S>['out'] = []): Ioctl<S> {
  return { name, request: requestNumber(';', nr), struct: layout, minimumSize: layout.size, out, inout: [] };
}

export const IOMMU_IOASID_ENFORCE_SNOOP = row('IOMMU_IOASID_ENFORCE_SNOOP', 0xc0, iommu_ioasid_enforce_snoop);
export const IOMMU_NO_SNOOP_QUERY = row('IOMMU_NO_SNOOP_QUERY', 0xc1, iommu_no_snoop_query, ['out_needed']);
export const IOMMU_NO_SNOOP_NOTIFY = row('IOMMU_NO_SNOOP_NOTIFY', 0xc2, iommu_no_snoop_notify);
export const VFIO_DEVICE_NO_SNOOP_HINT = row('VFIO_DEVICE_NO_SNOOP_HINT', 0xd0, vfio_device_no_snoop_hint);
