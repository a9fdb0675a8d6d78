/**
 * Events from the event loop as an async iterable. The source runs only while somebody waits, so an unread
 * stream neither spins the loop nor keeps the process alive; what happens meanwhile stays in the kernel.
 */

interface Waiter<T> {
  resolve(result: IteratorResult<T, undefined>): void;
  reject(error: unknown): void;
}

/** What a stream asks of its source. */
export interface Source {
  /** Somebody waits: start watching. */
  start(): void;
  /** Nobody waits any more. */
  stop(): void;
}

export class EventStream<T> {
  readonly #source: Source;
  #buffer: T[] = [];
  readonly #waiters: Waiter<T>[] = [];
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
    if (!this.waiting) this.#source.stop();
  }

  /** Removes and returns what is buffered. */
  take(): T[] {
    const events = this.#buffer;
    this.#buffer = [];
    return events;
  }

  /** Ends the stream: iterations finish once the buffer is read. */
  end(): void {
    if (this.#ended) return;
    this.#ended = true;
    const waiters = this.#waiters.splice(0);
    if (waiters.length > 0) this.#source.stop();
    for (const waiter of waiters) waiter.resolve({ value: undefined, done: true });
  }

  /** Throws `error` into everybody who waits. */
  fail(error: unknown): void {
    const waiters = this.#waiters.splice(0);
    if (waiters.length > 0) this.#source.stop();
    for (const waiter of waiters) waiter.reject(error);
  }

  /** The next event; waits for one. */
  next(): Promise<IteratorResult<T, undefined>> {
    if (this.#buffer.length > 0) return Promise.resolve({ value: this.#buffer.shift() as T, done: false });
    if (this.#ended) return Promise.resolve({ value: undefined, done: true });
    return new Promise((resolve, reject) => {
      this.#waiters.push({ resolve, reject });
      if (this.#waiters.length > 1) return;
      try {
        this.#source.start();
      } catch (error) {
        this.#waiters.pop();
        reject(error);
      }
    });
  }
}
