/** A device of the selftest IOMMU: no hardware, alone in its group. */
import { IommuGroup, type KernelDevice } from '../iommu/core';
import type { PartialFaults } from '../iommu/page-fault';
import { IOMMU_TEST_DEV_CACHE_DEFAULT, MOCK_DEV_CACHE_NUM, MOCK_PASID_WIDTH } from './layout';

export class MockKernelDevice implements KernelDevice {
  readonly group = new IommuGroup(-1);
  readonly partialFaults: PartialFaults = [];
  /** Numbers standing for what the device caches. */
  readonly cache = new Uint32Array(MOCK_DEV_CACHE_NUM).fill(IOMMU_TEST_DEV_CACHE_DEFAULT);
  /** The next attachment of the reserved PASID fails. */
  failsReservedPasid = false;

  constructor(
    readonly tracksDirty: boolean,
    readonly hasPasids: boolean,
  ) {
    this.group.devices.push(this);
  }

  /** log2 of the number of PASIDs; without the flag there is one, which is no PASID at all (IOMMU_NO_PASID). */
  get pasidBits(): number {
    return this.hasPasids ? MOCK_PASID_WIDTH : 0;
  }
}
