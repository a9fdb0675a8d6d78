/** Where a mapping goes that asks for no IOVA (iopt_alloc_iova's role). */
import { errno } from '../../../uapi/errno';
import { PAGE_SIZE } from '../user-memory';
import type { Interval, IntervalList } from './interval-list';

const ULONG_MAX = (1n << 64n) - 1n;
const PAGE = BigInt(PAGE_SIZE);
/** Largest alignment an automatic IOVA gets: a huge page (the guest kernels have transparent huge pages). */
const HUGE_PAGE = 2n * 1024n * 1024n;
const EVERYTHING: readonly Interval[] = [{ start: PAGE, last: ULONG_MAX - PAGE }];

/** What is taken, and what may be taken: everything where nothing is allowed expressly. */
interface IovaSpace {
  readonly areas: IntervalList<Interval>;
  readonly reserved: readonly Interval[];
  readonly allowed: readonly Interval[];
}

export function overlaps(a: Interval, start: bigint, last: bigint): boolean {
  return a.start <= last && a.last >= start;
}

function alignUp(value: bigint, alignment: bigint): bigint {
  return (value + alignment - 1n) & ~(alignment - 1n);
}

function roundUpToPowerOfTwo(value: bigint): bigint {
  return value <= 1n ? 1n : 1n << BigInt((value - 1n).toString(2).length);
}

/** Where a range of `length` fits into [start, last], or -1n. */
function fit(start: bigint, last: bigint, length: bigint, alignment: bigint, pageOffset: bigint): bigint {
  const aligned = alignUp(start, alignment) | pageOffset;
  // The strict comparison is the kernel's: a hole of exactly one byte is never used.
  return aligned >= last || last - aligned < length - 1n ? -1n : aligned;
}

function firstHole(
  { areas, reserved }: IovaSpace,
  { start, last }: Interval,
  length: bigint,
  alignment: bigint,
  pageOffset: bigint,
): bigint {
  while (start <= last) {
    let blocker: Interval | undefined = areas.first(start, last);
    for (const each of reserved)
      if (overlaps(each, start, last) && (!blocker || each.start < blocker.start)) blocker = each;
    const holeLast = blocker ? blocker.start - 1n : last;
    const found = holeLast >= start ? fit(start, holeLast, length, alignment, pageOffset) : -1n;
    if (found >= 0n || !blocker) return found;
    // Holes that are too small for it, however many there are, need no look.
    start = areas.room(blocker.last + 1n, length);
  }
  return -1n;
}

/**
 * First fit, ascending, aligned as the memory at `address` is so that huge pages can be used. `least`: the alignment
 * that IOVAs must have. The IOVA, or -errno.
 */
export function allocateIova(space: IovaSpace, address: bigint, length: bigint, least: bigint): bigint {
  if (length >= ULONG_MAX / 2n) return BigInt(-errno.EOVERFLOW);
  let alignment = roundUpToPowerOfTwo(length);
  const lowestBit = address & -address;
  if (address !== 0n && lowestBit < alignment) alignment = lowestBit;
  if (alignment > HUGE_PAGE) alignment = HUGE_PAGE;
  if (alignment < least) return BigInt(-errno.EINVAL);

  const pageOffset = address % PAGE;
  for (const allowed of space.allowed.length > 0 ? space.allowed : EVERYTHING) {
    const lowest = allowed.start < PAGE ? PAGE : allowed.start;
    const last = allowed.last > ULONG_MAX - PAGE ? ULONG_MAX - PAGE : allowed.last;
    const start = fit(lowest, last, length, alignment, pageOffset);
    if (start < 0n) continue;
    const found = firstHole(space, { start, last }, length, alignment, pageOffset);
    if (found >= 0n) return found;
  }
  return BigInt(-errno.ENOSPC);
}
