/** Operations of IOMMU_TEST_CMD that look inside tables and memory, mark pages dirty, or reserve IOVAs. */
import { errno } from '../../../uapi/errno';
import * as test from '../../../uapi/iommufd-test';
import { MockKernelDevice } from '../mock/device';
import { MockNestedDomain, MockPagingDomain } from '../mock/domain';
import { PAGE_SIZE } from '../user-memory';
import { IommufdDevice } from './device';
import { HwptNested, HwptPaging } from './hwpt';
import { Ioas } from './ioas';
import type { TestCommand } from './selftest';

const U64_MAX = (1n << 64n) - 1n;
const PAGE = BigInt(PAGE_SIZE);
/** Most pages that one IOMMU_TEST_OP_DIRTY speaks of: as many as 16 MiB have bits. */
const MOST_DIRTY_PAGES = 8n << 24n;

function pagingOf({ file, values }: TestCommand): MockPagingDomain | number {
  const hwpt = file.objects.get(values.id, HwptPaging);
  if (!hwpt) return -errno.ENOENT;
  return hwpt.domain instanceof MockPagingDomain ? hwpt.domain : -errno.EINVAL;
}

function addReserved({ file, values }: TestCommand): number {
  const { start, length } = values.add_reserved;
  if (length === 0n) return -errno.EINVAL;
  const last = start + length - 1n;
  if (last > U64_MAX) return -errno.EOVERFLOW;
  const ioas = file.objects.get(values.id, Ioas);
  // Nobody ever takes it back: it goes with the IOAS.
  return ioas ? ioas.table.reserve(start, last, ioas) : -errno.ENOENT;
}

/** Whether each page of the table leads to the memory at `uptr`. */
function checkMap(command: TestCommand): number {
  const { memory, values } = command;
  const domain = pagingOf(command);
  if (typeof domain === 'number') return domain;
  const { iova, length, uptr } = values.check_map;
  const granule = BigInt(domain.granule);
  if (iova % granule || length % granule || uptr % granule || uptr + length > U64_MAX) return -errno.EINVAL;
  for (let offset = 0n; offset < length; offset += granule) {
    const address = uptr + offset;
    const page = memory.pin(address - (address % PAGE), PAGE);
    if (!page) return -errno.EFAULT;
    const physical = page.physical + Number(address % PAGE);
    page.unpin();
    if (domain.translate(BigInt.asUintN(64, iova + offset)) !== physical) return -errno.EINVAL;
  }
  return 0;
}

/** Whether each page of memory is pinned as often as the caller thinks. */
function checkReferences({ memory, values }: TestCommand): number {
  const { length, uptr, refs } = values.check_refs;
  if (length % PAGE || uptr % PAGE || uptr + length > U64_MAX) return -errno.EINVAL;
  for (let offset = 0n; offset < length; offset += PAGE) {
    const count = memory.pinCount(uptr + offset);
    if (count === undefined) return -errno.EFAULT;
    if (count >= 0 && count !== refs) return -errno.EIO;
  }
  return 0;
}

function checkIotlb({ file, values }: TestCommand): number {
  const hwpt = file.objects.get(values.id, HwptNested);
  if (!hwpt) return -errno.ENOENT;
  const { domain } = hwpt;
  const { id, iotlb } = values.check_iotlb;
  return domain instanceof MockNestedDomain && domain.iotlb[id] === iotlb ? 0 : -errno.EINVAL;
}

function checkDeviceCache({ file, values }: TestCommand): number {
  const bound = file.objects.get(values.id, IommufdDevice);
  if (!bound) return -errno.ENOENT;
  const { id, cache } = values.check_dev_cache;
  return bound.device instanceof MockKernelDevice && bound.device.cache[id] === cache ? 0 : -errno.EINVAL;
}

/** Does what writes of a device to the pages whose bits are set would do. */
function markDirty(command: TestCommand): number {
  const { iova, length, page_size, uptr } = command.values.dirty;
  if (!page_size || !length || iova % page_size || length % page_size || !uptr) return -errno.EINVAL;
  const pages = length / page_size;
  if (pages > MOST_DIRTY_PAGES) return -errno.EOVERFLOW;
  const domain = pagingOf(command);
  if (typeof domain === 'number') return domain;
  if (!domain.dirty?.enabled) return -errno.EINVAL;
  const bits = command.memory.read(uptr, Math.ceil(Number(pages) / 8));
  if (!bits) return -errno.EFAULT;
  let marked = 0;
  for (let i = 0; i < Number(pages); i++) {
    if (!(bits[i >> 3] & (1 << (i & 7)))) continue;
    domain.dirty.set(BigInt.asUintN(64, iova + BigInt(i) * page_size));
    marked++;
  }
  return command.respond({ dirty: { out_nr_dirty: marked } });
}

export const checkOperations = [
  [test.IOMMU_TEST_OP_ADD_RESERVED, addReserved],
  [test.IOMMU_TEST_OP_MD_CHECK_MAP, checkMap],
  [test.IOMMU_TEST_OP_MD_CHECK_REFS, checkReferences],
  [test.IOMMU_TEST_OP_MD_CHECK_IOTLB, checkIotlb],
  [test.IOMMU_TEST_OP_DEV_CHECK_CACHE, checkDeviceCache],
  [test.IOMMU_TEST_OP_DIRTY, markDirty],
] as const;
