/** Dirty tracking: which memory devices have written, from the page tables' own bits (IOMMU_HWPT_GET_DIRTY_BITMAP). */
import type { Context } from './context';
import { call } from './ioctl';
import type { IovaRange, MappedRange } from './iova';
import * as uapi from './uapi';

/** Options of `readDirty`. */
export interface DirtyOptions {
  /** First IOVA, in bytes. Default 0. */
  iova?: bigint | number | undefined;
  /** Bytes. Default: everything behind `iova`. */
  length?: bigint | number | undefined;
  /**
   * Bytes that one bit stands for, a power of two; by default the kernel's page size. Larger is faster and coarser;
   * mappings that are not a multiple of it are reported finer.
   */
  pageSize?: number | undefined;
  /** Forget what is reported, so that the next report has what was written since. Default true. */
  clear?: boolean | undefined;
}

/** What a report is about. */
interface Mapped {
  /** @internal The mappings that have bytes in [start, end), in the order of their IOVAs. */
  overlapping(start: bigint, end: bigint): readonly MappedRange[];
}

/** Neighbouring mappings are read together up to this many bits: a bitmap of 1 MiB, which covers 32 GiB in 4 KiB pages. */
const MOST_BITS = 1n << 23n;

const END = 1n << 64n;

/** Switches tracking of a page table, by its object ID. */
export function setDirtyTracking(context: Context, hwptId: number, on: boolean): void {
  call(context.kernel, context.fd, uapi.IOMMU_HWPT_SET_DIRTY_TRACKING, {
    hwpt_id: hwptId,
    flags: on ? uapi.IOMMU_HWPT_DIRTY_TRACKING_ENABLE : 0,
  });
}

/** Reads dirty bits, and keeps what it found where a later step failed: the kernel has forgotten it by then. */
export class DirtyReader {
  #kept: IovaRange[] = [];

  /** Tracking starts afresh. */
  forget(): void {
    this.#kept = [];
  }

  /** Reads a table that is about to go, for the next report. */
  keep(context: Context, hwptId: number, mapped: Mapped): void {
    this.#collect(context, [hwptId], mapped, {});
  }

  /** What is dirty in the range, and in the rest of the mappings that it cuts, in any of the tables. */
  read(context: Context, hwptIds: readonly number[], mapped: Mapped, options: DirtyOptions): IovaRange[] {
    this.#collect(context, hwptIds, mapped, options);
    const found = merge(this.#kept);
    this.#kept = [];
    return found;
  }

  #collect(context: Context, hwptIds: readonly number[], mapped: Mapped, options: DirtyOptions): void {
    const start = uapi.toU64(options.iova ?? 0n, 'iova');
    const end = options.length === undefined ? END : start + uapi.toU64(options.length, 'length');
    const pageSize = options.pageSize ?? context.kernel.pageSize;
    if (!Number.isSafeInteger(pageSize) || pageSize < 1 || !Number.isInteger(Math.log2(pageSize)))
      throw new RangeError(`pageSize ${pageSize} is not a power of two`);
    const flags = (options.clear ?? true) ? 0 : uapi.IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR;
    const runs = end > start ? contiguous(mapped.overlapping(start, end), MOST_BITS * BigInt(pageSize)) : [];
    for (const id of hwptIds)
      for (const run of runs) {
        const bitmap = readBitmap(context, id, run, largestUnit(run, pageSize), flags);
        for (const range of bitmap) this.#kept.push(range);
      }
  }
}

/**
 * Whole mappings, joined where one begins at another's end, up to `most` bytes. The kernel stops at the first hole; and
 * within a mapping only it knows where a page of the table starts, so mappings are not cut.
 */
function contiguous(mappings: readonly MappedRange[], most: bigint): IovaRange[] {
  const runs: { iova: bigint; length: bigint }[] = [];
  for (const { iova, length } of mappings) {
    const last = runs[runs.length - 1];
    if (last && last.iova + last.length === iova && last.length + BigInt(length) <= most)
      last.length += BigInt(length);
    else runs.push({ iova, length: BigInt(length) });
  }
  return runs;
}

/** The largest power of two up to `pageSize` that the range's start and length are multiples of. */
function largestUnit({ iova, length }: IovaRange, pageSize: number): bigint {
  const bits = iova | length;
  const alignment = bits & -bits;
  return alignment < BigInt(pageSize) ? alignment : BigInt(pageSize);
}

/** One IOMMU_HWPT_GET_DIRTY_BITMAP: the ranges whose bits it set. */
function readBitmap(
  context: Context,
  hwptId: number,
  { iova, length }: IovaRange,
  unit: bigint,
  flags: number,
): IovaRange[] {
  const count = Number(length / unit);
  // Whole words: the kernel writes those.
  const bitmap = new Uint8Array(Math.ceil(count / 64) * 8);
  const values = {
    hwpt_id: hwptId,
    flags,
    iova,
    length,
    page_size: unit,
    data: context.kernel.addressOf(bitmap),
  };
  call(context.kernel, context.fd, uapi.IOMMU_HWPT_GET_DIRTY_BITMAP, values, bitmap);
  const at = (bit: number) => iova + BigInt(bit) * unit;
  return runsOfBits(bitmap, count).map(([first, end]) => ({ iova: at(first), length: at(end) - at(first) }));
}

/** Runs of set bits below `count`, as [first, end). */
export function runsOfBits(bitmap: Uint8Array, count: number): [number, number][] {
  const runs: [number, number][] = [];
  let first = -1;
  for (let bit = 0; bit < count; bit++) {
    const byte = bitmap[bit >> 3];
    // Most bytes are all alike.
    if ((bit & 7) === 0 && byte === (first < 0 ? 0 : 0xff)) {
      bit += 7;
      continue;
    }
    const set = (byte >> (bit & 7)) & 1;
    if (set && first < 0) first = bit;
    if (!set && first >= 0) {
      runs.push([first, bit]);
      first = -1;
    }
  }
  if (first >= 0) runs.push([first, count]);
  return runs;
}

/** In the order of their IOVAs, those that touch or overlap joined. */
function merge(ranges: readonly IovaRange[]): IovaRange[] {
  const merged: { iova: bigint; length: bigint }[] = [];
  for (const { iova, length } of [...ranges].sort((one, other) => (one.iova < other.iova ? -1 : 1))) {
    const last = merged[merged.length - 1];
    if (!last || last.iova + last.length < iova) merged.push({ iova, length });
    else if (last.iova + last.length < iova + length) last.length = iova + length - last.iova;
  }
  return merged;
}
