/**
 * What the RFC asks of KVM (sections 1.4 and 2): a virtual machine's devices, and the translation of the PASIDs that its
 * processors put into ENQCMD. Ioctls of a virtual machine's file; no Linux has them.
 */
import { requestNumber, s32, struct, u32, type Ioctl, type Struct } from '../layout';

/** The processor can translate PASIDs. */
export const KVM_CAP_PASID_TRANSLATION = 0x8001;

/** `fd`: the file of a VFIO device. */
export const kvm_vfio_file = struct('kvm_vfio_file', { argsz: u32, fd: s32 });
export const kvm_enable_cap = struct('kvm_enable_cap', { argsz: u32, cap: u32 });
/** `ioasid`: the kernel's ID of the page table that the device of `user_pasid` is attached to, in the iommufd `iommu_fd`. */
export const kvm_map_pasid = struct('kvm_map_pasid', {
  argsz: u32,
  flags: u32,
  user_pasid: u32,
  iommu_fd: s32,
  ioasid: u32,
});
export const kvm_unmap_pasid = struct('kvm_unmap_pasid', { argsz: u32, flags: u32, user_pasid: u32 });

function row<S extends Struct>(name: string, nr: number, layout: S): Ioctl<S> {
  return {
    ...{ name, request: requestNumber(';', nr), struct: layout },
    ...{ minimumSize: layout.size, out: [], inout: [] },
  };
}

/** Linux has these as attributes of KVM's VFIO device. */
export const KVM_DEV_VFIO_FILE_ADD = row('KVM_DEV_VFIO_FILE_ADD', 0xe0, kvm_vfio_file);
export const KVM_DEV_VFIO_FILE_DEL = row('KVM_DEV_VFIO_FILE_DEL', 0xe1, kvm_vfio_file);
/** The result is 1 for a capability there is, else 0. */
export const KVM_CHECK_EXTENSION = row('KVM_CHECK_EXTENSION', 0xe2, kvm_enable_cap);
export const KVM_ENABLE_CAP = row('KVM_ENABLE_CAP', 0xe3, kvm_enable_cap);
export const KVM_MAP_PASID = row('KVM_MAP_PASID', 0xe4, kvm_map_pasid);
export const KVM_UNMAP_PASID = row('KVM_UNMAP_PASID', 0xe5, kvm_unmap_pasid);
