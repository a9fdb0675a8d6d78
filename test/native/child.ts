/** Runs test/native/children/*.ts in processes of their own, so that a crash is a test's failure and not the run's. */
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';

export interface Outcome {
  /** The exit status, or the name of the signal that ended it. */
  readonly end: number | string | null;
  readonly stdout: string;
  readonly stderr: string;
}

export function runChild(name: string, ...args: string[]): Outcome {
  const script = join(__dirname, 'children', `${name}.js`);
  const run = spawnSync(process.execPath, ['--expose-gc', script, ...args], { encoding: 'utf8' });
  return { end: run.status ?? run.signal, stdout: run.stdout, stderr: run.stderr };
}
