/** What a simulated process sees of itself under /proc (Documentation/filesystems/proc.rst). */
import { directory, link, type Directory } from './file-tree';
import type { SimulatedProcess } from './process';

const KILOBYTES_PER_PAGE = 4n;

/** A number of pages as Linux prints sizes. One below 0, which IOAS_CHANGE_PROCESS can leave, is a large one there. */
function size(pages: number): string {
  return `${String(BigInt.asUintN(64, BigInt(pages) * KILOBYTES_PER_PAGE)).padStart(8)} kB`;
}

function statusOf({ pid, credentials: { uid }, memory }: SimulatedProcess): string {
  const lines = {
    Pid: pid,
    Uid: [uid, uid, uid, uid].join('\t'),
    VmLck: size(memory.lockedPages),
    VmPin: size(memory.pinnedPages),
  };
  return Object.entries(lines)
    .map(([name, value]) => `${name}:\t${value}\n`)
    .join('');
}

/** /proc. */
export function procOf(process: SimulatedProcess): Directory {
  const own = directory(() => ({ status: { kind: 'file', read: () => statusOf(process) } }));
  return directory(() => ({ self: link(String(process.pid)), [process.pid]: own }));
}
