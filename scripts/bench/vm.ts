// Figures in the VM: one guest takes all turns of all of them, ours and the peers', on Linux's own /dev/iommu.
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { findKernel, findQemu, SetupError } from '../vm/find';
import { TrialError, type Unavailable } from './result';
import { isTaken, type Taken, type Turn, type Turns } from './sides';

const RUNNER = join(__dirname, '../vm/main.js');
const GUEST = join(__dirname, 'guest.js');
/** Seconds until a guest is ended, whatever it does. */
const TIMEOUT = 600;

/** Why there can be no guest on this machine; undefined where there can. */
export function whyNoGuest(): Unavailable | undefined {
  try {
    findQemu(undefined, process.env);
    findKernel(undefined, process.env);
    return undefined;
  } catch (error) {
    if (!(error instanceof SetupError)) throw error;
    return { unavailable: error.message };
  }
}

function parse(line: string): Taken {
  const found: unknown = JSON.parse(line);
  if (isTaken(found)) return found;
  throw new TrialError(`the guest said: ${line}`);
}

/** An emulated processor is slower than the machine's own, and so is the JIT in getting warm: trials last longer. */
const SLOWER = 6;

/** What a nanosecond is an instruction by. One processor: two would count for each other. */
const COUNTING = ['--accel', 'icount', '--cpus', '1'];

/**
 * Takes the turns of figures, by their names, in a guest, whose clock counts `instructions` or time. Those that failed, or
 * that it did not get to, are errors.
 */
export function turnsInGuest(
  figures: ReadonlyMap<string, Turns>,
  instructions: boolean,
): Map<string, readonly Turn[] | TrialError> {
  const slow = [...figures].map(([name, turns]) => [
    name,
    { ...turns, milliseconds: turns.milliseconds * SLOWER },
  ]);
  const guest = [process.execPath, '--enable-source-maps', GUEST, JSON.stringify(Object.fromEntries(slow))];
  const counting = instructions ? COUNTING : [];
  const args = [RUNNER, '--timeout', String(TIMEOUT), ...counting, '--', ...guest];
  const { status, stdout, stderr } = spawnSync(process.execPath, args, { encoding: 'utf8' });
  // A guest that ended early has said something of the figures before.
  const whole = stdout.slice(0, stdout.lastIndexOf('\n') + 1);
  const taken = new Map(
    whole
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => [parse(line).figure, parse(line)]),
  );
  const result = new Map<string, readonly Turn[] | TrialError>();
  for (const name of figures.keys()) {
    const { turns, failed = stderr || `it ended with status ${status}` } = taken.get(name) ?? {};
    result.set(name, turns ?? new TrialError(`in the guest: ${failed}`.trimEnd()));
  }
  return result;
}
