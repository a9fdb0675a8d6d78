/**
 * First-stage paging structures: 4 and 5 levels, laid out as the processor's; alone, or nested over a second stage,
 * which then translates the address of every first-stage entry and the result.
 * Intel VT-d Architecture Specification rev. 4.1, sections 3.6 "First-Stage Translation", 3.8 "Nested Translation" and
 * 9.8 "First-Stage Paging Entries".
 */
import { PhysicalMemory } from '../memory';
import { VtdCapabilities } from './capabilities';
import {
  SFS_1_ACCESS,
  SFS_2_NOT_PRESENT,
  SFS_3_RESERVED,
  SFS_4_TOP_ACCESS,
  SFS_5_NESTED_WIDTH,
  SFS_6_NESTED_TOP_READ,
  SFS_7_NESTED_READ,
  SFS_8_NESTED_WRITE,
  SFS_9_AD_NO_SNOOP,
  SGN_1_NOT_CANONICAL,
  SGN_2_USER,
  SGN_3_EXECUTE,
  SGN_5_BEYOND_AW,
  SGN_6_WRITE,
} from './fault-reasons';
import { highHalf, lowHalf } from './layout';
import {
  PagingStructureCache,
  STRUCTURES_FIRST_STAGE,
  STRUCTURES_SECOND_STAGE,
} from './paging-structure-cache';
import { PasidEntry, PGTT_NESTED } from './pasid-table';
import {
  checkSecondStage,
  markSecondStage,
  SecondStage,
  secondStageOf,
  walkSecondStage,
} from './second-stage';
import {
  beyondWidthHigh,
  isBeyond,
  KINDS_ALL,
  KINDS_EXECUTE,
  KINDS_PRIVILEGED,
  KINDS_WRITE,
  PAGE_OFFSET,
  pageMaskLow,
  tableIndex,
  visit,
  Walk,
} from './walk';

// Low word of an entry.
/** Present. */
const FS_P = 1 << 0;
/** Read/Write: 1 allows writes. */
const FS_RW = 1 << 1;
/** User/Supervisor: 1 allows user-privilege requests. */
const FS_US = 1 << 2;
/** Page-level Write-Through. */
const FS_PWT = 1 << 3;
/** Page-level Cache Disable. */
const FS_PCD = 1 << 4;
/** Accessed. */
const FS_A = 1 << 5;
/** Dirty; leaves only. */
const FS_D = 1 << 6;
/** Page Size: the entry (a PDE or PDPE) maps a 2 MiB or 1 GiB page. */
const FS_PS = 1 << 7;
/** Extended Accessed, with EAFE. */
const FS_EA = 1 << 10;
// High word.
/** Execute Disable, bit 63; with NXE. */
const FS_XD_HIGH = 1 << 31;

// Not where they are declared: the engine makes literals of constants that are the module's own.
export { FS_P, FS_RW, FS_US, FS_PWT, FS_PCD, FS_A, FS_D, FS_PS, FS_EA, FS_XD_HIGH };

const ALL = KINDS_ALL;
const OFFSET = PAGE_OFFSET;
const FIRST_STAGE = STRUCTURES_FIRST_STAGE;

const TABLE_READ = 0;
const TABLE_WRITE = 1;

/** Low word of an entry for the table or page at `pa`, with FS_* flags. */
export const firstStageEntryLow = (pa: number, flags: number): number => lowHalf(pa) | flags;
/** High word, with FS_XD_HIGH or 0. */
export const firstStageEntryHigh = (pa: number, flags = 0): number => highHalf(pa) | flags;

/** A first stage as a PASID entry selects it, made ready for walking. */
export interface FirstStage {
  readonly rootHigh: number;
  readonly rootLow: number;
  readonly levels: number;
  /** Reserved bits of the high word; none when nested, where a wide address has its own fault. */
  readonly reservedHigh: number;
  /** Reserved bits of the low word, at [2 * level + leaf]. */
  readonly reservedLow: Int32Array;
  /** Bit n: an entry of level n may map a page. */
  readonly leafLevels: number;
  /** Flags set in every entry used: A, and EA with EAFE. */
  readonly accessed: number;
  /** Kinds of requests that U/S = 0, R/W = 0 and XD = 1 each take away. */
  readonly supervisorDenies: number;
  readonly readOnlyDenies: number;
  readonly noExecuteDenies: number;
  /** SMEP: kinds denied where U/S = 1. */
  readonly userDenies: number;
  /** A or D cannot be set: page walks do not snoop. */
  readonly noSnoop: boolean;
  /** The second stage underneath, or null. */
  readonly nested: SecondStage | null;
}

