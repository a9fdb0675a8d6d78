/**
 * Scalable-mode root table. Intel VT-d Architecture Specification rev. 4.1, section 9.2 "Scalable-Mode Root Entry".
 *
 * 256 entries of 128 bits, one a bus. The lower half of an entry points to the context table of devices 0-15 of the
 * bus (devfn 0x00-0x7f), the upper half to that of devices 16-31.
 */
import { PhysicalMemory } from '../memory';
import { address, anyBits, layout, reservedBits } from './layout';
import { SRT_1_ACCESS, SRT_2_NOT_PRESENT, SRT_3_RESERVED } from './fault-reasons';

export const ROOT_ENTRY_BYTES = 16;

/** One 64-bit half: LP/LCTP or UP/UCTP, which are laid out alike. */
export const ROOT_ENTRY_HALF = layout(64, {
  /** Present. */
  P: [0, 0],
  /** Context-table pointer, 4 KiB aligned. */
  CTP: address(63, 12),
});

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
