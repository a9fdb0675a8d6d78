import { EventEmitter } from 'node:events';
import { failure, refusal } from './errors';
import { EventStream } from './event-stream';
import { RingReader } from './ring-reader';
import type { Link } from './rings/pump';
import type { Ring } from './rings/ring';
import { limited, type WaitOptions } from './wait';

const READ = { syscall: 'read' } as const;
/** One drain() begins no round after this many records: a kernel that is never seen empty does not keep it. */
const MOST_AT_ONCE = 2 ** 20;
const NOW = Promise.resolve();

/** What a consumer emits, and with what arguments. */
export interface ConsumerEvents<T> {
  /** One record. */
  record: [item: T];
  /** Nothing will come any more: what reads the kernel's file has ended. */
  error: [error: unknown];
}

/** A call of ready(). */
interface Readiness {
  resolve(): void;
  reject(error: unknown): void;
}

/**
 * The consumer's side of a ring, for faults and for events of virtual IOMMUs. `for await (const item of queue)`, next(),
 * on('record', …), drain(), or without objects made for each record drain((record) => …). Leaving a loop leaves the
 * queue open. Records that nobody takes stay in the ring, and in the kernel behind it: none is lost.
 */
export abstract class RecordConsumer<T, View> extends RingReader<T, View> implements AsyncIterable<T> {
  /** Records that became objects and that nobody has taken yet, and who waits for one. */
  readonly #stream: EventStream<T>;
  /** Who waits in ready(). */
  #readiness: Readiness[] = [];
  readonly #emitter = new EventEmitter<ConsumerEvents<T>>();
  #listening = false;
  /** There are listeners of 'record'. */
  #listened = false;
  /** A look whether anybody listens still. */
  #rest: NodeJS.Immediate | undefined;
  /** Listeners of 'error' have heard of the end. */
  #told = false;

