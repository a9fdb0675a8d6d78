/**
 * A ring in shared memory: the indices and the doorbells.
 *
 * ## Doorbells
 *
 * Who sleeps must be woken, and who is awake must not be: a doorbell costs a system call. Each side therefore has a
 * word that says "I am about to sleep".
 *
 * - The sleeper (the consumer, or the pump) stores `waiting = 1` and *then* looks at the index once more. Is there
 *   something, it takes the word back and goes on; is there nothing, it sleeps until its doorbell rings.
 * - The other side stores the index and *then* exchanges `waiting` with 0. Was it 1, it rings, once.
 *
 * All four are sequentially consistent. So either the sleeper's second look sees the new index, or the other side's
 * exchange sees the word: never neither (a wake-up lost). And only one exchange can get the 1: of several publications
 * one rings, and none rings for a consumer that is awake. A sleeper that finds something at its second look may find
 * its doorbell rung all the same; that ring is the one that it would have slept for, and costs one look.
 *
 * test/rings/doorbell-model.test.ts goes through every interleaving of this, and of what is left when a step is taken out.
 */
import {
  HEADER_BYTES,
  readHeader,
  recordBytes,
  response,
  RESPONSE_BYTES,
  ring as field,
  PUMP_WAITS,
  PUMP_WAITS_FOR_ROOM,
  writeHeader,
  type RingShape,
} from './layout';

const IDENTITY = field.identity >> 2;
const HEAD = field.head >> 2;
const TAIL = field.tail >> 2;
const PARTIAL = field.partial >> 2;
const CONSUMER_WAITING = field.consumerWaiting >> 2;
const RESPONSE_HEAD = field.responseHead >> 2;
const RESPONSE_TAIL = field.responseTail >> 2;
const PUMP_WAITING = field.pumpWaiting >> 2;
const REFUSED = field.refused >> 2;
const ERROR = field.error >> 2;
const WAKEUPS = field.wakeups >> 2;
const DROPPED = field.dropped >> 2;
const RESPONSE_COOKIE = response.groupCookie >> 2;
const RESPONSE_CODE = response.code >> 2;
const RESPONSE_GENERATION = response.generation >> 2;
const RESPONSE_WORDS = RESPONSE_BYTES >> 2;
const RECORDS = HEADER_BYTES >> 2;

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

export class Ring {
  readonly shape: RingShape;
  /** The whole mapping as words: a record's are from `slot(index)` on. */
  readonly words: Int32Array;
  /** Records that it holds at most. */
  readonly capacity: number;
  /** Words of a record. */
  readonly recordWords: number;
  readonly #mask: number;
  readonly #responses: number;
  readonly #responseMask: number;
  /**
   * Where the next response goes, and where the room for some side by side ends that was found last: words; both 0 once
   * they are published. `#written`: index of the response that went to where that room began.
   */
  #next = 0;
  #roomEnd = 0;
  #roomBegin = 0;
  #written = 0;

  /** The ring that is in `memory`. Throws RangeError where there is none. */
  constructor(memory: ArrayBufferLike) {
    this.words = new Int32Array(memory);
    this.shape = readHeader(this.words, memory.byteLength);
    this.capacity = this.shape.records;
    this.recordWords = recordBytes(this.shape) >> 2;
    this.#mask = this.shape.records - 1;
    this.#responses = RECORDS + this.capacity * this.recordWords;
    this.#responseMask = this.shape.responses - 1;
  }

  /** Makes an empty ring in zeroed memory of `ringBytes(shape)` bytes. `start`: the first index, for tests. */
  static create(memory: ArrayBufferLike, shape: RingShape, start = 0): Ring {
    writeHeader(new Int32Array(memory), shape, start);
    return new Ring(memory);
  }

  /** 64 random bits where the ring is one that others find by its descriptors, in hexadecimal; else zeros. */
  get identity(): string {
    return [...this.words.subarray(IDENTITY, IDENTITY + 2)]
      .map((word) => (word >>> 0).toString(16).padStart(8, '0'))
      .join('');
  }

  identify(bits: Int32Array): void {
    this.words.set(bits, IDENTITY);
  }

