/** A device of the selftest IOMMU: no hardware, alone in its group. */
import { errno } from '../../../uapi/errno';
import { IOMMU_TEST_DEV_CACHE_DEFAULT, MOCK_DEV_CACHE_NUM } from '../../../uapi/iommufd-test';
import { IommuGroup, type KernelDevice } from '../iommu/core';
import type { PartialFaults } from '../iommu/page-fault';
import { MOCK_PASID_WIDTH } from './layout';
import type { MockViommu } from './viommu';

export class MockKernelDevice implements KernelDevice {
  readonly group = new IommuGroup(-1);
  readonly partialFaults: PartialFaults = [];
  /** Numbers standing for what the device caches. */
  readonly cache = new Uint32Array(MOCK_DEV_CACHE_NUM).fill(IOMMU_TEST_DEV_CACHE_DEFAULT);
  /** The next attachment of the reserved PASID fails. */
  failsReservedPasid = false;
  /** Whose nested table it is attached to. */
  #viommu: MockViommu | undefined;
  #virtualId = 0n;

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

  /** Linux looks the id up only when the virtual IOMMU changes: one that is given anew later goes unnoticed. */
  setViommu(viommu: MockViommu | undefined, virtualId = 0n): void {
    if (viommu === this.#viommu) return;
    this.#viommu = viommu;
    this.#virtualId = virtualId;
  }

  /** Has its virtual IOMMU report an event. ENOENT without one, and, as in Linux, for the id 0. */
  triggerEvent(): number {
    if (!this.#viommu || !this.#virtualId) return -errno.ENOENT;
    return this.#viommu.reportEvent(this.#virtualId);
  }
}
