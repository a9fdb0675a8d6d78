/** The selftest IOMMU's part of virtual IOMMUs (drivers/iommu/iommufd/selftest.c's role). */
import { errno } from '../../../uapi/errno';
import { IOMMU_HWPT_ALLOC_PASID } from '../../../uapi/iommufd';
import * as test from '../../../uapi/iommufd-test';
import type { UserData } from '../iommu/core';
import type {
  DriverHwQueue,
  DriverViommu,
  HwQueueCore,
  HwQueueOperations,
  UserDataArray,
  ViommuCore,
  ViommuOperations,
} from '../iommu/viommu';
import { PAGE_SIZE } from '../user-memory';
import { MockKernelDevice } from './device';
import { MockNestedDomain } from './domain';
import { readStruct, readTableData } from './user-data';

/** Bytes that programs can map of one made with data. */
const MAPPED_BYTES = 2 * PAGE_SIZE;
/** Bytes of struct iommu_viommu_selftest that every caller must give: up to the end of `out_data`. */
const LEAST_DATA = 8;
/** Linux copies all entries of an invalidation at once, into at most this many bytes. */
const MOST_INVALIDATION_BYTES = 4 * 2 ** 20;

export class MockViommu implements DriverViommu {
  readonly queues: HwQueueOperations = new MockQueues();
  /** Where programs can map memory of it; 0: nowhere. */
  #mmapOffset = 0;

  constructor(readonly core: ViommuCore) {}

  /** `data` goes back to the program as it came, through the struct and through memory to be mapped. 0 or -errno. */
  loopBack(data: UserData): number {
    const given = readStruct(data, test.iommu_viommu_selftest, LEAST_DATA);
    if (typeof given === 'number') return given;
    const { in_data } = given;
    const memory = new ArrayBuffer(MAPPED_BYTES);
    new DataView(memory).setUint32(0, in_data, true);
    this.#mmapOffset = this.core.offerPages(memory);
    const answer = {
      in_data,
      out_data: in_data,
      out_mmap_offset: this.#mmapOffset,
      out_mmap_length: MAPPED_BYTES,
    };
    if (data.write(test.iommu_viommu_selftest.encode(answer))) return 0;
    this.free();
    return -errno.EFAULT;
  }

  allocateNested(flags: number, data: UserData): MockNestedDomain | number {
    if (flags & ~IOMMU_HWPT_ALLOC_PASID) return -errno.EOPNOTSUPP;
    const given = readTableData(data);
    return typeof given === 'number' ? given : new MockNestedDomain(given.iotlb, this);
  }

  invalidate(entries: UserDataArray): { result: number; done: number } {
    const { struct, type } = INVALIDATION;
    // No entry at all asks whether the type is known.
    if (entries.count === 0) return { result: entries.type === type ? 0 : -errno.EINVAL, done: 0 };
    // As Linux 7.3 does: of this failure the program is told that all entries were handled.
    if (entries.count * struct.size > MOST_INVALIDATION_BYTES)
      return { result: -errno.ENOMEM, done: entries.count };
    if (entries.type !== type) return { result: -errno.EINVAL, done: 0 };
    const commands = [];
    for (let i = 0; i < entries.count; i++) {
      const bytes = entries.copy(i, struct.size);
      if (typeof bytes === 'number') return { result: bytes, done: 0 };
      commands.push(struct.decode(bytes));
    }
    for (const [done, command] of commands.entries()) {
      const result = this.#invalidate(command);
      if (result) return { result, done };
    }
    return { result: 0, done: entries.count };
  }

  /** Reports an event of the device that the guest knows under `virtualId`. */
  reportEvent(virtualId: bigint): number {
    const virt_id = Number(BigInt.asUintN(32, virtualId));
    const event = test.iommu_viommu_event_selftest.encode({ virt_id });
    return this.core.reportEvent(test.IOMMU_VEVENTQ_TYPE_SELFTEST, event);
  }

  free(): void {
    if (this.#mmapOffset) this.core.withdrawPages(this.#mmapOffset);
  }

  #invalidate({ flags, vdev_id, cache_id }: Invalidation): number {
    if (flags & ~test.IOMMU_TEST_INVALIDATE_FLAG_ALL) return -errno.EOPNOTSUPP;
    if (cache_id >= test.MOCK_DEV_CACHE_NUM) return -errno.EINVAL;
    const device = this.core.deviceOf(BigInt(vdev_id));
    if (!(device instanceof MockKernelDevice)) return -errno.EINVAL;
    if (flags & test.IOMMU_TEST_INVALIDATE_FLAG_ALL) device.cache.fill(0);
    else device.cache[cache_id] = 0;
    return 0;
  }
}

const INVALIDATION = {
  type: test.IOMMU_VIOMMU_INVALIDATE_DATA_SELFTEST,
  struct: test.iommu_viommu_invalidate_selftest,
};
type Invalidation = ReturnType<typeof INVALIDATION.struct.decode>;

/** The queues of one virtual IOMMU: each but the first depends on the one before it. */
class MockQueues implements HwQueueOperations {
  readonly #queues: (HwQueueCore | undefined)[] = [];

  supports(type: number): boolean {
    return type === test.IOMMU_HW_QUEUE_TYPE_SELFTEST;
  }

  create(core: HwQueueCore, index: number): DriverHwQueue | number {
    if (index >= test.IOMMU_TEST_HW_QUEUE_MAX) return -errno.EINVAL;
    if (this.#queues[index]) return -errno.EEXIST;
    const previous = this.#queues[index - 1];
    if (index > 0 && !previous) return -errno.EIO;
    previous?.hold();
    this.#queues[index] = core;
    return {
      free: () => {
        // Whichever it is: Linux 7.3 does not remember the index. A last queue cannot be made a second time.
        this.#queues[0] = undefined;
        previous?.release();
      },
    };
  }
}

export const mockViommuOperations: ViommuOperations = {
  supports: (type) => type === test.IOMMU_VIOMMU_TYPE_SELFTEST,
  create(core, _parent, data) {
    const viommu = new MockViommu(core);
    const result = data ? viommu.loopBack(data) : 0;
    return result || viommu;
  },
};
