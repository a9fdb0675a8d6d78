/**
 * Regions of a VFIO PCI device: configuration space and BARs, through pread, pwrite and mmap
 * (drivers/vfio/pci/vfio_pci_rdwr.c's role).
 */
import { BLOCK_BYTES, type DeviceMapping } from '../../../kernel';
import { errno } from '../../../uapi/errno';
import * as vfio from '../../../uapi/vfio';
import { VFIO_REGION_INFO_CAP_MSIX_MAPPABLE, vfio_info_cap_header } from '../../../uapi/vfio-capabilities';
import type { Enqueued, EnqueueingVm, EnqueueTarget } from '../../cpu/enqcmd';
import type { Halves, PciFunction } from '../../devices/pci-function';
import * as registers from '../../devices/pci-registers';
import { checkAccess } from '../arguments';
import type { PciDevice } from '../pci';
import type { System } from '../system';
import { PAGE_SIZE } from '../user-memory';
import type { VirtualConfig } from './config';

/** A region's offset in the device file is its index times 2^40 (VFIO_PCI_OFFSET_SHIFT). */
export const REGION_STRIDE = 2 ** 40;

export function offsetOf(index: number): bigint {
  return BigInt(index) * BigInt(REGION_STRIDE);
}

export function isBar(index: number): boolean {
  return index <= vfio.VFIO_PCI_BAR5_REGION_INDEX;
}

/** Bytes of a region, 0 where the device has none, -1 for an index that no PCI device has. */
export function regionSize(device: PciFunction, index: number): number {
  if (isBar(index)) return device.barSize(index);
  if (index === vfio.VFIO_PCI_CONFIG_REGION_INDEX) return device.config.size;
  return index === vfio.VFIO_PCI_ROM_REGION_INDEX ? 0 : -1;
}

/** BARs that can be mapped, when the device is opened: whole pages, or the start of a page that no other BAR shares. */
export function mappableBars(system: System, { pci }: PciDevice): ReadonlySet<number> {
  const pageOf = (address: number) => Math.floor(address / PAGE_SIZE);
  const pages = [...system.devices.values()].flatMap(({ pci: { config } }) =>
    config.bars.map(({ bar }) => pageOf(config.barAddress(bar))),
  );
  const mappable = pci.config.bars.filter(({ bar, size }) => {
    const address = pci.config.barAddress(bar);
    const sharing = pages.filter((page) => page === pageOf(address)).length > 1;
    return size >= PAGE_SIZE || (address % PAGE_SIZE === 0 && !sharing);
  });
  return new Set(mappable.map(({ bar }) => bar));
}

/** VFIO_REGION_INFO_FLAG_*. */
export function regionFlags(device: PciFunction, index: number, mappable: ReadonlySet<number>): number {
  if (regionSize(device, index) <= 0) return 0;
  const access = vfio.VFIO_REGION_INFO_FLAG_READ | vfio.VFIO_REGION_INFO_FLAG_WRITE;
  return mappable.has(index) ? access | vfio.VFIO_REGION_INFO_FLAG_MMAP : access;
}

/**
 * The capability chain behind struct vfio_region_info; empty for most regions. The MSI-X table may be mapped with the
 * rest of its BAR.
 */
export function regionCapabilities(
  device: PciFunction,
  index: number,
  mappable: ReadonlySet<number>,
): Uint8Array {
  const msix = device.config.capability(registers.CAPABILITY_MSIX);
  if (!msix || (device.config.read(msix + registers.MSIX_TABLE, 4) & 7) !== index) return new Uint8Array(0);
  if (!mappable.has(index)) return new Uint8Array(0);
  return vfio_info_cap_header.encode({ id: VFIO_REGION_INFO_CAP_MSIX_MAPPABLE, version: 1 });
}

/** Splits a file offset, and clips the length at the region's end. */
function locate(device: PciFunction, offset: number, length: number) {
  const index = Math.floor(offset / REGION_STRIDE);
  const start = offset % REGION_STRIDE;
  const size = regionSize(device, index);
  return { index, start, length: start < size ? Math.min(length, size - start) : -1 };
}

