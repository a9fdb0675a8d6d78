// One trial: a child process that measures one side of a figure and says so on stdout, as one line of JSON.
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { compile } from './compile';
import { TrialError, type Result } from './result';

/** Arguments a trial's program gets; the milliseconds to measure for are added behind them. */
export interface Trial {
  /** The name of a file in trials/, or of a C source in this folder. */
  readonly script?: string;
  readonly source?: string;
  readonly arguments: readonly string[];
}

/** Longer than any trial: one that takes this long hangs. */
const TIMEOUT = 120_000;

function isResult(value: unknown): value is Result {
  if (typeof value !== 'object' || value === null) return false;
  if ('unavailable' in value) return typeof value.unavailable === 'string';
  return 'value' in value && typeof value.value === 'number' && value.value > 0;
}

function parse(stdout: string): Result | undefined {
  try {
    const found: unknown = JSON.parse(stdout);
    return isResult(found) ? found : undefined;
  } catch {
    return undefined;
  }
}

function run(program: string, args: string[]): Result {
  const { status, signal, error, stdout, stderr } = spawnSync(program, args, {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'pipe'],
    timeout: TIMEOUT,
  });
  const result = status === 0 ? parse(stdout) : undefined;
  if (result !== undefined) return result;
  const end = error?.message ?? (signal === null ? `status ${status}` : signal);
  throw new TrialError(`${args.join(' ')} ended with ${end}\n${stderr || stdout}`.trimEnd());
}

/** Runs a trial. Throws TrialError if it fails, rather than being impossible here. */
export function runTrial(trial: Trial, milliseconds: number): Result {
  const args = [...trial.arguments, String(milliseconds)];
  if (trial.source === undefined) {
    return run(process.execPath, [join(__dirname, 'trials', `${trial.script}.js`), ...args]);
  }
  const program = compile(trial.source);
  return typeof program === 'string' ? run(program, args) : program;
}
