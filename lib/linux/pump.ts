/** The addon's pump, and its doorbell on the event loop. */
import { POLLIN, type Kernel, type Watch } from '../kernel';
import type { Pump } from '../rings/pump';
import type { Addon, NativePump } from './addon';

export class LinuxPump implements Pump {
  readonly #counter = new Uint8Array(8);
  #watch: Watch | undefined;
  #paused = 0;
  #closed = false;

  constructor(
    private readonly addon: Addon,
    private readonly kernel: Kernel,
    /** Its eventfds: for consumers in other threads and processes. */
    readonly native: NativePump,
  ) {}

  pass(): number {
    return this.addon.passPump(this.native.handle, true);
  }

  flush(): number {
    return this.addon.passPump(this.native.handle, false);
  }

  start(wake: () => void): number {
    const result = this.addon.runPump(this.native.handle);
    if (result < 0) return result;
    const watch = this.kernel.watch(this.native.doorbell, POLLIN, () => {
      this.addon.read(this.native.doorbell, this.#counter);
      wake();
    });
    if (typeof watch === 'number') return watch;
    this.#watch = watch;
    return 0;
  }

  stop(): void {
    this.#watch?.close();
    this.#watch = undefined;
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

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.stop();
    this.addon.closePump(this.native.handle);
  }
}