/** The MSI-X table's bytes in a BAR, which user space neither reads nor writes through the file. */
export function msixTable(device: PciFunction, bar: number): { start: number; end: number } {
  const msix = device.config.capability(registers.CAPABILITY_MSIX);
  if (!msix) return { start: 0, end: 0 };
  const table = device.config.read(msix + registers.MSIX_TABLE, 4);
  if ((table & 7) !== bar) return { start: 0, end: 0 };
  const vectors = (device.config.read(msix + registers.MSIX_CONTROL, 2) & 0x7ff) + 1;
  return { start: table & ~7, end: (table & ~7) + vectors * registers.MSIX_ENTRY_SIZE };
}

/**
 * Cuts [start, start + length) of a BAR into the accesses the kernel makes: the widest aligned ones, 8 bytes at
 * most. `width` 0 stands for bytes that are skipped.
 */
function* accesses(device: PciFunction, bar: number, start: number, length: number) {
  const table = msixTable(device, bar);
  for (let at = start, end = start + length; at < end;) {
    const inside = at >= table.start && at < table.end;
    const left = Math.min(end, inside ? table.end : at < table.start ? table.start : end) - at;
    const width = [8, 4, 2, 1].find((candidate) => at % candidate === 0 && left >= candidate) as number;
    if (inside) yield { at, width: 0, bytes: left };
    else yield { at, width, bytes: width };
    at += inside ? left : width;
  }
}

/**
 * pread(2) and pwrite(2) have the same checks: the access that is to be made, cut at the end of a BAR, or -errno. A
 * configuration access beyond the end is refused whole.
 */
function check({ pci }: PciDevice, offset: number, length: number) {
  const { index, start, length: cut } = locate(pci, offset, length);
  if (index === vfio.VFIO_PCI_CONFIG_REGION_INDEX)
    return start + length <= pci.config.size ? { index, start, length } : -errno.EFAULT;
  return cut < 0 ? -errno.EINVAL : { index, start, length: cut };
}

/** Whether an access to this offset of the file reaches the driver, which wakes the device for it. */
export function isRegion(offset: number): boolean {
  return Math.floor(offset / REGION_STRIDE) < vfio.VFIO_PCI_NUM_REGIONS;
}

export function readRegion(
  device: PciDevice,
  config: VirtualConfig,
  bytes: Uint8Array,
  offset: number,
): number {
  const place = check(device, offset, bytes.length);
  if (typeof place === 'number') return place;
  const { index, start, length } = place;
  if (index !== vfio.VFIO_PCI_CONFIG_REGION_INDEX)
    return readBar(device, index, start, bytes.subarray(0, length));
  config.read(start, bytes);
  return length;
}

export function writeRegion(
  device: PciDevice,
  config: VirtualConfig,
  bytes: Uint8Array,
  offset: number,
): number {
  const place = check(device, offset, bytes.length);
  if (typeof place === 'number') return place;
  const { index, start, length } = place;
  if (index !== vfio.VFIO_PCI_CONFIG_REGION_INDEX)
    return writeBar(device, index, start, bytes.subarray(0, length));
  config.write(start, bytes);
  return length;
}

/** What lies before an access that is refused is done: -EIO where the BARs do not answer. */
function readBar({ pci, memoryEnabled }: PciDevice, bar: number, start: number, bytes: Uint8Array): number {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const halves: Halves = { high: 0, low: 0 };
  for (const { at, width, bytes: count } of accesses(pci, bar, start, bytes.length)) {
    const to = at - start;
    if (width > 0 && !memoryEnabled) return -errno.EIO;
    // Nobody answers on the bus for a device that was pulled out: all ones.
    if (width === 0 || !pci.connected) bytes.fill(0xff, to, to + count);
    else if (width === 8) {
      pci.readBar64(bar, at, halves);
      view.setUint32(to, halves.low, true);
      view.setUint32(to + 4, halves.high, true);
    } else {
      const value = pci.readBar(bar, at, width);
      for (let i = 0; i < width; i++) bytes[to + i] = value >>> (8 * i);
    }
  }
  return bytes.length;
}

