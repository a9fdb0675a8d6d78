/** An eventfd on the event loop. */
import { POLLIN, type Kernel, type Watch } from '../kernel';

/**
 * Calls back when it rings. It stays on the event loop where nobody waits, as nothing that keeps the process: making a
 * watch costs more than a ring.
 */
export class Doorbell {
  readonly #counter = new Uint8Array(8);
  #watch: Watch | undefined;
  #wake: (() => void) | undefined;

  constructor(
    private readonly kernel: Kernel,
    private readonly eventfd: number,
  ) {}

  /** 0 or a negative errno. */
  start(wake: () => void): number {
    this.#wake = wake;
    if (this.#watch) {
      this.#watch.ref();
      return 0;
    }
    const watch = this.kernel.watch(this.eventfd, POLLIN, () => {
      this.kernel.read(this.eventfd, this.#counter);
      this.#wake?.();
    });
    if (typeof watch === 'number') return watch;
    this.#watch = watch;
    return 0;
  }

  stop(): void {
    this.#wake = undefined;
    this.#watch?.unref();
  }

  close(): void {
    this.stop();
    this.#watch?.close();
    this.#watch = undefined;
  }
}
