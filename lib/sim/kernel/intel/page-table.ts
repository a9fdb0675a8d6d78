/**
 * I/O page tables as the kernel builds them: radix tables of 512 entries in physical memory, in the VT-d
 * second-stage or first-stage format, with the largest pages that fit.
 */
import { errno } from '../../../uapi/errno';
import type { PhysicalMemory } from '../../memory';
import * as fs from '../../vtd/first-stage';
import { joinHalves } from '../../vtd/layout';
import * as ss from '../../vtd/second-stage';
import { IOMMU_READ, IOMMU_WRITE } from '../iommu/core';

const ENTRIES = 512;
const PAGE = 4096;

/** What distinguishes one format from another: low-word flags of entries, and bits that make one present. */
export interface Format {
  readonly table: number;
  readonly leaf: (protection: number) => number;
  /** Added to a leaf above the lowest level. */
  readonly large: number;
  /** Makes requests that reach a leaf snoop. 0: the format has nothing for it. */
  readonly snoop: number;
  /** An entry with none of these bits is empty. */
  readonly present: number;
}

/** First stage (section 9.7): user pages, because requests without PASID have user privilege. */
export const FIRST_STAGE: Format = {
  table: fs.FS_P | fs.FS_RW | fs.FS_US | fs.FS_A,
  // The format has no "write but not read". A and D are set beforehand: nobody here looks at them.
  leaf: (protection) => fs.FS_P | fs.FS_US | fs.FS_A | (protection & IOMMU_WRITE ? fs.FS_RW | fs.FS_D : 0),
  large: fs.FS_PS,
  // PGSNP of the PASID entry does it for all.
  snoop: 0,
  present: fs.FS_P,
};

/** Second stage (section 9.8). */
export const SECOND_STAGE: Format = {
  table: ss.SS_R | ss.SS_W,
  leaf: (protection) => (protection & IOMMU_READ ? ss.SS_R : 0) | (protection & IOMMU_WRITE ? ss.SS_W : 0),
  large: ss.SS_PS,
  snoop: ss.SS_SNP,
  present: ss.SS_R | ss.SS_W,
};

export class PageTable {
  /** Physical address of the top table. */
  readonly root: number;
  /** Leaves that are written from now on make requests snoop. */
  snoop = false;
  /** Entries in use, for each table but the top one. */
  readonly #used = new Map<number, number>();

  private constructor(
    readonly memory: PhysicalMemory,
    readonly format: Format,
    /** 3 to 5. */
    readonly levels: number,
    /** Highest level that may hold a leaf: 1 is 4 KiB, 2 is 2 MiB, 3 is 1 GiB. */
    readonly largestLeaf: number,
    root: number,
  ) {
    this.root = root;
  }

  static create(
    memory: PhysicalMemory,
    format: Format,
    levels: number,
    largestLeaf: number,
  ): PageTable | number {
    const root = memory.allocatePage();
    return root < 0 ? -errno.ENOMEM : new PageTable(memory, format, levels, largestLeaf, root);
  }

  /** Sizes of its leaves in bytes, as a sum. */
  get pageSizes(): bigint {
    let sizes = 0n;
    for (let level = 1; level <= this.largestLeaf; level++) sizes |= BigInt(span(level) * PAGE);
    return sizes;
  }

  /** Frees every table. The hardware must have forgotten them. */
  free(): void {
    for (const table of this.#used.keys()) this.memory.freePage(table);
    this.#used.clear();
    this.memory.freePage(this.root);
  }

  /** Maps `pages` 4 KiB pages at page number `page`. 0, or -ENOMEM and then nothing is mapped. */
  map(page: number, physical: number, pages: number, protection: number): number {
    const leaf = this.format.leaf(protection) | (this.snoop ? this.format.snoop : 0);
    let done = 0;
    while (done < pages) {
      const level = this.#leafLevel(page + done, physical / PAGE + done, pages - done);
      if (!this.#insert(page + done, physical + done * PAGE, level, leaf)) {
        // Nothing has been translated through these entries yet: their tables can go at once.
        for (const table of this.unmap(page, done)) this.memory.freePage(table);
        return -errno.ENOMEM;
      }
      done += span(level);
    }
    return 0;
  }

  /**
   * Clears the entries of [page, page + pages). Returns the tables that became empty: the caller frees them once
   * the hardware's caches cannot hold them any more.
   */
  unmap(page: number, pages: number): number[] {
    const emptied: number[] = [];
    const end = page + pages;
    for (let at = page; at < end;) at += this.#remove(this.root, this.levels, at, emptied);
    return emptied;
  }

  /** The highest level whose page size divides both addresses and fits into what is left. */
  #leafLevel(page: number, frame: number, left: number): number {
    let level = 1;
    while (level < this.largestLeaf) {
      const next = span(level + 1);
      if (page % next || frame % next || left < next) break;
      level++;
    }
    return level;
  }

  #insert(page: number, physical: number, leafLevel: number, leaf: number): boolean {
    let table = this.root;
    const { format, memory } = this;
    for (let level = this.levels; level > leafLevel; level--) {
      const entry = table + 8 * indexOf(page, level);
      const low = memory.read32(entry);
      if (low & format.present) {
        table = joinHalves(memory.read32(entry + 4), low & ~0xfff);
        continue;
      }
      const lower = memory.allocatePage();
      if (lower < 0) return false;
      this.#used.set(lower, 0);
      this.#write(table, entry, lower, format.table);
      table = lower;
    }
    const flags = leafLevel > 1 ? leaf | format.large : leaf;
    this.#write(table, table + 8 * indexOf(page, leafLevel), physical, flags);
    return true;
  }

  #write(table: number, entry: number, address: number, flags: number): void {
    this.memory.write64(entry, Math.floor(address / 2 ** 32), (address % 2 ** 32) | flags);
    const used = this.#used.get(table);
    if (used !== undefined) this.#used.set(table, used + 1);
  }

  /** Clears the leaf that covers `page` below `table`. Returns how many pages from `page` on are clear now. */
  #remove(table: number, level: number, page: number, emptied: number[]): number {
    const { format, memory } = this;
    const entry = table + 8 * indexOf(page, level);
    const low = memory.read32(entry);
    const rest = span(level) - (page % span(level));
    if (!(low & format.present)) return rest;
    let cleared = rest;
    if (level > 1 && !(low & format.large)) {
      const lower = joinHalves(memory.read32(entry + 4), low & ~0xfff);
      cleared = this.#remove(lower, level - 1, page, emptied);
      if (this.#used.get(lower) !== 0) return cleared;
      this.#used.delete(lower);
      emptied.push(lower);
    }
    memory.write64(entry, 0, 0);
    const used = this.#used.get(table);
    if (used !== undefined) this.#used.set(table, used - 1);
    return cleared;
  }
}

/** 4 KiB pages that one entry of a level covers. */
function span(level: number): number {
  return ENTRIES ** (level - 1);
}

function indexOf(page: number, level: number): number {
  return Math.floor(page / span(level)) % ENTRIES;
}
