/** Ranges of I/O virtual addresses: {iova, length} here, inclusive `last` only in the kernel's structs. */
import type { Context } from './context';
import { failure } from './errors';
import { attempt, call } from './ioctl';
import { errno, IOMMU_IOAS_ALLOW_IOVAS, IOMMU_IOAS_IOVA_RANGES, iommu_iova_range, toU64 } from './uapi';

/** [iova, iova + length), in bytes. */
export interface IovaRange {
  readonly iova: bigint;
  readonly length: bigint;
}

/** A stretch of I/O virtual addresses with memory behind it. */
export interface MappedRange {
  readonly iova: bigint;
  /** Bytes. */
  readonly length: number;
  /** The first IOVA after it. */
  readonly end: bigint;
  /** Whether devices may read. */
  readonly read: boolean;
  /** Whether devices may write. */
  readonly write: boolean;
}

/** A range as callers write it. */
export interface IovaRangeInput {
  readonly iova: bigint | number;
  readonly length: bigint | number;
}

function checkCount(name: string, value: number): void {
  if (typeof value !== 'number') throw new TypeError(`${name} must be a number, not ${typeof value}`);
  if (!Number.isSafeInteger(value) || value < 0) throw new RangeError(`${name} ${value} is not a byte count`);
}

/** Checks that [offset, offset + length) lies inside something of `size` bytes. Throws TypeError, RangeError. */
export function checkRange(offset: number, length: number, size: number): void {
  checkCount('offset', offset);
  checkCount('length', length);
  if (offset + length > size)
    throw new RangeError(`${length} bytes at offset ${offset} reach past the end (${size} bytes)`);
}

/** IOMMU_IOAS_IOVA_RANGES. */
export function readIovaRanges(context: Context, ioasId: number): { alignment: bigint; ranges: IovaRange[] } {
  const { kernel, fd } = context;
  for (let room = 16; ;) {
    const bytes = new Uint8Array(room * iommu_iova_range.size);
    const values = { ioas_id: ioasId, num_iovas: room, allowed_iovas: kernel.addressOf(bytes) };
    const { result, out } = attempt(kernel, fd, IOMMU_IOAS_IOVA_RANGES, values, bytes);
    if (result === -errno.EMSGSIZE && out.num_iovas > room) {
      room = out.num_iovas;
      continue;
    }
    if (result < 0) throw failure(result, { syscall: 'ioctl', request: IOMMU_IOAS_IOVA_RANGES.name });
    const ranges = Array.from({ length: out.num_iovas }, (_, i) => {
      const { start, last } = iommu_iova_range.decode(bytes, i * iommu_iova_range.size);
      return { iova: start, length: last - start + 1n };
    });
    return { alignment: out.out_iova_alignment, ranges };
  }
}

/** IOMMU_IOAS_ALLOW_IOVAS. */
export function writeAllowedRanges(
  context: Context,
  ioasId: number,
  ranges: readonly IovaRangeInput[],
): void {
  const { kernel, fd } = context;
  const bytes = new Uint8Array(Math.max(1, ranges.length) * iommu_iova_range.size);
  const view = new DataView(bytes.buffer);
  ranges.forEach((range, i) => {
    const start = toU64(range.iova, 'iova');
    const length = toU64(range.length, 'length');
    if (length === 0n) throw new RangeError('a range has at least one byte');
    const last = toU64(start + length - 1n, 'the end of the range');
    iommu_iova_range.write(view, i * iommu_iova_range.size, { start, last });
  });
  const values = { ioas_id: ioasId, num_iovas: ranges.length, allowed_iovas: kernel.addressOf(bytes) };
  call(kernel, fd, IOMMU_IOAS_ALLOW_IOVAS, values, bytes);
}
