/** Ends of waits: every request has a time limit and an AbortSignal, and ends with the driver. */
import { DsaError } from './errors';

/** Longest delay a timer takes. */
const LONGEST = 2 ** 31 - 1;

export interface WaitOptions {
  /** Milliseconds, up to 2^31 - 1. */
  readonly timeout?: number;
  readonly signal?: AbortSignal;
}

/** What `work` comes to, or a rejection with the signal's reason if that is earlier; then nobody hears of `work` any more. */
export async function unlessAborted<T>(signal: AbortSignal, work: Promise<T>): Promise<T> {
  let abort = () => {};
  const aborted = new Promise<never>((_resolve, reject) => {
    abort = () => reject(signal.reason as Error);
    if (signal.aborted) abort();
    else signal.addEventListener('abort', abort);
  });
  try {
    return await Promise.race([work, aborted]);
  } finally {
    signal.removeEventListener('abort', abort);
  }
}

/** Requests that are not done. */
export class Limits {
  readonly #name: string;
  /** Milliseconds, of requests that do not say. */
  readonly #timeout: number;
  /** What ends each, and the end of it. */
  readonly #active = new Map<AbortController, Promise<unknown>>();
  #failure: unknown;

  constructor(name: string, timeout: number) {
    this.#name = name;
    this.#timeout = checkTimeout(timeout);
  }

  get any(): boolean {
    return this.#active.size > 0;
  }

  /** Runs `work`, which ends when its signal says so. Throws RangeError. */
  async run<T>(options: WaitOptions, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
    const { timeout = this.#timeout, signal } = options;
    checkTimeout(timeout);
    if (this.#failure !== undefined) throw this.#failure as Error;
    signal?.throwIfAborted();
    const end = new AbortController();
    const abort = () => end.abort(signal?.reason);
    signal?.addEventListener('abort', abort);
    const late = () => new DsaError('ETIMEDOUT', `${this.#name} has not finished within ${timeout} ms`);
    const timer = setTimeout(() => end.abort(late()), timeout);
    try {
      const done = work(end.signal);
      this.#active.set(end, done);
      return await done;
    } finally {
      this.#active.delete(end);
      clearTimeout(timer);
      signal?.removeEventListener('abort', abort);
    }
  }

  /** Ends all there are, and those that come. Resolves when they have ended. */
  async fail(failure: unknown): Promise<void> {
    this.#failure ??= failure;
    for (const end of this.#active.keys()) end.abort(failure);
    await Promise.allSettled(this.#active.values());
  }
}

function checkTimeout(timeout: number): number {
  if (!(timeout >= 0 && timeout <= LONGEST))
    throw new RangeError(`a timeout is 0 to ${LONGEST} milliseconds, not ${timeout}`);
  return timeout;
}