export function firstStageOf(entry: PasidEntry, capabilities: VtdCapabilities): FirstStage {
  const reservedLow = new Int32Array(12);
  for (let level = 2; level <= 5; level++) {
    reservedLow[2 * level] = FS_PS;
    // Bit 12 of a large page's entry is PAT; from 13 up to its page size the address bits are reserved.
    reservedLow[2 * level + 1] = ~pageMaskLow(12 + 9 * (level - 1)) & ~0x1fff;
  }
  const isNested = entry.PGTT === PGTT_NESTED;
  return {
    rootHigh: highHalf(entry.FSPTPTR),
    rootLow: lowHalf(entry.FSPTPTR),
    levels: entry.FSPM + 4,
    reservedHigh: isNested ? 0 : beyondWidthHigh(capabilities.HAW),
    reservedLow,
    leafLevels: (1 << 1) | (1 << 2) | (capabilities.FS1GP << 3),
    accessed: FS_A | (entry.EAFE !== 0 ? FS_EA : 0),
    supervisorDenies: KINDS_ALL & ~KINDS_PRIVILEGED,
    readOnlyDenies: entry.WPE !== 0 ? KINDS_WRITE : KINDS_WRITE & ~KINDS_PRIVILEGED,
    noExecuteDenies: entry.NXE !== 0 ? KINDS_EXECUTE : 0,
    userDenies: entry.SMEP !== 0 ? KINDS_EXECUTE & KINDS_PRIVILEGED : 0,
    noSnoop: capabilities.SMPWCS !== 0 && entry.PWSNP === 0,
    nested: isNested ? secondStageOf(entry, capabilities) : null,
  };
}

/** True if bits 63:47 (4 levels) or 63:56 (5 levels) of an address are all equal. */
export function isCanonical(levels: number, high: number): boolean {
  const top = high >> (levels === 5 ? 24 : 15);
  return top === 0 || top === -1;
}

/**
 * Walks to the page of an address in halves, from the top table or from what `structures` has for `tag`. Returns 0 and fills
 * `walk` (its address is guest physical when nested), or returns a fault reason. `table` serves the second-stage walks of a
 * nested one, which set A in second-stage entries as they go; first-stage entries are left alone until {@link markFirstStage}.
 *
 * Nested, the caches have the second stage's entries only: each first-stage entry is read.
 */
export function walkFirstStage(
  memory: PhysicalMemory,
  stage: FirstStage,
  high: number,
  low: number,
  walk: Walk,
  table: Walk,
  structures: PagingStructureCache | null,
  tag: number,
): number {
  if (!isCanonical(stage.levels, high)) return SGN_1_NOT_CANONICAL;
  const { levels, nested } = stage;
  const own = nested === null ? structures : null;
  if (own?.begin(walk, tag, FIRST_STAGE, levels, high, low) !== true) {
    walk.cachedAt = -1;
    walk.begin(levels, stage.rootHigh, stage.rootLow, FS_RW | FS_US, 0);
  }
  let level = walk.start;
  let tableHigh = walk.tables[4 * level]!;
  let tableLow = walk.tables[4 * level + 1]!;
  let common = walk.tables[4 * level + 2]!;
  let anyHigh = walk.tables[4 * level + 3]!;
  let visited = -1;
  for (;;) {
    const offset = tableIndex(level, high, low) << 3;
    if (nested !== null) {
      const guestLow = tableLow | offset;
      walk.guestHigh[walk.depth] = tableHigh;
      walk.guestLow[walk.depth] = guestLow;
      const top = level === levels;
      const fault = locateEntry(memory, nested, tableHigh, guestLow, table, top, structures, tag);
      if (fault !== 0) return fault;
      tableHigh = table.high;
      tableLow = table.low;
    }
    tableLow |= offset;
    const words = memory.chunkAt(tableHigh, tableLow);
    const at = (tableLow & 0x1f_ffff) >>> 2;
    if (words === undefined || at + 1 >= words.length)
      return level === levels ? SFS_4_TOP_ACCESS : SFS_1_ACCESS;
    const entryLow = words[at]!;
    const entryHigh = words[at + 1]!;
    if ((entryLow & FS_P) === 0) return SFS_2_NOT_PRESENT;
    const leaf = level === 1 || ((entryLow & FS_PS) !== 0 && ((stage.leafLevels >> level) & 1) !== 0) ? 1 : 0;
    if ((entryLow & stage.reservedLow[2 * level + leaf]!) !== 0 || (entryHigh & stage.reservedHigh) !== 0)
      return SFS_3_RESERVED;
    visit(walk, tableHigh, tableLow, entryLow);
    visited &= entryLow;
    common &= entryLow;
    anyHigh |= entryHigh & FS_XD_HIGH;
    if (leaf === 1) {
      walk.visited = visited;
      return finish(stage, walk, level, low, entryHigh, entryLow, common, anyHigh);
    }
    tableHigh = entryHigh & 0xf_ffff;
    tableLow = entryLow & ~0xfff;
    walk.descend(--level, tableHigh, tableLow, common, anyHigh);
  }
}

function finish(
  stage: FirstStage,
  walk: Walk,
  level: number,
  low: number,
  entryHigh: number,
  entryLow: number,
  common: number,
  anyHigh: number,
): number {
  const shift = 3 + 9 * level;
  const mask = pageMaskLow(shift);
  walk.common = common;
  walk.anyHigh = anyHigh;
  walk.leafLevel = level;
  walk.leaf = entryLow;
  walk.shift = shift;
  walk.high = entryHigh & 0xf_ffff;
  walk.low = (entryLow & mask) | (low & ~mask & ~OFFSET);
  walk.snoop = 0;
  let denied = (common & FS_US) === 0 ? stage.supervisorDenies : stage.userDenies;
  if ((common & FS_RW) === 0) denied |= stage.readOnlyDenies;
  if (anyHigh !== 0) denied |= stage.noExecuteDenies;
  walk.allowed = ALL & ~denied;
  return 0;
}

