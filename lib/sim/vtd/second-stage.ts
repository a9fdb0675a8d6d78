/**
 * Second-stage paging structures: 3, 4 and 5 levels of 512 64-bit entries.
 * Intel VT-d Architecture Specification rev. 4.1, sections 3.7 "Second-Stage Translation" and 9.9 "Second-Stage Paging Entries".
 */
import { PhysicalMemory } from '../memory';
import { VtdCapabilities } from './capabilities';
import { LEGACY_REASONS, SCALABLE_REASONS, SSS_5_AD_NO_SNOOP, TranslationReasons } from './fault-reasons';
import { highHalf, lowHalf } from './layout';
import { LegacyContextEntry } from './legacy-context-table';
import { beginWalk, PagingStructureCache, STRUCTURES_SECOND_STAGE } from './paging-structure-cache';
import { PasidEntry } from './pasid-table';
import { beyondWidthHigh, isBeyond, KINDS_ALL, KINDS_WRITE, pageMaskLow, tableIndex, Walk } from './walk';

// Low word of an entry.
/** Read. */
export const SS_R = 1 << 0;
/** Write. */
export const SS_W = 1 << 1;
/** Page Size: the entry (a PDE or PDPE) maps a 2 MiB or 1 GiB page. */
export const SS_PS = 1 << 7;
/** Accessed, with SSADE. */
export const SS_A = 1 << 8;
/** Dirty, with SSADE; leaves only. */
export const SS_D = 1 << 9;
/** Snoop; leaves only, reserved unless ECAP.SC. */
export const SS_SNP = 1 << 11;
// High word.
/** Transient Mapping, bit 62; leaves only, reserved unless ECAP.DT. */
export const SS_TM_HIGH = 1 << 30;

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
  /** SSADE: A and D are kept. */
  readonly accessedDirty: boolean;
  /** A or D cannot be set: page walks do not snoop. */
  readonly noSnoop: boolean;
  readonly reasons: TranslationReasons;
}

/** The second stage of a PASID entry. */
export function secondStageOf(entry: PasidEntry, capabilities: VtdCapabilities): SecondStage {
  return {
    ...tablesOf(entry, capabilities),
    accessedDirty: entry.SSADE !== 0,
    noSnoop: capabilities.SMPWCS !== 0 && entry.PWSNP === 0,
    reasons: SCALABLE_REASONS,
  };
}

/** The second stage of a legacy context entry, which keeps no A and D. */
export function legacySecondStageOf(entry: LegacyContextEntry, capabilities: VtdCapabilities): SecondStage {
  return {
    ...tablesOf(entry, capabilities),
    accessedDirty: false,
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
  const { levels, rootHigh, rootLow } = stage;
  beginWalk(
    walk,
    structures,
    tag,
    STRUCTURES_SECOND_STAGE,
    levels,
    rootHigh,
    rootLow,
    SS_R | SS_W,
    high,
    low,
  );
  for (let level = walk.start; ; level--) {
    const tableHigh = walk.tableHigh[level]!;
    const tableLow = walk.tableLow[level]!;
    const words = memory.chunkAt(tableHigh, tableLow);
    const at = ((tableLow & 0x1f_ffff) >>> 2) + (tableIndex(level, high, low) << 1);
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
    const permissions = walk.commonAbove[level]! & entryLow;
    if (stage.accessedDirty || walk.traced) {
      walk.entryHigh[walk.depth] = tableHigh;
      walk.entryLow[walk.depth] = tableLow | (tableIndex(level, high, low) << 3);
      walk.words[walk.depth] = words;
      walk.at[walk.depth++] = at;
    }
    if (leaf === 1) {
      if (permissions === 0) return absent(stage, walk);
      walk.leafLevel = level;
      return finish(walk, 3 + 9 * level, permissions, low, entryHigh, entryLow);
    }
    walk.tableHigh[level - 1] = entryHigh & 0xf_ffff;
    walk.tableLow[level - 1] = entryLow & ~0xfff;
    walk.commonAbove[level - 1] = permissions;
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
  walk.shift = shift;
  walk.high = entryHigh & 0xf_ffff;
  walk.low = (entryLow & mask) | (low & ~mask & ~0xfff);
  walk.snoop = (entryLow & SS_SNP) !== 0;
  walk.allowed =
    ((permissions & SS_R) !== 0 ? KINDS_ALL & ~KINDS_WRITE : 0) |
    ((permissions & SS_W) !== 0 ? KINDS_WRITE : 0);
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
export function markSecondStage(stage: SecondStage, walk: Walk, write: boolean): number {
  if (!stage.accessedDirty) return 0;
  const last = walk.depth - 1;
  if (stage.noSnoop) {
    for (let i = 0; i <= last; i++) {
      const wanted = i === last && write ? SS_A | SS_D : SS_A;
      if ((walk.words[i]![walk.at[i]!]! & wanted) !== wanted) return SSS_5_AD_NO_SNOOP;
    }
  }
  for (let i = 0; i <= last; i++) {
    walk.words[i]![walk.at[i]!]! |= i === last && write ? SS_A | SS_D : SS_A;
  }
  if ((walk.words[last]![walk.at[last]!]! & SS_D) === 0) walk.allowed &= ~KINDS_WRITE;
  return 0;
}
