import { encodeCaches, encodeInvalidation, isCacheInvalidation } from '../lib/invalidation';
import * as uapi from '../lib/uapi';

const VTD = uapi.IOMMU_HWPT_DATA_VTD_S1;

test.each([
  [{}, { addr: 0n, npages: 2n ** 64n - 1n, flags: 0 }],
  [{ range: { iova: 0x5000, length: 1 } }, { addr: 0x5000n, npages: 1n, flags: 0 }],
  [{ range: { iova: 0x5000, length: 0x2000 } }, { addr: 0x5000n, npages: 2n, flags: 0 }],
  [
    { range: { iova: 0x5000, length: 0x2001 }, leaf: true },
    { addr: 0x5000n, npages: 3n, flags: 1 },
  ],
])('%p is one entry of whole pages', (what, expected) => {
  const { type, entries } = encodeCaches(what, VTD);
  expect(type).toBe(uapi.IOMMU_HWPT_INVALIDATE_DATA_VTD_S1);
  expect(entries.map((entry) => uapi.iommu_hwpt_vtd_s1_invalidate.decode(entry))).toEqual([
    { ...expected, __reserved: 0 },
  ]);
});

test.each([
  [null, "invalidate takes 'all', or what to forget, not null"],
  [5, "invalidate takes 'all', or what to forget, not number"],
  [{ foo: 1 }, 'foo says nothing of what to forget: device, pasid, range, leaf, caches'],
  [{ caches: 'iotlb' }, 'caches are an array of iotlb, device-tlb, pasid'],
])('%p is nothing to forget', (what, message) => {
  const encode = (input: never) =>
    isCacheInvalidation(input) ? encodeCaches(input, VTD) : encodeInvalidation(input);
  expect(() => encode(what as never)).toThrow(new TypeError(message));
});
