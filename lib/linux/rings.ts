/** What the addon has for rings. */
import type { Memory, RingCalls, Watch } from '../kernel';
import type { Pump, PumpOptions } from '../rings/pump';
import type { Addon } from './addon';
import { LinuxMemory } from './memory';
import { LinuxPump } from './pump';
import { LinuxWatch } from './watch';

export class LinuxRings implements RingCalls {
  constructor(private readonly addon: Addon) {}

  /** A limit beyond 2^53 - 1 is none. */
  pump(fd: number, memory: Memory, { limit }: PumpOptions): Pump | number {
    if (!(memory instanceof LinuxMemory)) throw new TypeError('memory must come from allocate()');
    const native = this.addon.pump(fd, memory.handle, Math.min(limit, Number.MAX_SAFE_INTEGER));
    return typeof native === 'number' ? native : new LinuxPump(this.addon, this, native);
  }

  mapMemory(fd: number, length: number): Memory | number {
    const memory = this.addon.mapMemory(fd, length);
    return typeof memory === 'number' ? memory : new LinuxMemory(this.addon, memory);
  }

  duplicate(fd: number): number {
    return this.addon.duplicate(fd);
  }

  watchCounter(fd: number, callback: () => void): Watch | number {
    const handle = this.addon.watchCounter(fd, callback);
    return handle < 0 ? handle : new LinuxWatch(this.addon, handle);
  }
}