  /** @internal */
  protected constructor(ring: Ring, link: Link) {
    super(ring, link);
    this.#stream = new EventStream({
      start: () => this.#listen(),
      stop: () => this.#mayRest(),
      served: () => void NOW.then(this.#restSoon),
    });
  }

  /**
   * What is there now, without waiting: in the ring, and in the kernel behind it. It is over when the kernel has been seen
   * to have no more, or keeps the rest until some are answered; after 2^20 records and what the ring held then in any case.
   * What comes later is for the next call; in a worker that may be what the ring has no room for as well.
   * Throws IommuError: EBADF (closed), EBUSY (from within another drain), what ended the reading of the kernel's file.
   */
  drain(): T[];
  /**
   * Calls back for each record there is now, as drain() has it, and returns how many there were. `record` is the same
   * object each time and means something only during the call. close() in the callback ends it. Throws as drain(), or
   * what the callback throws: what was answered goes out, and the records behind the one at hand stay for the next call.
   */
  drain(callback: (record: View) => void): number;
  drain(callback?: (record: View) => void): T[] | number {
    if (callback !== undefined) checkFunction('callback', callback);
    this.#requireConsumer();
    if (this.busy) throw refusal('EBUSY', `${this.label} is being drained`, READ);
    const items = this.#stream.empty ? [] : this.#stream.take().filter((item) => !this.isSettled(item));
    const any = items.length;
    if (!callback) {
      this.#drainRing(() => {
        const more = this.collect(Infinity);
        for (const item of more) items.push(item);
        return more.length;
      }, any);
      return items;
    }
    const visitAll = () => this.visitAll(callback);
    try {
      const visited = any === 0 ? 0 : this.#visitItems(items, callback);
      return visited + (this.closed ? 0 : this.#drainRing(() => this.consume(visitAll, Infinity), any));
    } finally {
      // Also where the callback threw.
      if (!this.closed) this.link.flush();
    }
  }

  /** Those that are objects already. What the callback does not get to stays. */
  #visitItems(items: readonly T[], callback: (record: View) => void): number {
    let [next, visited] = [0, 0];
    try {
      this.visiting(() => {
        while (next < items.length && !this.closed) {
          const item = items[next++];
          // The callback may have answered it for another.
          if (this.isSettled(item)) continue;
          visited++;
          callback(this.viewOf(item));
        }
      });
      return visited;
    } finally {
      for (const item of items.slice(next)) this.#stream.push(item);
      if (this.#isWanted() && !this.#stream.empty) setImmediate(() => this.#wake());
    }
  }

  /** `any`: how many there were before. */
  #drainRing(consume: () => number, any: number): number {
    // What is in the ring comes first: the pump reads and writes when it has been seen.
    let count = consume();
    for (let held = 1; held > 0 && count < MOST_AT_ONCE && !this.closed;) {
      held = this.link.pass();
      const now = consume();
      if (now === 0) break;
      count += now;
    }
    if (count + any === 0) this.#checkError();
    return count;
  }

  /**
   * Waits until there is something to drain. Rejects with IommuError EBADF (the queue is closed, also meanwhile),
   * ETIMEDOUT, what ended the reading of the kernel's file, or the signal's reason.
   */
  ready(options: WaitOptions = {}): Promise<void> {
    const wait = (resolve: () => void, reject: (error: unknown) => void) =>
      this.#becomeReady({ resolve, reject });
    // With nothing between the doorbell and who waits.
    if (options.signal === undefined && options.timeout === undefined) return new Promise(wait);
    return limited(options, () => `nothing happened within ${options.timeout} ms`, wait);
  }

  /** Returns what gives the wait up. */
  #becomeReady(waiter: Readiness): () => void {
    this.#requireConsumer();
    this.#look();
    const leave = () => {
      const at = this.#readiness.indexOf(waiter);
      if (at < 0) return;
      this.#readiness.splice(at, 1);
      this.#mayRest();
    };
    if (this.#hasAny()) {
      waiter.resolve();
      return leave;
    }
    this.#readiness.push(waiter);
    try {
      this.#listen();
    } catch (error) {
      leave();
      throw error;
    }
    return leave;
  }

  /**
   * The next one; waits for it. A wait that ends without one takes none: it stays for whoever asks next.
   * Rejects with IommuError EBADF (the queue is closed, also meanwhile), ETIMEDOUT, what ended the reading of the
   * kernel's file, or the signal's reason.
   */
  async next(options: WaitOptions = {}): Promise<T> {
    this.#requireConsumer();
    this.#prefetch();
    const { value, done } = await this.#stream.next(options);
    if (done) throw this.closedError(READ);
    return value;
  }

  /** Ends when the queue is closed. Leaving the loop, or `return()` of the iterator, ends its wait. */
  [Symbol.asyncIterator](): AsyncIterableIterator<T, undefined> {
    return this.#stream.iterate(() => this.#prefetch());
  }

  /**
   * on('record', (item) => …): called for each from now on; keeps the process alive until off() or close().
   * on('error', (error) => …): nothing will come any more, which whoever waits learns as well; without a listener for it
   * the error is thrown where records are listened for, as EventEmitter does.
   */
  on<E extends keyof ConsumerEvents<T>>(event: E, listener: (...args: ConsumerEvents<T>[E]) => void): this {
    checkFunction('listener', listener);
    this.#requireConsumer();
    if (event === 'record') this.#listen();
    else if (event === 'error') this.#attend();
    this.#told = false;
    this.#emitter.on(event, listener as never);
    this.#listened = this.#emitter.listenerCount('record') > 0;
    return this;
  }

  off<E extends keyof ConsumerEvents<T>>(event: E, listener: (...args: ConsumerEvents<T>[E]) => void): this {
    this.#emitter.off(event, listener as never);
    this.#listened = this.#emitter.listenerCount('record') > 0;
    this.#mayRest();
    return this;
  }

  /** Who has the consumer's side; undefined: this object. */
  protected get lentTo(): string | undefined {
    return undefined;
  }

  /** Somebody waits here. */
  protected get inUse(): boolean {
    this.#tidy();
    return this.#isWanted() || this.busy || !this.#stream.empty;
  }

  #requireConsumer(): void {
    this.requireOpen(READ);
    if (this.lentTo !== undefined)
      throw refusal('EBUSY', `${this.lentTo} takes what comes from ${this.label}`, {
        ...READ,
        hint: 'take it there, or have it back with unshare()',
      });
  }

  /** Somebody takes records as they come, or waits for some. */
  #isWanted(): boolean {
    return this.#stream.waiting || this.#readiness.length > 0 || this.#listened;
  }

  /** There is something for whoever asks. */
  #hasAny(): boolean {
    return !this.#stream.empty || this.available > 0;
  }

  /** Objects that were answered meanwhile, as `pending` has shown them, are nobody's any more: the next is one that waits. */
  #tidy(): void {
    this.#stream.skip((item) => this.isSettled(item));
  }

  /** What the kernel has is asked for before anybody waits. */
  #look(): void {
    this.#tidy();
    if (!this.closed && !this.#hasAny()) this.link.pass();
    if (!this.#hasAny()) this.#checkError();
  }

  /** One record from the ring is put where the next wait finds it. */
  #prefetch(): void {
    if (this.lentTo !== undefined) this.#requireConsumer();
    if (this.closed || this.#stream.waiting || this.busy) return;
    this.#look();
    if (this.#stream.empty) this.#keep(1);
  }

  /** Records from the ring become objects, for the next who asks. */
  #keep(most: number): void {
    for (const item of this.collect(most)) this.#stream.push(item);
  }

  /** Everything in the ring becomes an object: afterwards it is taken, by the next who asks. */
  protected takeAll(): void {
    if (!this.busy) this.#keep(Infinity);
  }

  #checkError(): void {
    if (this.failed === 0) return;
    const error = failure(-this.failed, READ);
    this.#tell(error);
    throw error;
  }

  #start(): void {
    const result = this.link.start(() => this.#wake());
    if (result < 0) throw failure(result, { syscall: 'poll' });
  }

  /** Somebody else had the consumer's side, and heard of the end. */
  protected takenBack(): void {
    if (this.#emitter.listenerCount('error') > 0) this.#attend();
  }

  /** Hears of the end, which keeps nothing alive. */
  #attend(): void {
    if (this.#listening) return;
    this.#start();
    this.link.stop();
    if (this.failed !== 0) setImmediate(() => this.#wake());
  }

  #listen(): void {
    if (!this.#listening) {
      this.#start();
      this.#listening = true;
    }
    // What came since it was looked for rings no doorbell.
    if (!this.ring.sleep() || !this.#stream.empty) setImmediate(() => this.#wake());
  }

  #mayRest(): void {
    if (!this.#isWanted()) this.rest();
  }

  /** Who was woken most often waits again at once: in the next turn of the event loop it is seen whether nobody does. */
  readonly #restSoon = (): void => {
    if (!this.#listening || this.#rest || this.#isWanted()) return;
    this.#rest = setImmediate(() => {
      this.#rest = undefined;
      this.#mayRest();
    });
  };

  /** Listens no more. */
  protected rest(): void {
    if (!this.#listening) return;
    this.#listening = false;
    this.link.stop();
    this.ring.awake();
  }

  /** The doorbell rang, or something is there: whoever waits gets it. */
  #wake(): void {
    if (this.closed || this.busy || this.lentTo !== undefined) return;
    try {
      do this.#deliver();
      while (!this.closed && this.#listening && this.#isWanted() && this.failed === 0 && !this.ring.sleep());
    } catch (error) {
      // A listener's. Those after it get what is left.
      setImmediate(() => this.#wake());
      throw error;
    }
    // A listener may have closed it.
    if (!this.closed && this.failed !== 0) this.#fail();
  }

  #deliver(): void {
    if (this.#readiness.length > 0 && this.#hasAny()) {
      const waiters = this.#readiness;
      this.#readiness = [];
      for (const waiter of waiters) waiter.resolve();
      // Behind those, who likely wait again: then there is nothing to do. (queueMicrotask() makes an async resource first.)
      void NOW.then(this.#restSoon);
    }
    while (!this.closed && (this.#stream.waiting || this.#listened) && this.#hasAny()) {
      if (this.#stream.waiting) this.#keep(1);
      else this.#emitOne();
    }
  }

  #emitOne(): void {
    const items = this.#stream.empty ? this.collect(1) : [this.#stream.shift() as T];
    for (const item of items) if (!this.isSettled(item)) this.#emitter.emit('record', item);
  }

  #fail(): void {
    const error = failure(-this.failed, READ);
    this.rest();
    this.#stream.fail(error);
    for (const waiter of this.#readiness.splice(0)) waiter.reject(error);
    this.#tell(error);
    if (this.#told || !this.#listened) return;
    this.#told = true;
    throw error;
  }

  /** Listeners of 'error' hear once that nothing will come any more; and again where somebody begins to listen. */
  #tell(error: Error): void {
    if (this.#told || this.#emitter.listenerCount('error') === 0) return;
    this.#told = true;
    this.#emitter.emit('error', error);
  }

  /** It needs no taking any more. */
  protected isSettled(_item: T): boolean {
    return false;
  }

  /** Ends waits and iterations. */
  protected override release(): void {
    this.#stream.end();
    for (const waiter of this.#readiness.splice(0)) waiter.reject(this.closedError(READ));
    this.#emitter.removeAllListeners();
    this.#listened = false;
    this.#listening = false;
    super.release();
  }
}

function checkFunction(what: string, value: unknown): void {
  if (typeof value !== 'function') throw new TypeError(`${what} must be a function, not ${typeof value}`);
}
