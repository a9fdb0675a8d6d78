/**
 * The IOVA → memory map of one IOAS, and the domains that mirror it (drivers/iommu/iommufd/io_pagetable.c's
 * role). Memory is pinned only while a domain needs it: without one a mapping is a promise, and a bad address
 * shows when the first device is attached.
 */
import { errno } from '../../../uapi/errno';
import { IOMMU_WRITE, type PagingDomain } from '../iommu/core';
import { PAGE_SIZE, type Pin } from '../user-memory';
import { IntervalList, type Interval } from './interval-list';
import type { Pages } from './pages';

const ULONG_MAX = (1n << 64n) - 1n;
const PAGE = BigInt(PAGE_SIZE);
/** Largest alignment an automatic IOVA gets: a huge page (the guest kernels have transparent huge pages). */
const HUGE_PAGE = 2n * 1024n * 1024n;

/** One mapping. */
export interface Area extends Interval {
  readonly length: bigint;
  readonly pages: Pages;
  /** Byte of `pages` that `start` maps to. */
  readonly startByte: bigint;
  /** IOMMU_READ | IOMMU_WRITE. */
  readonly protection: number;
  /** Present while any domain maps the area. */
  pin: Pin | undefined;
  /** Pinned slices that accesses hold of it. */
  accesses: number;
  /** Those of them that nobody can be asked to let go: a hardware queue's. */
  locks: number;
}

/** A user of the mappings inside the kernel (iommufd_access). */
export interface TableAccess {
  /** What IOVA, length and page offset of every area must be multiples of. */
  readonly alignment: bigint;
  /** [iova, iova + length) is about to go: every pin in it must go first. */
  letGo(iova: bigint, length: bigint): void;
}

/** A slice of pages to be mapped. */
export interface Slice {
  readonly pages: Pages;
  readonly startByte: bigint;
  readonly length: bigint;
}

interface Reserved extends Interval {
  readonly owner: object;
}

