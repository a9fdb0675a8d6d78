/**
 * The ioctls of a VFIO container on /dev/iommu, for programs older than iommufd (drivers/iommu/iommufd/vfio_compat.c's
 * role). They name no IOAS: they mean the one that IOMMU_VFIO_IOAS chose, or that a VFIO group made.
 */
import { errno } from '../../../uapi/errno';
import { IOMMU_VFIO_IOAS_CLEAR, IOMMU_VFIO_IOAS_GET, IOMMU_VFIO_IOAS_SET } from '../../../uapi/iommufd';
import { IOMMU_VFIO_IOAS } from '../../../uapi/iommufd-ioctls';
import type { Ioctl, Struct } from '../../../uapi/layout';
import * as uapi from '../../../uapi/vfio-type1';
import { isCapable } from '../credentials';
import { IOMMU_READ, IOMMU_WRITE } from '../iommu/core';
import type { SimulatedProcess } from '../process';
import { handler, type Command, type Handler } from './command';
import type { IommufdFile } from './file';
import { Ioas, mapUserMemory } from './ioas';
import { containerInfo } from './vfio-compat-info';

const MAP_FLAGS = uapi.VFIO_DMA_MAP_FLAG_READ | uapi.VFIO_DMA_MAP_FLAG_WRITE;

function vfioIoas(command: Command<typeof IOMMU_VFIO_IOAS.struct>): number {
  const { values, file } = command;
  if (values.__reserved) return -errno.EOPNOTSUPP;
  switch (values.op) {
    case IOMMU_VFIO_IOAS_GET:
      return file.compatIoas ? command.respond({ ioas_id: file.compatIoas.id }) : -errno.ENODEV;
    case IOMMU_VFIO_IOAS_SET: {
      const ioas = file.objects.get(values.ioas_id, Ioas);
      if (!ioas) return -errno.ENOENT;
      file.compatIoas = ioas;
      return 0;
    }
    case IOMMU_VFIO_IOAS_CLEAR:
      file.compatIoas = undefined;
      return 0;
    default:
      return -errno.EOPNOTSUPP;
  }
}

export const vfioCompatHandlers: readonly Handler[] = [handler(IOMMU_VFIO_IOAS, vfioIoas)];

/** A group was put into the container: there is an IOAS for it from now on. 0 or -errno. */
export function createCompatIoas(file: IommufdFile): number {
  if (file.noIommuMode) return -errno.EINVAL;
  file.compatIoas ??= file.objects.add(new Ioas());
  return 0;
}

/** A group without an IOMMU was. 0, or EINVAL where the container translates already. */
export function setNoIommuMode(file: IommufdFile): number {
  if (file.compatIoas) return -errno.EINVAL;
  file.noIommuMode = true;
  return 0;
}

/** An ioctl whose number iommufd itself does not have. */
export function vfioCompatIoctl(
  file: IommufdFile,
  process: SimulatedProcess,
  request: number,
  argument: Uint8Array | number,
): number {
  // Where an integer is meant, a buffer is an address: nothing that has a meaning.
  const integer = typeof argument === 'number' ? argument : -1;
  switch (request) {
    case uapi.VFIO_GET_API_VERSION.request:
      return uapi.VFIO_API_VERSION;
    case uapi.VFIO_CHECK_EXTENSION.request:
      return checkExtension(file, integer);
    case uapi.VFIO_SET_IOMMU.request:
      return setIommu(file, process, integer);
    case uapi.VFIO_IOMMU_GET_INFO.request:
      return containerInfo(file, process.userBytes(argument));
    case uapi.VFIO_IOMMU_MAP_DMA.request:
      return mapDma(file, process, argument);
    case uapi.VFIO_IOMMU_UNMAP_DMA.request:
      return unmapDma(file, process.userBytes(argument));
    default:
      return -errno.ENOTTY;
  }
}

