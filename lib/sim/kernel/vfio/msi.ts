/**
 * MSI and MSI-X of a VFIO PCI device: one eventfd a vector. The kernel owns the messages; what it programmed is
 * written again after a reset.
 */
import type { PciFunction } from '../../devices/pci-function';
import * as registers from '../../devices/pci-registers';
import { errno } from '../../../uapi/errno';
import type { EventFile } from '../eventfd';
import type { MessageSource, Vector } from '../interrupts';

/** What the kernel leaves in the device for a vector that it has given back. */
const NO_VECTOR: Vector = { addressHigh: 0, addressLow: 0, data: 0, free: () => undefined };

export class MessageInterrupts {
  /** CAPABILITY_MSI or CAPABILITY_MSIX while one is on, else 0: a device has one kind at a time. */
  #kind = 0;
  /** Vectors that MSI was turned on with. */
  #count = 0;
  /** MSI: its block of vectors. MSI-X: a vector for each number that was ever used. */
  readonly #vectors = new Map<number, Vector>();
  readonly #triggers = new Map<number, EventFile>();
  /** log2 of what MSI was last turned on with: it stays as the limit of the virtual capability. */
  log2Vectors = 0;

  constructor(
    readonly pci: PciFunction,
    readonly messages: MessageSource,
  ) {}

  get kind(): number {
    return this.#kind;
  }

  /** Turns the kind on, with `count` vectors, none of which anybody hears yet. */
  enable(kind: number, count: number): number {
    if (count < 1) return -errno.ERANGE;
    if (kind === registers.CAPABILITY_MSI) {
      const log2 = Math.ceil(Math.log2(count));
      const block = this.messages.allocateBlock(2 ** log2, (index) => this.#fire(index));
      if (!block) return -errno.ENOSPC;
      this.#vectors.set(0, block);
      this.log2Vectors = log2;
    }
    this.#kind = kind;
    this.#count = count;
    this.program();
    return 0;
  }

  disable(): void {
    if (!this.#kind) return;
    for (const number of [...this.#triggers.keys()]) this.#setTrigger(number, undefined);
    this.#setEnabled(false);
    for (const [number, vector] of this.#vectors) {
      vector.free();
      // Nobody hears the message any more: none is left in the device.
      this.#vectors.set(number, NO_VECTOR);
    }
    this.#writeMessages();
    this.#vectors.clear();
    this.#kind = 0;
  }

  /** Gives vectors from `start` on their eventfds; undefined takes one away. On failure all of them are without. */
  setTriggers(start: number, triggers: readonly (() => EventFile | undefined | number)[]): number {
    for (const [i, find] of triggers.entries()) {
      const result = this.#change(start + i, find);
      if (!result) continue;
      for (let undo = 0; undo <= i; undo++) this.#setTrigger(start + undo, undefined);
      return result;
    }
    return 0;
  }

  signal(number: number): void {
    this.#triggers.get(number)?.signal();
  }

  /** Writes the kernel's messages into the device. */
  program(): void {
    this.#writeMessages();
    if (this.#kind) this.#setEnabled(true);
  }

  #writeMessages(): void {
    if (this.#kind === registers.CAPABILITY_MSI) this.#programMsi();
    else for (const number of this.#vectors.keys()) this.#programMsix(number);
  }

  #change(number: number, find: () => EventFile | undefined | number): number {
    this.#setTrigger(number, undefined);
    const msix = this.#kind === registers.CAPABILITY_MSIX;
    const trigger = find();
    if (trigger === undefined) return 0;
    if (!msix && number >= this.#count) return -errno.EINVAL;
    if (typeof trigger === 'number') return trigger;
    if (msix && !this.#vectors.has(number)) {
      const vector = this.messages.allocateBlock(1, () => this.#fire(number));
      if (!vector) return -errno.ENOSPC;
      this.#vectors.set(number, vector);
    }
    this.#setTrigger(number, trigger);
    return 0;
  }

  #setTrigger(number: number, trigger: EventFile | undefined): void {
    this.#triggers.get(number)?.put();
    if (trigger) this.#triggers.set(number, trigger.get());
    else this.#triggers.delete(number);
    if (this.#kind === registers.CAPABILITY_MSIX) this.#programMsix(number);
  }

  #fire(number: number): void {
    this.#triggers.get(number)?.signal();
  }

  #programMsi(): void {
    const { config } = this.pci;
    const msi = config.capability(registers.CAPABILITY_MSI);
    const { addressHigh, addressLow, data } = this.#vectors.get(0) as Vector;
    const wide = (config.read(msi + registers.MSI_CONTROL, 2) & registers.MSI_CONTROL_64BIT) !== 0;
    config.write(msi + registers.MSI_ADDRESS, 4, addressLow);
    if (wide) config.write(msi + registers.MSI_UPPER_ADDRESS, 4, addressHigh);
    config.write(msi + registers.MSI_UPPER_ADDRESS + (wide ? 4 : 0), 2, data);
  }

  /** Writes the table entry; a vector without an eventfd is masked. Memory space may be off at this moment. */
  #programMsix(number: number): void {
    const { config } = this.pci;
    const vector = this.#vectors.get(number);
    if (!vector) return;
    const command = config.read(registers.COMMAND, 2);
    config.write(registers.COMMAND, 2, command | registers.COMMAND_MEMORY_SPACE);
    const at = config.read(config.capability(registers.CAPABILITY_MSIX) + registers.MSIX_TABLE, 4);
    const bar = at & 7;
    const entry = (at & ~7) + number * registers.MSIX_ENTRY_SIZE;
    this.pci.writeBar(bar, entry, 4, vector.addressLow);
    this.pci.writeBar(bar, entry + 4, 4, vector.addressHigh);
    this.pci.writeBar(bar, entry + 8, 4, vector.data);
    this.pci.writeBar(bar, entry + 12, 4, this.#triggers.has(number) ? 0 : 1);
    config.write(registers.COMMAND, 2, command);
  }

  #setEnabled(on: boolean): void {
    const { config } = this.pci;
    const at = config.capability(this.#kind) + registers.MSI_CONTROL;
    const msi = this.#kind === registers.CAPABILITY_MSI;
    const bit = msi ? registers.MSI_CONTROL_ENABLE : registers.MSIX_CONTROL_ENABLE;
    const multiple = msi ? 7 << 4 : 0;
    const now = config.read(at, 2) & ~bit & ~multiple;
    config.write(at, 2, on ? now | bit | ((this.log2Vectors << 4) & multiple) : now);
  }
}
