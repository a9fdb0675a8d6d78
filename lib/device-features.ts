/** VFIO_DEVICE_FEATURE: what a device offers beyond regions and interrupts. */
import { failure } from './errors';
import { attemptBytes } from './ioctl';
import type { Kernel } from './kernel';
import * as uapi from './uapi';

/** Features by name: their numbers, and what makes one useful. */
const FEATURES = {
  vfToken: uapi.VFIO_DEVICE_FEATURE_PCI_VF_TOKEN | uapi.VFIO_DEVICE_FEATURE_SET,
  migration: uapi.VFIO_DEVICE_FEATURE_MIGRATION | uapi.VFIO_DEVICE_FEATURE_GET,
  dmaLogging: uapi.VFIO_DEVICE_FEATURE_DMA_LOGGING_START | uapi.VFIO_DEVICE_FEATURE_SET,
  lowPower: uapi.VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY | uapi.VFIO_DEVICE_FEATURE_SET,
  lowPowerWakeup: uapi.VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY_WITH_WAKEUP | uapi.VFIO_DEVICE_FEATURE_SET,
  busMaster: uapi.VFIO_DEVICE_FEATURE_BUS_MASTER | uapi.VFIO_DEVICE_FEATURE_SET,
  dmaBuf: uapi.VFIO_DEVICE_FEATURE_DMA_BUF | uapi.VFIO_DEVICE_FEATURE_GET,
} as const;

/** Name of a feature that `device.features()` tells of. */
export type FeatureName = keyof typeof FEATURES;

/** Which features a device has (linux/vfio.h describes them). */
export type DeviceFeatures = Readonly<Record<FeatureName, boolean>>;

function request(kernel: Kernel, fd: number, flags: number, data: Uint8Array): number {
  const { struct } = uapi.VFIO_DEVICE_FEATURE;
  const bytes = new Uint8Array(struct.size + data.length);
  bytes.set(struct.encode({ argsz: bytes.length, flags }));
  bytes.set(data, struct.size);
  return attemptBytes(kernel, fd, uapi.VFIO_DEVICE_FEATURE, bytes);
}

/** Asks for each; a kernel that does not know a feature has none. Throws IommuError for any other refusal. */
export function probeFeatures(kernel: Kernel, fd: number): DeviceFeatures {
  const has = (flags: number): boolean => {
    const result = request(kernel, fd, flags | uapi.VFIO_DEVICE_FEATURE_PROBE, new Uint8Array(0));
    if (result === 0) return true;
    if (result === -uapi.errno.ENOTTY || result === -uapi.errno.EINVAL) return false;
    throw failure(result, { syscall: 'ioctl', request: uapi.VFIO_DEVICE_FEATURE.name });
  };
  const found = Object.entries(FEATURES).map(([name, flags]) => [name, has(flags)] as const);
  return Object.fromEntries(found) as Record<FeatureName, boolean>;
}

/** SET of the feature that is called `name` in the kernel header. Throws IommuError. */
export function setFeature(
  kernel: Kernel,
  fd: number,
  name: 'LOW_POWER_ENTRY' | 'LOW_POWER_ENTRY_WITH_WAKEUP' | 'LOW_POWER_EXIT',
  data: Uint8Array = new Uint8Array(0),
): void {
  const feature = `VFIO_DEVICE_FEATURE_${name}` as const;
  const result = request(kernel, fd, uapi[feature] | uapi.VFIO_DEVICE_FEATURE_SET, data);
  if (result < 0) throw failure(result, { syscall: 'ioctl', request: feature });
}
