/**
 * The IOVA → memory map of one IOAS, and the domains that mirror it (drivers/iommu/iommufd/io_pagetable.c's
 * role). Memory is pinned only while a domain needs it: without one a mapping is a promise, and a bad address
 * shows when the first device is attached.
 */
import { errno } from '../../../uapi/errno';
import { IOMMU_WRITE, type PagingDomain } from '../iommu/core';
import { PAGE_SIZE } from '../user-memory';
import type { Area, Slice, TableAccess } from './area';
import { IntervalList, type Interval } from './interval-list';
import { allocateIova, overlaps } from './iova-allocation';
import { DmaBufSource } from './page-source';

const ULONG_MAX = (1n << 64n) - 1n;
const PAGE = BigInt(PAGE_SIZE);

interface Reserved extends Interval {
  readonly owner: object;
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
    const start = iova ?? this.#allocate(first.pages.source.address + first.startByte, length);
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
    for (const area of added) if (this.#domains.length > 0) result ||= this.#map(area, this.#domains);
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

  /** Page sizes that every domain has, as VFIO reports them: what is below a page of the processor counts as one. */
  get pageSizes(): bigint {
    let sizes = ULONG_MAX;
    for (const domain of this.#domains) sizes &= domain.pageSizes;
    return sizes & (PAGE - 1n) ? (sizes & -PAGE) | PAGE : sizes;
  }

  unmapAll(): { result: number; unmapped: bigint } {
    return this.unmap(0n, ULONG_MAX);
  }

  /** Unmaps `length` bytes: none is EINVAL, and a range past the last IOVA EOVERFLOW. */
  unmapRange(iova: bigint, length: bigint): { result: number; unmapped: bigint } {
    const last = iova + length - 1n;
    if (length === 0n) return { result: -errno.EINVAL, unmapped: 0n };
    return last > ULONG_MAX ? { result: -errno.EOVERFLOW, unmapped: 0n } : this.unmap(iova, last);
  }

  /**
   * Cuts areas so that each of `ends` is the last byte of one, if it is mapped (VFIO's type1 unmaps parts of mappings).
   * Entries of domains stay as they are: none may be larger than a page. 0, or -errno at the first that cannot be.
   */
  cut(ends: readonly bigint[]): number {
    for (const end of ends) {
      const area = this.areas.first(end, end);
      const result = area ? this.#split(area, end) : 0;
      if (result) return result;
    }
    return 0;
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
    // As in the kernel, the last one takes its place.
    const tail = this.#domains.pop();
    if (tail && tail !== domain) this.#domains[this.#domains.indexOf(domain)] = tail;
    for (const area of this.areas) {
      this.#unfill(area, [domain]);
      if (area.storage === domain) area.storage = this.#domains[0];
    }
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

  #allocate(address: bigint, length: bigint): bigint {
    const space = { areas: this.areas, reserved: this.#reserved, allowed: this.#allowed };
    return allocateIova(space, address, length, this.alignment);
  }

  #check(iova: bigint, length: bigint): number {
    const last = iova + length - 1n;
    if (iova & (this.alignment - 1n)) return -errno.EINVAL;
    if (last > ULONG_MAX) return -errno.EOVERFLOW;
    if (this.#reserved.some((r) => overlaps(r, iova, last))) return -errno.EINVAL;
    return this.areas.first(iova, last) ? -errno.EEXIST : 0;
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
      hold: undefined,
      storage: undefined,
      accesses: 0,
      locks: 0,
    };
    slice.pages.get();
    this.areas.add(area);
    added.push(area);
    return 0;
  }

  /** Makes two areas of one, the first of which ends with `last`. */
  #split(area: Area, last: bigint): number {
    // The first byte passes for an end too, as in the kernel.
    if (last === area.start || last === area.last) return 0;
    const { pages, hold } = area;
    if (pages.source instanceof DmaBufSource) return -errno.EOPNOTSUPP;
    const start = last + 1n;
    const length = start - area.start;
    const startByte = area.startByte + length;
    if ((start | startByte) & (this.alignment - 1n)) return -errno.EINVAL;
    // What accesses have pinned is counted for the area as a whole.
    if (area.accesses > 0) return -errno.EINVAL;
    const halves: Area[] = [
      { ...area, last, length },
      { ...area, start, startByte, length: area.length - length },
    ];
    this.areas.remove(area);
    for (const half of halves) {
      const part = hold && pages.hold(half.startByte, half.length);
      if (typeof part === 'number') throw new Error('pages that were held are gone');
      half.hold = part;
      this.areas.add(half);
    }
    pages.get();
    hold?.release();
    return 0;
  }

  #remove(area: Area): void {
    this.areas.remove(area);
    this.#unfill(area, this.#domains, true);
    area.pages.put();
  }

  #fill(domain: PagingDomain): number {
    const filled: Area[] = [];
    for (const area of this.areas) {
      const result = this.#map(area, [domain]);
      if (result) {
        for (const undo of filled) this.#unfill(undo, [domain]);
        return result;
      }
      filled.push(area);
    }
    return 0;
  }

  /** Maps an area in all of `domains`, or in none: pins it, writes the entries, and counts it against the limit. */
  #map(area: Area, domains: readonly PagingDomain[]): number {
    const { pages, startByte, length } = area;
    const hold = area.hold ?? pages.hold(startByte, length, () => this.#clear(area, this.#domains));
    if (typeof hold === 'number') return hold;
    const done: PagingDomain[] = [];
    let result = 0;
    for (const domain of pages.revoked ? [] : domains) {
      result = this.#write(area, domain, hold.physical + Number(startByte % PAGE));
      if (result) break;
      done.push(domain);
    }
    result ||= pages.charge();
    if (!result) {
      area.hold = hold;
      area.storage ??= domains[0];
      return 0;
    }
    this.#clear(area, done);
    if (!area.hold) hold.release();
    return result;
  }

  /** Takes the entries of an area out of tables. */
  #clear(area: Area, domains: readonly PagingDomain[]): void {
    for (const domain of domains) {
      const granule = BigInt(domain.granule);
      domain.unmap(Number(area.start / granule), Number(area.length / granule));
    }
  }

  /** Writes the entries of an area. 0 or -errno, and then nothing is mapped. */
  #write(area: Area, domain: PagingDomain, physical: number): number {
    const { granule } = domain;
    const page = Number(area.start / BigInt(granule));
    const pages = Number(area.length / BigInt(granule));
    const { protection } = area;
    // No format has an entry for memory that may be neither read nor written.
    if (!protection) return -errno.EINVAL;
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
    if (!area.hold) return;
    if (!area.pages.revoked) this.#clear(area, domains);
    if (!last) return;
    area.hold.release();
    area.hold = undefined;
    area.storage = undefined;
  }

  #conforms(alignment: bigint): boolean {
    const mask = alignment - 1n;
    for (const area of this.areas)
      if ((area.start | area.length | (area.startByte % PAGE)) & mask) return false;
    return true;
  }
}
