/** Objects on the kernel's mock IOMMU, on both backends: what the tests of the object API share. */
import { Iommu, type AddressSpace, type MockDevice, type PageTable } from '../../lib';
import * as layout from '../../lib/sim/kernel/mock/layout';
import * as uapi from '../../lib/uapi';
import { mockKernel } from './mock';

export const IOVA = BigInt(uapi.MOCK_APERTURE_START);
/** The mock IOMMU's own page table format: `iotlb` is what its cache holds at first. */
export const MOCK_TABLE = {
  type: layout.IOMMU_HWPT_DATA_SELFTEST,
  bytes: layout.iommu_hwpt_selftest.encode({ iotlb: layout.IOMMU_TEST_IOTLB_DEFAULT }),
};
export const MOCK_VIOMMU = uapi.IOMMU_VIOMMU_TYPE_SELFTEST;
export const MOCK_EVENTS = { id: uapi.IOMMU_VEVENTQ_TYPE_SELFTEST, recordSize: 4 };

const opened: Iommu[] = [];

/** An Iommu on a kernel with the mock IOMMU, closed when the test is over. */
export function openMock(): Iommu {
  const iommu = Iommu.open({ backend: mockKernel() });
  opened.push(iommu);
  return iommu;
}

/** A mock device, a space, and a page table on it that others can nest on. */
export function openNesting(): {
  iommu: Iommu;
  device: MockDevice;
  space: AddressSpace;
  parent: PageTable;
} {
  const iommu = openMock();
  const device = iommu.createMockDevice({ cookie: 1 });
  const space = iommu.createAddressSpace();
  const parent = iommu.createPageTable(device, { parent: space, nestParent: true });
  return { iommu, device, space, parent };
}

/** A command of the mock IOMMU: its result. */
export function testCommand(iommu: Iommu, values: Parameters<typeof uapi.iommu_test_cmd.encode>[0]): number {
  const bytes = uapi.iommu_test_cmd.encode({ size: uapi.iommu_test_cmd.size, ...values });
  return iommu.kernel.ioctl(iommu.fd, uapi.IOMMU_TEST_CMD.request, bytes);
}

/** The kernel's lowest free object ID: unchanged when nothing was left behind. */
export function lowestId(iommu: Iommu): number {
  const space = iommu.createAddressSpace();
  const id = space.ioasId;
  space.close();
  return id;
}

afterEach(() => {
  for (const iommu of opened.splice(0)) iommu.close();
});
