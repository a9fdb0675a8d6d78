/**
 * The clockwork of a trial: many short timed batches, not one long loop, which would measure how the JIT replaces
 * a running function. The first half of the time is for warming up.
 */

/** Of a trial's batches: the median where every call costs the same; the mean where some pay for others (garbage). */
export type Statistic = 'median' | 'mean';

/** Batches measured at least, however short the time. */
const LEAST = 3;

function summarize(samples: number[], statistic: Statistic): number {
  if (statistic === 'mean') return samples.reduce((sum, sample) => sum + sample, 0) / samples.length;
  return samples.sort((a, b) => a - b)[samples.length >> 1];
}

/** The milliseconds to measure for: the last argument of every trial. */
export function milliseconds(): number {
  return Number(process.argv[process.argv.length - 1]);
}

export interface Work {
  /** Calls that a batch makes. */
  readonly calls: number;
  readonly statistic: Statistic;
  /** Untimed, before each batch. */
  readonly prepare?: () => void;
}

/** Nanoseconds per call. `batch` makes `work.calls` calls. */
export function measure(work: Work, batch: () => void): number {
  const half = milliseconds();
  const start = performance.now();
  let samples: number[] = [];
  let warm = false;
  for (;;) {
    work.prepare?.();
    const before = performance.now();
    batch();
    const after = performance.now();
    samples.push(((after - before) * 1e6) / work.calls);
    if (samples.length < LEAST) continue;
    if (!warm && after - start >= half) {
      warm = true;
      samples = [];
    } else if (warm && after - start >= 2 * half) break;
  }
  return summarize(samples, work.statistic);
}

/** The same for a batch that waits. */
export async function measureAsync(work: Work, batch: () => Promise<void>): Promise<number> {
  const half = milliseconds();
  const start = performance.now();
  let samples: number[] = [];
  let warm = false;
  for (;;) {
    work.prepare?.();
    const before = performance.now();
    await batch();
    const after = performance.now();
    samples.push(((after - before) * 1e6) / work.calls);
    if (samples.length < LEAST) continue;
    if (!warm && after - start >= half) {
      warm = true;
      samples = [];
    } else if (warm && after - start >= 2 * half) break;
  }
  return summarize(samples, work.statistic);
}

/** Ends a trial with its result. `check`: what was computed, for comparing with other sides. */
export function report(value: number, check?: number | bigint): void {
  const text = check === undefined ? {} : { check: String(check) };
  process.stdout.write(`${JSON.stringify({ value, ...text })}\n`);
}

/** Ends a trial that this machine cannot do. */
export function reportUnavailable(unavailable: string): void {
  process.stdout.write(`${JSON.stringify({ unavailable })}\n`);
}
