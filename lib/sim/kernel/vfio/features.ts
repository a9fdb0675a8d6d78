/** VFIO_DEVICE_FEATURE of a PCI device: which features there are, and what each of them takes and does. */
import { errno } from '../../../uapi/errno';
import {
  VFIO_DEVICE_FEATURE,
  VFIO_DEVICE_FEATURE_GET,
  VFIO_DEVICE_FEATURE_MASK,
  VFIO_DEVICE_FEATURE_PROBE,
  VFIO_DEVICE_FEATURE_SET,
} from '../../../uapi/vfio';
import {
  VFIO_DEVICE_FEATURE_DMA_BUF,
  VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY,
  VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY_WITH_WAKEUP,
  VFIO_DEVICE_FEATURE_LOW_POWER_EXIT,
  VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFOv2,
  vfio_device_feature_dma_buf,
  vfio_device_low_power_entry_with_wakeup,
} from '../../../uapi/vfio-features';
import { EventFile } from '../eventfd';
import type { SimulatedProcess } from '../process';
import type { DmaBufs } from './dma-buf';
import type { LowPower } from './low-power';

const GET_AND_SET = VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_SET;

/** A feature: GET or SET, the least it takes in bytes, and what it does. */
interface Feature {
  readonly operation: number;
  readonly size: number;
  run(process: SimulatedProcess, data: Uint8Array): number;
}

export class DeviceFeatures {
  /**
   * By number. VF tokens are for functions with SR-IOV, bus mastering is in configuration space, and migration and
   * DMA logging need a driver that knows the device: vfio-pci gives ENOTTY for them, as for numbers nobody has.
   */
  readonly #features: ReadonlyMap<number, Feature>;

  constructor(
    readonly power: LowPower,
    readonly dmaBufs: DmaBufs,
  ) {
    const set = VFIO_DEVICE_FEATURE_SET;
    this.#features = new Map<number, Feature>([
      [VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY, { operation: set, size: 0, run: () => power.allow() }],
      [
        VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY_WITH_WAKEUP,
        {
          operation: set,
          size: vfio_device_low_power_entry_with_wakeup.size,
          run: (process, data) => this.#allowWithWakeup(process, data),
        },
      ],
      [
        VFIO_DEVICE_FEATURE_LOW_POWER_EXIT,
        {
          operation: set,
          size: 0,
          run: () => {
            power.forbid();
            return 0;
          },
        },
      ],
      [
        VFIO_DEVICE_FEATURE_DMA_BUF,
        {
          operation: VFIO_DEVICE_FEATURE_GET,
          size: vfio_device_feature_dma_buf.size,
          run: (process, data) => dmaBufs.export(process, data),
        },
      ],
    ]);
  }

  call(process: SimulatedProcess, user: Uint8Array): number {
    const { struct, minimumSize } = VFIO_DEVICE_FEATURE;
    if (user.length < minimumSize) return -errno.EFAULT;
    const { argsz, flags } = struct.decode(user);
    const known = VFIO_DEVICE_FEATURE_MASK | GET_AND_SET | VFIO_DEVICE_FEATURE_PROBE;
    if (argsz < minimumSize || flags & ~known) return -errno.EINVAL;
    const operations = flags & GET_AND_SET;
    const probing = (flags & VFIO_DEVICE_FEATURE_PROBE) !== 0;
    if (!probing && operations === GET_AND_SET) return -errno.EINVAL;
    const number = flags & VFIO_DEVICE_FEATURE_MASK;
    // Asked of every driver before it is asked whether it migrates at all.
    if (number === VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFOv2) return -errno.EINVAL;
    const feature = this.#features.get(number);
    if (!feature) return -errno.ENOTTY;
    if (operations & ~feature.operation) return -errno.EINVAL;
    if (probing) return 0;
    if (!operations || argsz - minimumSize < feature.size) return -errno.EINVAL;
    return feature.run(process, user.subarray(struct.size));
  }

  #allowWithWakeup(process: SimulatedProcess, data: Uint8Array): number {
    const struct = vfio_device_low_power_entry_with_wakeup;
    if (data.length < struct.size) return -errno.EFAULT;
    const { wakeup_eventfd: fd } = struct.decode(data);
    if (fd < 0) return -errno.EINVAL;
    const file = process.file(fd);
    if (!file) return -errno.EBADF;
    return file instanceof EventFile ? this.power.allow(file) : -errno.EINVAL;
  }
}
