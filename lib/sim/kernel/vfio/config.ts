/**
 * Configuration space as vfio-pci shows it to user space (drivers/vfio/pci/vfio_pci_config.c's role). Of each
 * byte some bits are virtual, kept here and not in the device, and some can be written (config-permissions.ts).
 * Whatever changes how the kernel itself uses the device becomes a call of an action.
 */
import type { PciFunction } from '../../devices/pci-function';
import * as registers from '../../devices/pci-registers';
import { ConfigPermissions, EXPANSION_ROM } from './config-permissions';

/** Bits 6:4 of MSI message control: how many vectors software has enabled, as a power of two. */
const MSI_ENABLED_VECTORS = 0x70;
const MAX_READ_REQUEST = 0x7000;

/** What the kernel does when user space writes certain registers. */
export interface ConfigActions {
  /** A function level reset through the PCI Express capability. */
  reset(): void;
  setPowerState(state: number): void;
  /** The command register was written: the BARs may answer now, or no more. */
  memorySpace(enabled: boolean): void;
  /** Interrupt Disable is virtual: it masks INTx. */
  disableIntx(disabled: boolean): void;
  /** MSI as VFIO_DEVICE_SET_IRQS has set it up. */
  readonly msi: { readonly enabled: boolean; readonly log2Vectors: number };
}

export class VirtualConfig {
  readonly #permissions: ConfigPermissions;
  /** Values of the virtual bits. */
  readonly #virtual: Uint8Array;
  readonly #view: DataView;
  #intxDisabled = false;
  /** User space wrote a BAR: its fixed bits must be put back before anybody reads it. */
  #barsWritten = true;

