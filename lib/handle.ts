/** What all handles share: an idempotent close(), `using`, and an error for use after close. */
import { refusal } from './errors';

export abstract class Handle {
  #closed = false;

  /** Whether close() was called. */
  get closed(): boolean {
    return this.#closed;
  }

  /** What this is, for error messages: 'address space 3'. */
  protected abstract get label(): string;

  /** Gives everything back. Called once. */
  protected abstract release(): void;

  /** What must succeed before anything is given back: if it throws, the handle stays open. */
  protected beforeClose(): void {}

  /** @internal Throws EBADF when closed; `request` is the ioctl that would have been made. */
  requireOpen(request?: string): void {
    if (this.#closed)
      throw refusal('EBADF', `${this.label} is closed`, { syscall: request ? 'ioctl' : 'close', request });
  }

  /** Closes this and everything that belongs to it. Does nothing the second time. */
  close(): void {
    if (this.#closed) return;
    this.beforeClose();
    this.#closed = true;
    this.release();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

/** Runs every step even if some throw, then throws the first error: nothing is left behind half-closed. */
export function runAll(steps: Iterable<() => void>): void {
  let first: unknown;
  let failed = false;
  for (const step of steps) {
    try {
      step();
    } catch (error) {
      if (!failed) first = error;
      failed = true;
    }
  }
  if (failed) throw first;
}
