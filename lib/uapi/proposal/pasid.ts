/**
 * PASID virtualisation as the RFC proposes it (sections 1.4 and 2): what a device says about its PASIDs, and who fills a
 * routing slot. No Linux has these.
 */
import { requestNumber, struct, u32, type Ioctl } from '../layout';
import { vfio_info_cap_header } from '../vfio-capabilities';

/**
 * A capability of VFIO_DEVICE_GET_INFO: the device has vPASIDs. The RFC numbers it 5, which Linux gave to
 * VFIO_DEVICE_INFO_CAP_PCI_ATOMIC_COMP since.
 */
export const VFIO_DEVICE_INFO_CAP_PASID = 0x8005;

// struct vfio_device_info_cap_pasid.flags
/** The user owns the whole PASID table: one IOASID stands for it. */
export const PASID_DELEGATED = 1 << 0;
/** A vPASID may be carried by an instruction of the processor (ENQCMD). */
export const PASID_CPU = 1 << 1;
/** And the processor must translate it. */
export const PASID_CPU_VIRT = 1 << 2;

export const vfio_device_info_cap_pasid = struct('vfio_device_info_cap_pasid', {
  header: vfio_info_cap_header,
  flags: u32,
  reserved: u32,
});

/** Of `pasid`: 0 is the slot of requests without one. `out_dev_id` is 0 where nobody of this iommufd fills the slot. */
export const iommu_slot_owner = struct('iommu_slot_owner', {
  size: u32,
  dev_id: u32,
  pasid: u32,
  out_dev_id: u32,
});

/** Which device of this iommufd fills the routing slot that a PASID of `dev_id` leads to. On /dev/iommu. */
export const IOMMU_SLOT_OWNER: Ioctl<typeof iommu_slot_owner> = {
  name: 'IOMMU_SLOT_OWNER',
  request: requestNumber(';', 0xc8),
  struct: iommu_slot_owner,
  minimumSize: iommu_slot_owner.size,
  out: ['out_dev_id'],
  inout: [],
};
