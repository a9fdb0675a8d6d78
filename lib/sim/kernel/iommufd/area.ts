/** Mappings of an IOAS (struct iopt_area), and what maps and uses them. */
import type { PagingDomain } from '../iommu/core';
import type { Interval } from './interval-list';
import type { Hold, Pages } from './pages';

/** One mapping. */
export interface Area extends Interval {
  readonly length: bigint;
  readonly pages: Pages;
  /** Byte of `pages` that `start` maps to. */
  readonly startByte: bigint;
  /** IOMMU_READ | IOMMU_WRITE. */
  readonly protection: number;
  /** Present while the domains map the area. */
  hold: Hold | undefined;
  /** The domain that is asked where its memory is; likewise. */
  storage: PagingDomain | undefined;
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
