/** Blocks that somebody is writing: who wants to write the same waits. */

interface Held {
  readonly first: number;
  readonly end: number;
  readonly released: Promise<void>;
}

export class Ranges {
  readonly #held = new Set<Held>();

  /** Waits until nobody holds any of these blocks, and holds them. Returns what releases them. */
  async hold(first: number, count: number): Promise<Disposable> {
    const end = first + count;
    const overlapping = () => [...this.#held].find((other) => other.first < end && first < other.end);
    for (let other = overlapping(); other; other = overlapping()) await other.released;
    let release!: () => void;
    const held = { first, end, released: new Promise<void>((resolve) => (release = resolve)) };
    this.#held.add(held);
    return {
      [Symbol.dispose]: () => {
        this.#held.delete(held);
        release();
      },
    };
  }
}
