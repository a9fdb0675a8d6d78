/** Dirty tracking of HWPTs: IOMMU_HWPT_SET_DIRTY_TRACKING and IOMMU_HWPT_GET_DIRTY_BITMAP. */
import { errno } from '../../../uapi/errno';
import * as rows from '../../../uapi/iommufd-ioctls';
import {
  IOMMU_HWPT_DIRTY_TRACKING_ENABLE,
  IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR,
} from '../../../uapi/iommufd';
import { handler, type Command, type Handler } from './command';
import { DirtyBitmap } from './dirty-bitmap';
import { HwptPaging } from './hwpt';

const U64_MAX = (1n << 64n) - 1n;

function setTracking(command: Command<typeof rows.IOMMU_HWPT_SET_DIRTY_TRACKING.struct>): number {
  const { values, file } = command;
  if (values.flags & ~IOMMU_HWPT_DIRTY_TRACKING_ENABLE) return -errno.EOPNOTSUPP;
  const hwpt = file.objects.get(values.hwpt_id, HwptPaging);
  if (!hwpt) return -errno.ENOENT;
  const { dirty } = hwpt.domain;
  if (!dirty) return -errno.EOPNOTSUPP;
  const enable = (values.flags & IOMMU_HWPT_DIRTY_TRACKING_ENABLE) !== 0;
  // It starts from a clean table.
  if (enable) for (const { start, last } of hwpt.ioas.table.areas) dirty.read(start, last, false, () => {});
  return dirty.setTracking(enable);
}

/** The range that a bitmap is for: whole pages of the IOAS and of the bitmap. */
function checkRange(iova: bigint, length: bigint, alignment: bigint, pageSize: bigint): number {
  if (length === 0n) return -errno.EINVAL;
  const last = iova + length - 1n;
  if (last > U64_MAX) return -errno.EOVERFLOW;
  const end = BigInt.asUintN(64, last + 1n);
  if ((iova | end) & (alignment - 1n)) return -errno.EINVAL;
  if (pageSize === 0n) return -errno.EINVAL;
  // A mask, not a remainder: a page size that is no power of two passes where this happens to be 0.
  return (iova | end) & (pageSize - 1n) ? -errno.EINVAL : 0;
}

function getBitmap(command: Command<typeof rows.IOMMU_HWPT_GET_DIRTY_BITMAP.struct>): number {
  const { values, file, memory } = command;
  if (values.flags & ~IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR || values.__reserved) return -errno.EOPNOTSUPP;
  const hwpt = file.objects.get(values.hwpt_id, HwptPaging);
  if (!hwpt) return -errno.ENOENT;
  const { iova, length, page_size: pageSize } = values;
  const { table } = hwpt.ioas;
  const bad = checkRange(iova, length, table.alignment, pageSize);
  if (bad) return bad;
  const { dirty } = hwpt.domain;
  if (!dirty) return -errno.EOPNOTSUPP;

  const bitmap = new DirtyBitmap(memory, values.data, iova, length, pageSize);
  const keep = (values.flags & IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR) !== 0;
  const last = iova + length - 1n;
  // As in Linux, a hole ends it, and nothing is said about it.
  for (let at = iova; at <= last;) {
    const area = table.areas.first(at, at);
    if (!area) break;
    const end = area.last < last ? area.last : last;
    dirty.read(at, end, keep, (start, size) => bitmap.set(start, size));
    at = end + 1n;
  }
  return 0;
}

export const dirtyHandlers: readonly Handler[] = [
  handler(rows.IOMMU_HWPT_SET_DIRTY_TRACKING, setTracking),
  handler(rows.IOMMU_HWPT_GET_DIRTY_BITMAP, getBitmap),
];
