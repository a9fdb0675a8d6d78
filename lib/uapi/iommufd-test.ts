/**
 * IOMMU_TEST_CMD: the ioctl of the kernel's selftest IOMMU (CONFIG_IOMMUFD_TEST), which makes mock devices
 * and page faults. Not uAPI: declared in drivers/iommu/iommufd/iommufd_test.h of the kernel source, Linux 7.3.
 */
import { overlay, requestNumber, s32, struct, u32, u64, type Ioctl } from './layout';
import { IOMMUFD_TYPE } from './iommufd-ioctls';

export const IOMMU_TEST_OP_ADD_RESERVED = 1;
export const IOMMU_TEST_OP_MOCK_DOMAIN = 2;
export const IOMMU_TEST_OP_MD_CHECK_MAP = 3;
export const IOMMU_TEST_OP_MD_CHECK_REFS = 4;
export const IOMMU_TEST_OP_CREATE_ACCESS = 5;
export const IOMMU_TEST_OP_DESTROY_ACCESS_PAGES = 6;
export const IOMMU_TEST_OP_ACCESS_PAGES = 7;
export const IOMMU_TEST_OP_ACCESS_RW = 8;
export const IOMMU_TEST_OP_SET_TEMP_MEMORY_LIMIT = 9;
export const IOMMU_TEST_OP_MOCK_DOMAIN_REPLACE = 10;
export const IOMMU_TEST_OP_ACCESS_REPLACE_IOAS = 11;
export const IOMMU_TEST_OP_MOCK_DOMAIN_FLAGS = 12;
export const IOMMU_TEST_OP_DIRTY = 13;
export const IOMMU_TEST_OP_MD_CHECK_IOTLB = 14;
export const IOMMU_TEST_OP_TRIGGER_IOPF = 15;
export const IOMMU_TEST_OP_DEV_CHECK_CACHE = 16;
export const IOMMU_TEST_OP_TRIGGER_VEVENT = 17;
export const IOMMU_TEST_OP_PASID_ATTACH = 18;
export const IOMMU_TEST_OP_PASID_REPLACE = 19;
export const IOMMU_TEST_OP_PASID_DETACH = 20;
export const IOMMU_TEST_OP_PASID_CHECK_HWPT = 21;
export const IOMMU_TEST_OP_DMABUF_GET = 22;
export const IOMMU_TEST_OP_DMABUF_REVOKE = 23;

export const MOCK_FLAGS_DEVICE_NO_DIRTY = 1 << 0;
export const MOCK_FLAGS_DEVICE_PASID = 1 << 2;
/** The mock domain maps IOVAs in [MOCK_APERTURE_START, MOCK_APERTURE_LAST] only, in 2 KiB pages. */
export const MOCK_APERTURE_START = 2 ** 24;
export const MOCK_APERTURE_LAST = 2 ** 31 - 1;
export const MOCK_PAGE_SIZE = 2048;

export const IOMMU_VIOMMU_TYPE_SELFTEST = 0xdeadbeef;
/** What a virtual mock IOMMU is made from; the kernel answers in the same memory. */
export const iommu_viommu_selftest = struct('iommu_viommu_selftest', {
  in_data: u32,
  out_data: u32,
  out_mmap_offset: u64,
  out_mmap_length: u64,
});

export const IOMMU_VIOMMU_INVALIDATE_DATA_SELFTEST = 0xdeadbeef;
export const IOMMU_TEST_INVALIDATE_FLAG_ALL = 1 << 0;
export const iommu_viommu_invalidate_selftest = struct('iommu_viommu_invalidate_selftest', {
  flags: u32,
  vdev_id: u32,
  cache_id: u32,
});
/** What each of the numbers that stand for a mock device's caches is at first. */
export const IOMMU_TEST_DEV_CACHE_DEFAULT = 0xbaddad;
export const MOCK_DEV_CACHE_NUM = 4;

export const IOMMU_VEVENTQ_TYPE_SELFTEST = 0xbeefbeef;
export const iommu_viommu_event_selftest = struct('iommu_viommu_event_selftest', { virt_id: u32 });

export const IOMMU_HW_QUEUE_TYPE_SELFTEST = 0xdeadbeef;
/** Hardware queues that a virtual mock IOMMU has: 0 is made first, and destroyed last. */
export const IOMMU_TEST_HW_QUEUE_MAX = 2;

const pasid_and_pt = struct('', { pasid: u32, pt_id: u32 });

export const iommu_test_cmd = struct('iommu_test_cmd', {
  size: u32,
  op: u32,
  id: u32,
  __reserved: u32,
  add_reserved: struct('', { start: u64, length: u64 }),
  mock_domain: overlay(struct('', { out_stdev_id: u32, out_hwpt_id: u32, out_idev_id: u32 })),
  mock_domain_flags: overlay(
    struct('', { out_stdev_id: u32, out_hwpt_id: u32, out_idev_id: u32, dev_flags: u32 }),
  ),
  mock_domain_replace: overlay(struct('', { pt_id: u32 })),
  check_map: overlay(struct('', { iova: u64, length: u64, uptr: u64 })),
  check_refs: overlay(struct('', { length: u64, uptr: u64, refs: u32 })),
  create_access: overlay(struct('', { out_access_fd: u32, flags: u32 })),
  destroy_access_pages: overlay(struct('', { access_pages_id: u32 })),
  access_pages: overlay(
    struct('', { flags: u32, out_access_pages_id: u32, iova: u64, length: u64, uptr: u64 }),
  ),
  access_rw: overlay(struct('', { iova: u64, length: u64, uptr: u64, flags: u32 })),
  memory_limit: overlay(struct('', { limit: u32 })),
  access_replace_ioas: overlay(struct('', { ioas_id: u32 })),
  dirty: overlay(
    struct('', { flags: u32, iova: u64, length: u64, page_size: u64, uptr: u64, out_nr_dirty: u64 }),
  ),
  check_iotlb: overlay(struct('', { id: u32, iotlb: u32 })),
  trigger_iopf: overlay(struct('', { dev_id: u32, pasid: u32, grpid: u32, perm: u32, addr: u64 })),
  check_dev_cache: overlay(struct('', { id: u32, cache: u32 })),
  trigger_vevent: overlay(struct('', { dev_id: u32 })),
  pasid_attach: overlay(pasid_and_pt),
  pasid_replace: overlay(pasid_and_pt),
  pasid_detach: overlay(struct('', { pasid: u32 })),
  pasid_check: overlay(struct('', { pasid: u32, hwpt_id: u32 })),
  dmabuf_get: overlay(struct('', { length: u32, open_flags: u32 })),
  dmabuf_revoke: overlay(struct('', { dmabuf_fd: s32, revoked: u32 })),
  last: u32,
});

export const IOMMU_TEST_CMD = {
  name: 'IOMMU_TEST_CMD',
  request: requestNumber(IOMMUFD_TYPE, 0xa0),
  struct: iommu_test_cmd,
  minimumSize: 68,
  out: [],
  inout: ['mock_domain', 'mock_domain_flags'],
} satisfies Ioctl<typeof iommu_test_cmd>;
