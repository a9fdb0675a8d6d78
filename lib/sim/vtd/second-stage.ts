/**
 * Second-stage paging structures: 3, 4 and 5 levels of 512 64-bit entries.
 * Intel VT-d Architecture Specification rev. 4.1, sections 3.7 "Second-Stage Translation" and 9.9 "Second-Stage Paging Entries".
 */
import { PhysicalMemory } from '../memory';
import { VtdCapabilities } from './capabilities';
import { LEGACY_REASONS, SCALABLE_REASONS, SSS_5_AD_NO_SNOOP, TranslationReasons } from './fault-reasons';
import { highHalf, lowHalf } from './layout';
import { SNOOP } from './iotlb';
import { LegacyContextEntry } from './legacy-context-table';
import { PagingStructureCache, STRUCTURES_SECOND_STAGE } from './paging-structure-cache';
import { PasidEntry } from './pasid-table';
import {
  beyondWidthHigh,
  isBeyond,
  KINDS_ALL,
  KINDS_WRITE,
  pageMaskLow,
  tableIndex,
  visit,
  Walk,
} from './walk';

// Low word of an entry.
/** Read. */
const SS_R = 1 << 0;
/** Write. */
const SS_W = 1 << 1;
/** Page Size: the entry (a PDE or PDPE) maps a 2 MiB or 1 GiB page. */
const SS_PS = 1 << 7;
/** Accessed, with SSADE. */
const SS_A = 1 << 8;
/** Dirty, with SSADE; leaves only. */
const SS_D = 1 << 9;
/** Snoop; leaves only, reserved unless ECAP.SC. */
const SS_SNP = 1 << 11;
// High word.
/** Transient Mapping, bit 62; leaves only, reserved unless ECAP.DT. */
const SS_TM_HIGH = 1 << 30;

// Not where they are declared: the engine makes literals of constants that are the module's own.
export { SS_R, SS_W, SS_PS, SS_A, SS_D, SS_SNP, SS_TM_HIGH };

const READS = KINDS_ALL & ~KINDS_WRITE;
const WRITES = KINDS_WRITE;
const SECOND_STAGE = STRUCTURES_SECOND_STAGE;
const FORCED_SNOOP = SNOOP;

/** Low word of an entry for the table or page at `pa`, with SS_* flags; the high word is {@link secondStageEntryHigh}. */
export const secondStageEntryLow = (pa: number, flags: number): number => lowHalf(pa) | flags;
export const secondStageEntryHigh = (pa: number): number => highHalf(pa);

/** A second stage as a PASID entry or a legacy context entry selects it, made ready for walking. */
export interface SecondStage {
  readonly rootHigh: number;
  readonly rootLow: number;
  readonly levels: number;
  /** Input address width, bits: min(MGAW, AW). */
  readonly width: number;
  /** Reserved bits of the low word, at [2 * level + leaf]. */
  readonly reservedLow: Int32Array;
  /** Reserved bits of the high word, at [leaf]. */
  readonly reservedHigh: Int32Array;
  /** Bit n: an entry of level n may map a page. */
  readonly leafLevels: number;
  /** Flag set in every entry used: A with SSADE (and D with a write), else none. */
  readonly accessed: number;
  /** A or D cannot be set: page walks do not snoop. */
  readonly noSnoop: boolean;
  readonly reasons: TranslationReasons;
}

/** The second stage of a PASID entry. */
export function secondStageOf(entry: PasidEntry, capabilities: VtdCapabilities): SecondStage {
  return {
    ...tablesOf(entry, capabilities),
    accessed: entry.SSADE !== 0 ? SS_A : 0,
    noSnoop: capabilities.SMPWCS !== 0 && entry.PWSNP === 0,
    reasons: SCALABLE_REASONS,
  };
}

/** The second stage of a legacy context entry, which keeps no A and D. */
export function legacySecondStageOf(entry: LegacyContextEntry, capabilities: VtdCapabilities): SecondStage {
  return {
    ...tablesOf(entry, capabilities),
    accessed: 0,
    noSnoop: false,
    reasons: LEGACY_REASONS,
  };
}

function tablesOf(entry: { readonly AW: number; readonly SSPTPTR: number }, capabilities: VtdCapabilities) {
  const levels = entry.AW + 2;
  const leafLevels = (1 << 1) | ((capabilities.SSLPS & 1) << 2) | ((capabilities.SSLPS & 2) << 2);
  const leafSnoop = capabilities.SC === 0 ? SS_SNP : 0;
  const reservedLow = new Int32Array(12);
  for (let level = 1; level <= 5; level++) {
    reservedLow[2 * level] = SS_SNP | SS_PS;
    // A leaf's address bits below its page size are reserved; bit 11 is SNP, bits 10:8 are D, A and ignored.
    reservedLow[2 * level + 1] = leafSnoop | (level > 1 ? ~pageMaskLow(12 + 9 * (level - 1)) & ~0xfff : 0);
  }
  const beyond = beyondWidthHigh(capabilities.HAW);
  return {
    rootHigh: highHalf(entry.SSPTPTR),
    rootLow: lowHalf(entry.SSPTPTR),
    levels,
    width: Math.min(capabilities.MGAW + 1, 12 + 9 * levels),
    reservedLow,
    reservedHigh: Int32Array.of(beyond | SS_TM_HIGH, beyond | (capabilities.DT === 0 ? SS_TM_HIGH : 0)),
    leafLevels,
  };
}

