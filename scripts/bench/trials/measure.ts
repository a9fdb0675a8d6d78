/**
 * The clockwork of a trial: many short timed batches, not one long loop, which would measure how the JIT replaces
 * a running function. First it warms up until that makes nothing faster any more.
 *
 * The median batch is what counts, so that moments which other processes took away do not. Collecting garbage falls
 * into few batches, but is part of the price: its time is taken from the engine's own account and added.
 */
import { PerformanceObserver } from 'node:perf_hooks';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

export interface Work {
  /** Calls that a batch makes. */
  readonly calls: number;
  /** Untimed, before each batch. */
  readonly prepare?: () => void;
}

/** Batches in a period at least, however short it is. */
const LEAST = 10;
/** Warm: this many periods in a row whose median is not that much better than the best before; or enough of them. */
const PERIODS_WARM = 3;
const BETTER = 0.95;
const MOST_PERIODS = 40;
/** Not before: while the JIT has hardly begun, times scatter so much that none may look better for a while. */
const BATCHES_WARM = 150;
/** Nor before: functions that run once a call are compiled for good only after so many, the large ones last. */
const CALLS_WARM = 10_000;

/** Milliseconds of each batch in a period. */
type Period = () => Promise<number[]>;

/**
 * Calls a batch from another context, across which V8 inlines nothing: inlined into the clockwork, a batch is compiled with
 * what room that leaves for inlining, differently from run to run.
 */
const call = runInNewContext('(batch) => batch()') as <R>(batch: () => R) => R;

/** Adds up the time of the garbage collections while it runs. */
class GarbageClock {
  #milliseconds = 0;
  readonly #observer = new PerformanceObserver((list) => {
    for (const { duration } of list.getEntries()) this.#milliseconds += duration;
  });

  constructor() {
    this.#observer.observe({ entryTypes: ['gc'] });
  }

  /** Milliseconds. Collections are reported by the event loop: it gets turns for that. */
  async stop(): Promise<number> {
    for (let turn = 0; turn < 3; turn++) await new Promise(setImmediate);
    this.#observer.disconnect();
    return this.#milliseconds;
  }
}

/** What warming up has left behind is no part of the price. */
function collectGarbage(): void {
  setFlagsFromString('--expose-gc');
  (runInNewContext('gc') as () => void)();
}

function median(samples: number[]): number {
  return samples.sort((a, b) => a - b)[samples.length >> 1];
}

async function warmUp(period: Period, calls: number): Promise<void> {
  let [best, warm, batches] = [Infinity, 0, 0];
  for (let periods = 0; periods < MOST_PERIODS && warm < PERIODS_WARM; periods++) {
    const samples = await period();
    const now = median(samples);
    batches += samples.length;
    const hasBegun = batches >= BATCHES_WARM && batches * calls >= CALLS_WARM;
    warm = now >= BETTER * best && hasBegun ? warm + 1 : 0;
    best = Math.min(best, now);
  }
}

/**
 * Nanoseconds per call. `batch` makes `work.calls` calls; a promise that it returns is awaited. The last argument of
 * the trial says for how many milliseconds to measure.
 */
export async function measure(work: Work, batch: () => void | Promise<void>): Promise<number> {
  const milliseconds = Number(process.argv[process.argv.length - 1]);
  const period: Period = async () => {
    const samples: number[] = [];
    const end = performance.now() + milliseconds;
    for (;;) {
      work.prepare?.();
      const before = performance.now();
      const waiting = call(batch);
      if (waiting !== undefined) await waiting;
      const after = performance.now();
      samples.push(after - before);
      if (after >= end && samples.length >= LEAST) return samples;
    }
  };
  await warmUp(period, work.calls);
  collectGarbage();
  // With that go shapes that only dead objects had, and code that relied on them.
  await period();
  const garbage = new GarbageClock();
  const samples = await period();
  const collecting = (await garbage.stop()) / samples.length;
  return ((median(samples) + collecting) * 1e6) / work.calls;
}

/** Ends a trial with its result. `check`: what was computed, for comparing with other sides. */
export function report(value: number, check?: number): void {
  process.stdout.write(
    `${JSON.stringify({ value, ...(check !== undefined && { check: String(check) }) })}\n`,
  );
}

/** Ends a trial that this machine cannot do. */
export function reportUnavailable(unavailable: string): void {
  process.stdout.write(`${JSON.stringify({ unavailable })}\n`);
}
