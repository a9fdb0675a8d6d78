// The model (lib/sim/vtd) on a dump: a bare unit whose memory and registers are the dump's.
import { ACCESS_READ, ACCESS_WRITE, NO_PASID } from '../../lib/sim/bus';
import {
  decodeCap,
  decodeEcap,
  GCMD_REG,
  GCMD_SRTP,
  GCMD_TE,
  LCT_2_NOT_PRESENT,
  LGN_2_WRITE,
  LGN_3_READ,
  LRT_2_NOT_PRESENT,
  RTADDR_REG,
  SCT_2_NOT_PRESENT,
  SFS_2_NOT_PRESENT,
  SGN_6_WRITE,
  SGN_7_READ,
  SRT_2_NOT_PRESENT,
  SSS_2_NOT_PRESENT,
  VtdUnit,
} from '../../lib/sim/vtd';
import { memoryOf, registersOf, requireRegister, unpackPages, widthOf, type Dump } from './dump';
import type { Message } from './interrupts';
import type { ListedPage } from './linux';
import { entries, spanOf, tableOf, type ReadPage, type Slot } from './reader';

const PAGE = 4096n;
const ADDRESS = 0x000f_ffff_ffff_f000n;
const READ = 1n;
const WRITE = 2n;
/** What Linux puts in the context entry's RID_PASID. */
const RID_PASID = 0;

/** Fault reasons of a read and of a write: where nothing is mapped, and where the page does not allow it. */
interface Refusals {
  readonly absent: readonly [read: number, write: number];
  readonly forbidden: readonly [read: number, write: number];
}

const FORBIDDEN = [SGN_7_READ, SGN_6_WRITE] as const;
const FIRST: Refusals = { absent: [SFS_2_NOT_PRESENT, SFS_2_NOT_PRESENT], forbidden: FORBIDDEN };
const SECOND: Refusals = { absent: [SSS_2_NOT_PRESENT, SSS_2_NOT_PRESENT], forbidden: FORBIDDEN };
const LEGACY: Refusals = { absent: [LGN_3_READ, LGN_2_WRITE], forbidden: [LGN_3_READ, LGN_2_WRITE] };

const NO_DEVICE = [SRT_2_NOT_PRESENT, SCT_2_NOT_PRESENT, LRT_2_NOT_PRESENT, LCT_2_NOT_PRESENT];

const ACCESSES = [
  [ACCESS_READ, 'read'],
  [ACCESS_WRITE, 'write'],
] as const;

/** What a 4 KiB page of IOVAs is: where it leads, and what may be done there. */
interface Page {
  readonly physical: bigint;
  readonly read: boolean;
  readonly write: boolean;
}

const high = (address: bigint) => Number((address >> 32n) & 0xffff_ffffn);
const low = (address: bigint) => Number(address & 0xffff_ffffn);

/** The unit, translating. Interrupt messages go to `sent`. */
export function unitOf(dump: Dump, sent: Message[] = []): VtdUnit {
  const registers = registersOf(dump.files);
  const words = (name: string) => {
    const value = requireRegister(registers, name);
    return [low(value), high(value)];
  };
  const unit = new VtdUnit({
    memory: memoryOf(dump),
    capabilities: { ...decodeCap(words('CAP')), ...decodeEcap(words('ECAP')), HAW: widthOf(dump.files) },
    interrupt: (...message) => sent.push(message),
    endpoint: () => undefined,
  });
  const [rootLow, rootHigh] = words('RTADDR');
  unit.write64(RTADDR_REG, rootHigh, rootLow);
  unit.write32(GCMD_REG, GCMD_SRTP);
  unit.write32(GCMD_REG, GCMD_TE);
  return unit;
}

/** The dump's own pages, for the reader; what was left out is zeros. */
export function readerOf(dump: Dump): ReadPage {
  const pages = unpackPages(dump);
  const read = new Map(
    [...pages].map(([address, bytes]) => [address, new BigUint64Array(bytes.slice().buffer)]),
  );
  const empty = new BigUint64Array(Number(PAGE) / 8);
  return (address) => read.get(address) ?? empty;
}

