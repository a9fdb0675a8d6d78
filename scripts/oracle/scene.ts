// What both units are put through: tables in memory, then accesses and what happens between them. Plain data, so that it
// can be made smaller and printed.
import { placeOf } from '../../lib/sim/vtd/iotlb';
import { GCMD_QIE, GCMD_SRTP, GCMD_TE } from '../../lib/sim/vtd/registers';

export type Mode = 'legacy' | 'second-stage' | 'first-stage';
export const MODES: readonly Mode[] = ['legacy', 'second-stage', 'first-stage'];

/** QEMU's edu at 00:04.0. */
export const RID = 0x20;
/** Bytes an access moves, between memory and edu's buffer. */
export const ACCESS_BYTES = 8;

// Memory, chosen so that flipping one address bit never leads to what is not plain RAM, or no RAM at all, in QEMU.
export const RAM_BYTES = 0x1000_0000;
export const ROOT = 0x600_0000;
export const CONTEXTS = 0x600_1000;
export const DIRECTORY = 0x600_2000;
export const PASIDS = 0x600_3000;
/** Paging structures, one page after the other. */
export const TABLES = 0x600_4000;
/** The invalidation queue: one page. */
export const QUEUE = 0x700_0000;
/** Written by wait descriptors. */
export const WAIT_STATUS = 0x700_1000;
/** Where edu's buffer goes at the end of a scene, and a word that stays 0. */
export const BUFFER_COPY = 0x700_2000;
export const ZERO = 0x700_3000;
/** Where translations lead: pages whose words say where they are. */
export const DATA = 0xa00_0000;
/** An address with nothing behind it. */
export const NOWHERE = 0x3f_0000_0000;

export const PAGE = 4096;
export const pageOf = (address: number): number => address - (address % PAGE);

/** Interrupt messages are not DMA; passed through, other addresses there are devices; beyond the last page is nothing. */
export function isUsable(address: bigint): boolean {
  return address >> 31n !== 1n && address >> 12n !== 2n ** 52n - 1n;
}

/** Where a mode's context entry lies, and how large it is. */
export function contextEntry(mode: Mode): { at: number; bytes: number } {
  const bytes = mode === 'legacy' ? 16 : 32;
  return { at: CONTEXTS + RID * bytes, bytes };
}

export interface Access {
  readonly kind: 'access';
  readonly address: bigint;
  readonly write: boolean;
}

/** Software changes a 64-bit word. */
export interface Poke {
  readonly kind: 'poke';
  readonly at: number;
  readonly value: bigint;
}

/** A descriptor of four words (legacy mode) or eight in the invalidation queue. */
export interface Invalidation {
  readonly kind: 'invalidate';
  readonly words: readonly number[];
}

/** A register-based IOTLB invalidation: IVA_REG, and the high word of IOTLB_REG without IVT. */
export interface Command {
  readonly kind: 'command';
  readonly address: bigint;
  readonly high: number;
}

/** Set Root Table Pointer: everything cached is dropped. */
export interface Drop {
  readonly kind: 'drop';
}

export type Step = Access | Poke | Invalidation | Command | Drop;

export interface Scene {
  readonly mode: Mode;
  /** RTADDR_REG. */
  readonly root: number;
  /** Whether the invalidation queue is on; without it, register commands work. */
  readonly queue: boolean;
  /** The 64-bit words of the tables that are not 0. */
  readonly words: ReadonlyMap<number, bigint>;
  readonly steps: readonly Step[];
}

/** GCMD_REG for Set Root Table Pointer, which keeps what is on. */
export function dropCommand({ queue }: Scene): number {
  return (GCMD_TE | GCMD_SRTP | (queue ? GCMD_QIE : 0)) >>> 0;
}

/** Offsets of a data page that hold a word. */
export const DATA_OFFSETS = [0, 8, 0x678, 0xff8];
/** Pages of 4 KiB in a page of 2 MiB that are data pages, and how many pages of 2 MiB have them. */
export const DATA_INDICES = [0, 1, 256, 300, 511];
export const DATA_BASES = 4;

/** Every data word and its value before a scene. */
export const DATA_WORDS: ReadonlyMap<number, bigint> = new Map(
  Array.from({ length: DATA_BASES }, (_, base) => DATA + base * 0x20_0000).flatMap((base) =>
    DATA_INDICES.flatMap((index) =>
      DATA_OFFSETS.map((offset) => {
        const at = base + index * PAGE + offset;
        // Different everywhere, and not present where it is taken for a table.
        return [at, (0xda7a_0000_0000_0000n | BigInt(at)) & ~7n] as const;
      }),
    ),
  ),
);

/** Those addresses of which no two compete for one entry of our unit's IOTLB: what stays cached is then the same in both. */
export function distinct(addresses: readonly bigint[]): bigint[] {
  const taken = new Map<number, bigint>();
  return addresses.filter((address) => {
    const pages = [address >> 12n, (address + BigInt(ACCESS_BYTES - 1)) >> 12n];
    const places = pages.map((page) => placeOf(0, Number(BigInt.asIntN(32, page))));
    if (places.some((place, i) => taken.has(place) && taken.get(place) !== pages[i])) return false;
    places.forEach((place, i) => taken.set(place, pages[i]!));
    return true;
  });
}

/** RTADDR_REG with its mode, TTM. */
export function rootAddress(mode: Mode): number {
  return ROOT | (mode === 'legacy' ? 0 : 1 << 10);
}

export function withoutZeros(words: ReadonlyMap<number, bigint>): Map<number, bigint> {
  return new Map([...words].filter(([, value]) => value !== 0n));
}