  /** The first word of the record with this index. */
  slot(index: number): number {
    return RECORDS + (index & this.#mask) * this.recordWords;
  }

  /** Index of the next record to be published. */
  get head(): number {
    return Atomics.load(this.words, HEAD);
  }

  /** Index of the next record to be consumed. */
  get tail(): number {
    return Atomics.load(this.words, TAIL);
  }

  /** The same for the consumer, who alone writes it; for a pump, where an old one does as well. */
  get consumed(): number {
    return this.words[TAIL];
  }

  /** The generation of a group of which the consumer, or the one before it, has taken a part; 0: of none. */
  get partial(): number {
    return this.words[PARTIAL];
  }

  set partial(generation: number) {
    this.words[PARTIAL] = generation;
  }

  /** Records that may be consumed; 0 where the consumer's index makes no sense, for which the pump ends. */
  get available(): number {
    const used = (this.head - this.consumed) >>> 0;
    return used <= this.capacity ? used : 0;
  }

  /** Records that may be published; below 0 where the consumer's index makes no sense. */
  get free(): number {
    return this.capacity - ((this.head - this.tail) >>> 0);
  }

  /** Publishes records up to the index `head`. True: the consumer sleeps, and its doorbell has to be rung. */
  publish(head: number): boolean {
    Atomics.store(this.words, HEAD, head);
    if (Atomics.exchange(this.words, CONSUMER_WAITING, 0) === 0) return false;
    this.words[WAKEUPS]++;
    return true;
  }

  /**
   * Gives slots back up to the index `tail`. True: the pump sleeps for want of them, half of all are free, and its
   * doorbell has to be rung. (It would fill a few at once, and sleep again: a consumer that goes on comes to the half.)
   */
  consume(tail: number): boolean {
    Atomics.store(this.words, TAIL, tail);
    return (
      Atomics.load(this.words, PUMP_WAITING) === PUMP_WAITS_FOR_ROOM &&
      2 * ((this.head - tail) >>> 0) <= this.capacity &&
      this.wakePump()
    );
  }

  /** After responses. True: the pump sleeps, and its doorbell has to be rung. */
  wakePump(): boolean {
    return Atomics.exchange(this.words, PUMP_WAITING, 0) !== 0;
  }

  /** The pump is about to sleep. It has to look at the indices once more after this. */
  pumpSleeps(forRoom: boolean): void {
    Atomics.store(this.words, PUMP_WAITING, forRoom ? PUMP_WAITS_FOR_ROOM : PUMP_WAITS);
  }

  /** The consumer is about to sleep. False: it must not, there is something, or nothing will ever come. */
  sleep(): boolean {
    Atomics.store(this.words, CONSUMER_WAITING, 1);
    if (this.available === 0 && Atomics.load(this.words, ERROR) === 0) return true;
    Atomics.store(this.words, CONSUMER_WAITING, 0);
    return false;
  }

  /** The consumer is awake. */
  awake(): void {
    Atomics.store(this.words, CONSUMER_WAITING, 0);
  }

  /** The errno for which the pump has ended; 0 while it has not. Whoever is about to sleep asks sleep(). */
  get error(): number {
    return this.words[ERROR];
  }

  /** The pump ends: nothing will come any more. Its doorbell has to be rung, for who listens for that alone as well. */
  end(errno: number): void {
    Atomics.store(this.words, ERROR, errno);
    this.publish(this.head);
  }

  /** Responses that nobody waited for. */
  get refused(): number {
    return Atomics.load(this.words, REFUSED) >>> 0;
  }

  /** A response was for nobody. */
  refuse(): void {
    Atomics.add(this.words, REFUSED, 1);
  }

  /** Records lost here: 0. */
  get dropped(): number {
    return Atomics.load(this.words, DROPPED) >>> 0;
  }

  /** How often the consumer's doorbell was rung. */
  get wakeups(): number {
    return this.words[WAKEUPS] >>> 0;
  }

  get counters(): RingCounters {
    const { head, tail, refused, dropped, wakeups } = this;
    return { published: head >>> 0, consumed: tail >>> 0, refused, dropped, wakeups };
  }

  /** Writes a response, for publishResponses(). False: there is no room until the pump has taken some. */
  respond(groupCookie: number, code: number, generation: number): boolean {
    if (this.#next === this.#roomEnd && !this.#findResponseRoom()) return false;
    const { words } = this;
    const at = this.#next;
    words[(at + RESPONSE_COOKIE) | 0] = groupCookie;
    words[(at + RESPONSE_CODE) | 0] = code;
    words[(at + RESPONSE_GENERATION) | 0] = generation;
    this.#next = (at + RESPONSE_WORDS) | 0;
    return true;
  }

  #findResponseRoom(): boolean {
    const { words } = this;
    const written = this.#roomEnd === 0 ? words[RESPONSE_HEAD] : this.#responsesWritten;
    const at = written & this.#responseMask;
    const { responses } = this.shape;
    // Below 0 where the pump's index was spoilt.
    const free = Math.max(0, responses - ((written - Atomics.load(words, RESPONSE_TAIL)) >>> 0));
    this.#written = written;
    this.#next = this.#roomBegin = this.#responses + at * RESPONSE_WORDS;
    this.#roomEnd = this.#next + Math.min(free, responses - at) * RESPONSE_WORDS;
    return this.#next < this.#roomEnd;
  }

  /** Index behind the responses that were written. */
  get #responsesWritten(): number {
    return (this.#written + (this.#next - this.#roomBegin) / RESPONSE_WORDS) | 0;
  }

  /** Shows the pump what was written. */
  publishResponses(): void {
    if (this.#roomEnd === 0) return;
    Atomics.store(this.words, RESPONSE_HEAD, this.#responsesWritten);
    this.#next = this.#roomEnd = 0;
  }

  /** Responses that were not taken yet. */
  get responses(): number {
    return (Atomics.load(this.words, RESPONSE_HEAD) - this.words[RESPONSE_TAIL]) >>> 0;
  }

  /** The first word of the `n`th response that was not taken yet. */
  responseSlot(n: number): number {
    return this.#responses + ((this.words[RESPONSE_TAIL] + n) & this.#responseMask) * RESPONSE_WORDS;
  }

  /** The pump has taken `count` responses. */
  takeResponses(count: number): void {
    Atomics.store(this.words, RESPONSE_TAIL, this.words[RESPONSE_TAIL] + count);
  }
}