/** Second stage of a nested walk: where the first-stage entry at a guest-physical address lies. */
function locateEntry(
  memory: PhysicalMemory,
  nested: SecondStage,
  high: number,
  low: number,
  table: Walk,
  top: boolean,
  structures: PagingStructureCache | null,
  tag: number,
): number {
  // FSPTPTR is an input address like any other; a pointer in an entry has a reason of its own (SFS.5).
  if (isBeyond(nested.width, high)) return top ? SGN_5_BEYOND_AW : SFS_5_NESTED_WIDTH;
  const fault = walkSecondStage(memory, nested, high, low, table, structures, tag);
  if (fault !== 0) return fault;
  if (checkSecondStage(nested, table, TABLE_READ) !== 0)
    return top ? SFS_6_NESTED_TOP_READ : SFS_7_NESTED_READ;
  const marked = markSecondStage(memory, nested, table, false);
  if (marked === 0) structures?.remember(tag, STRUCTURES_SECOND_STAGE, high, low, table, null);
  return marked;
}

/** The fault reason of a request of `kind` that the walk's permissions do not serve, or 0. */
export function checkFirstStage(stage: FirstStage, walk: Walk, kind: number): number {
  if (((walk.allowed >> kind) & 1) !== 0) return 0;
  const bit = 1 << kind;
  if ((walk.common & FS_US) === 0 && (bit & stage.supervisorDenies) !== 0) return SGN_2_USER;
  const readOnly = (walk.common & FS_RW) === 0 && (bit & stage.readOnlyDenies) !== 0;
  return readOnly && !deniesExecute(stage, walk, bit) ? SGN_6_WRITE : SGN_3_EXECUTE;
}

function deniesExecute(stage: FirstStage, walk: Walk, bit: number): boolean {
  if ((walk.common & FS_US) !== 0 && (bit & stage.userDenies) !== 0) return true;
  return walk.anyHigh !== 0 && (bit & stage.noExecuteDenies) !== 0;
}

/** Whether A (or EA) or D has to be set for a request. */
function needsMarks(stage: FirstStage, walk: Walk, write: boolean): boolean {
  return (stage.accessed & ~walk.visited) !== 0 || ((walk.leaf & FS_D) === 0 && write);
}

/** Flags entry `i` of the walk needs and has not got. */
function missingFlags(stage: FirstStage, walk: Walk, i: number, write: boolean): number {
  const wanted = i === walk.depth - 1 && write ? stage.accessed | FS_D : stage.accessed;
  return wanted & ~walk.entries[3 * i + 2]!;
}

/**
 * Whether A and D can be set for a request: 0, or the fault reason. Nested, the second stage must allow the write;
 * `table` is used for asking it.
 */
export function checkFirstStageMarks(
  memory: PhysicalMemory,
  stage: FirstStage,
  walk: Walk,
  table: Walk,
  write: boolean,
): number {
  if (!needsMarks(stage, walk, write)) return 0;
  for (let i = 0; i < walk.depth; i++) {
    if (missingFlags(stage, walk, i, write) === 0) continue;
    if (stage.noSnoop) return SFS_9_AD_NO_SNOOP;
    if (stage.nested === null) continue;
    const fault = walkSecondStage(
      memory,
      stage.nested,
      walk.guestHigh[i]!,
      walk.guestLow[i]!,
      table,
      null,
      0,
    );
    if (fault !== 0) return fault;
    if (checkSecondStage(stage.nested, table, TABLE_WRITE) !== 0) return SFS_8_NESTED_WRITE;
  }
  return 0;
}

/**
 * After a walk that is used, and {@link checkFirstStageMarks}: sets A (and EA) on its entries, and D on the leaf for a
 * write; nested, also D in the second stage of the tables written. Afterwards `walk.allowed` has no writes while D is
 * clear: the first write has to walk again.
 */
export function markFirstStage(
  memory: PhysicalMemory,
  stage: FirstStage,
  walk: Walk,
  table: Walk,
  write: boolean,
): number {
  if ((walk.leaf & FS_D) === 0 && !write) walk.allowed &= ~KINDS_WRITE;
  if (!needsMarks(stage, walk, write)) return 0;
  for (let i = 0; i < walk.depth; i++) {
    const flags = missingFlags(stage, walk, i, write);
    if (flags === 0) continue;
    if (stage.nested !== null && stage.nested.accessed !== 0) {
      const fault =
        walkSecondStage(memory, stage.nested, walk.guestHigh[i]!, walk.guestLow[i]!, table, null, 0) ||
        markSecondStage(memory, stage.nested, table, true);
      if (fault !== 0) return fault;
    }
    memory.setBits(walk.entries[3 * i]!, walk.entries[3 * i + 1]!, flags);
  }
  return 0;
}
