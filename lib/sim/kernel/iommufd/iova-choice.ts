/** Where a mapping goes that has no IOVA of its own (iopt_alloc_iova in drivers/iommu/iommufd/io_pagetable.c). */
import { errno } from '../../../uapi/errno';
import { PAGE_SIZE } from '../user-memory';
import { overlaps, type Interval, type IntervalList } from './interval-list';

const ULONG_MAX = (1n << 64n) - 1n;
const PAGE = BigInt(PAGE_SIZE);
/** Largest alignment an automatic IOVA gets: a huge page (the guest kernels have transparent huge pages). */
const HUGE_PAGE = 2n * 1024n * 1024n;

export interface Wish {
  readonly areas: IntervalList<Interval>;
  readonly reserved: readonly Interval[];
  /** Empty: everything is. */
  readonly allowed: readonly Interval[];
  /** Least alignment, in bytes. */
  readonly alignment: bigint;
  /** What is to be mapped: an address, for its alignment, and bytes. */
  readonly address: bigint;
  readonly length: bigint;
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

/** First fit, ascending, aligned as the memory is so that huge pages can be used. The IOVA, or -errno. */
export function chooseIova(wish: Wish): bigint {
  const { address, length } = wish;
  if (length >= ULONG_MAX / 2n) return BigInt(-errno.EOVERFLOW);
  let alignment = roundUpToPowerOfTwo(length);
  const lowestBit = address & -address;
  if (address !== 0n && lowestBit < alignment) alignment = lowestBit;
  if (alignment > HUGE_PAGE) alignment = HUGE_PAGE;
  if (alignment < wish.alignment) return BigInt(-errno.EINVAL);

  const pageOffset = address % PAGE;
  const everything = [{ start: PAGE, last: ULONG_MAX - PAGE }];
  for (const allowed of wish.allowed.length > 0 ? wish.allowed : everything) {
    const lowest = allowed.start < PAGE ? PAGE : allowed.start;
    const last = allowed.last > ULONG_MAX - PAGE ? ULONG_MAX - PAGE : allowed.last;
    const start = fit(lowest, last, length, alignment, pageOffset);
    if (start < 0n) continue;
    const found = firstHole(wish, start, last, alignment, pageOffset);
    if (found >= 0n) return found;
  }
  return BigInt(-errno.ENOSPC);
}

function firstHole(
  { areas, reserved, length }: Wish,
  start: bigint,
  last: bigint,
  alignment: bigint,
  pageOffset: bigint,
): bigint {
  while (start <= last) {
    let blocker: Interval | undefined = areas.first(start, last);
    for (const other of reserved)
      if (overlaps(other, start, last) && (!blocker || other.start < blocker.start)) blocker = other;
    const holeLast = blocker ? blocker.start - 1n : last;
    const found = holeLast >= start ? fit(start, holeLast, length, alignment, pageOffset) : -1n;
    if (found >= 0n || !blocker) return found;
    start = blocker.last + 1n;
  }
  return -1n;
}
