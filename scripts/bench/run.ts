// Runs a figure, and makes medians and ratios of what its sides say.
import type { Figure } from './figures';
import { TrialError } from './result';
import { OURS, takeTurns, type Sides, type Turn, type Turns } from './sides';
import { commandOf, type Command } from './trial';
import { turnsInGuest } from './vm';

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

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/** Four significant digits: more than two benches agree on. */
function round(value: number): number {
  return Number(value.toPrecision(4));
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

/** The programs of each side that can be had here; undefined where ours cannot. */
function sidesOf(figure: Figure, leaveOut: (side: string, reason: string) => void): Sides | undefined {
  const sides: Record<string, Command[]> = {};
  for (const [side, trials] of Object.entries({ [OURS]: figure.ours, ...figure.peers })) {
    const commands = trials.map(commandOf);
    const missing = commands.find((command) => 'unavailable' in command);
    if (!missing) sides[side] = commands as Command[];
    else leaveOut(side, missing.unavailable);
    if (missing && side === OURS) return undefined;
  }
  return sides;
}

function turnsOf(figure: Figure, turns: Turns): Iterable<Turn> {
  if (!figure.vm) return takeTurns(turns);
  const taken = turnsInGuest(turns, figure.vm);
  return 'unavailable' in taken ? [{ side: OURS, result: taken }] : taken;
}

/** The values of each side that could be measured. */
function collect(figure: Figure, options: RunOptions): Map<string, number[]> {
  const leaveOut = (side: string, reason: string) =>
    options.leaveOut(side === OURS ? figure.name : `${figure.name}, ${side}`, reason);
  const values = new Map<string, number[]>();
  const sides = sidesOf(figure, leaveOut);
  if (!sides) return values;
  const checks = new Map<string, string>();
  const runs = Math.min(options.runs, figure.mostRuns ?? options.runs);
  for (const { side, result } of turnsOf(figure, { sides, runs, milliseconds: options.milliseconds })) {
    if ('unavailable' in result) {
      leaveOut(side, result.unavailable);
      values.delete(side);
      continue;
    }
    values.set(side, [...(values.get(side) ?? []), result.value]);
    if (result.check === undefined) continue;
    checks.set(side, result.check);
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
