/** What a simulated process sees of itself under /proc (Documentation/filesystems/proc.rst). */
import { capabilityBits } from './credentials';
import { directory, link, text, type Directory } from './file-tree';
import type { SimulatedProcess } from './process';

const KILOBYTES_PER_PAGE = 4n;

/** A number of pages as Linux prints sizes. One below 0, which IOAS_CHANGE_PROCESS can leave, is a large one there. */
function size(pages: number): string {
  return `${String(BigInt.asUintN(64, BigInt(pages) * KILOBYTES_PER_PAGE)).padStart(8)} kB`;
}

function statusOf({ pid, credentials, memory }: SimulatedProcess): string {
  const { uid } = credentials;
  const lines = {
    Pid: pid,
    Uid: [uid, uid, uid, uid].join('\t'),
    VmLck: size(memory.lockedPages),
    VmPin: size(memory.pinnedPages),
    CapEff: capabilityBits(credentials).toString(16).padStart(16, '0'),
  };
  return Object.entries(lines)
    .map(([name, value]) => `${name}:\t${value}\n`)
    .join('');
}

function limitsOf({ memlock }: SimulatedProcess): string {
  const bytes = memlock === Infinity ? 'unlimited' : String(memlock);
  const row = (name: string, soft: string, hard: string, units: string) =>
    `${name.padEnd(25)} ${soft.padEnd(20)} ${hard.padEnd(20)} ${units.padEnd(10)}`;
  return [
    row('Limit', 'Soft Limit', 'Hard Limit', 'Units'),
    row('Max locked memory', bytes, bytes, 'bytes'),
  ].join('\n');
}

/** The version of Linux whose behaviour this is. */
const RELEASE = '7.3.0-simulated';

/** /proc. */
export function procOf(process: SimulatedProcess): Directory {
  const own = directory(() => ({
    status: { kind: 'file', read: () => statusOf(process) },
    limits: text(() => limitsOf(process)),
  }));
  const kernel = directory(() => ({ osrelease: text(() => RELEASE) }));
  return directory(() => ({
    self: link(String(process.pid)),
    sys: directory(() => ({ kernel })),
    [process.pid]: own,
  }));
}
