/**
 * Root table. Intel VT-d Architecture Specification rev. 4.1, sections 9.1 "Root Entry" and 9.2 "Scalable-Mode Root Entry".
 *
 * 256 entries of 128 bits, one a bus. In scalable mode the lower half of an entry points to the context table of devices
 * 0-15 of the bus (devfn 0x00-0x7f), the upper half to that of devices 16-31; in legacy mode the lower half points to the
 * table of them all, and the upper half is reserved.
 */
import { PhysicalMemory } from '../memory';
import { address, anyBits, layout, reservedBits } from './layout';
import {
  LRT_1_ACCESS,
  LRT_2_NOT_PRESENT,
  LRT_3_RESERVED,
  SRT_1_ACCESS,
  SRT_2_NOT_PRESENT,
  SRT_3_RESERVED,
} from './fault-reasons';

export const ROOT_ENTRY_BYTES = 16;

/** One 64-bit half: LP/LCTP or UP/UCTP, which are laid out alike. */
export const ROOT_ENTRY_HALF = layout(64, {
  /** Present. */
  P: [0, 0],
  /** Context-table pointer, 4 KiB aligned. */
  CTP: address(63, 12),
});

/** A legacy-mode root entry. */
export const LEGACY_ROOT_ENTRY = layout(128, ROOT_ENTRY_HALF.fields);

/** The 4 words of a present legacy root entry that points to the context table at `contextTable`. */
export function encodeLegacyRootEntry(contextTable: number): Int32Array {
  return LEGACY_ROOT_ENTRY.encode({ P: 1, CTP: contextTable });
}

/** The words of a present root-entry half that points to the context table at `contextTable`. */
export function encodeRootEntryHalf(contextTable: number): Int32Array {
  return ROOT_ENTRY_HALF.encode({ P: 1, CTP: contextTable });
}

/** Physical address of the root-entry half that serves requester `rid` (bus 15:8, devfn 7:0). */
export function rootEntryAddress(rootTable: number, rid: number): number {
  return rootTable + (rid >>> 8) * ROOT_ENTRY_BYTES + ((rid & 0x80) === 0 ? 0 : 8);
}

/** Looks up the context table of `rid`: its address, or minus a fault reason. `haw`: host address width in bits. */
export function lookUpContextTable(
  memory: PhysicalMemory,
  rootTable: number,
  rid: number,
  haw: number,
): number {
  const words = new Int32Array(ROOT_ENTRY_HALF.wordCount);
  if (!memory.readWords(rootEntryAddress(rootTable, rid), words)) return -SRT_1_ACCESS;
  const { P, CTP } = ROOT_ENTRY_HALF.decode(words);
  if (P === 0) return -SRT_2_NOT_PRESENT;
  if (anyBits(words, reservedBits(ROOT_ENTRY_HALF, [], haw))) return -SRT_3_RESERVED;
  return CTP;
}

/** The same in legacy mode. */
export function lookUpLegacyContextTable(
  memory: PhysicalMemory,
  rootTable: number,
  rid: number,
  haw: number,
): number {
  const words = new Int32Array(LEGACY_ROOT_ENTRY.wordCount);
  if (!memory.readWords(rootTable + (rid >>> 8) * ROOT_ENTRY_BYTES, words)) return -LRT_1_ACCESS;
  const { P, CTP } = LEGACY_ROOT_ENTRY.decode(words);
  if (P === 0) return -LRT_2_NOT_PRESENT;
  if (anyBits(words, reservedBits(LEGACY_ROOT_ENTRY, [], haw))) return -LRT_3_RESERVED;
  return CTP;
}
