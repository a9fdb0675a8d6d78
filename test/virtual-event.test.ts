/** Records of virtual IOMMUs that no hardware here has: decoded from bytes laid out by the specification. */
import type { BoundDevice } from '../lib';
import { encodeInvalidation } from '../lib/invalidation';
import { encodeUserPageTable } from '../lib/table-data';
import * as uapi from '../lib/uapi';
import { decodeSmmuEvent, decodeTegra241Event } from '../lib/virtual-event';

test('SMMUv3: a translation fault of a write with a substream, stalled', () => {
  const device = { name: 'the device' } as BoundDevice;
  const data = uapi.iommu_vevent_arm_smmuv3.encode({
    evt: [
      0x10n | (1n << 11n) | (0x2bn << 12n) | (0x1234n << 32n),
      7n | (1n << 31n) | (1n << 33n) | (1n << 39n),
      0xdead_b000n,
      0x8_1234_5000n | 3n,
    ],
  });
  expect(decodeSmmuEvent(data, (virtId) => (virtId === 0x1234n ? device : undefined))).toEqual({
    type: 'arm-smmuv3',
    id: 0x10,
    name: 'F_TRANSLATION',
    streamId: 0x1234n,
    device,
    substreamId: 0x2b,
    stallTag: 7,
    privileged: true,
    instruction: false,
    read: false,
    stage2: true,
    address: 0xdead_b000n,
    ipa: 0x8_1234_5000n,
  });
});

test('SMMUv3: an event of a stream that nobody has, without the rest', () => {
  const data = uapi.iommu_vevent_arm_smmuv3.encode({ evt: [0x33n | (5n << 32n), 1n << 35n, 0n, 0n] });
  expect(decodeSmmuEvent(data, () => undefined)).toMatchObject({
    id: 0x33,
    name: undefined,
    streamId: 5n,
    device: undefined,
    substreamId: undefined,
    stallTag: undefined,
    read: true,
  });
});

test('Tegra241: the queues that have an error', () => {
  const data = uapi.iommu_vevent_tegra241_cmdqv.encode({ lvcmdq_err_map: [0b1001n, 1n << 63n] });
  expect(decodeTegra241Event(data)).toEqual({ type: 'tegra241-cmdqv', queues: [0, 3, 127] });
});

test('what a user says of a table, in the layout of each IOMMU', () => {
  const smmu = encodeUserPageTable({ ste: [0x11n, 2n ** 64n - 1n] });
  expect(smmu.type).toBe(uapi.IOMMU_HWPT_DATA_ARM_SMMUV3);
  expect(uapi.iommu_hwpt_arm_smmuv3.decode(smmu.bytes).ste).toEqual([0x11n, 2n ** 64n - 1n]);
  const amd = encodeUserPageTable({ dte: [1n, 2n, 3n, 4n] });
  expect(amd.type).toBe(uapi.IOMMU_HWPT_DATA_AMD_GUEST);
  expect(uapi.iommu_hwpt_amd_guest.decode(amd.bytes).dte).toEqual([1n, 2n, 3n, 4n]);
  const vtd = encodeUserPageTable({ address: 0x5000, width: 57, flags: { wpe: true, sre: true } });
  expect(vtd.type).toBe(uapi.IOMMU_HWPT_DATA_VTD_S1);
  expect(uapi.iommu_hwpt_vtd_s1.decode(vtd.bytes)).toMatchObject({
    flags: 5n,
    pgtbl_addr: 0x5000n,
    addr_width: 57,
  });
  const bytes = new Uint8Array([1, 2]);
  const raw = encodeUserPageTable({ type: 9, bytes });
  bytes[0] = 7;
  expect([raw.type, ...raw.bytes]).toEqual([9, 1, 2]);
});

test('what a user says of an invalidation', () => {
  const smmu = encodeInvalidation({ commands: [[0x11n, 2n]] });
  expect(smmu.type).toBe(uapi.IOMMU_VIOMMU_INVALIDATE_DATA_ARM_SMMUV3);
  expect(uapi.iommu_viommu_arm_smmuv3_invalidate.decode(smmu.entries[0]).cmd).toEqual([0x11n, 2n]);
  const all = encodeInvalidation('all');
  expect(all.type).toBe(uapi.IOMMU_HWPT_INVALIDATE_DATA_VTD_S1);
  expect(uapi.iommu_hwpt_vtd_s1_invalidate.decode(all.entries[0])).toMatchObject({
    addr: 0n,
    npages: 2n ** 64n - 1n,
  });
  const some = encodeInvalidation([{ iova: 0x1000, pages: 2, leaf: true }]);
  expect(uapi.iommu_hwpt_vtd_s1_invalidate.decode(some.entries[0])).toMatchObject({
    addr: 0x1000n,
    npages: 2n,
    flags: uapi.IOMMU_VTD_INV_FLAGS_LEAF,
  });
});
