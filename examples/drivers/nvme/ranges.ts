/** Blocks that somebody is writing: who wants to write the same waits, in order. */
import { NvmeError } from './errors';
import type { Limits } from './request';

interface Held {
  readonly first: number;
  readonly end: number;
  readonly released: Promise<void>;
}

export class Ranges {
  readonly #held = new Set<Held>();

  /**
   * Waits for those who asked for any of these blocks before, and holds them. Returns what releases them. Rejects with
   * NvmeError ETIMEDOUT, or the signal's reason.
   */
  async hold(what: string, first: number, count: number, limits: Limits): Promise<Disposable> {
    const end = first + count;
    const before = [...this.#held].filter((other) => other.first < end && first < other.end);
    let release!: () => void;
    const held = { first, end, released: new Promise<void>((resolve) => (release = resolve)) };
    this.#held.add(held);
    const hold = {
      [Symbol.dispose]: () => {
        this.#held.delete(held);
        release();
      },
    };
    const late = () =>
      new NvmeError('ETIMEDOUT', `${what}: earlier writes of these blocks did not end in time`);
    try {
      for (const { released } of before) await limits.within(released, late);
      return hold;
    } catch (error) {
      hold[Symbol.dispose]();
      throw error;
    }
  }
}
