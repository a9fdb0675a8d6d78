/** VFIO_DEVICE_GET_INFO: the struct, and the capability for PASIDs that the RFC adds behind it. */
import { errno } from '../../../uapi/errno';
import { VFIO_DEVICE_INFO_CAP_PASID, vfio_device_info_cap_pasid } from '../../../uapi/proposal/pasid';
import { VFIO_DEVICE_FLAGS_CAPS, VFIO_DEVICE_GET_INFO } from '../../../uapi/vfio';
import { fillStruct } from './structs';

export interface DeviceInfo {
  /** VFIO_DEVICE_FLAGS_* without CAPS. */
  readonly flags: number;
  readonly regions: number;
  readonly interrupts: number;
  /** PASID_*; undefined: the device has no vPASIDs, and its answer is what Linux's is. */
  readonly pasid: number | undefined;
}

export function answerInfo(user: Uint8Array, { flags, regions, interrupts, pasid }: DeviceInfo): number {
  const { struct, minimumSize } = VFIO_DEVICE_GET_INFO;
  return fillStruct(user, struct.size, minimumSize, (argsz) => {
    const known = { flags, num_regions: regions, num_irqs: interrupts };
    if (pasid === undefined) return struct.encode({ ...known, argsz });
    const capability = vfio_device_info_cap_pasid.encode({
      header: { id: VFIO_DEVICE_INFO_CAP_PASID, version: 1 },
      flags: pasid,
    });
    const all = { ...known, flags: flags | VFIO_DEVICE_FLAGS_CAPS };
    const needed = struct.size + capability.length;
    // Too short for the capability: the caller learns how much it needs.
    if (argsz < needed) return struct.encode({ ...all, argsz: needed });
    if (user.length < needed) return -errno.EFAULT;
    user.set(capability, struct.size);
    return struct.encode({ ...all, argsz, cap_offset: struct.size });
  });
}
