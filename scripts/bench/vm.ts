// Figures in the VM: one guest takes all turns of a figure, ours and the peers', on Linux's own /dev/iommu.
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { findKernel, findQemu, SetupError } from '../vm/find';
import { TrialError, type Unavailable } from './result';
import { isTurn, type Turn, type Turns } from './sides';

const RUNNER = join(__dirname, '../vm/main.js');
const GUEST = join(__dirname, 'guest.js');
/** Seconds until a guest is ended, whatever it does. */
const TIMEOUT = 600;

/** Why there can be no guest on this machine; undefined where there can. */
function whyNoGuest(): string | undefined {
  try {
    findQemu(undefined, process.env);
    findKernel(undefined, process.env);
    return undefined;
  } catch (error) {
    if (!(error instanceof SetupError)) throw error;
    return error.message;
  }
}

function parse(line: string): Turn {
  const found: unknown = JSON.parse(line);
  if (isTurn(found)) return found;
  throw new TrialError(`the guest said: ${line}`);
}

/** An emulated processor is slower than the machine's own, and so is the JIT in getting warm: trials last longer. */
const SLOWER = 6;

/** Takes turns in a guest that has `options` of `npm run vm`. Throws TrialError if one fails. */
export function turnsInGuest(turns: Turns, options: readonly string[]): Turn[] | Unavailable {
  const reason = whyNoGuest();
  if (reason !== undefined) return { unavailable: reason };
  const slow = { ...turns, milliseconds: turns.milliseconds * SLOWER };
  const guest = [process.execPath, '--enable-source-maps', GUEST, JSON.stringify(slow)];
  const args = [RUNNER, '--timeout', String(TIMEOUT), ...options, '--', ...guest];
  const { status, stdout, stderr } = spawnSync(process.execPath, args, { encoding: 'utf8' });
  if (status !== 0) throw new TrialError(`in the guest: ${stderr || stdout}`.trimEnd());
  return stdout.trim().split('\n').map(parse);
}
