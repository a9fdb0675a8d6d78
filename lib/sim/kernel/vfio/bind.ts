/** VFIO_DEVICE_BIND_IOMMUFD, as far as it is the same for all kinds of devices (drivers/vfio/device_cdev.c's role). */
import { errno } from '../../../uapi/errno';
import { VFIO_DEVICE_BIND_FLAG_TOKEN, VFIO_DEVICE_BIND_IOMMUFD } from '../../../uapi/vfio';
import { copyStruct } from '../iommufd/command';
import { IommufdFile } from '../iommufd/file';
import type { SimulatedProcess } from '../process';

/** A token is a UUID. */
const TOKEN_BYTES = 16;
/** Bytes of `argsz`, with which every struct begins. */
const SIZE_FIELD = 4;

/** What the caller asks for. */
export interface BindRequest {
  /** The caller's struct, from its first byte on. */
  readonly user: Uint8Array;
  readonly iommufd: number;
  readonly hasToken: boolean;
  readonly token: bigint;
}

/** Reads and checks the struct. Returns -errno for one that is wrong. */
export function readBind(process: SimulatedProcess, argument: Uint8Array | number): BindRequest | number {
  const { struct, minimumSize } = VFIO_DEVICE_BIND_IOMMUFD;
  const user = process.userBytes(argument);
  if (!user || user.length < SIZE_FIELD) return -errno.EFAULT;
  const argsz = new DataView(user.buffer, user.byteOffset).getUint32(0, true);
  if (argsz < minimumSize) return -errno.EINVAL;
  const bytes = copyStruct(user, argsz, struct.size);
  if (typeof bytes === 'number') return bytes;
  const { iommufd, flags, token_uuid_ptr: token } = struct.decode(bytes);
  if (iommufd < 0 || flags & ~VFIO_DEVICE_BIND_FLAG_TOKEN) return -errno.EINVAL;
  return { user, iommufd, token, hasToken: (flags & VFIO_DEVICE_BIND_FLAG_TOKEN) !== 0 };
}

/** The iommufd that the request names, or -errno. No simulated device is a virtual function: a token has nothing to match. */
export function iommufdOf(process: SimulatedProcess, request: BindRequest): IommufdFile | number {
  if (request.hasToken)
    return process.memory.read(request.token, TOKEN_BYTES) ? -errno.EINVAL : -errno.EFAULT;
  const file = process.file(request.iommufd);
  if (!file) return -errno.EBADF;
  return file instanceof IommufdFile ? file : -errno.EBADFD;
}

export function answerBind({ user }: BindRequest, id: number): void {
  const { struct } = VFIO_DEVICE_BIND_IOMMUFD;
  struct.write(new DataView(user.buffer, user.byteOffset), 0, { out_devid: id });
}
