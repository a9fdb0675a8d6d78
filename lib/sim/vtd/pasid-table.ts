/**
 * PASID directory and PASID table.
 * Intel VT-d Architecture Specification rev. 4.1, sections 9.5 "Scalable-Mode PASID Directory Entry" and
 * 9.6 "Scalable-Mode PASID Table Entry".
 *
 * A directory entry (64 bits) points to a table of 64 entries of 512 bits; PASID 19:6 selects the first, 5:0 the second.
 */
import { PhysicalMemory } from '../memory';
import { VtdCapabilities } from './capabilities';
import {
  SPD_1_ACCESS,
  SPD_2_NOT_PRESENT,
  SPD_3_RESERVED,
  SPT_1_ACCESS,
  SPT_2_NOT_PRESENT,
  SPT_3_RESERVED,
  SPT_4_INVALID,
} from './fault-reasons';
import { address, anyBits, layout, reservedBits } from './layout';

export const PASID_DIRECTORY_ENTRY_BYTES = 8;
export const PASID_ENTRY_BYTES = 64;
export const PASID_ENTRIES_PER_TABLE = 64;

export const PASID_DIRECTORY_ENTRY = layout(64, {
  /** Present. */
  P: [0, 0],
  /** Fault Processing Disable. */
  FPD: [1, 1],
  /** PASID table pointer, 4 KiB aligned. */
  SMPTBLPTR: address(63, 12),
});

// PGTT, PASID Granular Translation Type.
export const PGTT_FIRST_STAGE = 1;
export const PGTT_SECOND_STAGE = 2;
export const PGTT_NESTED = 3;
export const PGTT_PASS_THROUGH = 4;

// AW, second-stage address width.
export const AW_39_BIT = 1;
export const AW_48_BIT = 2;
export const AW_57_BIT = 3;

// FSPM, first-stage paging mode.
export const FSPM_4_LEVEL = 0;
export const FSPM_5_LEVEL = 1;

export const PASID_ENTRY = layout(512, {
  /** Present. */
  P: [0, 0],
  /** Fault Processing Disable. */
  FPD: [1, 1],
  /** Address width of the second stage: AW_*. */
  AW: [4, 2],
  /** PGTT_*. */
  PGTT: [8, 6],
  /** Second-Stage Access/Dirty Enable. */
  SSADE: [9, 9],
  /** Second-Stage Page Table Pointer, 4 KiB aligned, host physical. */
  SSPTPTR: address(63, 12),
  /** Domain id. */
  DID: [79, 64],
  /** Page-Walk Snoop. */
  PWSNP: [87, 87],
  /** Page Snoop. */
  PGSNP: [88, 88],
  /** Cache Disable (with MTS). */
  CD: [89, 89],
  /** Extended Memory Type Enable (with MTS). */
  EMTE: [90, 90],
  /** Page Attribute Table (with MTS). */
  PAT: [127, 96],
  /** Supervisor Request Enable. */
  SRE: [128, 128],
  /** Execute Request Enable. */
  ERE: [129, 129],
  /** First-Stage Paging Mode: FSPM_*. */
  FSPM: [131, 130],
  /** Write Protect Enable: supervisor writes need R/W too. */
  WPE: [132, 132],
  /** No-Execute Enable. */
  NXE: [133, 133],
  /** Supervisor Mode Execution Prevention. */
  SMEP: [134, 134],
  /** Extended Access Flag Enable. */
  EAFE: [135, 135],
  /** First-Stage Page Table Pointer, 4 KiB aligned; guest physical when nested. */
  FSPTPTR: address(191, 140),
});

export type PasidEntry = ReturnType<typeof PASID_ENTRY.decode>;

/** The 2 words of a present directory entry that points to the PASID table at `table`. */
export function encodePasidDirectoryEntry(table: number): Int32Array {
  return PASID_DIRECTORY_ENTRY.encode({ P: 1, SMPTBLPTR: table });
}

/** The 16 words of a PASID table entry; absent fields are 0. */
export const encodePasidEntry = PASID_ENTRY.encode;

export function pasidDirectoryEntryAddress(directory: number, pasid: number): number {
  return directory + (pasid >>> 6) * PASID_DIRECTORY_ENTRY_BYTES;
}

export function pasidEntryAddress(table: number, pasid: number): number {
  return table + (pasid & 63) * PASID_ENTRY_BYTES;
}

