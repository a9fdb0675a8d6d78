/**
 * What a page walk leaves behind, in an object that is used again for every walk.
 *
 * `allowed` says which requests the translation serves: bit n is the request whose ACCESS_WRITE, ACCESS_EXECUTE and
 * ACCESS_PRIVILEGED bits make up n (bits 0, 1 and 2 of the access). One mask answers R, W, U/S, XD, WPE, SRE and
 * "dirty bit still to be set" at once, and it is what the IOTLB keeps.
 */
import { ACCESS_EXECUTE, ACCESS_PRIVILEGED, ACCESS_WRITE } from '../bus';

/** The access bits that select a bit of `allowed`. */
export const REQUEST_KIND = ACCESS_WRITE | ACCESS_EXECUTE | ACCESS_PRIVILEGED;

/** Kinds (bits of `allowed`) that write, execute, or ask for supervisor privilege. */
export const KINDS_WRITE = 0xaa;
export const KINDS_EXECUTE = 0xcc;
export const KINDS_PRIVILEGED = 0xf0;
export const KINDS_ALL = 0xff;

export const PAGE_SHIFT_4K = 12;
export const PAGE_SHIFT_2M = 21;
export const PAGE_SHIFT_1G = 30;

/** Low bits of an address that translation leaves alone. */
export const PAGE_OFFSET = 0xfff;

export class Walk {
  /** Translated address of the 4 KiB page, halves; the low 12 bits are 0. */
  high = 0;
  low = 0;
  /** log2 of the page that was mapped. */
  shift = PAGE_SHIFT_4K;
  allowed = 0;
  /** SNOOP if requests snoop the processors' caches, whatever their attribute says, else 0. */
  snoop = 0;
  /** First-stage walks: flags that all entries have (low words), and that one of them has (high words). */
  common = 0;
  anyHigh = 0;
  /** Low words: of all entries visited, what they have in common, and of the leaf. */
  visited = 0;
  leaf = 0;
  /** Level of the first entry visited, and of the leaf. */
  start = 0;
  leafLevel = 0;
  /** Index of the entry of the paging-structure caches that the walk began with, or -1. */
  cachedAt = -1;
  /** By level, at [4 * level]: the table whose entry was visited (two halves), `common` and `anyHigh` of the entries above it. */
  readonly tables = new Int32Array(4 * 6);
  /** How many entries were visited, top first; at [3 * i]: the physical address of each (two halves), and its low word. */
  depth = 0;
  readonly entries = new Int32Array(3 * 5);
  /** Guest-physical addresses of the entries visited (nested first stage only). */
  readonly guestHigh = new Int32Array(5);
  readonly guestLow = new Int32Array(5);

  /** The first entry to be visited is one of the table at `tableHigh`, `tableLow`, of `level`; `common` and `anyHigh` are from above. */
  begin(level: number, tableHigh: number, tableLow: number, common: number, anyHigh: number): void {
    this.start = level;
    this.depth = 0;
    this.descend(level, tableHigh, tableLow, common, anyHigh);
  }

  /** The next entry is one of that table. */
  descend(level: number, tableHigh: number, tableLow: number, common: number, anyHigh: number): void {
    const { tables } = this;
    tables[4 * level] = tableHigh;
    tables[4 * level + 1] = tableLow;
    tables[4 * level + 2] = common;
    tables[4 * level + 3] = anyHigh;
  }
}

/** Notes an entry that a walk goes through. */
export function visit(walk: Walk, high: number, low: number, entryLow: number): void {
  const { entries } = walk;
  const at = 3 * walk.depth++;
  entries[at] = high;
  entries[at + 1] = low;
  entries[at + 2] = entryLow;
}

/** Index into the table of `level` (1 is the last) for an address in halves. */
export function tableIndex(level: number, high: number, low: number): number {
  switch (level) {
    case 1:
      return (low >>> 12) & 0x1ff;
    case 2:
      return (low >>> 21) & 0x1ff;
    case 3:
      return ((high << 2) | (low >>> 30)) & 0x1ff;
    case 4:
      return (high >>> 7) & 0x1ff;
    default:
      return (high >>> 16) & 0x1ff;
  }
}

/** The bits of an entry's low word that address a page of `shift`; the high word is masked by width. */
export const pageMaskLow = (shift: number): number => -1 << shift;

/** Bits 51:haw in an entry's high word. */
export const beyondWidthHigh = (haw: number): number => 0xf_ffff & ~((1 << (haw - 32)) - 1);

/** True if an address in halves has a bit from `width` (33 to 64) up. */
export function isBeyond(width: number, high: number): boolean {
  return width < 64 && high >>> (width - 32) !== 0;
}

/** True if an address in halves lies in the interrupt address range 0xFEEx_xxxx (section 3.15). */
export function isInterruptAddress(high: number, low: number): boolean {
  return high === 0 && low >>> 20 === 0xfee;
}
