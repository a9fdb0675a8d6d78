/**
 * Interrupt remapping table.
 * Intel VT-d Architecture Specification rev. 4.1, sections 9.10 "Interrupt Remapping Table Entry (IRTE) for Remapped
 * Interrupts" and 9.11 "… for Posted Interrupts".
 *
 * 2^(IRTA_REG.S + 1) entries of 128 bits.
 */
import { PhysicalMemory } from '../memory';
import { VtdCapabilities } from './capabilities';
import { IR_ACCESS, IR_NOT_PRESENT, IR_RESERVED } from './interrupt-fault-reasons';
import { anyBits, layout } from './layout';

export const IRTE_BYTES = 16;

// SVT, Source Validation Type.
/** Any requester. */
export const SVT_NONE = 0;
/** The requester that SID and SQ name. */
export const SVT_SID = 1;
/** Requesters on the buses SID 15:8 to SID 7:0. */
export const SVT_BUS = 2;

// DLM, Delivery Mode.
export const DLM_FIXED = 0;

export const REMAPPED_IRTE = layout(128, {
  /** Present. */
  P: [0, 0],
  /** Fault Processing Disable: qualified faults of this entry are not recorded, whatever P is. */
  FPD: [1, 1],
  /** Destination Mode: 0 physical, 1 logical. */
  DM: [2, 2],
  /** Redirection Hint. */
  RH: [3, 3],
  /** Trigger Mode: 0 edge, 1 level. */
  TM: [4, 4],
  /** Delivery Mode. */
  DLM: [7, 5],
  /** For software. */
  AVAIL: [11, 8],
  /** IRTE Mode: 0 remapped. */
  IM: [15, 15],
  /** Vector. */
  V: [23, 16],
  /** Destination ID; with IRTA_REG.EIME = 0 only its bits 15:8 are. */
  DST: [63, 32],
  /** Source identifier. */
  SID: [79, 64],
  /** Source-id Qualifier: low bits of the function number to ignore (0, 2, 2:1, 2:0). */
  SQ: [81, 80],
  /** SVT_*. */
  SVT: [83, 82],
});

export const POSTED_IRTE = layout(128, {
  P: [0, 0],
  FPD: [1, 1],
  AVAIL: [11, 8],
  /** Urgent: notified even while the descriptor suppresses notifications. */
  URG: [14, 14],
  /** IRTE Mode: 1 posted. */
  IM: [15, 15],
  /** Virtual Vector. */
  VV: [23, 16],
  /** Posted Descriptor Address, 31:6. */
  PDAL: [63, 38],
  SID: [79, 64],
  SQ: [81, 80],
  SVT: [83, 82],
  /** Posted Descriptor Address, 63:32. */
  PDAH: [127, 96],
});

/** The 4 words of an entry for remapped interrupts; absent fields are 0. */
export const encodeRemappedIrte = REMAPPED_IRTE.encode;
/** The same, for posted ones; IM has to be 1. */
export const encodePostedIrte = POSTED_IRTE.encode;

/** DST with EIME = 0: all but bits 15:8. */
const NARROW_DST_RESERVED = 0xffff_00ff | 0;
/** Bits of the function number that SQ leaves out of the comparison. */
const QUALIFIER_MASKS = [0, 0b100, 0b110, 0b111];

/** A present entry without reserved bits. */
export interface Irte {
  /** Also of a posted entry: P, FPD, SID, SQ and SVT are where they are in a remapped one. */
  readonly entry: ReturnType<typeof REMAPPED_IRTE.decode>;
  readonly posted: ReturnType<typeof POSTED_IRTE.decode> | null;
}

export interface IrteLookup {
  /** 0, or the fault reason. */
  readonly fault: number;
  /** FPD, as far as the entry could be read. */
  readonly fpd: boolean;
  /** Null if there is a fault. */
  readonly irte: Irte | null;
}

/** Fetches entry `index` of the table at `table` and checks what does not depend on the requester. */
export function lookUpIrte(
  memory: PhysicalMemory,
  table: number,
  index: number,
  extended: boolean,
  capabilities: VtdCapabilities,
): IrteLookup {
  const words = new Int32Array(REMAPPED_IRTE.wordCount);
  if (!memory.readWords(table + index * IRTE_BYTES, words))
    return { fault: IR_ACCESS, fpd: false, irte: null };
  const entry = REMAPPED_IRTE.decode(words);
  const fpd = entry.FPD !== 0;
  if (entry.P === 0) return { fault: IR_NOT_PRESENT, fpd, irte: null };
  const posted = entry.IM === 0 ? null : POSTED_IRTE.decode(words);
  const reserved = posted
    ? capabilities.PI === 0 || anyBits(words, POSTED_IRTE.reserved)
    : anyBits(words, REMAPPED_IRTE.reserved) || (!extended && (words[1]! & NARROW_DST_RESERVED) !== 0);
  return reserved ? { fault: IR_RESERVED, fpd, irte: null } : { fault: 0, fpd, irte: { entry, posted } };
}

/** Whether the entry is for requester `rid`. */
export function acceptsSource({ entry: { SID, SQ, SVT } }: Irte, rid: number): boolean {
  switch (SVT) {
    case SVT_NONE:
      return true;
    case SVT_SID:
      return ((rid ^ SID) & ~QUALIFIER_MASKS[SQ]!) === 0;
    case SVT_BUS:
      return rid >>> 8 >= SID >>> 8 && rid >>> 8 <= (SID & 0xff);
    default:
      // The encoding is reserved: nobody passes.
      return false;
  }
}
