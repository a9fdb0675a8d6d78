// One trial: a child process that measures one side of a figure and says so on stdout, as one line of JSON.
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { compile } from './compile';
import { TrialError, type Result, type Unavailable } from './result';

/** Arguments a trial's program gets; the milliseconds to measure for are added behind them. */
export interface Trial {
  /** The name of a file in trials/, or of a C source in this folder. */
  readonly script?: string;
  readonly source?: string;
  readonly arguments: readonly string[];
}

/** A trial as a program to run, here or in a guest, which sees the same files. */
export interface Command {
  readonly program: string;
  readonly arguments: readonly string[];
}

/** Longer than any trial: one that takes this long hangs. */
const TIMEOUT = 300_000;

export function isResult(value: unknown): value is Result {
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

/** What to run for a trial. A C source is compiled first, where it can be. Throws TrialError if it does not compile. */
export function commandOf(trial: Trial): Command | Unavailable {
  if (trial.source === undefined) {
    const script = join(__dirname, 'trials', `${trial.script}.js`);
    return { program: process.execPath, arguments: [script, ...trial.arguments] };
  }
  const program = compile(trial.source);
  return typeof program === 'string' ? { program, arguments: trial.arguments } : program;
}

/** Runs a trial. Throws TrialError if it fails, rather than being impossible here. */
export function runCommand({ program, arguments: before }: Command, milliseconds: number): Result {
  const args = [...before, String(milliseconds)];
  const { status, signal, error, stdout, stderr } = spawnSync(program, args, {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'pipe'],
    timeout: TIMEOUT,
  });
  const result = status === 0 ? parse(stdout) : undefined;
  if (result !== undefined) return result;
  const end = error?.message ?? (signal === null ? `status ${status}` : signal);
  throw new TrialError(`${program} ${args.join(' ')} ended with ${end}\n${stderr || stdout}`.trimEnd());
}
