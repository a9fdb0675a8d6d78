/**
 * The memory that the controller works with, in two pools. The IOMMU lets it write to one of them only: commands, lists and
 * data of writes are safe from whatever it does with a wrong address.
 */
import { type AddressSpace, type DmaPool, type DmaSlice, IommuError } from 'iommufd';
import { NvmeError } from './errors';
import type { Limits } from './request';

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
  try {
    toDevice.close();
  } finally {
    fromDevice.close();
  }
}

/**
 * Memory for a request; where there is none left, it is waited for as long as the request may take. Rejects with NvmeError
 * ETIMEDOUT, the signal's reason, or IommuError (the kernel gives none, or the pool was closed).
 */
export async function acquireMemory(
  what: string,
  pool: DmaPool,
  length: number,
  limits: Limits,
): Promise<DmaSlice> {
  limits.throwIfAborted();
  try {
    return pool.allocate(length);
  } catch (error) {
    if (!isError(error, 'ENOSPC')) throw error;
  }
  const waiting = new AbortController();
  using _ = limits.onAbort((reason) => waiting.abort(reason));
  try {
    return await pool.acquire(length, { signal: waiting.signal, timeout: limits.remaining });
  } catch (error) {
    if (!isError(error, 'ETIMEDOUT')) throw error;
    const message = `${what}: other requests left no memory for it in time`;
    throw new NvmeError('ETIMEDOUT', message, undefined, { cause: error });
  }
}

function isError(error: unknown, code: string): boolean {
  return error instanceof IommuError && error.code === code;
}
