import { EventEmitter } from 'node:events';
import { failure, refusal } from './errors';
import { EventStream } from './event-stream';
import { Handle } from './handle';
import type { Link } from './rings/pump';
import type { Ring, RingCounters } from './rings/ring';
import { limited, type WaitOptions } from './wait';

const READ = { syscall: 'read' } as const;
/** Slots are given back to the pump after this many records at the latest. */
const BATCH = 256;
/** One drain() begins no round after this many records: a kernel that is never seen empty does not keep it. */
const MOST_AT_ONCE = 2 ** 20;

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
export abstract class RecordConsumer<T, View> extends Handle implements AsyncIterable<T> {
  /** @internal */
  protected readonly ring: Ring;
  /** @internal */
  protected readonly link: Link;
  readonly #stream: EventStream<T>;
  /** Who waits in ready(). */
  readonly #readiness: Readiness[] = [];
  readonly #emitter = new EventEmitter<ConsumerEvents<T>>();
  /** @internal Index of the next record to be taken, and the end of the batch, while some are taken. */
  protected position = 0;
  /** @internal */
  protected end = 0;
  #listening = false;
  /** A look whether anybody listens still. */
  #rest: NodeJS.Immediate | undefined;
  /** Records are being taken: not again from within. */
  #busy = false;

  /** @internal */
  protected constructor(ring: Ring, link: Link) {
    super();
    this.ring = ring;
    this.link = link;
    this.#stream = new EventStream({
      start: () => this.#listen(),
      stop: () => this.#mayRest(),
      served: () => this.#restSoon(),
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
    this.#requireConsumer();
    if (this.#busy) throw refusal('EBUSY', `${this.label} is being drained`, READ);
    const items = this.#stream.take();
    const any = items.length;
    if (!callback) {
      this.#drainRing((head) => this.#takeAll(head, items), any);
      return items;
    }
    try {
      const visited = this.#visitItems(items, callback);
      return visited + this.#drainRing((head) => this.visitAll(head, callback), any);
    } finally {
      // Also where the callback threw.
      if (!this.closed) this.link.flush();
    }
  }

  /** Those that are objects already. What the callback does not get to stays. */
  #visitItems(items: readonly T[], callback: (record: View) => void): number {
    let visited = 0;
    this.#busy = true;
    try {
      while (visited < items.length && !this.closed) callback(this.viewOf(items[visited++]));
      return visited;
    } finally {
      this.#busy = false;
      if (!this.closed) this.batchDone();
      for (const item of items.slice(visited)) this.#stream.push(item);
    }
  }

