/** An eventfd on the event loop. */
import type { RingCalls, Watch } from '../kernel';

/**
 * Calls back when it rings. It stays on the event loop where nobody waits, as nothing that keeps the process: making a
 * watch costs more than a ring.
 */
export class Doorbell {
  #watch: Watch | undefined;
  #wake: (() => void) | undefined;

  constructor(
    private readonly calls: RingCalls,
    private readonly eventfd: number,
  ) {}

  /** 0 or a negative errno. */
  start(wake: () => void): number {
    this.#wake = wake;
    if (this.#watch) {
      this.#watch.ref();
      return 0;
    }
    const watch = this.calls.watchCounter(this.eventfd, () => this.#wake?.());
    if (typeof watch === 'number') return watch;
    this.#watch = watch;
    return 0;
  }

  stop(): void {
    this.#watch?.unref();
  }

  close(): void {
    this.#wake = undefined;
    this.#watch?.close();
    this.#watch = undefined;
  }
}
