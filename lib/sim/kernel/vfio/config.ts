/**
 * Configuration space as vfio-pci shows it to user space: base address registers and interrupt capabilities are
 * virtual (the kernel owns the real ones), some registers pass through, and everything else is read-only
 * (drivers/vfio/pci/vfio_pci_config.c's role).
 */
import type { PciFunction } from '../../devices/pci-function';
import * as registers from '../../devices/pci-registers';

/** Command register bits that user space may change on the device. */
const COMMAND_BITS =
  registers.COMMAND_MEMORY_SPACE |
  registers.COMMAND_BUS_MASTER |
  registers.COMMAND_PARITY_ERROR_RESPONSE |
  registers.COMMAND_SERR_ENABLE |
  registers.COMMAND_INTERRUPT_DISABLE;

export class VirtualConfig {
  /** What user space wrote where it does not reach the device. */
  readonly #shadow = new Uint8Array(registers.EXTENDED_CONFIG_SPACE_SIZE);
  /** 1 where reads come from the shadow. */
  readonly #shadowed = new Uint8Array(registers.EXTENDED_CONFIG_SPACE_SIZE);
  readonly #view = new DataView(this.#shadow.buffer);

  /** `resetFunction` is what the kernel does when user space asks for a function level reset. */
  constructor(
    readonly pci: PciFunction,
    readonly resetFunction: () => void,
  ) {
    const { config } = this.pci;
    const shadow = (offset: number, length: number) => this.#shadowed.fill(1, offset, offset + length);
    shadow(registers.BASE_ADDRESS_REGISTERS, 4 * registers.BAR_COUNT);
    shadow(registers.CACHE_LINE_SIZE, 2);
    shadow(registers.INTERRUPT_LINE, 1);
    // Message control, address and data: 14 bytes at most, without the masks behind them.
    const msi = config.capability(registers.CAPABILITY_MSI);
    if (msi) shadow(msi + registers.MSI_CONTROL, 12);
    const msix = config.capability(registers.CAPABILITY_MSIX);
    if (msix) shadow(msix + registers.MSIX_CONTROL, 2);
    this.load();
  }

  /** Takes the device's own values, as when the device is opened. */
  load(): void {
    for (let offset = 0; offset < this.pci.config.size; offset++)
      if (this.#shadowed[offset]) this.#shadow[offset] = this.pci.config.read(offset, 1);
  }

  read(offset: number, into: Uint8Array): void {
    this.pci.config.readBytes(offset, into);
    for (let i = 0; i < into.length; i++) if (this.#shadowed[offset + i]) into[i] = this.#shadow[offset + i];
  }

  write(offset: number, from: Uint8Array): void {
    for (let i = 0; i < from.length; i++) if (this.#shadowed[offset + i]) this.#shadow[offset + i] = from[i];
    const touches = (start: number, length: number) =>
      offset < start + length && offset + from.length > start;
    if (touches(registers.BASE_ADDRESS_REGISTERS, 4 * registers.BAR_COUNT)) this.#maskBars();
    if (touches(registers.COMMAND, 2)) this.#pass(registers.COMMAND, COMMAND_BITS, offset, from);
    const pm = this.pci.config.capability(registers.CAPABILITY_POWER_MANAGEMENT);
    if (pm && touches(pm + registers.PM_CONTROL_STATUS, 2))
      this.#pass(pm + registers.PM_CONTROL_STATUS, 0xffff, offset, from);
    const express = this.pci.config.capability(registers.CAPABILITY_EXPRESS);
    if (express && touches(express + registers.EXPRESS_DEVICE_CONTROL, 2)) {
      const control = express + registers.EXPRESS_DEVICE_CONTROL;
      const wanted = this.#merge(control, offset, from);
      if (wanted & registers.EXPRESS_INITIATE_FLR) this.resetFunction();
      else this.#pass(control, 0xffff, offset, from);
    }
  }

  /** A 16-bit register as a write of `from` at `offset` would leave it. */
  #merge(register: number, offset: number, from: Uint8Array): number {
    const bytes = [this.pci.config.read(register, 1), this.pci.config.read(register + 1, 1)];
    for (let i = 0; i < 2; i++) bytes[i] = from[register + i - offset] ?? bytes[i];
    return bytes[0] | (bytes[1] << 8);
  }

  #pass(register: number, bits: number, offset: number, from: Uint8Array): void {
    const now = this.pci.config.read(register, 2);
    this.pci.config.write(register, 2, (now & ~bits) | (this.#merge(register, offset, from) & bits));
  }

  /** Address bits below a BAR's size read as zero, which is how software finds the size; flags are fixed. */
  #maskBars(): void {
    for (let index = 0; index < registers.BAR_COUNT; index++) {
      const at = registers.BASE_ADDRESS_REGISTERS + 4 * index;
      const bar = this.pci.config.bar(index);
      const lower = index > 0 ? this.pci.config.bar(index - 1) : undefined;
      if (bar) {
        const flags = this.pci.config.read(at, 4) & registers.BAR_FLAGS;
        const low = bar.size >= 2 ** 32 ? 0 : -bar.size;
        this.#view.setUint32(at, (this.#view.getUint32(at, true) & low & ~registers.BAR_FLAGS) | flags, true);
      } else if (lower?.width === 64) {
        const high = lower.size >= 2 ** 32 ? -(lower.size / 2 ** 32) : -1;
        this.#view.setUint32(at, this.#view.getUint32(at, true) & high, true);
      } else {
        this.#view.setUint32(at, 0, true);
      }
    }
  }
}
