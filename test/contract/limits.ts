/** What the process that runs a test may do, on either backend: its capabilities, and how much memory it may lock. */
import { spawnSync } from 'node:child_process';
import type { Kernel } from '../../lib/kernel';
import type { SimulatedProcess } from '../../lib/sim';
import { backend } from './support';

const NOBODY = 65534;

/** Root's calls without root's capabilities: who the user is stays the same. */
export function withoutCapabilities<T>(kernel: Kernel, action: () => T): T {
  if (backend === 'simulated') {
    const process = kernel as SimulatedProcess;
    const { credentials } = process;
    process.credentials = { ...credentials, capabilities: [] };
    try {
      return action();
    } finally {
      process.credentials = credentials;
    }
  }
  // Capabilities go with the effective user id, and come back with it.
  process.seteuid!(NOBODY);
  try {
    return action();
  } finally {
    process.seteuid!(0);
  }
}

/** Sets RLIMIT_MEMLOCK, bytes. */
export function limitLockedMemory(kernel: Kernel, bytes: number): void {
  if (backend === 'simulated') {
    (kernel as SimulatedProcess).memlock = bytes;
    return;
  }
  const { status, stderr } = spawnSync('prlimit', ['--pid', String(process.pid), `--memlock=${bytes}:`]);
  if (status !== 0) throw new Error(`prlimit: ${String(stderr)}`);
}
