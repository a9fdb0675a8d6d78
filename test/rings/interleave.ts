/**
 * Runs small programs against each other in every order their steps can be taken in, on memory that is sequentially
 * consistent or has store buffers (TSO): a relaxed store may become visible later than what its thread does next.
 */

/** How a store or an exchange is ordered: 'seq-cst' waits until all stores of its thread before it are visible. */
export type Order = 'seq-cst' | 'relaxed';

/** Shared words, and variables of one thread, at most; values are 0 to 255. */
const [WORDS, LOCALS, BUFFERED] = [24, 8, 3];
/** A thread in a state's bytes: which step is next, its variables, and its stores that nobody else sees yet. */
const [AT, LOCAL, LENGTH, BUFFER] = [0, 1, 1 + LOCALS, 2 + LOCALS];
const THREAD = BUFFER + 2 * BUFFERED;

/** Numbers for names, in the order in which they come up. */
class Names {
  readonly all: string[] = [];
  readonly #numbers = new Map<string, number>();
  constructor(private readonly most: number) {}
  of(name: string): number {
    let number = this.#numbers.get(name);
    if (number === undefined) this.#numbers.set(name, (number = this.all.push(name) - 1));
    if (number >= this.most) throw new RangeError(`no room for ${name}`);
    return number;
  }
}

/** What a step can do. */
export class Cpu {
  state: Uint8Array = new Uint8Array(0);
  /** Where the thread begins. */
  thread = 0;
  /** The step could not be taken. */
  waited = false;
  readonly #locals = new Names(LOCALS);

  constructor(private readonly words: Names) {}

