// Random interrupt remapping entries, and messages that meet them.
import { remappableAddress } from '../../lib/sim/vtd';
import type { Random } from '../conformance/random';

/** Requester ID of the edu that sends. */
export const RID = 0x20;
/** The table has 2^(SIZE + 1) entries, of which the first few are used. */
export const SIZE = 7;
const USED = 8;

const SIDS = [RID, RID, RID, 0x21, 0x24, 0x26, 0x27, 0x28, 0x120, 0x00ff, 0x0101, 0];

export interface Trial {
  readonly index: number;
  /** Words of 64 bits, the low one first. */
  readonly entry: readonly [bigint, bigint];
  /** GCMD_REG.CFI. */
  readonly compatibility: boolean;
  /** IRTA_REG.EIME. */
  readonly extended: boolean;
  /** The message: address 31:0, and 16 bits of data (MSI has no more). */
  readonly low: number;
  readonly data: number;
}

export function randomTrial(random: Random): Trial {
  const index = random.below(USED);
  const extended = random.oneIn(2);
  return {
    index,
    entry: [lowWord(random, extended), highWord(random)],
    compatibility: random.oneIn(2),
    extended,
    ...message(random, index),
  };
}

const field = (random: Random, bits: number, at: number): bigint =>
  BigInt(random.below(2 ** bits)) << BigInt(at);

/** P, FPD, DM with RH and TM, DLM, AVAIL, V, DST; now and then IM, or a bit that may be reserved. */
function lowWord(random: Random, extended: boolean): bigint {
  return (
    (random.oneIn(12) ? 0n : 1n) |
    (random.oneIn(6) ? 2n : 0n) |
    field(random, 3, 2) |
    field(random, 3, 5) |
    field(random, 4, 8) |
    field(random, 8, 16) |
    (extended ? field(random, 32, 32) : field(random, 8, 40)) |
    (random.oneIn(16) ? 1n << 15n : 0n) |
    (random.oneIn(8) ? 1n << BigInt(random.below(64)) : 0n)
  );
}

/** SID, SQ, SVT; now and then a reserved bit. */
function highWord(random: Random): bigint {
  return (
    BigInt(random.pick(SIDS)) |
    field(random, 2, 16) |
    field(random, 2, 18) |
    (random.oneIn(10) ? 1n << BigInt(20 + random.below(44)) : 0n)
  );
}

function message(random: Random, index: number): { low: number; data: number } {
  if (random.oneIn(10))
    return { low: ((0xfee0_0000 | (random.below(2 ** 18) << 2)) & ~0x10) >>> 0, data: random.below(2 ** 16) };
  // Added up, one more than 16 bits hold.
  if (random.oneIn(24)) return { low: remappableAddress(0xffff), data: index + 1 };
  const withSubhandle = !random.oneIn(3);
  const data = withSubhandle ? random.below(index + 1) : random.below(2 ** 16);
  const inside = withSubhandle ? index - data : index;
  const handle = random.oneIn(12) ? outside(random, inside) : inside;
  const low = remappableAddress(handle);
  return { low: withSubhandle ? low : (low & ~8) >>> 0, data };
}

/** Handles of which some are in the table: around its end, and those that are `handle` but for a bit. None has an entry of another trial. */
function outside(random: Random, handle: number): number {
  const end = 2 ** (SIZE + 1);
  return random.pick([end - 1, end, end + 1, handle | 0x8000, handle | 0x4000, USED + random.below(0x8000)]);
}
