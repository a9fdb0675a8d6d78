/** How VFIO takes its structs from user space and gives them back. */
import { errno } from '../../../uapi/errno';

/** PASIDs above are refused before anything else is looked at: Linux keeps them in an ida. */
export const LAST_PASID = 2 ** 31 - 1;

/** The PASID that ATTACH or DETACH names, undefined where its flag is not set: the RID; or -errno. */
export function pasidOf(user: Uint8Array, minimum: number, flag: number, offset: number): number | undefined {
  if (user.length < minimum) return -errno.EFAULT;
  const view = new DataView(user.buffer, user.byteOffset, user.byteLength);
  const argsz = view.getUint32(0, true);
  const flags = view.getUint32(4, true);
  if (argsz < minimum || flags & ~flag) return -errno.EINVAL;
  if (!(flags & flag)) return undefined;
  if (argsz < offset + 4) return -errno.EINVAL;
  return user.length < offset + 4 ? -errno.EFAULT : view.getUint32(offset, true);
}

/**
 * The way of VFIO's GET_*_INFO: `argsz` must cover what the first kernel knew, and as much is written back as
 * both sides know.
 */
export function fillStruct(
  user: Uint8Array,
  size: number,
  minimum: number,
  fill: (argsz: number) => Uint8Array | number,
): number {
  if (user.length < minimum) return -errno.EFAULT;
  const argsz = new DataView(user.buffer, user.byteOffset, user.byteLength).getUint32(0, true);
  if (argsz < minimum) return -errno.EINVAL;
  const bytes = fill(argsz);
  if (typeof bytes === 'number') return bytes;
  const length = Math.min(argsz, size);
  if (user.length < length) return -errno.EFAULT;
  user.set(bytes.subarray(0, length));
  return 0;
}
