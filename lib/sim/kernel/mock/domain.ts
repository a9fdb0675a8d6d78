/**
 * Domains of the selftest IOMMU. Nothing does DMA through them, so that a table is only what can be asked about it:
 * which memory an IOVA leads to, in pages of which size, and which of them are dirty.
 */
import { errno } from '../../../uapi/errno';
import {
  IOMMU_TEST_INVALIDATE_FLAG_ALL,
  MOCK_APERTURE_LAST,
  MOCK_APERTURE_START,
  MOCK_PAGE_SIZE,
} from '../../../uapi/iommufd-test';
import type { DirtyTracking, NestedDomain, PagingDomain } from '../iommu/core';
import { IntervalList, type Interval } from '../iommufd/interval-list';
import {
  IOMMU_HWPT_INVALIDATE_DATA_SELFTEST,
  MOCK_HUGE_PAGE_SIZE,
  MOCK_NESTED_DOMAIN_IOTLB_NUM,
  iommu_hwpt_invalidate_selftest,
} from './layout';
import type { MockViommu } from './viommu';

/** One entry of the table: a page as large as it was mapped. */
interface Leaf extends Interval {
  /** Physical address of the first byte. */
  readonly physical: number;
  dirty: boolean;
}

/** A table format: its page sizes and what it can translate. */
export interface MockFormat {
  readonly granule: number;
  /** Page sizes in bytes, ascending. */
  readonly sizes: readonly number[];
  readonly apertureStart: bigint;
  readonly apertureLast: bigint;
}

/** AMD's v1 table with 2 KiB pages: every power of two from there is a page size. */
export const DEFAULT_FORMAT: MockFormat = {
  granule: MOCK_PAGE_SIZE,
  sizes: Array.from({ length: 26 }, (_, i) => MOCK_PAGE_SIZE * 2 ** i),
  apertureStart: BigInt(MOCK_APERTURE_START),
  apertureLast: BigInt(MOCK_APERTURE_LAST),
};

/** The same with two page sizes, and all that three levels of it reach: 2^38 bytes. */
export const HUGE_FORMAT: MockFormat = {
  granule: 4096,
  sizes: [4096, MOCK_HUGE_PAGE_SIZE],
  apertureStart: 0n,
  apertureLast: (1n << 38n) - 1n,
};

export class MockPagingDomain implements PagingDomain {
  readonly granule: number;
  readonly pageSizes: bigint;
  readonly apertureStart: bigint;
  readonly apertureLast: bigint;
  readonly dirty: MockDirtyTracking | undefined;
  readonly #leaves = new IntervalList<Leaf>();

  constructor(
    readonly format: MockFormat,
    tracksDirty: boolean,
  ) {
    this.granule = format.granule;
    this.pageSizes = format.sizes.reduce((sum, size) => sum | BigInt(size), 0n);
    this.apertureStart = format.apertureStart;
    this.apertureLast = format.apertureLast;
    this.dirty = tracksDirty ? new MockDirtyTracking(this.#leaves) : undefined;
  }

  map(page: number, physical: number, pages: number): number {
    const start = page * this.granule;
    const end = start + pages * this.granule;
    for (let at = start; at < end;) {
      const size = this.#leafSize(at, physical + (at - start), end - at);
      this.#leaves.add({
        start: BigInt(at),
        last: BigInt(at + size - 1),
        physical: physical + (at - start),
        dirty: false,
      });
      at += size;
    }
    return 0;
  }

  unmap(page: number, pages: number): void {
    const start = BigInt(page) * BigInt(this.granule);
    const last = start + BigInt(pages) * BigInt(this.granule) - 1n;
    let leaf;
    while ((leaf = this.#leaves.first(start, last))) this.#leaves.remove(leaf);
  }

  /** The physical address that `iova` leads to; 0 where it leads nowhere. */
  translate(iova: bigint): number {
    const leaf = this.#leaves.first(iova, iova);
    return leaf ? leaf.physical + Number(iova - leaf.start) : 0;
  }

  free(): void {
    // The entries go with the object.
  }

  /** The largest page that divides both addresses and fits into what is left. */
  #leafSize(iova: number, physical: number, left: number): number {
    let best = this.granule;
    for (const size of this.format.sizes) {
      if (size > left || iova % size || physical % size) break;
      best = size;
    }
    return best;
  }
}

export class MockDirtyTracking implements DirtyTracking {
  #enabled = false;

  constructor(readonly leaves: IntervalList<Leaf>) {}

  get enabled(): boolean {
    return this.#enabled;
  }

  setTracking(enabled: boolean): number {
    this.#enabled = enabled;
    return 0;
  }

  read(start: bigint, last: bigint, keep: boolean, record: (start: bigint, length: bigint) => void): void {
    let leaf;
    for (let at = start; at <= last && (leaf = this.leaves.first(at, last)); at = leaf.last + 1n) {
      if (!leaf.dirty) continue;
      record(leaf.start, leaf.last - leaf.start + 1n);
      leaf.dirty = keep;
    }
  }

  /** What hardware would do when a device writes to `iova`. Nothing where nothing is mapped. */
  set(iova: bigint): void {
    const leaf = this.leaves.first(iova, iova);
    if (leaf) leaf.dirty = true;
  }
}

/** A "user-owned table": a few numbers standing for cached translations. */
export class MockNestedDomain implements NestedDomain {
  readonly nested = true;
  readonly entrySize = iommu_hwpt_invalidate_selftest.size;
  readonly iotlb: Uint32Array;

  /** `viommu`: whose devices only can be attached to it. */
  constructor(
    value: number,
    readonly viommu?: MockViommu,
  ) {
    this.iotlb = new Uint32Array(MOCK_NESTED_DOMAIN_IOTLB_NUM).fill(value);
  }

  supports(dataType: number): boolean {
    return dataType === IOMMU_HWPT_INVALIDATE_DATA_SELFTEST;
  }

  invalidate(entry: Uint8Array): number {
    const { flags, iotlb_id } = iommu_hwpt_invalidate_selftest.decode(entry);
    if (flags & ~IOMMU_TEST_INVALIDATE_FLAG_ALL) return -errno.EOPNOTSUPP;
    if (iotlb_id >= MOCK_NESTED_DOMAIN_IOTLB_NUM) return -errno.EINVAL;
    if (flags & IOMMU_TEST_INVALIDATE_FLAG_ALL) this.iotlb.fill(0);
    else this.iotlb[iotlb_id] = 0;
    return 0;
  }

  free(): void {
    // Nothing was allocated.
  }
}