  /** Takes the device's own values, as when a device is opened. */
  constructor(
    readonly pci: PciFunction,
    readonly actions: ConfigActions,
  ) {
    const { config } = pci;
    this.#virtual = new Uint8Array(config.size);
    this.#view = new DataView(this.#virtual.buffer);
    config.readBytes(0, this.#virtual);
    this.#permissions = new ConfigPermissions(config, this.#virtual);
  }

  /** -EFAULT is for the caller: [offset, offset + length) must be inside the space. */
  read(offset: number, into: Uint8Array): void {
    if (this.#barsWritten) this.#fixBars();
    const { virtual } = this.#permissions;
    for (let i = 0; i < into.length; i++) {
      const at = offset + i;
      // Nobody answers for a device that was pulled out.
      const device = this.pci.connected ? this.pci.config.read(at, 1) : 0xff;
      into[i] = (device & ~virtual[at]) | (this.#virtual[at] & virtual[at]);
    }
  }

  /** Cuts the write into aligned accesses of 4 bytes at most, each within one capability. */
  write(offset: number, from: Uint8Array): void {
    for (let done = 0; done < from.length;) {
      const at = offset + done;
      const left = Math.min(from.length - done, this.#permissions.remaining(at));
      const width = left >= 4 && at % 4 === 0 ? 4 : left >= 2 && at % 2 === 0 ? 2 : 1;
      this.#writeChunk(at, width, from.subarray(done, done + width));
      done += width;
    }
  }

  #writeChunk(at: number, width: number, bytes: Uint8Array): void {
    const { virtual, writable, start } = this.#permissions;
    const { config } = this.pci;
    const readRequest = this.#readRequest();
    let value = 0;
    let changesDevice = false;
    for (let i = 0; i < width; i++) {
      const ours = virtual[at + i] & writable[at + i];
      const theirs = writable[at + i] & ~virtual[at + i];
      this.#virtual[at + i] = (this.#virtual[at + i] & ~ours) | (bytes[i] & ours);
      if (theirs) changesDevice = true;
      value |= ((config.read(at + i, 1) & ~theirs) | (bytes[i] & theirs)) << (8 * i);
    }
    if (changesDevice && this.pci.connected) config.write(at, width, value >>> 0);
    const touches = (register: number, length: number) => at < register + length && at + width > register;
    if (start[at] === 0) this.#headerWritten(at, bytes[0], touches);
    else this.#capabilityWritten(start[at], at, bytes, readRequest);
  }

  #headerWritten(at: number, first: number, touches: (register: number, length: number) => boolean): void {
    if (at === registers.COMMAND) this.actions.memorySpace((first & registers.COMMAND_MEMORY_SPACE) !== 0);
    if (touches(registers.BASE_ADDRESS_REGISTERS, 4 * registers.BAR_COUNT)) this.#barsWritten = true;
    if (touches(EXPANSION_ROM, 4)) this.#barsWritten = true;
    if (!touches(registers.COMMAND, 2)) return;
    const disabled =
      (this.#view.getUint16(registers.COMMAND, true) & registers.COMMAND_INTERRUPT_DISABLE) !== 0;
    if (disabled === this.#intxDisabled) return;
    this.#intxDisabled = disabled;
    this.actions.disableIntx(disabled);
  }

  #capabilityWritten(start: number, at: number, bytes: Uint8Array, readRequest: number): void {
    const { config } = this.pci;
    if (start === config.capability(registers.CAPABILITY_POWER_MANAGEMENT)) {
      // The state bits are not written like others: the kernel moves the device itself.
      if (at === start + registers.PM_CONTROL_STATUS)
        this.actions.setPowerState(bytes[0] & registers.PM_POWER_STATE);
    } else if (start === config.capability(registers.CAPABILITY_EXPRESS)) {
      this.#expressWritten(start, readRequest);
    } else if (start === config.capability(registers.CAPABILITY_MSI)) {
      // Also after a write that ends just before it.
      const control = start + registers.MSI_CONTROL;
      if (at <= control && at + bytes.length >= control) this.#msiWritten(control);
    }
  }

  #readRequest(): number {
    const express = this.pci.config.capability(registers.CAPABILITY_EXPRESS);
    if (!express) return 0;
    return this.#view.getUint16(express + registers.EXPRESS_DEVICE_CONTROL, true) & MAX_READ_REQUEST;
  }

  #expressWritten(express: number, readRequest: number): void {
    const { config } = this.pci;
    const at = express + registers.EXPRESS_DEVICE_CONTROL;
    const control = this.#view.getUint16(at, true);
    if (control & registers.EXPRESS_INITIATE_FLR) {
      this.#view.setUint16(at, control & ~registers.EXPRESS_INITIATE_FLR, true);
      const capabilities = config.read(express + registers.EXPRESS_DEVICE_CAPABILITIES, 4);
      if (capabilities & registers.EXPRESS_FUNCTION_LEVEL_RESET) this.actions.reset();
    }
    const wanted = control & MAX_READ_REQUEST;
    if (wanted !== readRequest)
      config.write(
        at,
        2,
        (config.read(at, 2) & ~(MAX_READ_REQUEST | registers.EXPRESS_INITIATE_FLR)) | wanted,
      );
  }

  /** Only SET_IRQS turns MSI on, and with no more vectors than it asked for. */
  #msiWritten(at: number): void {
    const { enabled, log2Vectors } = this.actions.msi;
    let control = this.#view.getUint16(at, true);
    if (!enabled) control &= ~registers.MSI_CONTROL_ENABLE;
    if ((control & MSI_ENABLED_VECTORS) >> 4 > log2Vectors)
      control = (control & ~MSI_ENABLED_VECTORS) | (log2Vectors << 4);
    this.#view.setUint16(at, control, true);
    this.pci.config.write(at, 2, control);
  }

  /** Address bits below a BAR's size read as zero, which is how software finds the size; flags are fixed. */
  #fixBars(): void {
    const { config } = this.pci;
    for (let index = 0; index < registers.BAR_COUNT; index++) {
      const at = registers.BASE_ADDRESS_REGISTERS + 4 * index;
      const bar = config.bar(index);
      const lower = index > 0 ? config.bar(index - 1) : undefined;
      const now = this.#view.getUint32(at, true);
      let fixed = 0;
      if (bar) {
        const mask = bar.size >= 2 ** 32 ? 0 : -bar.size;
        fixed = (now & mask & ~registers.BAR_FLAGS) | (config.read(at, 4) & registers.BAR_FLAGS);
      } else if (lower?.width === 64) {
        fixed = now & (lower.size >= 2 ** 32 ? -(lower.size / 2 ** 32) : -1);
      }
      this.#view.setUint32(at, fixed, true);
    }
    // No simulated device has an expansion ROM.
    this.#view.setUint32(EXPANSION_ROM, 0, true);
    this.#barsWritten = false;
  }
}
