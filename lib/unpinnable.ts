/** Memory is pinned when the first device attaches; where that fails, only a search tells which mapping it was. */
import { destroy, type Context } from './context';
import { attempt } from './ioctl';
import type { MappedRange } from './iova';
import { runAll } from './handle';
import { errno, IOMMU_HWPT_ALLOC, IOMMU_IOAS_ALLOC, IOMMU_IOAS_COPY, IOMMU_IOAS_MAP_READABLE } from './uapi';

/**
 * The first mapping of an IOAS whose memory cannot be pinned: each is copied to an IOAS that has a page table, which pins
 * it. Undefined where there is none, or where this cannot be tried.
 */
export function findUnpinnable(
  context: Context,
  deviceId: number,
  ioasId: number,
  mappings: readonly MappedRange[],
): MappedRange | undefined {
  const { kernel, fd } = context;
  const scratch = attempt(kernel, fd, IOMMU_IOAS_ALLOC, {});
  if (scratch.result < 0) return undefined;
  const { out_ioas_id: scratchId } = scratch.out;
  const table = attempt(kernel, fd, IOMMU_HWPT_ALLOC, { dev_id: deviceId, pt_id: scratchId });
  try {
    if (table.result < 0) return undefined;
    return mappings.find((mapping) => {
      const copy = attempt(kernel, fd, IOMMU_IOAS_COPY, {
        flags: IOMMU_IOAS_MAP_READABLE,
        dst_ioas_id: scratchId,
        src_ioas_id: ioasId,
        src_iova: mapping.iova,
        length: mapping.length,
      });
      return copy.result === -errno.EFAULT;
    });
  } finally {
    runAll([
      () => table.result < 0 || destroy(context, table.out.out_hwpt_id),
      () => destroy(context, scratchId),
    ]);
  }
}
