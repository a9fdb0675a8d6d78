/** A kernel with the selftest lets random testers name mappings by number: they cannot guess IOVAs. */
import { MOCK_FLAGS_ACCESS_SYZ } from '../mock/layout';
import type { IoPageTable } from './io-page-table';

/** The IOVA for `encoded`: the number of a mapping, in order of IOVA, and above bit 32 an offset. 0: none such. */
export function convertIova(table: IoPageTable | undefined, encoded: bigint): bigint {
  let left = Number(encoded & 0xffff_ffffn);
  for (const area of table?.areas ?? [])
    if (left-- === 0) return BigInt.asUintN(64, area.start + (encoded >> 32n));
  return 0n;
}

/** What IOMMU_IOAS_COPY makes of its source: with MOCK_FLAGS_ACCESS_SYZ, which is no flag of the uAPI. */
export function convertSource(
  table: IoPageTable | undefined,
  { flags, src_iova }: { flags: number; src_iova: bigint },
): { flags: number; src_iova: bigint } {
  if (!(flags & MOCK_FLAGS_ACCESS_SYZ)) return { flags, src_iova };
  return {
    flags: (flags & ~MOCK_FLAGS_ACCESS_SYZ) >>> 0,
    src_iova: table ? convertIova(table, src_iova) : src_iova,
  };
}
