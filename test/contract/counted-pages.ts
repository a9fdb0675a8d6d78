/** What /proc says of a process's locked memory. */
import type { Kernel } from '../../lib/kernel';

/** Pages of a process: those counted against its own limit, and all that are pinned. */
export function countedPages(kernel: Kernel): { locked: number; pinned: number } {
  const status = kernel.readFile('/proc/self/status');
  if (typeof status === 'number') throw new Error(`/proc/self/status: ${status}`);
  const pages = (line: string) => Number(new RegExp(`^${line}:\\s*(\\d+) kB$`, 'm').exec(status)![1]) / 4;
  return { locked: pages('VmLck'), pinned: pages('VmPin') };
}
