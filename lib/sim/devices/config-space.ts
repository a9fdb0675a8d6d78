/**
 * PCI configuration space of a function or a bridge: header, base address registers and capabilities, built from a
 * declaration, with the reset values and write masks of the specification (see pci-registers).
 */
import {
  ConfigImage,
  type Capability,
  type ExtendedCapability,
  placeCapabilities,
  placeExtendedCapabilities,
} from './capabilities';
import * as pci from './pci-registers';

/** A memory base address register. */
export interface BarDescription {
  /** BAR number, 0 to 5; a 64-bit one takes the next number too. */
  readonly bar: number;
  /** Bytes: a power of two, 16 or more (4096 for what Linux can map). */
  readonly size: number;
  readonly width: 32 | 64;
  readonly prefetchable: boolean;
}

/** A function's identity and abilities. */
export interface FunctionDescription {
  readonly vendorId: number;
  readonly deviceId: number;
  readonly revisionId: number;
  /** 24 bits: base class, sub-class, programming interface. */
  readonly classCode: number;
  readonly subsystemVendorId?: number;
  readonly subsystemId?: number;
  /**
   * Bits of the command register that software can set besides Memory Space, Bus Master and Interrupt Disable; default
   * Parity Error Response and SERR# Enable.
   */
  readonly command?: number;
  /** A type 1 header: there is a bus behind it. What firmware programs into the windows is not modelled. */
  readonly bridge?: boolean;
  /** Bit 7 of the header type: the device has more functions than this one. */
  readonly multifunction?: boolean;
  /** 1 to 4 for INTA to INTD, or 0 for none (the default). */
  readonly interruptPin?: 0 | 1 | 2 | 3 | 4;
  readonly bars?: readonly BarDescription[];
  readonly capabilities?: readonly Capability[];
  /** Need an 'express' capability. */
  readonly extendedCapabilities?: readonly ExtendedCapability[];
}

function placeHeader(image: ConfigImage, description: FunctionDescription): void {
  image.register(pci.VENDOR_ID, 2, description.vendorId);
  image.register(pci.DEVICE_ID, 2, description.deviceId);
  const pin = description.interruptPin ?? 0;
  const { command = pci.COMMAND_PARITY_ERROR_RESPONSE | pci.COMMAND_SERR_ENABLE } = description;
  const always = pci.COMMAND_MEMORY_SPACE | pci.COMMAND_BUS_MASTER | pci.COMMAND_INTERRUPT_DISABLE;
  image.register(pci.COMMAND, 2, 0, command | always);
  const list = (description.capabilities ?? []).length > 0 ? pci.STATUS_CAPABILITIES_LIST : 0;
  image.register(pci.STATUS, 2, list, 0, pci.STATUS_ERRORS);
  image.register(pci.REVISION_ID, 1, description.revisionId);
  image.register(pci.CLASS_CODE, 3, description.classCode);
  image.register(pci.CACHE_LINE_SIZE, 1, 0, 0xff);
  const layout = description.bridge ? pci.HEADER_TYPE_BRIDGE : pci.HEADER_TYPE_NORMAL;
  const functions = description.multifunction ? pci.HEADER_TYPE_MULTIFUNCTION : 0;
  image.register(pci.HEADER_TYPE, 1, layout | functions);
  if (description.bridge) {
    for (const bus of [pci.PRIMARY_BUS, pci.SECONDARY_BUS, pci.SUBORDINATE_BUS])
      image.register(bus, 1, 0, 0xff);
  } else {
    image.register(pci.SUBSYSTEM_VENDOR_ID, 2, description.subsystemVendorId ?? 0);
    image.register(pci.SUBSYSTEM_ID, 2, description.subsystemId ?? 0);
  }
  image.register(pci.INTERRUPT_LINE, 1, 0, 0xff);
  image.register(pci.INTERRUPT_PIN, 1, pin);
}

