/** Makes the ring for a kernel's file, and the pump that fills it. */
import { randomFillSync } from 'node:crypto';
import { destroy, type Context } from './context';
import { checkObject } from './errors';
import type { Kernel, Memory } from './kernel';
import { ringBytes, type RingShape } from './rings/layout';
import type { Pump } from './rings/pump';
import { Ring } from './rings/ring';
import { SoftwarePump } from './rings/software-pump';

export interface OpenRing {
  readonly ring: Ring;
  readonly pump: Pump;
  /** A memfd mapping, where the kernel has a pump of its own. */
  readonly memory: Memory | undefined;
}

/** `limit`: records that may be read and not answered. Throws IommuError. */
export function openRing(kernel: Kernel, fd: number, shape: RingShape, limit: number): OpenRing {
  const { rings } = kernel;
  if (!rings) {
    const ring = Ring.create(new SharedArrayBuffer(ringBytes(shape)), shape);
    return { ring, pump: new SoftwarePump(kernel, fd, ring, { limit }), memory: undefined };
  }
  const memory = checkObject(kernel.allocate(ringBytes(shape), { memfd: true }), { syscall: 'mmap' });
  try {
    const ring = Ring.create(memory.bytes.buffer, shape);
    ring.identify(randomFillSync(new Int32Array(2)));
    const pump = checkObject(rings.pump(fd, memory, { limit }), { syscall: 'fcntl' });
    return { ring, pump, memory };
  } catch (error) {
    memory.free();
    throw error;
  }
}

/** The smallest power of two that is not below `count`, within limits. */
export function ringCapacity(count: number, least: number, most: number): number {
  let capacity = least;
  while (capacity < count && capacity < most) capacity *= 2;
  return capacity;
}

/** A queue of the kernel and its file are given back where there is no ring for them. */
export function openOrClose<T>(context: Context, id: number, fd: number, open: () => T): T {
  try {
    return open();
  } catch (error) {
    context.kernel.close(fd);
    destroy(context, id);
    throw error;
  }
}
