/** The proposal's structs are part of an interface, as the kernel's own are: their sizes, offsets and numbers stay. */
import * as proposal from '../../lib/uapi/proposal/no-snoop';

test.each([
  [proposal.IOMMU_IOASID_ENFORCE_SNOOP, 0x3bc0, 16, { size: 0, flags: 4, ioas_id: 8, mode: 12 }],
  [proposal.IOMMU_NO_SNOOP_QUERY, 0x3bc1, 16, { size: 0, flags: 4, out_needed: 8, __reserved: 12 }],
  [proposal.IOMMU_NO_SNOOP_NOTIFY, 0x3bc2, 16, { size: 0, flags: 4, eventfd: 8, __reserved: 12 }],
  [proposal.VFIO_DEVICE_NO_SNOOP_HINT, 0x3bd0, 12, { argsz: 0, flags: 4, hint: 8 }],
])('$name', (row, request, size, offsets) => {
  expect(row).toMatchObject({ request, minimumSize: size });
  expect([row.struct.size, row.struct.offsets]).toEqual([size, offsets]);
});
