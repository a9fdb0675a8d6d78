/** Structs that user space hands to the selftest IOMMU. */
import { errno } from '../../../uapi/errno';
import type { Struct, Values } from '../../../uapi/layout';
import type { UserData } from '../iommu/core';
import { IOMMU_HWPT_DATA_SELFTEST, iommu_hwpt_selftest } from './layout';

/** Bytes of struct iommu_hwpt_selftest that every caller must give: up to the end of `iotlb`. */
const LEAST_TABLE_DATA = 4;

/** Reads a struct of which the caller must give `least` bytes; the rest is zero. Or -errno. */
export function readStruct<F extends Struct['fields']>(
  data: UserData,
  struct: Struct<F>,
  least: number,
): Values<F> | number {
  if (data.length < least || data.length > struct.size) return -errno.EINVAL;
  const given = data.read();
  if (!given) return -errno.EFAULT;
  const bytes = new Uint8Array(struct.size);
  bytes.set(given);
  return struct.decode(bytes);
}

/** What a page table is made from. Or -errno. */
export function readTableData(data: UserData) {
  if (data.type !== IOMMU_HWPT_DATA_SELFTEST) return -errno.EOPNOTSUPP;
  return readStruct(data, iommu_hwpt_selftest, LEAST_TABLE_DATA);
}
