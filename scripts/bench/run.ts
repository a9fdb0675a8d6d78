// Runs a figure, and makes medians and ratios of what its sides say.
import type { Figure } from './figures';
import { TrialError, type Unavailable } from './result';
import { OURS, takeTurns, type Sides, type Turn, type Turns } from './sides';
import { commandOf, type Command } from './trial';
import { turnsInGuest, whyNoGuest } from './vm';

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
  /** In the VM: by a clock that counts instructions. */
  readonly instructions: boolean;
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

function leaveOut({ name }: Figure, side: string, { unavailable }: Unavailable, options: RunOptions): void {
  options.leaveOut(side === OURS ? name : `${name}, ${side}`, unavailable);
}

/** The programs of each side that can be had here; undefined where ours cannot. */
function sidesOf(figure: Figure, options: RunOptions): Sides | undefined {
  const sides: Record<string, Command[]> = {};
  for (const [side, trials] of Object.entries({ [OURS]: figure.ours, ...figure.peers })) {
    const commands = trials.map(commandOf);
    const missing = commands.find((command) => 'unavailable' in command);
    if (!missing) sides[side] = commands as Command[];
    else leaveOut(figure, side, missing, options);
    if (missing && side === OURS) return undefined;
  }
  return sides;
}

/** What there is to do for a figure; undefined where our side cannot be had. */
function turnsOf(figure: Figure, options: RunOptions): Turns | undefined {
  const sides = sidesOf(figure, options);
  const runs = Math.min(options.runs, figure.mostRuns ?? options.runs);
  return sides && { sides, runs, milliseconds: options.milliseconds };
}

/** The values of each side that could be measured. */
function collect(figure: Figure, turns: Iterable<Turn>, options: RunOptions): Map<string, number[]> {
  const values = new Map<string, number[]>();
  const checks = new Map<string, string>();
  for (const { side, result } of turns) {
    if ('unavailable' in result) {
      leaveOut(figure, side, result, options);
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

/** Medians and ratios of the turns that were taken. Throws TrialError where sides computed different things. */
function outcomeOf(figure: Figure, turns: Iterable<Turn>, options: RunOptions): Outcome | undefined {
  const values = collect(figure, turns, options);
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

/** Measures a figure on this machine; undefined where it cannot be had here. Throws TrialError. */
export function runFigure(figure: Figure, options: RunOptions): Outcome | undefined {
  const turns = turnsOf(figure, options);
  return turns && outcomeOf(figure, takeTurns(turns), options);
}

/** What was measured, or why not. */
export type Reading = readonly [figure: Figure, outcome: Outcome | TrialError];

function* attempt(figure: Figure, run: () => Outcome | undefined): Generator<Reading> {
  try {
    const outcome = run();
    if (outcome) yield [figure, outcome];
  } catch (error) {
    if (!(error instanceof TrialError)) throw error;
    yield [figure, error];
  }
}

function* runInVm(figures: readonly Figure[], options: RunOptions): Generator<Reading> {
  const missing = figures.length > 0 ? whyNoGuest() : undefined;
  if (missing) {
    for (const figure of figures) leaveOut(figure, OURS, missing, options);
    return;
  }
  const work = new Map<string, Turns>();
  for (const figure of figures) {
    // A C source that does not compile takes away its own figure only.
    yield* attempt(figure, () => {
      const turns = turnsOf(figure, options);
      if (turns) work.set(figure.name, turns);
      return undefined;
    });
  }
  if (work.size === 0) return;
  const taken = turnsInGuest(work, options.instructions);
  for (const figure of figures) {
    const turns = taken.get(figure.name);
    if (turns instanceof TrialError) yield [figure, turns];
    else if (turns) yield* attempt(figure, () => outcomeOf(figure, turns, options));
  }
}

/** Measures figures as they come, and those of the VM after the others. Those that cannot be had here are left out. */
export function* runFigures(figures: readonly Figure[], options: RunOptions): Generator<Reading> {
  for (const figure of figures.filter(({ inVm }) => !inVm))
    yield* attempt(figure, () => runFigure(figure, options));
  yield* runInVm(
    figures.filter(({ inVm }) => inVm),
    options,
  );
}
