/** Attach data as the pump needs them: which IOASID, and whose, for each [device, PASID]. */

/** PASIDs are 20 bits wide. */
const PASIDS = 2 ** 20;
/** PASID of the slot for requests without one. */
const NO_PASID = 0;

export class SlotTable {
  readonly #numbers = new Map<number, number>();
  /** Four words each: IOASID, cookie low and high, unused. */
  #words = new Int32Array(64);
  readonly #cookie = new BigUint64Array(1);
  readonly #halves = new Int32Array(this.#cookie.buffer);
  readonly #free: number[] = [];
  #count = 0;
  // Faults come in bursts from one device.
  #lastDevice = -1;
  #lastPasid = -1;
  #last = -1;

  fill(device: number, pasid: number, ioasid: number, cookie: bigint): void {
    const key = device * PASIDS + pasid;
    const number = this.#numbers.get(key) ?? this.#free.pop() ?? this.#count++;
    this.#numbers.set(key, number);
    if (4 * number >= this.#words.length) {
      const words = new Int32Array(2 * this.#words.length);
      words.set(this.#words);
      this.#words = words;
    }
    this.#cookie[0] = cookie;
    this.#words[4 * number] = ioasid;
    this.#words[4 * number + 1] = this.#halves[0];
    this.#words[4 * number + 2] = this.#halves[1];
    this.#last = -1;
  }

  /** The number of the slot itself, or -1. */
  numberOf(device: number, pasid: number): number {
    return this.#numbers.get(device * PASIDS + pasid) ?? -1;
  }

  /** The number that the slot had, or -1. It may be another's next. */
  empty(device: number, pasid: number): number {
    const key = device * PASIDS + pasid;
    const number = this.#numbers.get(key) ?? -1;
    if (number >= 0) this.#free.push(number);
    this.#numbers.delete(key);
    this.#last = -1;
    return number;
  }

  /**
   * The number of the slot that a fault belongs to, or -1: its own; else that without PASID, which stands for every PASID
   * of a device whose PASID table is its user's.
   */
  find(device: number, pasid: number): number {
    if (this.#last >= 0 && device === this.#lastDevice && pasid === this.#lastPasid) return this.#last;
    const exact = pasid < PASIDS ? this.#numbers.get(device * PASIDS + pasid) : undefined;
    this.#last = exact ?? this.#numbers.get(device * PASIDS + NO_PASID) ?? -1;
    this.#lastDevice = device;
    this.#lastPasid = pasid;
    return this.#last;
  }

  ioasid(number: number): number {
    return this.#words[4 * number];
  }
  cookieLow(number: number): number {
    return this.#words[4 * number + 1];
  }
  cookieHigh(number: number): number {
    return this.#words[4 * number + 2];
  }
}
