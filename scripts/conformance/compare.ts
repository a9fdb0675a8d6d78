/** Runs the same sequences on two kernels and reports where they differ. */
import { firstDifference, resultName, type Difference } from './difference';
import { Generator, type GeneratorOptions } from './generate/flavours';
import type { Observer, Peer } from './peer';
import { nameOf, type CallRecord, type Sequence } from './program';
import { shrink } from './shrink';

export interface Found {
  readonly signature: string;
  /** Sequences that showed it first. */
  times: number;
  /** The shortest that shows it, and what both kernels did. */
  sequence: Sequence;
  simulated: CallRecord[];
  linux: CallRecord[];
}

export interface IoctlCount {
  calls: number;
  differences: number;
  /** How often each result came: '0' for success. */
  results: Record<string, number>;
}

export interface CompareOptions {
  readonly generator: GeneratorOptions;
  /** Random sequences. */
  readonly sequences: number;
  /** Whether there is time for more of them. */
  readonly goOn: () => boolean;
  /** Fixed sequences that come first. */
  readonly suite: readonly Sequence[];
  /** Most differences that are made shorter. */
  readonly shrink: number;
  readonly progress: (text: string) => void;
}

/** Random sequences per round. */
const CHUNK = 1000;
/** Sequences per round that are run once more and looked at in full. */
const INSPECTED = 100;

/** Counts of calls and results by ioctl. */
export class Counts {
  readonly byIoctl: Record<string, IoctlCount> = {};
  calls = 0;

  readonly observe: Observer = (call, result) => {
    const count = this.of(nameOf(call));
    this.calls++;
    count.calls++;
    const name = result >= 0 ? '0' : resultName(result);
    count.results[name] = (count.results[name] ?? 0) + 1;
  };

  of(name: string): IoctlCount {
    return (this.byIoctl[name] ??= { calls: 0, differences: 0, results: {} });
  }
}

export class Comparison {
  readonly found = new Map<string, Found>();
  sequences = 0;
  differences = 0;
  /** Sequences that differed among others, and did not alone. */
  unsteady = 0;

  constructor(
    readonly simulated: Peer,
    readonly linux: Peer,
    readonly counts: Counts,
    readonly options: CompareOptions,
  ) {}

  async run(): Promise<void> {
    const { suite, sequences, goOn, progress } = this.options;
    for (let first = 0; first < suite.length; first += INSPECTED)
      await this.#suite(suite.slice(first, first + INSPECTED));
    for (let first = 0; first < sequences && goOn(); first += CHUNK) {
      await this.#chunk(first, Math.min(CHUNK, sequences - first));
      progress(`${this.sequences} sequences, ${this.differences} differ in ${this.found.size} ways`);
    }
    await this.#shrinkAll();
  }

  async #suite(sequences: readonly Sequence[]): Promise<void> {
    this.sequences += sequences.length;
    await this.#inspect(sequences, true);
  }

  async #chunk(first: number, count: number): Promise<void> {
    const { generator } = this.options;
    const batch = { generator, first, count };
    // Asked first: the guest works while this process does.
    const asked = this.linux.hashes(batch);
    const left = await this.simulated.hashes(batch);
    const right = await asked;
    this.sequences += count;
    const source = new Generator(generator);
    const different = [...left.keys()].filter((i) => left[i] !== right[i]);
    await this.#inspect(
      different.slice(0, INSPECTED).map((i) => source.sequence(first + i)),
      false,
    );
    this.differences += Math.max(0, different.length - INSPECTED);
  }

  /** Runs sequences in full on both. Those of the suite are counted here, the others were before. */
  async #inspect(sequences: readonly Sequence[], suite: boolean): Promise<void> {
    const asked = this.linux.run(sequences);
    const left = await this.simulated.run(sequences);
    const right = await asked;
    for (const [i, sequence] of sequences.entries()) {
      if (suite) sequence.calls.forEach((call, at) => this.counts.observe(call, left[i][at].result));
      const difference = firstDifference(sequence, left[i], right[i]);
      if (difference) this.#add(sequence, difference, left[i], right[i]);
      else if (!suite) this.unsteady++;
    }
  }

  #add(whole: Sequence, { at, name, signature }: Difference, left: CallRecord[], right: CallRecord[]): void {
    this.differences++;
    this.counts.of(name).differences++;
    const [simulated, linux] = [left.slice(0, at + 1), right.slice(0, at + 1)];
    const sequence = { ...whole, calls: whole.calls.slice(0, at + 1) };
    const known = this.found.get(signature);
    if (!known) {
      this.found.set(signature, { signature, times: 1, sequence, simulated, linux });
      return;
    }
    known.times++;
    if (sequence.calls.length < known.sequence.calls.length)
      Object.assign(known, { sequence, simulated, linux });
  }

  async #shrinkAll(): Promise<void> {
    const most = [...this.found.values()].sort((a, b) => b.times - a.times).slice(0, this.options.shrink);
    for (const found of most) {
      const { signature } = found;
      this.options.progress(`shrinking ${signature}`);
      found.sequence = await shrink(found.sequence, (candidates) => this.#show(candidates, signature));
      const [[simulated], [linux]] = await Promise.all([
        this.simulated.run([found.sequence]),
        this.linux.run([found.sequence]),
      ]);
      Object.assign(found, { simulated, linux });
    }
  }

  async #show(candidates: readonly Sequence[], signature: string): Promise<boolean[]> {
    const asked = this.linux.run(candidates);
    const left = await this.simulated.run(candidates);
    const right = await asked;
    return candidates.map((sequence, i) => {
      const difference = firstDifference(sequence, left[i], right[i]);
      return difference?.signature === signature && difference.at === sequence.calls.length - 1;
    });
  }
}