function checkExtension(file: IommufdFile, extension: number): number {
  switch (extension) {
    case uapi.VFIO_TYPE1_IOMMU:
    case uapi.VFIO_TYPE1v2_IOMMU:
    case uapi.VFIO_UNMAP_ALL:
      return file.noIommuMode ? 0 : 1;
    case uapi.VFIO_NOIOMMU_IOMMU:
      return 1;
    case uapi.VFIO_DMA_CC_IOMMU: {
      const ioas = file.compatIoas;
      if (!ioas) return -errno.ENODEV;
      return ioas.hwpts.every(({ enforcesCoherency }) => enforcesCoherency) ? 1 : 0;
    }
    default:
      return 0;
  }
}

function setIommu(file: IommufdFile, process: SimulatedProcess, type: number): number {
  if (type === uapi.VFIO_NOIOMMU_IOMMU && file.noIommuMode)
    return isCapable(process.credentials, 'CAP_SYS_RAWIO') ? 0 : -errno.EPERM;
  const known = type === uapi.VFIO_TYPE1_IOMMU || type === uapi.VFIO_TYPE1v2_IOMMU;
  if (!known || file.noIommuMode) return -errno.EINVAL;
  const ioas = file.compatIoas;
  if (!ioas) return -errno.ENODEV;
  // The first version may unmap a part of a mapping, which an entry larger than a page would not let go.
  return type === uapi.VFIO_TYPE1_IOMMU ? ioas.table.disableLargePages() : 0;
}

/** The struct at the argument of an ioctl, whose `argsz` must cover all of it. */
function readStruct<S extends Struct>(
  { struct }: Ioctl<S>,
  user: Uint8Array | undefined,
): ReturnType<S['decode']> | number {
  if (!user || user.length < struct.size) return -errno.EFAULT;
  const values = struct.decode(user) as ReturnType<S['decode']> & { argsz: number };
  return values.argsz < struct.size ? -errno.EINVAL : values;
}

function mapDma(file: IommufdFile, process: SimulatedProcess, argument: Uint8Array | number): number {
  const values = readStruct(uapi.VFIO_IOMMU_MAP_DMA, process.userBytes(argument));
  if (typeof values === 'number') return values;
  const { flags, vaddr, iova, size } = values;
  if (flags & ~MAP_FLAGS) return -errno.EINVAL;
  const ioas = file.compatIoas;
  if (!ioas) return -errno.ENODEV;
  // Neither is no mistake here, as long as no table has to have it.
  const protection =
    (flags & uapi.VFIO_DMA_MAP_FLAG_READ ? IOMMU_READ : 0) |
    (flags & uapi.VFIO_DMA_MAP_FLAG_WRITE ? IOMMU_WRITE : 0);
  const mapped = mapUserMemory(file, process, ioas, vaddr, { length: size, iova, protection });
  return mapped < 0n ? Number(mapped) : 0;
}

function unmapDma(file: IommufdFile, user: Uint8Array | undefined): number {
  const row = uapi.VFIO_IOMMU_UNMAP_DMA;
  const values = readStruct(row, user);
  if (typeof values === 'number') return values;
  const { flags, iova, size } = values;
  if (flags & ~uapi.VFIO_DMA_UNMAP_FLAG_ALL) return -errno.EINVAL;
  const ioas = file.compatIoas;
  if (!ioas) return -errno.ENODEV;
  const { table } = ioas;
  if (flags & uapi.VFIO_DMA_UNMAP_FLAG_ALL) {
    if (iova !== 0n || size !== 0n) return -errno.EINVAL;
  } else if (!table.largePages) {
    const last = BigInt.asUintN(64, iova + size - 1n);
    const result = table.cut(iova === 0n ? [last] : [last, iova - 1n]);
    if (result) return result;
  }
  const { result, unmapped } = flags ? table.unmapAll() : table.unmapRange(iova, size);
  // Also after an error: what is gone is gone.
  row.struct.write(new DataView(user!.buffer, user!.byteOffset), 0, { size: unmapped });
  return result;
}