  /** `any`: how many there were before. */
  #drainRing(visitAll: (head: number) => void, any: number): number {
    // What is in the ring comes first: the pump reads and writes when it has been seen.
    let count = this.#consume(visitAll, Infinity);
    for (let held = 1; held > 0 && count < MOST_AT_ONCE && !this.closed;) {
      held = this.link.pass();
      const now = this.#consume(visitAll, Infinity);
      if (now === 0) break;
      count += now;
    }
    if (count + any === 0) this.#checkError();
    return count;
  }

  /** Those of the batch become objects. */
  #takeAll(head: number, items: T[] | undefined): void {
    while (this.position !== this.end) {
      const at = this.ring.slot(this.position);
      this.position = (this.position + 1) | 0;
      const item = this.take(at, this.position !== head);
      if (items) items.push(item);
      else this.#stream.push(item);
    }
  }

  /**
   * Waits until there is something to drain. Rejects with IommuError EBADF (the queue is closed, also meanwhile),
   * ETIMEDOUT, what ended the reading of the kernel's file, or the signal's reason.
   */
  ready(options: WaitOptions = {}): Promise<void> {
    return limited<void>(
      options,
      () => `nothing happened within ${options.timeout} ms`,
      (resolve, reject) => {
        this.#requireConsumer();
        this.#look();
        if (!this.#stream.empty || this.ring.available > 0) {
          resolve();
          return () => {};
        }
        const waiter = { resolve, reject };
        this.#readiness.push(waiter);
        const leave = () => {
          const at = this.#readiness.indexOf(waiter);
          if (at < 0) return;
          this.#readiness.splice(at, 1);
          this.#mayRest();
        };
        try {
          this.#listen();
        } catch (error) {
          leave();
          throw error;
        }
        return leave;
      },
    );
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
    this.#requireConsumer();
    if (event === 'record') this.#listen();
    this.#emitter.on(event, listener as never);
    return this;
  }

  off<E extends keyof ConsumerEvents<T>>(event: E, listener: (...args: ConsumerEvents<T>[E]) => void): this {
    this.#emitter.off(event, listener as never);
    this.#mayRest();
    return this;
  }

  /** What went through the ring, since it was made; all counts are modulo 2^32. */
  get counters(): RingCounters {
    return this.ring.counters;
  }

  /** Who has the consumer's side; undefined: this object. */
  protected get lentTo(): string | undefined {
    return undefined;
  }

  /** Somebody waits here. */
  protected get inUse(): boolean {
    return this.#wanted || this.#busy || !this.#stream.empty;
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
  get #wanted(): boolean {
    return this.#stream.waiting || this.#readiness.length > 0 || this.#emitter.listenerCount('record') > 0;
  }

  /** What the kernel has is asked for before anybody waits. */
  #look(): void {
    if (!this.closed && this.#stream.empty && this.ring.available === 0) this.link.pass();
    if (this.#stream.empty && this.ring.available === 0) this.#checkError();
  }

  /** One record from the ring is put where the next wait finds it. */
  #prefetch(): void {
    if (this.lentTo !== undefined) this.#requireConsumer();
    if (this.closed || !this.#stream.empty || this.#stream.waiting || this.#busy) return;
    this.#look();
    this.#consume((head) => this.#takeAll(head, undefined), 1);
  }

  /** Everything in the ring becomes an object: afterwards it is taken, by the next who asks. */
  protected takeAll(): void {
    if (!this.#busy) this.#consume((head) => this.#takeAll(head, undefined), Infinity);
  }

  #checkError(): void {
    if (this.ring.error !== 0) throw failure(-this.ring.error, READ);
  }

  #listen(): void {
    if (!this.#listening) {
      const result = this.link.start(() => this.#wake());
      if (result < 0) throw failure(result, { syscall: 'poll' });
      this.#listening = true;
    }
    // What came since it was looked for rings no doorbell.
    if (!this.ring.sleep()) setImmediate(() => this.#wake());
  }

  #mayRest(): void {
    if (!this.#wanted) this.rest();
  }

  /** Who was woken most often waits again at once: in the next turn of the event loop it is seen whether nobody does. */
  #restSoon(): void {
    if (!this.#listening || this.#rest || this.#wanted) return;
    this.#rest = setImmediate(() => {
      this.#rest = undefined;
      this.#mayRest();
    });
  }

  /** Listens no more. */
  protected rest(): void {
    if (!this.#listening) return;
    this.#listening = false;
    this.link.stop();
    this.ring.awake();
  }

  /** The doorbell rang, or something is there: whoever waits gets it. */
  #wake(): void {
    if (this.closed || this.#busy) return;
    try {
      do this.#deliver();
      while (this.#listening && this.#wanted && !this.ring.sleep() && this.ring.error === 0);
    } catch (error) {
      // A listener's. Those after it get what is left.
      setImmediate(() => this.#wake());
      throw error;
    }
    if (this.#listening && this.ring.error !== 0 && this.ring.available === 0) this.#fail();
  }

  #deliver(): void {
    if (this.#readiness.length > 0 && this.ring.available > 0) {
      for (const waiter of this.#readiness.splice(0)) waiter.resolve();
      this.#restSoon();
    }
    while (!this.closed && this.ring.available > 0) {
      if (this.#stream.waiting) this.#consume((head) => this.#takeAll(head, undefined), 1);
      else if (this.#emitter.listenerCount('record') > 0) this.#emitOne();
      else break;
    }
  }

  #emitOne(): void {
    const items: T[] = [];
    this.#consume((head) => this.#takeAll(head, items), 1);
    for (const item of items) this.#emitter.emit('record', item);
  }

  #fail(): void {
    const error = failure(-this.ring.error, READ);
    this.#listening = false;
    this.link.stop();
    this.#stream.fail(error);
    for (const waiter of this.#readiness.splice(0)) waiter.reject(error);
    if (this.#emitter.listenerCount('error') > 0) this.#emitter.emit('error', error);
    else if (this.#emitter.listenerCount('record') > 0) throw error;
  }

  /** Has records visited that are in the ring now, `most` at most, and gives their slots back. */
  #consume(visitAll: (head: number) => void, most: number): number {
    const { ring } = this;
    const first = ring.tail;
    const last = (first + Math.min(ring.available, most)) | 0;
    this.position = first;
    this.#busy = true;
    try {
      while (this.position !== last && !this.closed) {
        this.end = (this.position + Math.min((last - this.position) >>> 0, BATCH)) | 0;
        visitAll(ring.head);
        this.#giveBack();
      }
    } finally {
      this.#busy = false;
      // Also where the callback threw: what it was called for is consumed.
      if (!this.closed && ring.tail !== this.position) this.#giveBack();
    }
    return (this.position - first) >>> 0;
  }

  #giveBack(): void {
    if (this.closed) return;
    this.batchDone();
    if (this.ring.consume(this.position)) this.link.kick();
  }

  /** Records are being taken: what is answered meanwhile is written in one go. */
  protected get busy(): boolean {
    return this.#busy;
  }

  /** Some records were visited. */
  protected batchDone(): void {}
  /**
   * Calls back for the records from `position` on, which it moves, up to `end`. `head`: where the published records end.
   */
  protected abstract visitAll(head: number, callback: (record: View) => void): void;
  /** The record whose first word is `at` as an object of its own. `more`: there is another behind it. */
  protected abstract take(at: number, more: boolean): T;
  /** What a callback gets for a record that is an object already. */
  protected abstract viewOf(item: T): View;

  /** Ends waits and iterations. */
  protected override release(): void {
    this.#stream.end();
    for (const waiter of this.#readiness.splice(0)) waiter.reject(this.closedError(READ));
    this.#emitter.removeAllListeners();
    this.#listening = false;
    if (this.#busy) {
      // In a callback. What was answered goes out, and there is no other call.
      this.batchDone();
      this.link.flush();
      this.end = this.position;
    }
    this.link.close();
  }
}