/** The writable bits of a BAR are its address bits: writing all ones and reading back gives the size. */
function placeBar(image: ConfigImage, bar: BarDescription): void {
  const { bar: index, size, width } = bar;
  const slots = width === 64 ? 2 : 1;
  if (!Number.isInteger(index) || index < 0 || index + slots > pci.BAR_COUNT) {
    throw new RangeError(`no ${width}-bit BAR ${index}`);
  }
  if (!Number.isInteger(Math.log2(size)) || size < 16 || size > (width === 64 ? 2 ** 52 : 2 ** 31)) {
    throw new RangeError(`BAR ${index}: a size of ${size} bytes is not possible`);
  }
  const at = pci.BASE_ADDRESS_REGISTERS + 4 * index;
  const flags = (width === 64 ? pci.BAR_TYPE_64BIT : 0) | (bar.prefetchable ? pci.BAR_PREFETCHABLE : 0);
  image.register(at, 4, flags, size >= 2 ** 32 ? 0 : -size);
  if (width === 64) image.register(at + 4, 4, 0, size > 2 ** 32 ? -(size / 2 ** 32) : 0xffffffff);
}

function checkAccess(offset: number, width: number): void {
  if (width !== 1 && width !== 2 && width !== 4) throw new RangeError(`no access is ${width} bytes wide`);
  if (
    !Number.isInteger(offset) ||
    offset < 0 ||
    offset % width !== 0 ||
    offset + width > pci.EXTENDED_CONFIG_SPACE_SIZE
  ) {
    throw new RangeError(`no ${width}-byte access at ${offset} of configuration space`);
  }
}

export class ConfigSpace {
  /** Bytes of configuration space: 256, or 4096 with a PCI Express capability. What is beyond reads as ones. */
  readonly size: number;
  readonly bars: readonly BarDescription[];
  private readonly image = new ConfigImage();
  private readonly bytes: Uint8Array;
  private readonly view: DataView;
  private readonly capabilities: Map<number, number>;
  private readonly extendedCapabilities: Map<number, number>;

  /** `onWrite` is called after each write by software; it may look at what was written, and correct it with `set`. */
  constructor(
    description: FunctionDescription,
    private readonly onWrite: (offset: number, width: number) => void = () => undefined,
  ) {
    placeHeader(this.image, description);
    this.bars = [...(description.bars ?? [])];
    const taken = new Set<number>();
    for (const bar of this.bars) {
      for (let slot = bar.bar; slot < bar.bar + bar.width / 32; slot++) {
        if (description.bridge && slot >= pci.BRIDGE_BAR_COUNT)
          throw new RangeError(`a bridge has no BAR ${slot}`);
        if (taken.has(slot)) throw new RangeError(`BAR ${slot} is declared twice`);
        taken.add(slot);
      }
      placeBar(this.image, bar);
    }
    this.capabilities = placeCapabilities(this.image, description.capabilities ?? []);
    const express = this.capabilities.has(pci.CAPABILITY_EXPRESS);
    const extended = description.extendedCapabilities ?? [];
    if (extended.length > 0 && !express) {
      throw new RangeError("extended capabilities need an 'express' capability");
    }
    this.extendedCapabilities = placeExtendedCapabilities(this.image, extended);
    this.size = express ? pci.EXTENDED_CONFIG_SPACE_SIZE : pci.CONFIG_SPACE_SIZE;
    this.bytes = this.image.bytes.slice();
    this.view = new DataView(this.bytes.buffer);
  }

  /** Offset of a capability, or 0 if the function has none of this ID. */
  capability(id: number): number {
    return this.capabilities.get(id) ?? 0;
  }

  /** Offset of an extended capability, or 0. */
  extendedCapability(id: number): number {
    return this.extendedCapabilities.get(id) ?? 0;
  }

  /** The value of `width` bytes (1, 2 or 4) at an offset that is a multiple of it. RangeError otherwise. */
  read(offset: number, width: number): number {
    checkAccess(offset, width);
    if (offset >= this.size) return width === 4 ? 0xffffffff : 2 ** (8 * width) - 1;
    if (width === 4) return this.view.getUint32(offset, true);
    return width === 2 ? this.view.getUint16(offset, true) : this.bytes[offset];
  }

