// The sides of a figure take turns, so that what else the machine does meets all of them alike.
import { isResult, runCommand, type Command } from './trial';
import type { Result } from './result';

/** Our own side; the others are the peers. */
export const OURS = 'ours';

/** What has to run for one number of a side: where it is several programs, their sum. */
export type Sides = Readonly<Record<string, readonly Command[]>>;

export interface Turns {
  readonly sides: Sides;
  /** Trials of each side. */
  readonly runs: number;
  readonly milliseconds: number;
}

/** What one side said at one of its turns. */
export interface Turn {
  readonly side: string;
  readonly result: Result;
}

/** The sum of a side's programs. A check, where there is one, comes from a side of one program. */
function runSide(commands: readonly Command[], milliseconds: number): Result {
  let value = 0;
  let check: string | undefined;
  for (const command of commands) {
    const result = runCommand(command, milliseconds);
    if ('unavailable' in result) return result;
    value += result.value;
    check ??= result.check;
  }
  return { value, ...(check !== undefined && { check }) };
}

/** One turn after the other. A side that cannot be had gets no more of them; without ours there are none. */
export function* takeTurns({ sides, runs, milliseconds }: Turns): Generator<Turn> {
  const left = new Map(Object.entries(sides));
  for (let run = 0; run < runs; run++) {
    for (const [side, commands] of left) {
      const result = runSide(commands, milliseconds);
      yield { side, result };
      if (!('unavailable' in result)) continue;
      left.delete(side);
      if (side === OURS) return;
    }
  }
}

/** What a figure gave in a guest. */
export interface Taken {
  readonly figure: string;
  readonly turns?: readonly Turn[];
  /** Why there are no turns: a trial that should have worked did not. */
  readonly failed?: string;
}

export function isTaken(value: unknown): value is Taken {
  if (typeof value !== 'object' || value === null || !('figure' in value)) return false;
  if ('failed' in value) return typeof value.failed === 'string';
  return 'turns' in value && Array.isArray(value.turns) && value.turns.every(isTurn);
}

function isTurn(value: unknown): value is Turn {
  if (typeof value !== 'object' || value === null) return false;
  return 'side' in value && typeof value.side === 'string' && 'result' in value && isResult(value.result);
}
