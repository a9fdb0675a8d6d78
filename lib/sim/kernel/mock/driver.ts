/** The driver of the selftest IOMMU (drivers/iommu/iommufd/selftest.c's role, without its ioctl). */
import { errno } from '../../../uapi/errno';
import {
  IOMMU_HWPT_ALLOC_DIRTY_TRACKING,
  IOMMU_HWPT_ALLOC_NEST_PARENT,
  IOMMU_HWPT_ALLOC_PASID,
  IOMMU_HW_CAP_DIRTY_TRACKING,
  IOMMU_HW_CAP_PCI_ATS_NOT_SUPPORTED,
  IOMMU_PGFAULT_FLAGS_LAST_PAGE,
  IOMMU_PGFAULT_FLAGS_PASID_VALID,
} from '../../../uapi/iommufd';
import {
  IOMMU_NO_PASID,
  type AttachHandle,
  type HardwareInfo,
  type IommuDriver,
  type IommuGroup,
  type KernelDevice,
  type NestedDomain,
  type PagingDomain,
  type UserData,
} from '../iommu/core';
import { reportPageFault } from '../iommu/page-fault';
import { MockKernelDevice } from './device';
import { DEFAULT_FORMAT, HUGE_FORMAT, MockNestedDomain, MockPagingDomain } from './domain';
import * as layout from './layout';
import { readTableData } from './user-data';
import { mockViommuOperations } from './viommu';

const PAGING_FLAGS = IOMMU_HWPT_ALLOC_DIRTY_TRACKING | IOMMU_HWPT_ALLOC_NEST_PARENT | IOMMU_HWPT_ALLOC_PASID;

/** A page request as IOMMU_TEST_OP_TRIGGER_IOPF has it. */
export interface MockPageRequest {
  readonly pasid: number;
  readonly grpid: number;
  readonly perm: number;
  readonly addr: bigint;
}

export class MockIommu implements IommuDriver {
  readonly userPasidTable = true;
  readonly viommu = mockViommuOperations;

  hardwareInfo(device: MockKernelDevice): HardwareInfo {
    return {
      type: layout.IOMMU_HW_INFO_TYPE_SELFTEST,
      data: layout.iommu_test_hw_info.encode({ test_reg: layout.IOMMU_HW_INFO_SELFTEST_REGVAL }),
      capabilities:
        IOMMU_HW_CAP_PCI_ATS_NOT_SUPPORTED | (device.tracksDirty ? IOMMU_HW_CAP_DIRTY_TRACKING : 0),
      maxPasidLog2: device.pasidBits,
    };
  }

  reservedRegions(): readonly [] {
    return [];
  }

  allocatePaging(device: MockKernelDevice, flags: number, data?: UserData): PagingDomain | number {
    const tracksDirty = (flags & IOMMU_HWPT_ALLOC_DIRTY_TRACKING) !== 0;
    if (flags & ~PAGING_FLAGS || (tracksDirty && !device.tracksDirty)) return -errno.EOPNOTSUPP;
    const configuration = data && readTableData(data);
    if (typeof configuration === 'number') return configuration;
    switch (configuration?.pagetable_type ?? layout.MOCK_IOMMUPT_DEFAULT) {
      case layout.MOCK_IOMMUPT_DEFAULT:
        return new MockPagingDomain(DEFAULT_FORMAT, tracksDirty);
      case layout.MOCK_IOMMUPT_HUGE:
        return new MockPagingDomain(HUGE_FORMAT, tracksDirty);
      default:
        return -errno.EOPNOTSUPP;
    }
  }

  allocateNested(
    _device: KernelDevice,
    _parent: PagingDomain,
    flags: number,
    data: UserData,
  ): NestedDomain | number {
    if (flags & ~IOMMU_HWPT_ALLOC_PASID) return -errno.EOPNOTSUPP;
    const configuration = readTableData(data);
    return typeof configuration === 'number' ? configuration : new MockNestedDomain(configuration.iotlb);
  }

  attachGroup(group: IommuGroup, handle: AttachHandle | undefined): number {
    const domain = handle?.domain;
    if (!isOwn(domain)) return -errno.EINVAL;
    const dirty = domain instanceof MockPagingDomain && domain.dirty;
    const viommu = domain instanceof MockNestedDomain ? domain.viommu : undefined;
    // Every mock device is alone in its group.
    for (const device of group.devices as MockKernelDevice[]) {
      if (dirty && !device.tracksDirty) return -errno.EINVAL;
      const virtualId = viommu?.core.virtualIdOf(device);
      if (viommu && virtualId === undefined) return -errno.ENOENT;
      device.setViommu(viommu, virtualId);
    }
    return 0;
  }

  attachGroupPasid(group: IommuGroup, pasid: number, handle: AttachHandle | undefined): number {
    if (!isOwn(handle?.domain)) return -errno.EINVAL;
    for (const device of group.devices as MockKernelDevice[]) {
      // IOMMU_NO_PASID is nobody's PASID; and a device without the flag has no other.
      if (handle && (pasid === IOMMU_NO_PASID || pasid >= 2 ** device.pasidBits)) return -errno.EINVAL;
      if (pasid !== layout.IOMMU_TEST_PASID_RESERVED) continue;
      const fails = device.failsReservedPasid;
      device.failsReservedPasid = handle !== undefined && !fails;
      if (handle && fails) return -errno.ENOMEM;
    }
    return 0;
  }

  remove(): void {
    // The device has nothing here.
  }

  releaseGroup(): void {
    // There is no DMA to be blocked.
  }

  pageResponse(): void {
    // Nobody waits for it.
  }

  /** Raises a page request, the last of its group. */
  reportPageRequest(device: MockKernelDevice, { pasid, grpid, perm, addr }: MockPageRequest): void {
    const flags =
      IOMMU_PGFAULT_FLAGS_LAST_PAGE | (pasid === IOMMU_NO_PASID ? 0 : IOMMU_PGFAULT_FLAGS_PASID_VALID);
    reportPageFault(this, device, { flags, pasid, grpid, permissions: perm, address: addr });
  }
}

function isOwn(domain: object | undefined): boolean {
  return !domain || domain instanceof MockPagingDomain || domain instanceof MockNestedDomain;
}