  /** A write by software: read-only bits stay, write-one-to-clear bits clear. */
  write(offset: number, width: number, value: number): void {
    checkAccess(offset, width);
    if (offset >= this.size) return;
    const { writable, writeOneToClear } = this.image;
    for (let i = 0; i < width; i++) {
      const byte = (value >>> (8 * i)) & 0xff;
      const at = offset + i;
      const kept = this.bytes[at] & ~writable[at] & ~(byte & writeOneToClear[at]);
      this.bytes[at] = kept | (byte & writable[at]);
    }
    this.onWrite(offset, width);
  }

  /** Reads any range, as VFIO's pread(2) of the region does. RangeError beyond 4096 bytes. */
  readBytes(offset: number, into: Uint8Array, at = 0, length = into.length - at): void {
    this.checkRange(offset, length);
    for (let i = 0; i < length; i++) into[at + i] = this.read(offset + i, 1);
  }

  /** Writes any range, as the widest naturally aligned accesses that fit. */
  writeBytes(offset: number, from: Uint8Array, at = 0, length = from.length - at): void {
    this.checkRange(offset, length);
    let done = 0;
    while (done < length) {
      const where = offset + done;
      const left = length - done;
      const width = where % 4 === 0 && left >= 4 ? 4 : where % 2 === 0 && left >= 2 ? 2 : 1;
      let value = 0;
      for (let i = 0; i < width; i++) value |= from[at + done + i] << (8 * i);
      this.write(where, width, value);
      done += width;
    }
  }

  /** A change by the function itself, for which the masks do not hold. Does not call `onWrite`. */
  set(offset: number, width: number, value: number): void {
    checkAccess(offset, width);
    if (width === 4) this.view.setUint32(offset, value, true);
    else if (width === 2) this.view.setUint16(offset, value, true);
    else this.bytes[offset] = value;
  }

  /** Sets or clears bits of a 16-bit register, likewise. */
  setBits(offset: number, bits: number, on: boolean): void {
    const value = this.read(offset, 2);
    this.set(offset, 2, on ? value | bits : value & ~bits);
  }

  /** The declared BAR of this number, if any (none for the upper half of a 64-bit one). */
  bar(index: number): BarDescription | undefined {
    return this.bars.find((bar) => bar.bar === index);
  }

  /** The address software gave a BAR. Below 2^53, as no machine here has more. RangeError if there is no such BAR. */
  barAddress(index: number): number {
    const bar = this.bar(index);
    if (bar === undefined) throw new RangeError(`the function has no BAR ${index}`);
    const at = pci.BASE_ADDRESS_REGISTERS + 4 * index;
    const low = (this.read(at, 4) & ~pci.BAR_FLAGS) >>> 0;
    return bar.width === 64 ? this.read(at + 4, 4) * 2 ** 32 + low : low;
  }

  /** Memory Space Enable. */
  get memoryEnabled(): boolean {
    return (this.read(pci.COMMAND, 2) & pci.COMMAND_MEMORY_SPACE) !== 0;
  }

  /** Bus Master Enable. */
  get busMasterEnabled(): boolean {
    return (this.read(pci.COMMAND, 2) & pci.COMMAND_BUS_MASTER) !== 0;
  }

  /** Interrupt Disable: INTx is not to be asserted. */
  get intxDisabled(): boolean {
    return (this.read(pci.COMMAND, 2) & pci.COMMAND_INTERRUPT_DISABLE) !== 0;
  }

  /** Every register back to its reset value. Does not call `onWrite`. */
  reset(): void {
    this.bytes.set(this.image.bytes);
  }

  private checkRange(offset: number, length: number): void {
    if (
      !Number.isInteger(offset) ||
      !Number.isInteger(length) ||
      offset < 0 ||
      length < 0 ||
      offset + length > pci.EXTENDED_CONFIG_SPACE_SIZE
    ) {
      throw new RangeError(`no ${length} bytes at ${offset} of configuration space`);
    }
  }
}
