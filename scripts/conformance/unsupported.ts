/** Which ioctls a kernel does not have: those it answers with ENOTTY whatever they say. */
import {
  IOMMU_TEST_CMD,
  iommufdIoctls,
  VFIO_DEVICE_FEATURE_LOW_POWER_EXIT,
  VFIO_DEVICE_FEATURE_PROBE,
  vfioIoctls,
} from '../../lib/uapi';
import { isUnknown } from './executor';
import { VFIO_PATH } from './generate/vfio';
import type { LocalPeer } from './peer';
import type { Call, Fields, Sequence } from './program';

/** What vfio-pci answers with ENOTTY on every kernel: these are for devices with a driver of their own. */
const NEVER = ['VFIO_DEVICE_QUERY_GFX_PLANE', 'VFIO_DEVICE_GET_GFX_DMABUF', 'VFIO_MIG_GET_PRECOPY_INFO'];
/** Fields without which a kernel that has the call says ENOTTY too. */
const FIELDS: Readonly<Record<string, Fields>> = {
  VFIO_DEVICE_FEATURE: { flags: VFIO_DEVICE_FEATURE_PROBE | VFIO_DEVICE_FEATURE_LOW_POWER_EXIT },
};

/** Opens everything, binds, and then makes the call with all other fields 0. */
function probe(request: string, device: boolean): Sequence {
  const calls: Call[] = [
    { label: 0, op: 'open', path: '/dev/iommu' },
    { label: 1, op: 'open', path: VFIO_PATH },
    { label: 2, op: 'ioctl', fd: 1, request: 'VFIO_DEVICE_BIND_IOMMUFD', fields: { iommufd: { fd: 0 } } },
    { label: 3, op: 'ioctl', fd: device ? 1 : 0, request, fields: FIELDS[request] ?? {} },
  ];
  return { name: `does it have ${request}?`, calls };
}

/** Names of the ioctls that this kernel lacks. */
export function unsupported(peer: LocalPeer): string[] {
  const lacks = (device: boolean) => (name: string) =>
    isUnknown(peer.runNow([probe(name, device)])[0].at(-1)!);
  return [
    ...[...iommufdIoctls.map(({ name }) => name), IOMMU_TEST_CMD.name].filter(lacks(false)),
    ...vfioIoctls
      .map(({ name }) => name)
      .filter((name) => !NEVER.includes(name))
      .filter(lacks(true)),
  ];
}
