/** The requests that only the RFC has: their numbers are beside Linux's, and their structs have no holes. */
import { iommufdIoctls } from '../../lib/uapi/iommufd-ioctls';
import * as kvm from '../../lib/uapi/proposal/kvm';
import * as pasid from '../../lib/uapi/proposal/pasid';
import { vfioIoctls } from '../../lib/uapi/vfio';
import * as capabilities from '../../lib/uapi/vfio-capabilities';

const rows = [
  pasid.IOMMU_SLOT_OWNER,
  kvm.KVM_DEV_VFIO_FILE_ADD,
  kvm.KVM_DEV_VFIO_FILE_DEL,
  kvm.KVM_CHECK_EXTENSION,
  kvm.KVM_ENABLE_CAP,
  kvm.KVM_MAP_PASID,
  kvm.KVM_UNMAP_PASID,
];

test('numbers', () => {
  expect(rows.map(({ request }) => request)).toEqual([
    0x3bc8, 0x3be0, 0x3be1, 0x3be2, 0x3be3, 0x3be4, 0x3be5,
  ]);
  const linux = new Set([...iommufdIoctls, ...vfioIoctls].map(({ request }) => request));
  for (const { request } of rows) expect(linux.has(request)).toBe(false);
});

test('layouts', () => {
  expect(rows.map(({ struct }) => [struct.name, struct.size])).toEqual([
    ['iommu_slot_owner', 16],
    ['kvm_vfio_file', 8],
    ['kvm_vfio_file', 8],
    ['kvm_enable_cap', 8],
    ['kvm_enable_cap', 8],
    ['kvm_map_pasid', 20],
    ['kvm_unmap_pasid', 12],
  ]);
  expect(pasid.vfio_device_info_cap_pasid.offsets).toEqual({ header: 0, flags: 8, reserved: 12 });
});

test('the PASID capability has no number of Linux’s', () => {
  const taken = Object.entries(capabilities).filter(([name]) => name.startsWith('VFIO_DEVICE_INFO_CAP_'));
  expect(taken.length).toBe(5);
  for (const [, id] of taken) expect(id).not.toBe(pasid.VFIO_DEVICE_INFO_CAP_PASID);
});
