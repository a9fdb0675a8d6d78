/** VFIO_DEVICE_IOEVENTFD: an eventfd whose signal becomes a write to a register of the device. */
import { errno } from '../../../uapi/errno';
import { VFIO_DEVICE_IOEVENTFD, VFIO_DEVICE_IOEVENTFD_SIZE_MASK } from '../../../uapi/vfio';
import { EventFile } from '../eventfd';
import type { PciDevice } from '../pci';
import type { SimulatedProcess } from '../process';
import { isBar, msixTable, REGION_STRIDE } from './regions';

/** VFIO_PCI_IOEVENTFD_MAX: of one device. */
const MOST = 1000;

interface Write {
  readonly bar: number;
  readonly at: number;
  readonly width: number;
  readonly data: bigint;
}

export class IoEventfds {
  readonly #writes = new Map<string, () => void>();

  constructor(readonly device: PciDevice) {}

  set(process: SimulatedProcess, user: Uint8Array): number {
    const { struct, minimumSize } = VFIO_DEVICE_IOEVENTFD;
    if (user.length < minimumSize) return -errno.EFAULT;
    const bytes = new Uint8Array(struct.size);
    bytes.set(user.subarray(0, minimumSize));
    const { argsz, flags, offset, data, fd } = struct.decode(bytes);
    if (argsz < minimumSize || flags & ~VFIO_DEVICE_IOEVENTFD_SIZE_MASK) return -errno.EINVAL;
    // The flags' bits are the widths: one must be set.
    if (flags === 0 || flags & (flags - 1) || fd < -1) return -errno.EINVAL;
    const bar = Number(offset / BigInt(REGION_STRIDE));
    const at = Number(offset % BigInt(REGION_STRIDE));
    if (!isBar(bar) || at + flags > this.device.pci.barSize(bar)) return -errno.EINVAL;
    const table = msixTable(this.device.pci, bar);
    if (at < table.end && at + flags > table.start) return -errno.EINVAL;
    return this.#change(process, { bar, at, width: flags, data }, fd);
  }

  close(): void {
    for (const stop of this.#writes.values()) stop();
    this.#writes.clear();
  }

  #change(process: SimulatedProcess, write: Write, fd: number): number {
    const key = `${write.bar} ${write.at} ${write.width} ${write.data}`;
    const stop = this.#writes.get(key);
    if (stop) {
      if (fd >= 0) return -errno.EEXIST;
      stop();
      this.#writes.delete(key);
      return 0;
    }
    if (fd < 0) return -errno.ENODEV;
    if (this.#writes.size >= MOST) return -errno.ENOSPC;
    const file = process.file(fd);
    if (!file) return -errno.EBADF;
    if (!(file instanceof EventFile)) return -errno.EINVAL;
    this.#writes.set(
      key,
      file.handle(() => this.#perform(write)),
    );
    return 0;
  }

  #perform({ bar, at, width, data }: Write): void {
    const { pci, memoryEnabled } = this.device;
    // No register answers an access that is not aligned: QEMU's devices ignore it.
    if (!memoryEnabled || !pci.connected || at % width) return;
    const low = Number(data & 0xffff_ffffn);
    if (width === 8) pci.writeBar64(bar, at, Number(data >> 32n), low);
    else pci.writeBar(bar, at, width, width === 4 ? low : low & (2 ** (8 * width) - 1));
  }
}
