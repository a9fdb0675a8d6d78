// Runs a figure: its sides take turns, so that what else the machine does meets all of them alike.
import type { Figure, Side } from './figures';
import { TrialError, type Result } from './result';
import { runTrial } from './trial';

export interface Outcome {
  readonly ours: number;
  readonly peer: Record<string, number>;
  /** Ours divided by the peer's. */
  readonly ratio: Record<string, number>;
  readonly unit: string;
}

export interface RunOptions {
  readonly runs: number;
  readonly milliseconds: number;
  /** Told what is left out and why, once for each side. */
  readonly leaveOut: (what: string, reason: string) => void;
}

const OURS = 'ours';

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/** Four significant digits: more than two benches agree on. */
function round(value: number): number {
  return Number(value.toPrecision(4));
}

/** The sum of a side's trials. A check, where there is one, comes from a side of one trial. */
function runSide(side: Side, milliseconds: number): Result {
  let value = 0;
  let check: string | undefined;
  for (const trial of side) {
    const result = runTrial(trial, milliseconds);
    if ('unavailable' in result) return result;
    value += result.value;
    check ??= result.check;
  }
  return { value, ...(check !== undefined && { check }) };
}

/** Sides that compute something must have computed the same, or their times say nothing about each other. */
function compareChecks(figure: Figure, checks: ReadonlyMap<string, string>): void {
  const [first, ...others] = checks;
  for (const [name, check] of others) {
    if (check !== first[1]) {
      throw new TrialError(`${figure.name}: ${name} computed ${check}, but ${first[0]} ${first[1]}`);
    }
  }
}

function collect(figure: Figure, options: RunOptions): Map<string, number[]> {
  const sides = new Map<string, Side>([[OURS, figure.ours], ...Object.entries(figure.peers)]);
  const values = new Map<string, number[]>([...sides.keys()].map((name) => [name, []]));
  const checks = new Map<string, string>();
  for (let run = 0; run < options.runs; run++) {
    for (const [name, side] of sides) {
      const result = runSide(side, options.milliseconds);
      if ('unavailable' in result) {
        options.leaveOut(name === OURS ? figure.name : `${figure.name}, ${name}`, result.unavailable);
        sides.delete(name);
        values.delete(name);
        // Without ours there is nothing to compare.
        if (name === OURS) return values;
        continue;
      }
      values.get(name)?.push(result.value);
      if (result.check !== undefined) checks.set(name, result.check);
    }
    compareChecks(figure, checks);
  }
  return values;
}

/** Measures a figure; undefined where it cannot be had on this machine. Throws TrialError. */
export function runFigure(figure: Figure, options: RunOptions): Outcome | undefined {
  const values = collect(figure, options);
  const own = values.get(OURS);
  if (own === undefined) return undefined;
  const ours = median(own);
  const peer: Record<string, number> = {};
  const ratio: Record<string, number> = {};
  for (const [name, theirs] of values) {
    if (name === OURS) continue;
    const value = median(theirs);
    peer[name] = round(value);
    ratio[name] = round(ours / value);
  }
  return { ours: round(ours), peer, ratio, unit: figure.unit };
}