function writeBar({ pci, memoryEnabled }: PciDevice, bar: number, start: number, bytes: Uint8Array): number {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (const { at, width } of accesses(pci, bar, start, bytes.length)) {
    const from = at - start;
    if (width > 0 && !memoryEnabled) return -errno.EIO;
    if (width === 0 || !pci.connected) continue;
    if (width === 8) pci.writeBar64(bar, at, view.getUint32(from + 4, true), view.getUint32(from, true));
    else {
      let value = 0;
      for (let i = 0; i < width; i++) value |= bytes[from + i] << (8 * i);
      pci.writeBar(bar, at, width, value >>> 0);
    }
  }
  return bytes.length;
}

/** mmap of a BAR: accesses become handler calls of the device, at the width the program asked for. */
export function mapBar(
  system: System,
  device: PciFunction,
  mappable: ReadonlySet<number>,
  offset: number,
  length: number,
): DeviceMapping | number {
  const index = Math.floor(offset / REGION_STRIDE);
  const start = offset % REGION_STRIDE;
  if (!mappable.has(index)) return -errno.EINVAL;
  const rounded = Math.ceil(length / PAGE_SIZE) * PAGE_SIZE;
  if (start + rounded > Math.ceil(device.barSize(index) / PAGE_SIZE) * PAGE_SIZE) return -errno.EINVAL;
  return new BarMapping(system, device, index, start, length);
}

class BarMapping implements DeviceMapping, EnqueueTarget {
  readonly #halves: Halves = { high: 0, low: 0 };
  #mapped = true;

  constructor(
    readonly system: System,
    readonly device: PciFunction,
    readonly bar: number,
    readonly start: number,
    readonly length: number,
  ) {}

  load(offset: number, width: 1 | 2 | 4): number {
    this.#check(offset, width);
    this.system.onRegisterAccess();
    if (!this.#answers(offset, width)) return 2 ** (8 * width) - 1;
    return this.device.readBar(this.bar, this.start + offset, width);
  }

  load64(offset: number): bigint {
    this.#check(offset, 8);
    this.system.onRegisterAccess();
    if (!this.#answers(offset, 8)) return (1n << 64n) - 1n;
    this.device.readBar64(this.bar, this.start + offset, this.#halves);
    return (BigInt(this.#halves.high) << 32n) | BigInt(this.#halves.low);
  }

  store(offset: number, width: 1 | 2 | 4, value: number): void {
    this.#check(offset, width);
    if (this.#answers(offset, width)) this.device.writeBar(this.bar, this.start + offset, width, value);
  }

  store64(offset: number, value: bigint): void {
    this.#check(offset, 8);
    if (!this.#answers(offset, 8)) return;
    this.device.writeBar64(this.bar, this.start + offset, Number(value >> 32n), Number(value & 0xffffffffn));
  }

  storeBlock(offset: number, bytes: Uint8Array): number {
    this.#check(offset, BLOCK_BYTES);
    if (this.#answers(offset, BLOCK_BYTES))
      this.device.writeBarBlock(this.bar, this.start + offset, bytes.slice());
    return 0;
  }

  /** Nothing translates back what a command brings: where processors translate, it would be another device's pPASID. */
  belongsTo({ translatesPasids }: EnqueueingVm): boolean {
    return this.bar !== this.device.portalBar || !translatesPasids;
  }

  enqueue(offset: number, bytes: Uint8Array): Enqueued {
    checkAccess(offset, bytes.length, this.length);
    if (!this.#mapped || !this.#answers(offset, bytes.length)) return 'fault';
    return this.device.enqueue(this.bar, this.start + offset, bytes) ? 'accepted' : 'retry';
  }

  unmap(): void {
    this.#mapped = false;
  }

  /** Nobody does for a device that was pulled out, nor behind the end of a small BAR. */
  #answers(offset: number, width: number): boolean {
    return this.device.connected && this.start + offset + width <= this.device.barSize(this.bar);
  }

  #check(offset: number, width: number): void {
    if (!this.#mapped) throw new Error('the mapping is gone');
    checkAccess(offset, width, this.length);
  }
}
