/** INTx through eventfds: the level interrupt of a PCI function, masked from when it fires until user space unmasks it. */
import { errno } from '../../../uapi/errno';
import type { PciFunction } from '../../devices/pci-function';
import type { EventFile } from '../eventfd';

export class Intx {
  #on = false;
  #masked = false;
  /** Interrupt Disable of the virtual command register. */
  #disabled = false;
  #trigger: EventFile | undefined;
  /** How to stop listening to the eventfd that unmasks, as KVM uses it. */
  #stopUnmasking: (() => void) | undefined;

  constructor(readonly pci: PciFunction) {
    pci.onIntx = (asserted) => {
      if (asserted) this.#asserted();
    };
  }

  get on(): boolean {
    return this.#on;
  }

  /** Turns it on, or gives it another eventfd. Undefined: nobody is told. */
  enable(trigger: EventFile | undefined): void {
    trigger?.get();
    this.#trigger?.put();
    this.#trigger = trigger;
    if (this.#on) return;
    this.#on = true;
    this.#masked = this.#disabled;
    if (this.pci.intxAsserted) this.#asserted();
  }

  turnOff(): void {
    this.unmaskBy(undefined);
    this.#trigger?.put();
    this.#trigger = undefined;
    this.#on = false;
    this.#masked = false;
  }

  /** The device is closed. */
  close(): void {
    this.turnOff();
    this.#disabled = false;
    this.pci.onIntx = undefined;
  }

  /** True if it was not masked before. */
  mask(): boolean {
    if (!this.#on || this.#masked) return false;
    this.#masked = true;
    return true;
  }

  /** If the device asks still, user space is told again, and it stays masked. */
  unmask(): void {
    if (!this.#on || !this.#masked || this.#disabled) return;
    if (this.pci.intxAsserted) this.signal();
    else this.#masked = false;
  }

  /** Tells user space, for a test as well. */
  signal(): void {
    if (this.#on && !this.#disabled) this.#trigger?.signal();
  }

  /** User space wrote Interrupt Disable. */
  disable(disabled: boolean): void {
    if (disabled === this.#disabled) return;
    this.#disabled = disabled;
    if (disabled) this.mask();
    else this.unmask();
  }

  /** Unmasks whenever `eventfd` is written, or no more. -EBUSY if one does already. */
  unmaskBy(eventfd: EventFile | undefined): number {
    if (!eventfd) {
      this.#stopUnmasking?.();
      this.#stopUnmasking = undefined;
      return 0;
    }
    if (this.#stopUnmasking) return -errno.EBUSY;
    this.#stopUnmasking = eventfd.handle(() => this.unmask());
    return 0;
  }

  #asserted(): void {
    if (!this.#on || this.#masked) return;
    this.#masked = true;
    this.signal();
  }
}