/** Bits of a PASID table entry that must be zero on a unit with these capabilities, whatever its PGTT. */
export function pasidReservedBits(capabilities: VtdCapabilities): Int32Array {
  const names: (keyof typeof PASID_ENTRY.fields)[] = [];
  if (capabilities.SSADS === 0) names.push('SSADE');
  if (capabilities.SMPWCS === 0) names.push('PWSNP');
  if (capabilities.SC === 0) names.push('PGSNP');
  if (capabilities.MTS === 0) names.push('CD', 'EMTE', 'PAT');
  if (capabilities.SRS === 0) names.push('SRE');
  // NXE and SMEP are ignored then: software of earlier revisions sets them.
  if (capabilities.ERS === 0) names.push('ERE');
  if (capabilities.EAFS === 0) names.push('EAFE');
  return reservedBits(PASID_ENTRY, names);
}

/** True if the unit can carry out the entry's PGTT with its AW and FSPM. */
export function isPasidEntryValid(entry: PasidEntry, capabilities: VtdCapabilities): boolean {
  const first =
    capabilities.FSTS !== 0 && (entry.FSPM === 0 || (entry.FSPM === 1 && capabilities.FS5LP !== 0));
  const second = capabilities.SSTS !== 0 && entry.AW >= 1 && ((capabilities.SAGAW >> entry.AW) & 1) !== 0;
  switch (entry.PGTT) {
    case PGTT_FIRST_STAGE:
      return first;
    case PGTT_SECOND_STAGE:
      return second;
    case PGTT_NESTED:
      return first && second && capabilities.NEST !== 0;
    case PGTT_PASS_THROUGH:
      return capabilities.PT !== 0;
    default:
      return false;
  }
}

/** Table pointers lie within the host address width, used or not (a nested FSPTPTR is guest physical). */
function pointersFit(entry: PasidEntry, haw: number): boolean {
  return entry.SSPTPTR < 2 ** haw && (entry.PGTT === PGTT_NESTED || entry.FSPTPTR < 2 ** haw);
}

export interface PasidLookup {
  /** 0, or the fault reason. */
  readonly fault: number;
  /** FPD of the directory entry or the table entry, as far as they could be read. */
  readonly fpd: boolean;
  /** Meaningful if there is no fault. */
  readonly entry: PasidEntry;
}

const NO_ENTRY = PASID_ENTRY.decode(new Int32Array(PASID_ENTRY.wordCount));

/** Fetches and checks the entry of `pasid` through the directory at `directory`. */
export function lookUpPasid(
  memory: PhysicalMemory,
  directory: number,
  pasid: number,
  capabilities: VtdCapabilities,
): PasidLookup {
  const pointer = new Int32Array(PASID_DIRECTORY_ENTRY.wordCount);
  if (!memory.readWords(pasidDirectoryEntryAddress(directory, pasid), pointer)) {
    return { fault: SPD_1_ACCESS, fpd: false, entry: NO_ENTRY };
  }
  const { P, FPD, SMPTBLPTR } = PASID_DIRECTORY_ENTRY.decode(pointer);
  if (P === 0) return { fault: SPD_2_NOT_PRESENT, fpd: FPD !== 0, entry: NO_ENTRY };
  if (anyBits(pointer, reservedBits(PASID_DIRECTORY_ENTRY, [], capabilities.HAW))) {
    return { fault: SPD_3_RESERVED, fpd: FPD !== 0, entry: NO_ENTRY };
  }
  const words = new Int32Array(PASID_ENTRY.wordCount);
  if (!memory.readWords(pasidEntryAddress(SMPTBLPTR, pasid), words)) {
    return { fault: SPT_1_ACCESS, fpd: FPD !== 0, entry: NO_ENTRY };
  }
  const entry = PASID_ENTRY.decode(words);
  return { fault: checkPasidEntry(words, entry, capabilities), fpd: FPD !== 0 || entry.FPD !== 0, entry };
}

function checkPasidEntry(words: Int32Array, entry: PasidEntry, capabilities: VtdCapabilities): number {
  if (entry.P === 0) return SPT_2_NOT_PRESENT;
  if (anyBits(words, pasidReservedBits(capabilities)) || !pointersFit(entry, capabilities.HAW)) {
    return SPT_3_RESERVED;
  }
  return isPasidEntryValid(entry, capabilities) ? 0 : SPT_4_INVALID;
}
