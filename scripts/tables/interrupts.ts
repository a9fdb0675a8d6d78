// The interrupt remapping table of a dump, walked by the model.
import {
  GCMD_IRE,
  GCMD_REG,
  GCMD_SIRTP,
  GCMD_TE,
  IRTA_REG,
  remappableAddress,
  type VtdUnit,
} from '../../lib/sim/vtd';
import { requireRegister, type Dump, registersOf } from './dump';
import { listedInterrupts, type ListedInterrupt } from './linux';
import type { ReadPage } from './reader';

const ADDRESS = 0x000f_ffff_ffff_f000n;
const ENTRY_BYTES = 16n;
const PAGE = 4096n;
const EIME = 1n << 11n;

/** A message as the unit sends it: halves of the address, and the data. */
export type Message = readonly [number, number, number];

export interface Interrupts {
  /** Present entries. */
  entries: number;
  /** Messages the model was given. */
  requests: number;
  readonly differences: string[];
}

/** Compares the table with Linux's listing, and what the model makes of a message for every index. `sent` is the unit's sink. */
export function walkInterrupts(dump: Dump, unit: VtdUnit, read: ReadPage, sent: Message[]): Interrupts {
  const irta = requireRegister(registersOf(dump.files), 'IRTA');
  const listed = new Map(listedInterrupts(dump.files).map((entry) => [entry.index, entry]));
  const walked: Interrupts = { entries: listed.size, requests: 0, differences: [] };
  enable(unit, irta);
  const ask = (rid: number, index: number) => {
    sent.length = 0;
    // As Linux composes it: SHV = 1, subhandle 0.
    unit.interruptRequest(rid, remappableAddress(index), 0);
    walked.requests++;
    return sent.map(text).join(', ');
  };
  const count = 2 << Number(irta & 15n);
  for (let index = 0; index < count; index++) {
    const entry = listed.get(index);
    const got = ask(entry?.sid ?? 0, index);
    const want = entry ? text(expectedMessage(entry, (irta & EIME) !== 0n)) : '';
    if (got !== want)
      walked.differences.push(`interrupt ${index}: the model sends '${got}', Linux's entry says '${want}'`);
    const words = entryAt(read, (irta & ADDRESS) + BigInt(index) * ENTRY_BYTES);
    if (entry ? words[0] !== entry.low || words[1] !== entry.high : (words[0] & 1n) !== 0n)
      walked.differences.push(`interrupt ${index}: the table has ${hex(words[1])} ${hex(words[0])}`);
    if (entry && ask(entry.sid ^ 1, index) !== '')
      walked.differences.push(`interrupt ${index}: the model lets another requester send it`);
  }
  return walked;
}

function enable(unit: VtdUnit, irta: bigint): void {
  unit.write64(IRTA_REG, Number(irta >> 32n), Number(irta & 0xffff_ffffn));
  unit.write32(GCMD_REG, GCMD_TE | GCMD_SIRTP);
  unit.write32(GCMD_REG, GCMD_TE | GCMD_IRE);
}

function entryAt(read: ReadPage, address: bigint): [bigint, bigint] {
  const page = read(address & ~(PAGE - 1n));
  const at = Number(address % PAGE) / 8;
  return [page[at], page[at + 1]];
}

/** Section 9.10: DM is bit 2 of an entry, RH 3, TM 4, DLM 7:5; DST is what Linux lists. */
function expectedMessage({ destination, vector, low }: ListedInterrupt, extended: boolean): Message {
  const bits = Number(low & 0xffn);
  const id = extended ? destination : destination >>> 8;
  const address = 0xfee0_0000 + (id & 0xff) * 0x1000 + ((bits >> 3) & 1) * 8 + ((bits >> 2) & 1) * 4;
  const level = (bits >> 4) & 1 ? 0xc000 : 0;
  return [(id & ~0xff) >>> 0, address, vector + (bits >> 5) * 0x100 + level];
}

const hex = (value: number | bigint) => `0x${value.toString(16)}`;
const text = (message: Message) => message.map(hex).join(' ');
