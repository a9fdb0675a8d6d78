/** One command as its caller waits for it: with a time limit, a signal, and further attempts. */
import { NvmeError, statusError } from './errors';
import type { MemoryRange } from './memory';
import type { Command, QueuePair, Request } from './queue';

/** How often a command is given to the controller, where it failed in a way that may not last. */
const ATTEMPTS = 4;
/** How often it is given to a controller that is reset before it has an answer: mostly, another command is to blame. */
const RESETS = 8;

export interface RequestOptions {
  /** Milliseconds until the driver gives it up, all of it: 0 to 2^31 - 1. Default: the driver's. */
  readonly timeout?: number | undefined;
  /**
   * Aborts it. The promise is rejected with the signal's reason once the device is done with the memory; a write may have
   * happened, or not.
   */
  readonly signal?: AbortSignal | undefined;
}

/** Longest delay of a timer. */
const LONGEST_TIMEOUT = 2 ** 31 - 1;

/** Throws TypeError or RangeError. */
export function checkTimeout(value: unknown): void {
  if (typeof value !== 'number') throw new TypeError(`timeout must be a number, not ${typeof value}`);
  if (!(value >= 0 && value <= LONGEST_TIMEOUT))
    throw new RangeError(`timeout ${value} is outside 0 to ${LONGEST_TIMEOUT} milliseconds`);
}

/** What bounds a request, however many commands it becomes: one time limit, and one listener on its caller's signal. */
export class Limits {
  /** In milliseconds of performance.now(). */
  readonly deadline: number;
  readonly #signal: AbortSignal | undefined;
  readonly #acts = new Set<(reason: unknown) => void>();
  readonly #abort = () => {
    for (const act of [...this.#acts]) act(this.#signal?.reason);
  };

  /** `usual`: milliseconds where the caller names none. Throws TypeError, RangeError, the signal's reason. */
  constructor({ signal, timeout }: RequestOptions, usual: number) {
    if (timeout !== undefined) checkTimeout(timeout);
    signal?.throwIfAborted();
    this.deadline = performance.now() + (timeout ?? usual);
    this.#signal = signal;
    signal?.addEventListener('abort', this.#abort);
  }

  /** Milliseconds that are left. */
  get remaining(): number {
    return Math.max(0, this.deadline - performance.now());
  }

  throwIfAborted(): void {
    this.#signal?.throwIfAborted();
  }

  /** Has `act` called where the signal aborts. Disposing of what it returns ends that. */
  onAbort(act: (reason: unknown) => void): Disposable {
    this.#acts.add(act);
    return { [Symbol.dispose]: () => void this.#acts.delete(act) };
  }

  /** Waits for what ends by itself, but not longer than this: `late` makes the error. */
  async within(event: Promise<void>, late: () => Error): Promise<void> {
    this.throwIfAborted();
    let fail!: (reason: unknown) => void;
    const over = new Promise<void>((_resolve, reject) => (fail = reject));
    using _ = this.onAbort(fail);
    const timer = setTimeout(() => fail(late()), this.remaining);
    try {
      await Promise.race([event, over]);
    } finally {
      clearTimeout(timer);
    }
  }

  [Symbol.dispose](): void {
    this.#signal?.removeEventListener('abort', this.#abort);
  }
}

/** What a request moves, and how it is treated. */
export interface RequestTerms {
  readonly data?: MemoryRange | undefined;
  readonly metadata?: MemoryRange | undefined;
  /** It is for the admin queue. */
  readonly admin?: boolean | undefined;
  /**
   * Give it to the controller again whatever error it ended with: it is known to be right, so that an error which is said to
   * last may come from a bit that was flipped on the way.
   */
  readonly insist?: boolean | undefined;
}

export class PendingRequest implements Request {
  readonly promise: Promise<number>;
  readonly data: MemoryRange | undefined;
  readonly metadata: MemoryRange | undefined;
  /** For the admin queue. */
  readonly admin: boolean;
  readonly #insist: boolean;
  /** Where the controller has it. */
  place: { readonly queue: QueuePair; readonly id: number } | undefined;
  /** Its caller does not want it any more: what the promise is rejected with, once the controller is done with it. */
  unwanted: { readonly reason: unknown } | undefined;
  #attempts = 0;
  #resets = 0;
  readonly #again: (request: PendingRequest) => void;
  #resolve!: (result: number) => void;
  #reject!: (reason: unknown) => void;

  /** `deadline`: in milliseconds of performance.now(). `again`: has it submitted once more. */
  constructor(
    readonly what: string,
    readonly command: Command,
    public deadline: number,
    again: (request: PendingRequest) => void,
    { data, metadata, admin = false, insist = false }: RequestTerms = {},
  ) {
    this.data = data;
    this.metadata = metadata;
    this.admin = admin;
    this.#insist = insist;
    this.#again = again;
    this.promise = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
  }

  submitTo(queue: QueuePair): void {
    this.#attempts++;
    this.place = { queue, id: queue.submit(this) };
  }

  completed(status: number, result: number, retry: boolean): void {
    this.place = undefined;
    if (this.unwanted) this.#reject(this.unwanted.reason);
    else if (status === 0) this.#resolve(result);
    else if ((retry || this.#insist) && this.#attempts < ATTEMPTS) this.#again(this);
    else this.#reject(statusError(this.what, status));
  }

  /** The controller was reset with this in it. It can be done again: a block is written as often as one likes. */
  lost(why: string): void {
    this.place = undefined;
    if (this.unwanted) this.#reject(this.unwanted.reason);
    else if (++this.#resets < RESETS) {
      this.#attempts--;
      this.#again(this);
    } else
      this.#reject(
        new NvmeError('ECANCELED', `${this.what}: ${RESETS} attempts ended in resets, at last: ${why}`),
      );
  }

  /** The device cannot touch its memory any more. */
  reject(reason: unknown): void {
    this.place = undefined;
    this.#reject(this.unwanted ? this.unwanted.reason : reason);
  }
}
