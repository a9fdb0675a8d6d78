/** A watch that the addon keeps. */
import type { Watch } from '../kernel';
import type { Addon } from './addon';

export class LinuxWatch implements Watch {
  constructor(
    private readonly addon: Addon,
    private handle: number,
  ) {}

  close(): void {
    if (this.handle < 0) return;
    this.addon.closeWatch(this.handle);
    this.handle = -1;
  }

  ref(): void {
    if (this.handle >= 0) this.addon.refWatch(this.handle);
  }

  unref(): void {
    if (this.handle >= 0) this.addon.unrefWatch(this.handle);
  }
}
