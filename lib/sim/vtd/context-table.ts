/**
 * Scalable-mode context table. Intel VT-d Architecture Specification rev. 4.1, section 9.4 "Scalable-Mode Context Entry".
 *
 * 128 entries of 256 bits, indexed by devfn 6:0.
 */
import { PhysicalMemory } from '../memory';
import { VtdCapabilities } from './capabilities';
import { SCT_1_ACCESS, SCT_2_NOT_PRESENT, SCT_3_RESERVED } from './fault-reasons';
import { address, anyBits, layout, reservedBits } from './layout';

export const CONTEXT_ENTRY_BYTES = 32;

export const CONTEXT_ENTRY = layout(256, {
  /** Present. */
  P: [0, 0],
  /** Fault Processing Disable: qualified faults of this function are not recorded. */
  FPD: [1, 1],
  /** Device-TLB Enable: translation and translated requests are allowed. */
  DTE: [2, 2],
  /** PASID Enable: requests with PASID are allowed. */
  PASIDE: [3, 3],
  /** Page Request Enable. */
  PRE: [4, 4],
  /** PASID Directory Size: 2^(PDTS + 7) directory entries. */
  PDTS: [11, 9],
  /** PASID Directory Pointer, 4 KiB aligned. */
  PASIDDIRPTR: address(63, 12),
  /** PASID of requests without PASID. */
  RID_PASID: [83, 64],
  /** Requests without PASID have supervisor privilege. */
  RID_PRIV: [84, 84],
});

export type ContextEntry = ReturnType<typeof CONTEXT_ENTRY.decode>;

/** The 8 words of a context entry; absent fields are 0. */
export const encodeContextEntry = CONTEXT_ENTRY.encode;

/** Physical address of `rid`'s entry in its context table. */
export function contextEntryAddress(contextTable: number, rid: number): number {
  return contextTable + (rid & 0x7f) * CONTEXT_ENTRY_BYTES;
}

/** PASIDs the entry's directory can hold: those below this number. */
export function pasidLimit(entry: ContextEntry): number {
  return 1 << (entry.PDTS + 7 + 6);
}

/** Bits that must be zero on a unit with these capabilities. */
export function contextReservedBits(capabilities: VtdCapabilities): Int32Array {
  const names: (keyof typeof CONTEXT_ENTRY.fields)[] = [];
  if (capabilities.DT === 0) names.push('DTE');
  if (capabilities.PASID === 0) names.push('PASIDE');
  if (capabilities.PRS === 0) names.push('PRE');
  if (capabilities.RPS === 0) names.push('RID_PASID');
  if (capabilities.RPRIVS === 0) names.push('RID_PRIV');
  return reservedBits(CONTEXT_ENTRY, names, capabilities.HAW);
}

export interface ContextLookup {
  /** 0, or the fault reason. */
  readonly fault: number;
  /** Meaningful unless the fault is SCT.1. */
  readonly entry: ContextEntry;
}

/** Fetches and checks `rid`'s context entry. */
export function lookUpContext(
  memory: PhysicalMemory,
  contextTable: number,
  rid: number,
  reserved: Int32Array,
): ContextLookup {
  const words = new Int32Array(CONTEXT_ENTRY.wordCount);
  if (!memory.readWords(contextEntryAddress(contextTable, rid), words)) {
    return { fault: SCT_1_ACCESS, entry: CONTEXT_ENTRY.decode(new Int32Array(CONTEXT_ENTRY.wordCount)) };
  }
  const entry = CONTEXT_ENTRY.decode(words);
  if (entry.P === 0) return { fault: SCT_2_NOT_PRESENT, entry };
  return { fault: anyBits(words, reserved) ? SCT_3_RESERVED : 0, entry };
}
