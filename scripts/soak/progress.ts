/** What a soak counts and says: faults in order, the pace, and whether memory stays flat. */

/** Bytes by which memory may grow between the first tenth of a soak and its end. */
const MOST_HEAP = 48 * 2 ** 20;
const MOST_RESIDENT = 128 * 2 ** 20;
const STEPS = 10;

export interface Soaked {
  readonly faults: number;
  readonly seconds: number;
  /** Bytes by which the heap and the whole process grew since the first tenth. */
  readonly heapGrowth: number;
  readonly residentGrowth: number;
}

export class Progress {
  readonly #start = performance.now();
  readonly #step: number;
  #next: number;
  #first: NodeJS.MemoryUsage | undefined;
  #growth = { heapGrowth: 0, residentGrowth: 0 };

  constructor(
    readonly name: string,
    readonly total: number,
  ) {
    this.#step = Math.ceil(total / STEPS);
    this.#next = this.#step;
  }

  /** `done` faults so far. Throws where memory grows. */
  at(done: number): void {
    if (done < this.#next && done < this.total) return;
    this.#next += this.#step;
    // The soak runs with --expose-gc: what can be collected does not count.
    globalThis.gc?.();
    const now = process.memoryUsage();
    this.#first ??= now;
    this.#growth = {
      heapGrowth: now.heapUsed - this.#first.heapUsed,
      residentGrowth: now.rss - this.#first.rss,
    };
    const mega = (bytes: number) => `${(bytes / 2 ** 20).toFixed(1)} MiB`;
    process.stderr.write(
      `soak: ${this.name}: ${done} of ${this.total}, heap ${mega(now.heapUsed)}, process ${mega(now.rss)}\n`,
    );
    if (this.#growth.heapGrowth > MOST_HEAP || this.#growth.residentGrowth > MOST_RESIDENT)
      throw new Error(`memory grows: heap by ${mega(this.#growth.heapGrowth)}`);
  }

  /** The end: one line of JSON on stdout. */
  report(more: Record<string, number>): void {
    const seconds = (performance.now() - this.#start) / 1000;
    const soaked: Soaked = { faults: this.total, seconds, ...this.#growth };
    process.stdout.write(`${JSON.stringify({ ...soaked, ...more })}\n`);
  }
}
