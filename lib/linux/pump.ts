/** The addon's pump, and its doorbell on the event loop. */
import type { RingCalls } from '../kernel';
import { Doorbell } from '../rings/doorbell';
import type { Pump, RingDescriptors } from '../rings/pump';
import type { Addon, NativePump } from './addon';

export class LinuxPump implements Pump {
  readonly #doorbell: Doorbell;
  #paused = 0;
  #closed = false;

  constructor(
    private readonly addon: Addon,
    calls: RingCalls,
    private readonly native: NativePump,
  ) {
    this.#doorbell = new Doorbell(calls, native.doorbell);
  }

  pass(): number {
    return this.addon.passPump(this.native.handle, true);
  }

  flush(): number {
    return this.addon.passPump(this.native.handle, false);
  }

  kick(): void {
    this.flush();
  }

  start(wake: () => void): number {
    const result = this.addon.runPump(this.native.handle);
    return result < 0 ? result : this.#doorbell.start(wake);
  }

  stop(): void {
    this.#doorbell.stop();
  }

  pause(): void {
    if (this.#paused++ === 0) this.addon.pausePump(this.native.handle, true);
  }

  resume(): void {
    if (--this.#paused > 0 || this.#closed) return;
    this.addon.pausePump(this.native.handle, false);
    this.flush();
  }

  fillSlot(device: number, pasid: number, ioasid: number, cookie: bigint): void {
    this.addon.fillSlot(this.native.handle, device, pasid, ioasid, cookie);
  }

  emptySlot(device: number, pasid: number): void {
    this.addon.emptySlot(this.native.handle, device, pasid);
  }

  isCurrent(groupCookie: number, generation: number): boolean {
    return this.addon.isCurrentGroup(this.native.handle, groupCookie, generation >>> 0);
  }

  lend(): RingDescriptors | number {
    // Two who listen to one doorbell would take each other's rings.
    this.#doorbell.close();
    const result = this.addon.runPump(this.native.handle);
    return result < 0 ? result : this.native;
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#doorbell.close();
    this.addon.closePump(this.native.handle);
  }
}
