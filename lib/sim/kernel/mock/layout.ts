/**
 * What the selftest IOMMU exchanges with user space beyond IOMMU_TEST_CMD itself
 * (drivers/iommu/iommufd/iommufd_test.h of the kernel source, Linux 7.3).
 */
import { struct, u32 } from '../../../uapi/layout';

/** Width of the PASIDs of a device made with MOCK_FLAGS_DEVICE_PASID. */
export const MOCK_PASID_WIDTH = 20;
/** The PASID whose attachments fail every second time with ENOMEM, to try the undoing of a replace. */
export const IOMMU_TEST_PASID_RESERVED = 1024;
/** Large page of tables made with MOCK_IOMMUPT_HUGE. */
export const MOCK_HUGE_PAGE_SIZE = 512 * 2048;

export const MOCK_FLAGS_ACCESS_WRITE = 1 << 0;
export const MOCK_FLAGS_ACCESS_SYZ = 1 << 16;
export const MOCK_ACCESS_RW_WRITE = 1 << 0;
export const MOCK_ACCESS_RW_SLOW_PATH = 1 << 2;
export const MOCK_FLAGS_ACCESS_CREATE_NEEDS_PIN_PAGES = 1 << 0;

export const IOMMU_HW_INFO_TYPE_SELFTEST = 0xfeedbeef;
export const IOMMU_HW_INFO_SELFTEST_REGVAL = 0xdeadbeef;
export const iommu_test_hw_info = struct('iommu_test_hw_info', { flags: u32, test_reg: u32 });

export const MOCK_IOMMUPT_DEFAULT = 0;
export const MOCK_IOMMUPT_HUGE = 1;
export const IOMMU_HWPT_DATA_SELFTEST = 0xdead;
export const IOMMU_TEST_IOTLB_DEFAULT = 0xbadbeef;
export const iommu_hwpt_selftest = struct('iommu_hwpt_selftest', { iotlb: u32, pagetable_type: u32 });

export const MOCK_NESTED_DOMAIN_IOTLB_NUM = 4;
export const IOMMU_HWPT_INVALIDATE_DATA_SELFTEST = 0xdeadbeef;
export const iommu_hwpt_invalidate_selftest = struct('iommu_hwpt_invalidate_selftest', {
  flags: u32,
  iotlb_id: u32,
});
