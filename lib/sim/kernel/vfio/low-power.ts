/**
 * Low power as VFIO_DEVICE_FEATURE_LOW_POWER_* allows it: between two system calls the device sleeps, and each of them
 * wakes it first (runtime power management, in drivers/vfio/pci/vfio_pci_core.c's use of it).
 */
import { errno } from '../../../uapi/errno';
import { POWER_STATE_D0, POWER_STATE_D3HOT } from '../../devices/pci-registers';
import type { EventFile } from '../eventfd';
import type { PciDevice } from '../pci';
import type { DmaBufs } from './dma-buf';
import type { VfioInterrupts } from './interrupts';

export class LowPower {
  /** The user allows it. */
  #allowed = false;
  /** Who is told when the device wakes, once. */
  #wakeup: EventFile | undefined;
  #asleep = false;

  /** `available`: the kernel can put a device to sleep at all. */
  constructor(
    readonly device: PciDevice,
    readonly interrupts: VfioInterrupts,
    readonly dmaBufs: DmaBufs,
    readonly available: boolean,
  ) {}

  allow(wakeup?: EventFile): number {
    this.dmaBufs.revoke();
    if (this.#allowed) return -errno.EINVAL;
    this.#allowed = true;
    this.#wakeup = wakeup?.get();
    return 0;
  }

  forbid(): void {
    this.#forbid();
    this.dmaBufs.restore();
  }

  /** Somebody is about to use the device. Once it was told, the user must allow sleep again. */
  wake(): void {
    if (!this.#asleep) return;
    this.#asleep = false;
    this.device.setPowerState(POWER_STATE_D0);
    this.interrupts.restore();
    if (this.#wakeup) {
      this.#wakeup.signal();
      this.#forbid();
    }
    this.interrupts.resume();
  }

  /** Nobody uses it any more. */
  rest(): void {
    if (!this.#allowed || !this.available || this.#asleep) return;
    this.#asleep = true;
    // From D0 on: what the user had set before is lost.
    this.device.setPowerState(POWER_STATE_D0);
    this.interrupts.suspend();
    this.device.setPowerState(POWER_STATE_D3HOT);
  }

  /** The device is closed: nobody is told. */
  close(): void {
    this.#forbid();
    this.wake();
  }

  #forbid(): void {
    this.#allowed = false;
    this.#wakeup?.put();
    this.#wakeup = undefined;
  }
}