/** Page number → page, of what Linux lists; permissions are what all entries on the way allow. */
function expectedPages(listed: readonly ListedPage[], firstStage: boolean): Map<bigint, Page> {
  const expected = new Map<bigint, Page>();
  for (const { iova, path } of listed) {
    const level = path.findIndex((entry) => entry !== 0n);
    const span = spanOf(level);
    const physical = path[level] & ADDRESS & ~(span - 1n);
    const allowed = path.filter((entry) => entry !== 0n).reduce((all, entry) => all & entry);
    const read = firstStage || (allowed & READ) !== 0n;
    for (let at = 0n; at < span; at += PAGE)
      expected.set((iova + at) / PAGE, { physical: physical + at, read, write: (allowed & WRITE) !== 0n });
  }
  return expected;
}

/** Of an address in a first-stage table, the bits above the table's are what its highest bit is. */
function canonical(iova: bigint, levels: number): bigint {
  return BigInt.asUintN(64, BigInt.asIntN(12 + 9 * levels, iova));
}

/** Page numbers that together meet every entry of the table: each page of a leaf, both ends of what is empty. */
function* probes(read: ReadPage, slot: Slot): Generator<bigint> {
  const table = tableOf(slot);
  if (!table) return;
  for (const { iova, level, kind } of entries(read, table)) {
    const first = iova / PAGE;
    const last = first + spanOf(level) / PAGE - 1n;
    if (kind === 'page') for (let page = first; page <= last; page++) yield page;
    else if (kind === 'none') yield* [first, last];
  }
}

export interface Walked {
  /** 4 KiB pages that the model translated. */
  pages: number;
  /** Requests made. */
  requests: number;
  readonly differences: string[];
}

/** Compares what the model makes of each page of a slot with what Linux lists. */
export function walkSlot(
  unit: VtdUnit,
  read: ReadPage,
  slot: Slot,
  listed: readonly ListedPage[],
  walked: Walked,
): void {
  const firstStage = ((slot.entry[0] >> 6n) & 7n) === 1n;
  const refusals = slot.pasid === NO_PASID ? LEGACY : firstStage ? FIRST : SECOND;
  const expected = expectedPages(listed, firstStage);
  const pasid = slot.pasid === RID_PASID ? NO_PASID : slot.pasid;
  let found = 0;
  for (const page of probes(read, slot)) {
    const iova = firstStage ? canonical(page * PAGE, tableOf(slot)!.levels) : page * PAGE;
    const ask = (access: number) => unit.translate(slot.rid, pasid, high(iova), low(iova), access);
    const wanted = expected.get(page);
    const complain = (got: number, what: string) =>
      walked.differences.push(
        `requester 0x${slot.rid.toString(16)} PASID ${slot.pasid} ${what} of 0x${iova.toString(16)}: ` +
          `the model says ${got < 0 ? `fault 0x${(-got).toString(16)}` : `0x${got.toString(16)}`}, ` +
          `Linux lists ${wanted ? `0x${wanted.physical.toString(16)}` : 'nothing'}`,
      );
    for (const [i, [access, what]] of ACCESSES.entries()) {
      const got = ask(access);
      const refusal = (wanted ? refusals.forbidden : refusals.absent)[i];
      const right = wanted?.[what] ? got === Number(wanted.physical) : got === -refusal;
      if (!right) complain(got, what);
      walked.requests++;
    }
    if (wanted) found++;
  }
  walked.pages += found;
  if (found !== expected.size)
    walked.differences.push(
      `requester 0x${slot.rid.toString(16)}: Linux lists ${expected.size} pages, the tables have ${found}`,
    );
}

/** Requesters that Linux has no entry for must have none. */
export function walkOthers(unit: VtdUnit, present: ReadonlySet<number>, walked: Walked): void {
  for (let rid = 0; rid < 0x10000; rid++) {
    if (present.has(rid)) continue;
    const got = unit.translate(rid, NO_PASID, 0, 0, ACCESS_READ);
    walked.requests++;
    if (!NO_DEVICE.includes(-got))
      walked.differences.push(`requester 0x${rid.toString(16)}: the model says ${got}, Linux has no entry`);
  }
}