function overlaps(a: Interval, start: bigint, last: bigint): boolean {
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

export class IoPageTable {
  readonly areas = new IntervalList<Area>();
  #reserved: Reserved[] = [];
  #allowed: readonly Interval[] = [];
  #domains: PagingDomain[] = [];
  readonly #accesses = new Set<TableAccess>();
  /** IOVA, length and page offset of every area are multiples of it: 1 while nothing asks for more. */
  alignment = 1n;
  #largePages = true;

  /** Ranges outside every reservation, ascending: what IOAS_IOVA_RANGES reports. */
  *usableRanges(): Generator<Interval> {
    let start = 0n;
    for (const reserved of [...this.#reserved].sort((a, b) => (a.start < b.start ? -1 : 1))) {
      if (reserved.start > start) yield { start, last: reserved.start - 1n };
      if (reserved.last >= start) start = reserved.last + 1n;
    }
    if (start <= ULONG_MAX) yield { start, last: ULONG_MAX };
  }

  /** IOAS_ALLOW_IOVAS: replaces the list, or EADDRINUSE where a range is reserved. `ranges` are in ascending order. */
  allow(ranges: readonly Interval[]): number {
    for (const range of ranges)
      if (this.#reserved.some((r) => overlaps(r, range.start, range.last))) return -errno.EADDRINUSE;
    const allowed: { start: bigint; last: bigint }[] = [];
    for (const { start, last } of ranges) {
      const before = allowed.at(-1);
      // Neighbours are one range: a mapping may lie across the seam.
      if (before && before.last + 1n === start) before.last = last;
      else allowed.push({ start, last });
    }
    this.#allowed = allowed;
    return 0;
  }

  /** Takes a range away from mappings, on behalf of `owner`. */
  reserve(start: bigint, last: bigint, owner: object): number {
    if (this.areas.first(start, last) || this.#allowed.some((r) => overlaps(r, start, last)))
      return -errno.EADDRINUSE;
    this.#reserved.push({ start, last, owner });
    return 0;
  }

  unreserve(owner: object): void {
    this.#reserved = this.#reserved.filter((reserved) => reserved.owner !== owner);
  }

  /**
   * Maps contiguous slices at `iova`, or where there is room. Returns the IOVA, or -errno, and then nothing has
   * changed. `length` is the sum of the slices'.
   */
  map(slices: readonly Slice[], length: bigint, iova: bigint | undefined, protection: number): bigint {
    const mask = this.alignment - 1n;
    if (length === 0n || length & mask) return BigInt(-errno.EINVAL);
    const [first] = slices;
    const start = iova ?? this.#allocateIova(first.pages.address + first.startByte, length);
    if (start < 0n) return start;
    if (iova !== undefined) {
      const checked = this.#check(iova, length);
      if (checked) return BigInt(checked);
    }

    const added: Area[] = [];
    let next = start;
    let result = 0;
    for (const slice of slices) {
      result = this.#insert(slice, next, protection, added);
      if (result) break;
      next += slice.length;
    }
    // No memory is pinned before every area has its place.
    for (const area of added) result ||= this.#fillDomains(area);
    if (!result) return start;
    for (const area of added) this.#remove(area);
    return BigInt(result);
  }

  /**
   * Unmaps every area in [start, last]. An area that is cut ends it with ENOENT, one that a hardware queue uses with
   * EBUSY, and the areas before it are gone already: `unmapped` then says nothing to the user, as in the kernel.
   */
  unmap(start: bigint, last: bigint): { result: number; unmapped: bigint } {
    let unmapped = 0n;
    let area;
    while ((area = this.areas.first(start, last))) {
      if (area.locks > 0) return { result: -errno.EBUSY, unmapped };
      if (area.start < start || area.last > last) return { result: -errno.ENOENT, unmapped };
      if (area.accesses > 0) for (const access of this.#accesses) access.letGo(area.start, area.length);
      this.#remove(area);
      unmapped += area.length;
      if (area.last >= last) break;
      start = area.last + 1n;
    }
    return { result: 0, unmapped };
  }

  /** The slices behind [iova, iova + length), or ENOENT where a byte is not mapped. */
  slices(iova: bigint, length: bigint): Slice[] | number {
    if (length === 0n) return -errno.EINVAL;
    const last = iova + length - 1n;
    if (last > ULONG_MAX) return -errno.EOVERFLOW;
    const slices: Slice[] = [];
    while (iova <= last) {
      const area = this.areas.first(iova, iova);
      if (!area) return -errno.ENOENT;
      const end = area.last < last ? area.last : last;
      slices.push({
        pages: area.pages,
        startByte: area.startByte + (iova - area.start),
        length: end - iova + 1n,
      });
      iova = end + 1n;
    }
    return slices;
  }

  /** Starts mirroring into `domain`: reserves what it cannot reach, pins and maps every area. */
  addDomain(domain: PagingDomain): number {
    const granule = BigInt(domain.granule);
    const alignment = granule > this.alignment ? granule : this.alignment;
    if (alignment > PAGE) return -errno.EINVAL;
    if (alignment !== this.alignment && !this.#conforms(alignment)) return -errno.EADDRINUSE;
    let result = 0;
    if (domain.apertureStart !== 0n) result = this.reserve(0n, domain.apertureStart - 1n, domain);
    if (!result && domain.apertureLast !== ULONG_MAX)
      result = this.reserve(domain.apertureLast + 1n, ULONG_MAX, domain);
    if (!result) result = this.#fill(domain);
    if (result) {
      this.unreserve(domain);
      return result;
    }
    this.alignment = alignment;
    this.#domains.push(domain);
    return 0;
  }

  removeDomain(domain: PagingDomain): void {
    this.#domains = this.#domains.filter((other) => other !== domain);
    for (const area of this.areas) this.#unfill(area, [domain]);
    this.unreserve(domain);
    this.#align();
  }

  /** Lets an access in. 0, or EADDRINUSE where areas are not aligned as it needs them. */
  addAccess(access: TableAccess): number {
    this.#accesses.add(access);
    const result = this.#align();
    if (result) this.#accesses.delete(access);
    return result;
  }

  /** The access has let go of everything. */
  removeAccess(access: TableAccess): void {
    this.#accesses.delete(access);
    this.#align();
  }

  /** Whether entries of the domains may be larger than a page (IOMMU_OPTION_HUGE_PAGES). */
  get largePages(): boolean {
    return this.#largePages;
  }

  enableLargePages(): void {
    this.#largePages = true;
    this.#align();
  }

  /** 0; EINVAL where entries may be there already, or EADDRINUSE where areas are not of whole pages. */
  disableLargePages(): number {
    if (!this.#largePages) return 0;
    if (this.#domains.length > 0 && this.areas.size > 0) return -errno.EINVAL;
    this.#largePages = false;
    const result = this.#align();
    if (result) this.#largePages = true;
    return result;
  }

  /** Works the alignment out anew: EADDRINUSE, and no change, where it rises above what areas have. */
  #align(): number {
    const needs = [...this.#domains.map(({ granule }) => BigInt(granule))];
    for (const access of this.#accesses) needs.push(access.alignment);
    const least = this.#largePages ? 1n : PAGE;
    const alignment = needs.reduce((most, need) => (need > most ? need : most), least);
    if (alignment > this.alignment && !this.#conforms(alignment)) return -errno.EADDRINUSE;
    this.alignment = alignment;
    return 0;
  }

  #check(iova: bigint, length: bigint): number {
    const last = iova + length - 1n;
    if (iova & (this.alignment - 1n)) return -errno.EINVAL;
    if (last > ULONG_MAX) return -errno.EOVERFLOW;
    if (this.#reserved.some((r) => overlaps(r, iova, last))) return -errno.EINVAL;
    return this.areas.first(iova, last) ? -errno.EEXIST : 0;
  }

  /** First fit, ascending, aligned as the memory is so that huge pages can be used. */
  #allocateIova(address: bigint, length: bigint): bigint {
    if (length >= ULONG_MAX / 2n) return BigInt(-errno.EOVERFLOW);
    let alignment = roundUpToPowerOfTwo(length);
    const lowestBit = address & -address;
    if (address !== 0n && lowestBit < alignment) alignment = lowestBit;
    if (alignment > HUGE_PAGE) alignment = HUGE_PAGE;
    if (alignment < this.alignment) return BigInt(-errno.EINVAL);

    const pageOffset = address % PAGE;
    const everything = [{ start: PAGE, last: ULONG_MAX - PAGE }];
    for (const allowed of this.#allowed.length > 0 ? this.#allowed : everything) {
      const lowest = allowed.start < PAGE ? PAGE : allowed.start;
      const last = allowed.last > ULONG_MAX - PAGE ? ULONG_MAX - PAGE : allowed.last;
      const start = fit(lowest, last, length, alignment, pageOffset);
      if (start < 0n) continue;
      const found = this.#firstHole(start, last, length, alignment, pageOffset);
      if (found >= 0n) return found;
    }
    return BigInt(-errno.ENOSPC);
  }

  #firstHole(start: bigint, last: bigint, length: bigint, alignment: bigint, pageOffset: bigint): bigint {
    while (start <= last) {
      let blocker: Interval | undefined = this.areas.first(start, last);
      for (const reserved of this.#reserved)
        if (overlaps(reserved, start, last) && (!blocker || reserved.start < blocker.start))
          blocker = reserved;
      const holeLast = blocker ? blocker.start - 1n : last;
      const found = holeLast >= start ? fit(start, holeLast, length, alignment, pageOffset) : -1n;
      if (found >= 0n || !blocker) return found;
      start = blocker.last + 1n;
    }
    return -1n;
  }

  #insert(slice: Slice, start: bigint, protection: number, added: Area[]): number {
    if (protection & IOMMU_WRITE && !slice.pages.writable) return -errno.EPERM;
    if ((slice.startByte % PAGE) & (this.alignment - 1n)) return -errno.EINVAL;
    const area: Area = {
      start,
      last: start + slice.length - 1n,
      length: slice.length,
      pages: slice.pages,
      startByte: slice.startByte,
      protection,
      pin: undefined,
      accesses: 0,
      locks: 0,
    };
    this.areas.add(area);
    added.push(area);
    return 0;
  }

  /** Maps a new area in every domain, or in none. */
  #fillDomains(area: Area): number {
    const filled: PagingDomain[] = [];
    for (const domain of this.#domains) {
      const result = this.#map(area, domain);
      if (result) {
        this.#unfill(area, filled, true);
        return result;
      }
      filled.push(domain);
    }
    return 0;
  }

  #remove(area: Area): void {
    this.areas.remove(area);
    this.#unfill(area, this.#domains, true);
  }

  #fill(domain: PagingDomain): number {
    const filled: Area[] = [];
    for (const area of this.areas) {
      const result = this.#map(area, domain);
      if (result) {
        for (const undo of filled) this.#unfill(undo, [domain]);
        return result;
      }
      filled.push(area);
    }
    return 0;
  }

  #map(area: Area, domain: PagingDomain): number {
    const { pages } = area;
    const pinned = area.pin === undefined;
    area.pin ??= pages.pin(area.startByte, area.length);
    if (!area.pin) return -errno.EFAULT;
    const physical = area.pin.physical + Number(area.startByte % PAGE);
    const result = this.#write(area, domain, physical);
    if (result && pinned) {
      area.pin.unpin();
      area.pin = undefined;
    }
    return result;
  }

  /** Writes the entries of an area. 0 or -errno, and then nothing is mapped. */
  #write(area: Area, domain: PagingDomain, physical: number): number {
    const { granule } = domain;
    const page = Number(area.start / BigInt(granule));
    const pages = Number(area.length / BigInt(granule));
    const { protection } = area;
    if (this.#largePages) return domain.map(page, physical, pages, protection);
    // Told of one page at a time, a table has no choice.
    const step = PAGE_SIZE / granule;
    for (let done = 0; done < pages; done += step) {
      const result = domain.map(page + done, physical + done * granule, step, protection);
      if (!result) continue;
      if (done > 0) domain.unmap(page, done);
      return result;
    }
    return 0;
  }

  /** Takes the area out of `domains`, and lets its memory go where no domain is left (or `last` says so). */
  #unfill(area: Area, domains: readonly PagingDomain[], last = this.#domains.length === 0): void {
    if (!area.pin) return;
    for (const domain of domains) {
      const granule = BigInt(domain.granule);
      domain.unmap(Number(area.start / granule), Number(area.length / granule));
    }
    if (!last) return;
    area.pin.unpin();
    area.pin = undefined;
  }

  #conforms(alignment: bigint): boolean {
    const mask = alignment - 1n;
    for (const area of this.areas)
      if ((area.start | area.length | (area.startByte % PAGE)) & mask) return false;
    return true;
  }
}
