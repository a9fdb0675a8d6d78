/** What all handles share: an idempotent close(), `using`, and an error for use after close. */
import { refusal, type Where } from './errors';

export abstract class Handle {
  #closed = false;

  /** Handles come from methods of other handles. */
  protected constructor() {}

  /** Whether close() was called. */
  get closed(): boolean {
    return this.#closed;
  }

  /** @internal What this is, for error messages: 'address space 3'. */
  abstract get label(): string;

  /** Gives everything back. Called once. */
  protected abstract release(): void;

  /** What must succeed before anything is given back: if it throws, the handle stays open. */
  protected beforeClose(): void {}

  /** @internal Throws EBADF when closed; `where` is the call that would have been made. */
  requireOpen(where: Partial<Where>): void {
    if (this.#closed) throw this.closedError(where);
  }

  /** @internal */
  protected closedError(where: Partial<Where>): Error {
    return refusal('EBADF', `${this.label} is closed`, where);
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

/** Steps that close handles, the youngest first. */
export function closing(handles: Iterable<Handle>): (() => void)[] {
  return [...handles].reverse().map((handle) => () => handle.close());
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