  /** A variable that only this thread has; 0 at first. */
  get(name: string): number {
    return this.state[this.thread + LOCAL + this.#locals.of(name)];
  }
  set(name: string, value: number): void {
    this.state[this.thread + LOCAL + this.#locals.of(name)] = value;
  }

  load(word: string): number {
    const number = this.words.of(word);
    const { state, thread } = this;
    for (let i = state[thread + LENGTH] - 1; i >= 0; i--)
      if (state[thread + BUFFER + 2 * i] === number) return state[thread + BUFFER + 2 * i + 1];
    return state[number];
  }

  store(word: string, value: number, order: Order = 'seq-cst'): void {
    const number = this.words.of(word);
    if (order === 'seq-cst') {
      this.fence();
      this.state[number] = value;
      return;
    }
    const length = this.state[this.thread + LENGTH]++;
    if (length >= BUFFERED) this.waited = true;
    this.state.set([number, value], this.thread + BUFFER + 2 * length);
  }

  exchange(word: string, value: number, order: Order = 'seq-cst'): number {
    if (order === 'seq-cst') this.fence();
    const before = this.load(word);
    this.state[this.words.of(word)] = value;
    return before;
  }

  /** Counts what is watched and is no part of the program. */
  count(word: string): void {
    this.state[this.words.of(word)]++;
  }

  /** The step cannot be taken now: what it does otherwise does not count. */
  wait(): string {
    this.waited = true;
    return '';
  }

  private fence(): void {
    if (this.state[this.thread + LENGTH] > 0) this.waited = true;
  }
}

/** Each step touches shared words once, and returns the name of the next; 'end' is the end of the program. */
export type Program = Readonly<Record<string, (cpu: Cpu) => string>>;

/** The value of a shared word. */
export type Words = (word: string) => number;

export interface System {
  readonly words: Readonly<Record<string, number>>;
  /** Each begins at the first of its steps. */
  readonly programs: readonly Program[];
  /** What is wrong with a state in which nobody can go on, if something is. */
  readonly stuck: (words: Words, at: readonly string[]) => string | undefined;
  /** What is wrong with any state, if something is. */
  readonly always?: (words: Words) => string | undefined;
}

export interface Exploration {
  readonly states: number;
  /** States in which nobody can go on. */
  readonly ends: number;
  /** What went wrong, and the steps that lead there. */
  readonly wrong: string | undefined;
  readonly trace: readonly string[];
}

class Explorer {
  readonly #words = new Names(WORDS);
  readonly #steps = new Names(256);
  readonly #cpu = new Cpu(this.#words);
  readonly #programs: readonly Program[];
  /** The state that is looked at, and what a step makes of it. */
  readonly #before: Buffer;
  readonly #state: Buffer;
  readonly #cameFrom = new Map<string, readonly [step: string, before: string]>();

  constructor(readonly system: System) {
    this.#programs = system.programs;
    this.#state = Buffer.alloc(WORDS + THREAD * this.#programs.length);
    this.#before = Buffer.alloc(this.#state.length);
    for (const [word, value] of Object.entries(system.words)) this.#state[this.#words.of(word)] = value;
    for (const [i, program] of this.#programs.entries())
      this.#state[WORDS + i * THREAD + AT] = this.#steps.of(Object.keys(program)[0]);
  }

  run(): Exploration {
    const first = this.#state.toString('latin1');
    this.#cameFrom.set(first, ['', '']);
    const open = [first];
    let ends = 0;
    for (let key = open.pop(); key !== undefined; key = open.pop()) {
      const last = this.#successors(key, open) === 0;
      if (last) ends++;
      const wrong = this.#wrong(key, last);
      if (wrong !== undefined) return { states: this.#cameFrom.size, ends, wrong, trace: this.#trace(key) };
    }
    return { states: this.#cameFrom.size, ends, wrong: undefined, trace: [] };
  }

  /** Adds the states that can follow to `open` where they are new, and says how many there are. */
  #successors(key: string, open: string[]): number {
    let count = 0;
    const found = (step: string) => {
      count++;
      const next = this.#state.toString('latin1');
      if (this.#cameFrom.has(next)) return;
      this.#cameFrom.set(next, [step, key]);
      open.push(next);
    };
    const names = this.#steps.all;
    this.#before.write(key, 'latin1');
    for (const [i, program] of this.#programs.entries()) {
      const cpu = this.#cpu;
      this.#before.copy(this.#state);
      [cpu.state, cpu.thread, cpu.waited] = [this.#state, WORDS + i * THREAD, false];
      const name = names[cpu.state[cpu.thread + AT]];
      const next = program[name]?.(cpu);
      if (next !== undefined && !cpu.waited) {
        cpu.state[cpu.thread + AT] = this.#steps.of(next);
        found(`${i}: ${name}`);
      }
      this.#becomeVisible(cpu.thread, found);
    }
    return count;
  }

  /** The oldest store of a thread that nobody else sees. */
  #becomeVisible(thread: number, found: (step: string) => void): void {
    if (this.#before[thread + LENGTH] === 0) return;
    const state = this.#state;
    this.#before.copy(state);
    const [word, value] = state.subarray(thread + BUFFER);
    state[word] = value;
    state[thread + LENGTH]--;
    state.copyWithin(thread + BUFFER, thread + BUFFER + 2, thread + THREAD);
    state.fill(0, thread + THREAD - 2, thread + THREAD);
    found(`${this.#words.all[word]} becomes visible`);
  }

  #wrong(key: string, last: boolean): string | undefined {
    const { always, stuck } = this.system;
    if (!last && !always) return undefined;
    const state = this.#state;
    state.write(key, 'latin1');
    const words: Words = (word) => state[this.#words.of(word)];
    const wrong = always?.(words);
    if (wrong !== undefined || !last) return wrong;
    const names = this.#steps.all;
    return stuck(
      words,
      this.#programs.map((_, i) => names[state[WORDS + i * THREAD + AT]]),
    );
  }

  #trace(key: string): string[] {
    const steps: string[] = [];
    for (
      let [step, before] = this.#cameFrom.get(key)!;
      before !== '';
      [step, before] = this.#cameFrom.get(before)!
    )
      steps.unshift(step);
    return steps;
  }
}

/** Takes every order. Ends at the first thing that is wrong. */
export function explore(system: System): Exploration {
  return new Explorer(system).run();
}
