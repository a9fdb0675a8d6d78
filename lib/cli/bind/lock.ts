/**
 * One `iommufd bind` or `unbind` at a time. Each claims the folder with a file of its own and then looks for others:
 * whoever comes second sees the first, and takes its claim back. A process that was killed leaves its claim, which
 * its start time tells from a later process of the same number.
 */
import { randomInt } from 'node:crypto';
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { refusal } from '../../errors';

/** Milliseconds to wait for another. Moving a device takes less, unless a program has it open. */
const PATIENCE = 10_000;
/** Milliseconds between two attempts; random, so that two which see each other do not go on doing so. */
const [SHORTEST, LONGEST] = [10, 60] as const;

const CLAIM = /^lock\.(\d+)\.(\d+)$/;
/** In /proc/PID/stat, counted from behind the program's name, the second (proc_pid_stat(5): 22, starttime). */
const START = 19;

/**
 * Waits until no other process has the folder, and makes it where it is not there. Returns what lets go of it. Throws
 * IommuError EBUSY when `patience` milliseconds are over, and Node's errors where nothing can be written.
 */
export function lock(folder: string, patience = PATIENCE): () => void {
  mkdirSync(folder, { recursive: true });
  const own = `lock.${process.pid}.${startOf(process.pid) ?? 0}`;
  const path = join(folder, own);
  const release = () => rmSync(path, { force: true });
  for (let waited = 0; ;) {
    writeFileSync(path, '');
    const other = findOther(folder, own);
    if (other === undefined) return release;
    release();
    if (waited >= patience)
      throw refusal('EBUSY', `process ${other} is binding or unbinding a device`, {
        syscall: 'open',
        path: folder,
        hint: 'try again when it has ended',
      });
    const time = randomInt(SHORTEST, LONGEST);
    sleep(time);
    waited += time;
  }
}

/** The number of another process that lives and claims the folder. Claims of the dead are removed. */
function findOther(folder: string, own: string): string | undefined {
  for (const name of readdirSync(folder)) {
    const [, pid, start] = CLAIM.exec(name) ?? [];
    if (pid === undefined || name === own) continue;
    if (startOf(Number(pid)) === start) return pid;
    rmSync(join(folder, name), { force: true });
  }
  return undefined;
}

/** When a process started, in ticks since the boot; undefined where there is none. */
function startOf(pid: number): string | undefined {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, 'utf8');
    return text.slice(text.lastIndexOf(')') + 2).split(' ')[START];
  } catch {
    return undefined;
  }
}

function sleep(milliseconds: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, milliseconds);
}
