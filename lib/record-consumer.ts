import { EventEmitter } from 'node:events';
import { failure, refusal } from './errors';
import { EventStream, type WaitOptions } from './event-stream';
import { Handle } from './handle';
import type { Link } from './rings/pump';
import type { Ring } from './rings/ring';

const READ = { syscall: 'read' } as const;
/** Slots are given back to the pump after this many records at the latest. */
const BATCH = 256;

/** What a consumer emits, and with what arguments. */
export interface ConsumerEvents<T> {
  /** One record. */
  record: [item: T];
  /** Nothing will come any more: what reads the kernel's file has ended. */
  error: [error: unknown];
}

/** What went through a ring. */
export interface RingCounters {
  /** Records that came from the kernel. */
  readonly published: number;
  readonly consumed: number;
  /** Responses that nobody waited for: the kernel had answered 'invalid' itself. */
  readonly refused: number;
  /** Records lost here: always 0, what has no room stays in the kernel. */
  readonly dropped: number;
  /** How often a sleeping consumer was woken. */
  readonly wakeups: number;
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
  readonly #readiness: EventStream<void>;
  readonly #emitter = new EventEmitter<ConsumerEvents<T>>();
  /** @internal Index of the next record to be taken, while some are. */
  protected position = 0;
  #listening = false;
  /** Records are being taken: not again from within. */
  #busy = false;

  /** @internal */
  protected constructor(ring: Ring, link: Link) {
    super();
    this.ring = ring;
    this.link = link;
    const source = { start: () => this.#listen(), stop: () => this.#rest() };
    this.#stream = new EventStream(source);
    this.#readiness = new EventStream(source);
  }

  /** What is there now, without waiting. Throws IommuError. */
  drain(): T[];
  /**
   * Calls back for each record there is now, without waiting, and returns how many there were. `record` is the same
   * object each time and means something only during the call. Throws IommuError, or what the callback throws.
   */
  drain(callback: (record: View) => void): number;
  drain(callback?: (record: View) => void): T[] | number {
    this.#requireConsumer();
    if (this.#busy) throw refusal('EBUSY', `${this.label} is being drained`, READ);
    const items = this.#stream.take();
    if (callback) {
      for (const item of items) callback(this.viewOf(item));
      const visitAll = (end: number, head: number) => this.visitAll(end, head, callback);
      return items.length + this.#drainInto(visitAll, items.length > 0);
    }
    this.#drainInto((end, head) => this.#takeAll(end, head, items), items.length > 0);
    return items;
  }

  /** `any`: there was something before. */
  #drainInto(visitAll: (end: number, head: number) => void, any: boolean): number {
    let count = 0;
    try {
      for (let now; ; count += now) {
        this.link.pass();
        now = this.#consume(visitAll, Infinity);
        if (now === 0) break;
      }
    } catch (error) {
      // The callback's. What was answered before goes out all the same.
      this.link.flush();
      throw error;
    }
    if (count === 0 && !any) this.#checkError();
    return count;
  }

  /** Those up to the index `end` become objects. */
  #takeAll(end: number, head: number, items: T[] | undefined): void {
    while (this.position !== end) {
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
  async ready(options: WaitOptions = {}): Promise<void> {
    this.#requireConsumer();
    this.#look();
    if (!this.#stream.empty || this.ring.available > 0) return;
    const { done } = await this.#readiness.next(options);
    if (done) throw this.closedError(READ);
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
    this.#emitter.on(event, listener as never);
    if (event === 'record') this.#listen();
    return this;
  }

  off<E extends keyof ConsumerEvents<T>>(event: E, listener: (...args: ConsumerEvents<T>[E]) => void): this {
    this.#emitter.off(event, listener as never);
    this.#rest();
    return this;
  }

  /** What went through the ring, since it was made; all counts are modulo 2^32. */
  get counters(): RingCounters {
    const { head, tail, refused, dropped, wakeups } = this.ring;
    return { published: head >>> 0, consumed: tail >>> 0, refused, dropped, wakeups };
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
    return this.#stream.waiting || this.#readiness.waiting || this.#emitter.listenerCount('record') > 0;
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
    this.#consume((end, head) => this.#takeAll(end, head, undefined), 1);
  }

  /** Everything in the ring becomes an object: afterwards it is taken, by the next who asks. */
  protected takeAll(): void {
    if (!this.#busy) this.#consume((end, head) => this.#takeAll(end, head, undefined), Infinity);
  }

  #checkError(): void {
    if (this.ring.error !== 0) throw failure(-this.ring.error, READ);
  }

  #listen(): void {
    if (this.#listening) return;
    const result = this.link.start(() => this.#wake());
    if (result < 0) throw failure(result, { syscall: 'poll' });
    this.#listening = true;
    // What came since it was looked for rings no doorbell.
    if (!this.ring.sleep()) setImmediate(() => this.#wake());
  }

  #rest(): void {
    if (!this.#listening || this.#wanted) return;
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
    if (this.ring.error !== 0 && this.ring.available === 0 && this.#listening) this.#fail();
  }

  #deliver(): void {
    while (this.#readiness.waiting && this.ring.available > 0) this.#readiness.push();
    while (!this.closed && this.ring.available > 0) {
      if (this.#stream.waiting) this.#consume((end, head) => this.#takeAll(end, head, undefined), 1);
      else if (this.#emitter.listenerCount('record') > 0) this.#emitOne();
      else break;
    }
  }

  #emitOne(): void {
    const items: T[] = [];
    this.#consume((end, head) => this.#takeAll(end, head, items), 1);
    for (const item of items) this.#emitter.emit('record', item);
  }

  #fail(): void {
    const error = failure(-this.ring.error, READ);
    const listeners = this.#emitter.listenerCount('record') + this.#emitter.listenerCount('error');
    this.#stream.fail(error);
    this.#readiness.fail(error);
    if (listeners > 0) this.#emitter.emit('error', error);
    this.#listening = false;
    this.link.stop();
  }

  /** Has records of the ring visited, `most` at most, and gives their slots back. */
  #consume(visitAll: (end: number, head: number) => void, most: number): number {
    const { ring } = this;
    const first = ring.tail;
    this.position = first;
    this.#busy = true;
    try {
      for (;;) {
        const { head } = ring;
        const left = most - ((this.position - first) >>> 0);
        const count = Math.min((head - this.position) >>> 0, left, BATCH);
        if (count === 0) break;
        visitAll((this.position + count) | 0, head);
        this.#giveBack();
      }
    } finally {
      this.#busy = false;
      // Also where the callback threw: what it was called for is consumed.
      if (ring.tail !== this.position) this.#giveBack();
    }
    return (this.position - first) >>> 0;
  }

  #giveBack(): void {
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
   * Calls back for the records up to the index `end`, from `position` on, which it moves. `head`: where the published
   * records end.
   */
  protected abstract visitAll(end: number, head: number, callback: (record: View) => void): void;
  /** The record whose first word is `at` as an object of its own. `more`: there is another behind it. */
  protected abstract take(at: number, more: boolean): T;
  /** What a callback gets for a record that is an object already. */
  protected abstract viewOf(item: T): View;

  /** Ends waits and iterations. */
  protected override release(): void {
    this.#stream.end();
    this.#readiness.end();
    this.#emitter.removeAllListeners();
    this.#listening = false;
    this.link.close();
  }
}
