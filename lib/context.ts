/** What the objects of one Iommu share: the kernel, the /dev/iommu descriptor and who exists. */
import type { AttachTable } from './attach-data';
import type { BoundDevice } from './bound-device';
import type { DmaBuffer } from './dma-buffer';
import type { FaultQueue } from './fault-queue';
import type { HotCalls } from './hot-calls';
import type { IoAddressSpace } from './io-address-space';
import type { Kernel } from './kernel';
import type { VirtualMachine } from './virtual-machine';
import { call } from './ioctl';
import { IOMMU_DESTROY, toU64 } from './uapi';
import { refusal, type Where } from './errors';

export interface Context {
  readonly kernel: Kernel;
  /** The open /dev/iommu. */
  readonly fd: number;
  /** The calls that are made all the time. */
  readonly hot: HotCalls;
  /** Whether the kernel has IOMMU_IOAS_MAP_FILE, as far as we know. */
  mapsFiles: boolean;
  readonly attachData: AttachTable;
  readonly devices: Set<BoundDevice>;
  readonly spaces: Set<IoAddressSpace>;
  /** IOASIDs in use. */
  readonly ioasids: Set<number>;
  readonly queues: Set<FaultQueue>;
  readonly buffers: Set<DmaBuffer>;
  readonly machines: Set<VirtualMachine>;
  /** Throws EBADF when the Iommu is closed; `where` is the call that would have been made. */
  requireOpen(where: Partial<Where>): void;
}

/** IOMMU_DESTROY of a kernel object. Throws IommuError. */
export function destroy(context: Context, id: number): void {
  call(context.kernel, context.fd, IOMMU_DESTROY, { id });
}

/** Checks a cookie for a new device: 64 bits, and not in use on this Iommu. `request` is for the error. */
export function checkCookie(context: Context, cookie: bigint | number, request: string): bigint {
  if (cookie === undefined)
    throw new TypeError('bind needs a cookie: a 64-bit number that names the device in fault reports');
  const wide = toU64(cookie, 'cookie');
  for (const device of context.devices)
    if (device.cookie === wide)
      throw refusal('EEXIST', `cookie 0x${wide.toString(16)} already names ${device.name}`, {
        request,
        hint: 'faults are told apart by cookie: choose another',
      });
  return wide;
}

/** The bound device that a cookie names. Throws ENODEV. `request` is for the error. */
export function deviceOf(context: Context, cookie: bigint | number, request: string): BoundDevice {
  const wide = toU64(cookie, 'cookie');
  for (const device of context.devices) if (device.cookie === wide) return device;
  throw refusal('ENODEV', `no device is bound with the cookie 0x${wide.toString(16)}`, {
    request,
    hint: 'cookies are given to bind(), and end with close() of the device',
  });
}

/** The lowest number from 1 that none of `taken` uses. */
export function lowestFree(taken: Iterable<number>): number {
  const used = new Set(taken);
  let free = 1;
  while (used.has(free)) free++;
  return free;
}
