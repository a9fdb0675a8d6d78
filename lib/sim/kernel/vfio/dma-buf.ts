/**
 * DMA-bufs of a VFIO PCI device: parts of a BAR behind a descriptor, for other devices' DMA
 * (drivers/vfio/pci/vfio_pci_dmabuf.c's role). While the BAR does not answer, they are revoked.
 */
import { errno } from '../../../uapi/errno';
import { vfio_device_feature_dma_buf, vfio_region_dma_range } from '../../../uapi/vfio-features';
import { BASE_ADDRESS_REGISTERS } from '../../devices/pci-registers';
import { DmaBuf } from '../dma-buf';
import type { PciDevice } from '../pci';
import type { SimulatedProcess } from '../process';
import { PAGE_SIZE } from '../user-memory';
import { isBar } from './regions';

const ACCESS_MODE = 3;
/** What the kernel allocates at once: more ranges than fit are ENOMEM. */
const MOST_RANGES = (4 * 2 ** 20) / vfio_region_dma_range.size;
const END_OF_ADDRESSES = 1n << 64n;

/** A part of a BAR at its physical address. */
export interface PhysicalRange {
  readonly address: number;
  /** Bytes. */
  readonly length: number;
}

export class VfioDmaBuf extends DmaBuf {
  #revoked: boolean;

  constructor(
    readonly ranges: readonly PhysicalRange[],
    revoked: boolean,
    readonly onRelease: (file: VfioDmaBuf) => void,
  ) {
    super(ranges.reduce((sum, { length }) => sum + length, 0));
    this.#revoked = revoked;
  }

  get revoked(): boolean {
    return this.#revoked;
  }

  /** Whoever has the memory loses it with either change, and may ask again. */
  set revoked(revoked: boolean) {
    if (revoked === this.#revoked) return;
    this.#revoked = revoked;
    this.invalidate();
  }

  override get physical(): number {
    if (this.#revoked) return -errno.ENODEV;
    return this.ranges.length === 1 ? this.ranges[0].address : -errno.EOPNOTSUPP;
  }

  protected override release(): void {
    this.onRelease(this);
  }
}

export class DmaBufs {
  readonly #files = new Set<VfioDmaBuf>();

  constructor(readonly device: PciDevice) {}

  /** GET of VFIO_DEVICE_FEATURE_DMA_BUF: the descriptor, or -errno. `data` is what follows struct vfio_device_feature. */
  export(process: SimulatedProcess, data: Uint8Array): number {
    const struct = vfio_device_feature_dma_buf;
    if (data.length < struct.size) return -errno.EFAULT;
    const { region_index: bar, open_flags, flags, nr_ranges } = struct.decode(data);
    if (!nr_ranges || flags) return -errno.EINVAL;
    if (!isBar(bar) || !this.device.pci.barSize(bar)) return -errno.ENODEV;
    if (nr_ranges > MOST_RANGES) return -errno.ENOMEM;
    const ranges = readRanges(data.subarray(struct.size), nr_ranges);
    if (typeof ranges === 'number') return ranges;
    const invalid = this.#check(bar, ranges);
    if (invalid) return invalid;
    const base = this.#base(bar);
    const physical = ranges.map(({ offset, length }) => ({
      address: Number(base + offset),
      length: Number(length),
    }));
    const revoked = !this.device.memoryEnabled;
    const file = new VfioDmaBuf(physical, revoked, (released) => this.#files.delete(released)).get();
    file.access = open_flags & ACCESS_MODE;
    this.#files.add(file);
    const fd = process.install(file);
    file.put();
    return fd;
  }

  /** The BARs stop answering. */
  revoke(): void {
    for (const file of this.#files) file.revoked = true;
  }

  /** They answer again, if they do. */
  restore(): void {
    if (!this.device.memoryEnabled) return;
    for (const file of this.#files) file.revoked = false;
  }

  /** The device is closed: what programs still have open leads nowhere. */
  close(): void {
    this.revoke();
    this.#files.clear();
  }

  #check(bar: number, ranges: readonly { offset: bigint; length: bigint }[]): number {
    const page = BigInt(PAGE_SIZE);
    let total = 0n;
    for (const { offset, length } of ranges) {
      if (!length || offset % page || length % page) return -errno.EINVAL;
      total += length;
      if (total >= END_OF_ADDRESSES) return -errno.EINVAL;
    }
    // The kernel keeps the highest bit of a length for itself.
    if (total >= END_OF_ADDRESSES / 2n) return -errno.EINVAL;
    const base = this.#base(bar);
    const end = base + BigInt(this.device.pci.barSize(bar));
    for (const { offset, length } of ranges) {
      if (base + offset + length >= END_OF_ADDRESSES) return -errno.EOVERFLOW;
      if (base + offset + length > end) return -errno.EINVAL;
    }
    return 0;
  }

  /** Where the BAR is, in the device: what user space reads there is its own. */
  #base(bar: number): bigint {
    const { config } = this.device.pci;
    const at = BASE_ADDRESS_REGISTERS + 4 * bar;
    const high = config.bar(bar)?.width === 64 ? config.read(at + 4, 4) : 0;
    return (BigInt(high) << 32n) | BigInt((config.read(at, 4) & ~0xf) >>> 0);
  }
}

function readRanges(bytes: Uint8Array, count: number) {
  const { size } = vfio_region_dma_range;
  if (bytes.length < count * size) return -errno.EFAULT;
  return Array.from({ length: count }, (_, i) => vfio_region_dma_range.decode(bytes, i * size));
}
