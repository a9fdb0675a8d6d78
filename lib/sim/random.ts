/** Random numbers that a seed repeats: xorshift32 (Marsaglia, "Xorshift RNGs", 2003). */
export class Random {
  #state: number;

  /** `seed`: an integer, of which 32 bits count. */
  constructor(seed: number) {
    if (!Number.isSafeInteger(seed)) throw new RangeError(`a seed is an integer, not ${seed}`);
    // Seeds that differ in one bit begin far apart; zero would stay zero.
    this.#state = (Math.imul(seed ^ (seed >>> 16), 0x85ebca6b) ^ 0x9e3779b9) | 0 || 1;
    for (let i = 0; i < 8; i++) this.next();
  }

  /** 0 or more, less than 1. */
  next(): number {
    let state = this.#state;
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    this.#state = state;
    return (state >>> 0) / 2 ** 32;
  }

  /** An integer, 0 or more, less than `end`. */
  below(end: number): number {
    return Math.floor(this.next() * end);
  }
}
