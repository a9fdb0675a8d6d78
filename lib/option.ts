/** IOMMU_OPTION: simple values of the whole Iommu (object ID 0) or of one object. */
import type { Context } from './context';
import { call } from './ioctl';
import * as uapi from './uapi';

/** Throws IommuError. */
export function getOption(context: Context, option_id: number, object_id: number): bigint {
  const values = { option_id, op: uapi.IOMMU_OPTION_OP_GET, object_id };
  return call(context.kernel, context.fd, uapi.IOMMU_OPTION, values).val64;
}

/** Throws IommuError. */
export function setOption(context: Context, option_id: number, object_id: number, val64: bigint): void {
  const values = { option_id, op: uapi.IOMMU_OPTION_OP_SET, object_id, val64 };
  call(context.kernel, context.fd, uapi.IOMMU_OPTION, values);
}
