/** IOMMU_HWPT_INVALIDATE: forgetting what an IOMMU has cached of user-managed tables. */
import type { Context } from './context';
import { attempt, refused } from './ioctl';
import * as uapi from './uapi';

const U64_MAX = 2n ** 64n - 1n;

/** Part of a VT-d first-stage table: `pages` pages of 4096 bytes from `iova`; `leaf`: only their last-level entries. */
export interface VtdInvalidation {
  readonly iova: bigint | number;
  readonly pages: bigint | number;
  readonly leaf?: boolean | undefined;
}

/** Commands of the SMMUv3 command queue, two doublewords each (Arm SMMUv3 specification, section 4). */
export interface SmmuInvalidation {
  readonly commands: readonly (readonly [bigint, bigint])[];
}

/** Entries of any driver: enum iommu_hwpt_invalidate_data_type, and its structs. */
export interface RawInvalidation {
  readonly type: number;
  readonly entries: readonly Uint8Array[];
}

/** What to invalidate. 'all' and VtdInvalidation are for tables in VT-d format. */
export type Invalidation =
  'all' | VtdInvalidation | readonly VtdInvalidation[] | SmmuInvalidation | RawInvalidation;

/** Checks and encodes. Throws TypeError, RangeError. */
export function encodeInvalidation(what: Invalidation): RawInvalidation {
  if (what === 'all') return encodeVtd([{ iova: 0n, pages: U64_MAX }]);
  if ('entries' in what && 'type' in what) {
    const { entries } = what;
    if (entries.some(({ length }) => length !== entries[0].length))
      throw new RangeError('the entries of one invalidation are of one length');
    return what;
  }
  if ('commands' in what)
    return {
      type: uapi.IOMMU_VIOMMU_INVALIDATE_DATA_ARM_SMMUV3,
      entries: what.commands.map((cmd) => uapi.iommu_viommu_arm_smmuv3_invalidate.encode({ cmd })),
    };
  return encodeVtd('iova' in what ? [what] : what);
}

function encodeVtd(list: readonly VtdInvalidation[]): RawInvalidation {
  return {
    type: uapi.IOMMU_HWPT_INVALIDATE_DATA_VTD_S1,
    entries: list.map((item) => {
      const addr = uapi.toU64(item.iova, 'iova');
      if (addr % 4096n !== 0n) throw new RangeError(`iova 0x${addr.toString(16)} is not a multiple of 4096`);
      return uapi.iommu_hwpt_vtd_s1_invalidate.encode({
        addr,
        npages: uapi.toU64(item.pages, 'pages'),
        flags: item.leaf ? uapi.IOMMU_VTD_INV_FLAGS_LEAF : 0,
      });
    }),
  };
}

/**
 * Invalidates on a nested table or a virtual IOMMU, by its object ID. Throws IommuError; where entries before the refused
 * one were carried out, its hint says how many.
 */
export function invalidate(context: Context, id: number, { type, entries }: RawInvalidation): void {
  const { kernel, fd } = context;
  const length = entries[0]?.length ?? 0;
  const bytes = new Uint8Array(Math.max(1, length * entries.length));
  entries.forEach((entry, i) => bytes.set(entry, i * length));
  const values = {
    hwpt_id: id,
    data_uptr: kernel.addressOf(bytes),
    data_type: type,
    entry_len: length,
    entry_num: entries.length,
  };
  const { result, out } = attempt(kernel, fd, uapi.IOMMU_HWPT_INVALIDATE, values, bytes);
  if (result >= 0) return;
  const hint =
    out.entry_num > 0
      ? `entry ${out.entry_num} was refused; the ${out.entry_num} before it were carried out`
      : undefined;
  throw refused(kernel, uapi.IOMMU_HWPT_INVALIDATE, values, result, hint ? { hint } : {});
}
