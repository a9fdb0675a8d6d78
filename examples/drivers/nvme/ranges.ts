/** Blocks that somebody is writing: who wants to write the same waits, in order. */

interface Held {
  readonly first: number;
  readonly end: number;
  readonly released: Promise<void>;
}

export class Ranges {
  readonly #held = new Set<Held>();

  /** Waits for those who asked for any of these blocks before, and holds them. Returns what releases them. */
  async hold(first: number, count: number): Promise<Disposable> {
    const end = first + count;
    const before = [...this.#held].filter((other) => other.first < end && first < other.end);
    let release!: () => void;
    const held = { first, end, released: new Promise<void>((resolve) => (release = resolve)) };
    this.#held.add(held);
    for (const { released } of before) await released;
    return {
      [Symbol.dispose]: () => {
        this.#held.delete(held);
        release();
      },
    };
  }
}
