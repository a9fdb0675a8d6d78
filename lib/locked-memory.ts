/** What the kernel says of this process's memory that devices keep in its place. */
import { failure } from './errors';
import type { Kernel } from './kernel';

/** Bytes (Documentation/filesystems/proc.rst, /proc/pid/status). */
export interface LockedMemory {
  /** Pinned by this process, through any file: VmPin. Memory that is pinned twice counts twice. */
  readonly pinned: number;
  /** What counts against RLIMIT_MEMLOCK of this process itself: VmLck. */
  readonly locked: number;
}

/** Throws IommuError. */
export function readLockedMemory(kernel: Kernel): LockedMemory {
  const path = '/proc/self/status';
  const status = kernel.readFile(path);
  if (typeof status === 'number') throw failure(status, { syscall: 'open', path });
  const bytes = (name: string) => Number(new RegExp(`^${name}:\\s*(\\d+) kB$`, 'm').exec(status)?.[1]) * 1024;
  return { pinned: bytes('VmPin'), locked: bytes('VmLck') };
}