/**
 * Walks to the page of an address in halves, from the top table or from what `structures` has for `tag`. Returns 0 and fills
 * `walk`, or returns a fault reason. Changes no entry: {@link markSecondStage} sets A and D once the request is known to be
 * allowed.
 */
export function walkSecondStage(
  memory: PhysicalMemory,
  stage: SecondStage,
  high: number,
  low: number,
  walk: Walk,
  structures: PagingStructureCache | null,
  tag: number,
): number {
  if (isBeyond(stage.width, high)) return stage.reasons.beyondWidth;
  const { levels } = stage;
  if (structures?.begin(walk, tag, SECOND_STAGE, levels, high, low) !== true) {
    walk.cachedAt = -1;
    walk.begin(levels, stage.rootHigh, stage.rootLow, SS_R | SS_W, 0);
  }
  let level = walk.start;
  let tableHigh = walk.tables[4 * level]!;
  let tableLow = walk.tables[4 * level + 1]!;
  let permissions = walk.tables[4 * level + 2]!;
  let visited = -1;
  for (;;) {
    tableLow |= tableIndex(level, high, low) << 3;
    const words = memory.chunkAt(tableHigh, tableLow);
    const at = (tableLow & 0x1f_ffff) >>> 2;
    if (words === undefined || at + 1 >= words.length) {
      return level === levels ? stage.reasons.topAccess : stage.reasons.access;
    }
    const entryLow = words[at]!;
    const entryHigh = words[at + 1]!;
    if ((entryLow & (SS_R | SS_W)) === 0) return absent(stage, walk);
    const leaf = level === 1 || ((entryLow & SS_PS) !== 0 && ((stage.leafLevels >> level) & 1) !== 0) ? 1 : 0;
    if (
      (entryLow & stage.reservedLow[2 * level + leaf]!) !== 0 ||
      (entryHigh & stage.reservedHigh[leaf]!) !== 0
    ) {
      return stage.reasons.reserved;
    }
    visit(walk, tableHigh, tableLow, entryLow);
    visited &= entryLow;
    permissions &= entryLow;
    if (leaf === 1) {
      if (permissions === 0) return absent(stage, walk);
      walk.visited = visited;
      walk.leafLevel = level;
      return finish(walk, 3 + 9 * level, permissions, low, entryHigh, entryLow);
    }
    tableHigh = entryHigh & 0xf_ffff;
    tableLow = entryLow & ~0xfff;
    walk.descend(--level, tableHigh, tableLow, permissions, 0);
  }
}

/** Neither read nor write: the reason, or 0 and a walk that serves no request. */
function absent(stage: SecondStage, walk: Walk): number {
  walk.allowed = 0;
  return stage.reasons.notPresent;
}

function finish(
  walk: Walk,
  shift: number,
  permissions: number,
  low: number,
  entryHigh: number,
  entryLow: number,
): number {
  const mask = pageMaskLow(shift);
  walk.leaf = entryLow;
  walk.shift = shift;
  walk.high = entryHigh & 0xf_ffff;
  walk.low = (entryLow & mask) | (low & ~mask & ~0xfff);
  walk.snoop = (entryLow & SS_SNP) !== 0 ? FORCED_SNOOP : 0;
  walk.allowed = ((permissions & SS_R) !== 0 ? READS : 0) | ((permissions & SS_W) !== 0 ? WRITES : 0);
  return 0;
}

/** The fault reason of a request of `kind` that the walk's permissions do not serve, or 0. */
export function checkSecondStage(stage: SecondStage, walk: Walk, kind: number): number {
  if (((walk.allowed >> kind) & 1) !== 0) return 0;
  return (kind & 1) !== 0 ? stage.reasons.write : stage.reasons.read;
}

/**
 * After a walk that is used: sets A on its entries, and D on the leaf for a write. Returns 0, or the fault reason where
 * they could not be set, and then no entry was changed. Afterwards `walk.allowed` has no writes while D is clear: the
 * first write has to walk again.
 */
export function markSecondStage(
  memory: PhysicalMemory,
  stage: SecondStage,
  walk: Walk,
  write: boolean,
): number {
  if (stage.accessed === 0) return 0;
  const clean = (walk.leaf & SS_D) === 0;
  if (clean && !write) walk.allowed &= ~KINDS_WRITE;
  return (walk.visited & SS_A) !== 0 && !(clean && write) ? 0 : setFlags(memory, stage, walk, write);
}

function setFlags(memory: PhysicalMemory, stage: SecondStage, walk: Walk, write: boolean): number {
  if (stage.noSnoop) return SSS_5_AD_NO_SNOOP;
  for (let i = 0; i < walk.depth; i++) {
    const flags = i === walk.depth - 1 && write ? SS_A | SS_D : SS_A;
    memory.setBits(walk.entries[3 * i]!, walk.entries[3 * i + 1]!, flags);
  }
  return 0;
}
