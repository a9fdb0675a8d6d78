/**
 * Legacy-mode context table. Intel VT-d Architecture Specification rev. 4.1, section 9.3 "Context Entry".
 *
 * 256 entries of 128 bits, indexed by devfn. An entry names its function's domain and second stage itself: there is no
 * PASID table behind it.
 */
import { PhysicalMemory } from '../memory';
import { VtdCapabilities } from './capabilities';
import { LCT_1_ACCESS, LCT_2_NOT_PRESENT, LCT_3_RESERVED, LCT_4_INVALID } from './fault-reasons';
import { address, anyBits, layout, reservedBits } from './layout';

export const LEGACY_CONTEXT_ENTRY_BYTES = 16;

// TT, Translation Type.
/** Untranslated requests go through the second stage; others are blocked. */
export const TT_UNTRANSLATED = 0;
/** The same, and translation and translated requests are allowed. Needs ECAP.DT. */
export const TT_ALL = 1;
/** Untranslated requests pass through; others are blocked. Needs ECAP.PT. */
export const TT_PASS_THROUGH = 2;

export const LEGACY_CONTEXT_ENTRY = layout(128, {
  /** Present. */
  P: [0, 0],
  /** Fault Processing Disable: qualified faults of this function are not recorded. */
  FPD: [1, 1],
  /** TT_*. */
  TT: [3, 2],
  /** Second-Stage Page Table Pointer, 4 KiB aligned. */
  SSPTPTR: address(63, 12),
  /** Address width of the second stage: AW_*. */
  AW: [66, 64],
  /** For software's own use. */
  IGN: [70, 67],
  /** Domain id. */
  DID: [87, 72],
});

/** IGN in the low word of its 64-bit word, which software may change at any time. */
export const LEGACY_IGNORED_LOW = 0x78;

export type LegacyContextEntry = ReturnType<typeof LEGACY_CONTEXT_ENTRY.decode>;

/** The 4 words of a legacy context entry; absent fields are 0. */
export const encodeLegacyContextEntry = LEGACY_CONTEXT_ENTRY.encode;

/** Physical address of `rid`'s entry in its context table. */
export function legacyContextEntryAddress(contextTable: number, rid: number): number {
  return contextTable + (rid & 0xff) * LEGACY_CONTEXT_ENTRY_BYTES;
}

/** True if the unit can carry out the entry's TT with its AW. */
function isValid(entry: LegacyContextEntry, capabilities: VtdCapabilities): boolean {
  if (((capabilities.SAGAW >> entry.AW) & 1) === 0) return false;
  switch (entry.TT) {
    case TT_UNTRANSLATED:
      return true;
    case TT_ALL:
      return capabilities.DT !== 0;
    case TT_PASS_THROUGH:
      return capabilities.PT !== 0;
    default:
      return false;
  }
}

export interface LegacyContextLookup {
  /** 0, or the fault reason. */
  readonly fault: number;
  /** Meaningful unless the fault is LCT.1. */
  readonly entry: LegacyContextEntry;
}

/** Fetches and checks `rid`'s context entry. */
export function lookUpLegacyContext(
  memory: PhysicalMemory,
  contextTable: number,
  rid: number,
  capabilities: VtdCapabilities,
): LegacyContextLookup {
  const words = new Int32Array(LEGACY_CONTEXT_ENTRY.wordCount);
  if (!memory.readWords(legacyContextEntryAddress(contextTable, rid), words)) {
    return { fault: LCT_1_ACCESS, entry: LEGACY_CONTEXT_ENTRY.decode(words.fill(0)) };
  }
  const entry = LEGACY_CONTEXT_ENTRY.decode(words);
  if (entry.P === 0) return { fault: LCT_2_NOT_PRESENT, entry };
  if (anyBits(words, reservedBits(LEGACY_CONTEXT_ENTRY, [], capabilities.HAW))) {
    return { fault: LCT_3_RESERVED, entry };
  }
  return { fault: isValid(entry, capabilities) ? 0 : LCT_4_INVALID, entry };
}
