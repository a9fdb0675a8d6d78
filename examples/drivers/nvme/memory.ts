/**
 * The memory that the controller works with, in two pools. The IOMMU lets it write to one of them only: commands, lists and
 * data of writes are safe from whatever it does with a wrong address.
 */
import type { AddressSpace, DmaPool } from 'iommufd';

export interface Memory {
  /** The device reads. */
  readonly toDevice: DmaPool;
  /** The device writes. */
  readonly fromDevice: DmaPool;
}

/** Where the device finds something: a slice, or a part of one. */
export interface MemoryRange {
  readonly iova: bigint;
  /** Bytes. */
  readonly length: number;
}

/** `chunk`: what the pools grow by; `limit`: what both hold at most, one half each. In bytes. */
export function makeMemory(space: AddressSpace, { chunk, limit }: { chunk: number; limit: number }): Memory {
  const half = { chunk, limit: Math.floor(limit / 2) };
  return { toDevice: space.createPool({ ...half, write: false }), fromDevice: space.createPool(half) };
}

/** Takes all of it from the device. */
export function closeMemory({ toDevice, fromDevice }: Memory): void {
  toDevice.close();
  fromDevice.close();
}
