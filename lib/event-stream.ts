/**
 * Events from the event loop as an async iterable. The source runs only while somebody waits, so an unread
 * stream neither spins the loop nor keeps the process alive; what happens meanwhile stays in the kernel.
 */
import { limited, type WaitOptions } from './wait';

interface Waiter<T> {
  /** Who waits, and may stop waiting. */
  readonly owner: object;
  resolve(result: IteratorResult<T, undefined>): void;
  reject(error: unknown): void;
}

/** What a stream asks of its source. */
export interface Source {
  /** Somebody waits: start watching. */
  start(): void;
  /** Nobody waits any more. */
  stop(): void;
  /** The last who waited has an event, and likely waits again soon. Without it: stop(). */
  served?(): void;
}

const NOTHING = () => {};

export class EventStream<T> {
  readonly #source: Source;
  #buffer: T[] = [];
  #waiters: Waiter<T>[] = [];
  #ended = false;

  constructor(source: Source) {
    this.#source = source;
  }

  /** Somebody waits for an event. */
  get waiting(): boolean {
    return this.#waiters.length > 0;
  }

  /** Nothing is buffered. */
  get empty(): boolean {
    return this.#buffer.length === 0;
  }

  push(event: T): void {
    const waiter = this.#waiters.shift();
    if (!waiter) {
      this.#buffer.push(event);
      return;
    }
    waiter.resolve({ value: event, done: false });
    if (this.waiting) return;
    if (this.#source.served) this.#source.served();
    else this.#source.stop();
  }

  /** Removes and returns the first that is buffered. */
  shift(): T | undefined {
    return this.#buffer.shift();
  }

  /** Removes those that are buffered up to the first that `which` does not name. */
  skip(which: (event: T) => boolean): void {
    while (this.#buffer.length > 0 && which(this.#buffer[0])) this.#buffer.shift();
  }

  /** Removes and returns what is buffered. */
  take(): T[] {
    const events = this.#buffer;
    this.#buffer = [];
    return events;
  }

  /** Ends the stream: iterations finish once the buffer is read. */
  end(): void {
    this.#ended = true;
    this.#dismiss(() => true, finish);
  }

  /** Throws `error` into everybody who waits. */
  fail(error: unknown): void {
    this.#dismiss(
      () => true,
      (waiter) => waiter.reject(error),
    );
  }

  /**
   * The next event; waits for one, `done` at the end of the stream. A wait that ends without one takes none: the
   * event goes to whoever asks next. Rejects with TypeError, RangeError (bad options), ETIMEDOUT or the signal's reason.
   */
  next(options: WaitOptions = {}): Promise<IteratorResult<T, undefined>> {
    const owner = {};
    const wait = (resolve: Waiter<T>['resolve'], reject: Waiter<T>['reject']) => {
      this.#wait({ owner, resolve, reject });
      return () => this.#dismiss((waiter) => waiter.owner === owner, NOTHING);
    };
    if (options.signal === undefined && options.timeout === undefined) return new Promise(wait);
    return limited(options, () => `nothing happened within ${options.timeout} ms`, wait);
  }

  /**
   * An iteration. `prepare` runs before each wait, `onReturn` when the iteration is left. Leaving it ends its own
   * waits, and no other's.
   */
  iterate(prepare: () => void, onReturn: () => void = () => {}): AsyncIterableIterator<T, undefined> {
    let left = false;
    const iterator: AsyncIterableIterator<T, undefined> = {
      next: () =>
        new Promise((resolve, reject) => {
          const waiter: Waiter<T> = { owner: iterator, resolve, reject };
          if (left) return finish(waiter);
          prepare();
          this.#wait(waiter);
        }),
      return: async () => {
        left = true;
        this.#dismiss((waiter) => waiter.owner === iterator, finish);
        onReturn();
        return { value: undefined, done: true };
      },
      [Symbol.asyncIterator]: () => iterator,
    };
    return iterator;
  }

  /** Throws what the source does. */
  #wait(waiter: Waiter<T>): void {
    if (this.#buffer.length > 0) return waiter.resolve({ value: this.#buffer.shift() as T, done: false });
    if (this.#ended) return finish(waiter);
    this.#waiters.push(waiter);
    if (this.#waiters.length > 1) return;
    try {
      this.#source.start();
    } catch (error) {
      this.#waiters = this.#waiters.filter((other) => other !== waiter);
      throw error;
    }
  }

  /** Lets go of the waiters that `which` names, and tells them how. */
  #dismiss(which: (waiter: Waiter<T>) => boolean, tell: (waiter: Waiter<T>) => void): void {
    const leaving = this.#waiters.filter(which);
    if (leaving.length === 0) return;
    this.#waiters = this.#waiters.filter((waiter) => !leaving.includes(waiter));
    if (!this.waiting) this.#source.stop();
    for (const waiter of leaving) tell(waiter);
  }
}

function finish<T>(waiter: Waiter<T>): void {
  waiter.resolve({ value: undefined, done: true });
}
