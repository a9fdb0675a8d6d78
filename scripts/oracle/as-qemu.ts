// What QEMU makes of a request that our unit has answered: our answer, but for the deviations of quirks.ts. Everything is
// taken from our unit where no deviation applies, so that a mistake of ours shows.
import * as reasons from '../../lib/sim/vtd/fault-reasons';
import type { Quirks } from './quirks';
import type { Mode } from './scene';
import { field, hasReserved, type Entry, type Stage } from './tables';

/** One request within one page, and what its tables were before it. */
export interface Request {
  readonly mode: Mode;
  readonly address: bigint;
  readonly write: boolean;
  readonly stage: Stage;
  /** Empty where a cached entry was used instead. */
  readonly path: readonly Entry[];
  /** The half of a scalable root entry that is not the device's. */
  readonly otherRootHalf: bigint;
}

/** How a request ended: a fault reason, or 0 and the host address. */
export interface Outcome {
  readonly reason: number;
  readonly host: number;
}

const LEGACY_CODES = new Map([
  [reasons.SRT_1_ACCESS, reasons.LRT_1_ACCESS],
  [reasons.SRT_2_NOT_PRESENT, reasons.LRT_2_NOT_PRESENT],
  [reasons.SRT_3_RESERVED, reasons.LRT_3_RESERVED],
  [reasons.SCT_1_ACCESS, reasons.LCT_1_ACCESS],
  [reasons.SCT_2_NOT_PRESENT, reasons.LCT_2_NOT_PRESENT],
  [reasons.SCT_3_RESERVED, reasons.LCT_3_RESERVED],
  [reasons.SSS_1_ACCESS, reasons.LSS_1_ACCESS],
  [reasons.SSS_3_RESERVED, reasons.LSS_2_RESERVED],
  [reasons.SSS_4_TOP_ACCESS, reasons.LCT_4_INVALID],
  [reasons.SGN_4_BEYOND_HAW, reasons.LGN_1_BEYOND_WIDTH],
  [reasons.SGN_5_BEYOND_AW, reasons.LGN_1_BEYOND_WIDTH],
]);

const SECOND_STAGE_PERMISSION = [
  reasons.SSS_2_NOT_PRESENT,
  reasons.SGN_6_WRITE,
  reasons.SGN_7_READ,
  reasons.LGN_2_WRITE,
  reasons.LGN_3_READ,
];
const FIRST_STAGE_PERMISSION = [reasons.SGN_2_USER, reasons.SGN_6_WRITE];
/** Faults that a walk ends with. */
const WALK_FAULTS = new Set([
  ...SECOND_STAGE_PERMISSION,
  ...FIRST_STAGE_PERMISSION,
  reasons.LSS_1_ACCESS,
  reasons.LSS_2_RESERVED,
  reasons.SSS_1_ACCESS,
  reasons.SSS_3_RESERVED,
  reasons.SFS_1_ACCESS,
  reasons.SFS_2_NOT_PRESENT,
  reasons.SFS_3_RESERVED,
]);
const OF_ROOT_ENTRY = new Set([reasons.SRT_1_ACCESS, reasons.SRT_2_NOT_PRESENT, reasons.SRT_3_RESERVED]);
const INTERRUPT_RANGE = new Set([reasons.SGN_8_INTERRUPT_RANGE, reasons.LGN_4_INTERRUPT_RANGE]);

/** The reason for refusing an entry's permissions, or 0. */
function denial({ mode, stage, write }: Request, entry: Entry): number {
  if (stage.kind === 'second') {
    if (field(entry.value, write ? 1 : 0, write ? 1 : 0) !== 0) return 0;
    if (mode === 'legacy') return write ? reasons.LGN_2_WRITE : reasons.LGN_3_READ;
    return write ? reasons.SGN_6_WRITE : reasons.SGN_7_READ;
  }
  if (field(entry.value, 0, 0) === 0) return 0;
  if (field(entry.value, 2, 2) === 0) return reasons.SGN_2_USER;
  return write && field(entry.value, 1, 1) === 0 ? reasons.SGN_6_WRITE : 0;
}

/** Where on the path QEMU's walk ends with a fault, and with which: by level, not present, permissions, reserved bits. */
function firstFault(request: Request, quirks: Quirks): { index: number; reason: number } {
  const { path, stage } = request;
  const { kind } = stage;
  for (const [index, entry] of path.entries()) {
    if (kind === 'first' && field(entry.value, 0, 0) === 0)
      return { index, reason: reasons.SFS_2_NOT_PRESENT };
    const denied = denial(request, entry);
    if (denied !== 0) return { index, reason: denied };
    const first = kind === 'first';
    if (hasReserved(first ? 'first' : 'second', entry, quirks.allows('snoopAllowed'))) {
      return { index, reason: first ? reasons.SFS_3_RESERVED : reasons.SSS_3_RESERVED };
    }
  }
  return { index: path.length, reason: 0 };
}

const isPermission = (reason: number): boolean =>
  SECOND_STAGE_PERMISSION.includes(reason) || FIRST_STAGE_PERMISSION.includes(reason);

/** permissionsFirst: another fault of the same walk, met earlier where permissions are checked level by level. */
function reorder(request: Request, reason: number, quirks: Quirks): number {
  if (!WALK_FAULTS.has(reason)) return reason;
  const found = firstFault(request, quirks).reason;
  if (found === 0 || found === reason || !isPermission(found)) return reason;
  // In second-stage tables an entry that is not there denies, under any name.
  if (request.stage.kind === 'second' && isPermission(reason)) return reason;
  return quirks.use('permissionsFirst') ? found : reason;
}

/** legacyCodes. First-stage faults have their own in QEMU too. */
function rename(request: Request, reason: number, quirks: Quirks): number {
  if (request.mode === 'legacy') return reason;
  let code = LEGACY_CODES.get(reason);
  if (request.stage.kind === 'second') {
    if (reason === reasons.SSS_2_NOT_PRESENT) code = request.write ? reasons.LGN_2_WRITE : reasons.LGN_3_READ;
    else if (reason === reasons.SGN_6_WRITE) code = reasons.LGN_2_WRITE;
    else if (reason === reasons.SGN_7_READ) code = reasons.LGN_3_READ;
  }
  return code !== undefined && quirks.use('legacyCodes') ? code : reason;
}

/** Whether bits 63:width-1 of an address are equal. */
function isCanonical(address: bigint, width: number): boolean {
  return BigInt.asUintN(64, BigInt.asIntN(width, address)) === address;
}

/** Whether the page an address is mapped by reaches into 0xFEEx_xxxx, and the address itself does not. */
function reachesInterrupts(request: Request, host: number): boolean {
  if (host >= 0xfee0_0000 && host < 0xfef0_0000) return false;
  const leaf = request.path.at(-1);
  if (request.stage.kind === 'pass-through' || leaf === undefined || !leaf.leaf) return false;
  const size = 2 ** (3 + 9 * leaf.level);
  const base = field(leaf.value, 47, 12) * 4096;
  return base < 0xfef0_0000 && base + size > 0xfee0_0000;
}

/** How QEMU ends a request of which our unit made `ours`. */
export function asQemu(request: Request, ours: Outcome, quirks: Quirks): Outcome {
  const { stage, address } = request;
  const faulted = (reason: number): Outcome => ({ reason: rename(request, reason, quirks), host: 0 });
  if (request.mode !== 'legacy' && !OF_ROOT_ENTRY.has(ours.reason)) {
    const { otherRootHalf } = request;
    const reserved = field(otherRootHalf, 11, 1) !== 0 || field(otherRootHalf, 63, 48) !== 0;
    if (reserved && quirks.use('bothRootHalves')) return faulted(reasons.SRT_3_RESERVED);
  }
  const walked = ours.reason === 0 || WALK_FAULTS.has(ours.reason) || INTERRUPT_RANGE.has(ours.reason);
  if (stage.kind === 'first' && (walked || ours.reason === reasons.SFS_4_TOP_ACCESS)) {
    const { width } = stage;
    if (width < 48 && !isCanonical(address, width) && quirks.use('narrowCanonical'))
      return faulted(reasons.SGN_1_NOT_CANONICAL);
  }
  if (ours.reason === reasons.SPT_2_NOT_PRESENT && !hasValidType(request)) {
    if (quirks.use('typeBeforePresent')) return faulted(reasons.SPT_4_INVALID);
  }
  if (
    stage.kind === 'pass-through' &&
    isTooWide(ours.reason) &&
    address >> 48n !== 0n &&
    quirks.use('passThroughWidth')
  ) {
    return { reason: 0, host: Number(address) };
  }
  if (ours.reason === 0 && reachesInterrupts(request, ours.host) && quirks.use('wholePageInRange')) {
    return faulted(request.mode === 'legacy' ? reasons.LGN_4_INTERRUPT_RANGE : reasons.SGN_8_INTERRUPT_RANGE);
  }
  if (ours.reason !== 0) return faulted(reorder(request, ours.reason, quirks));
  // Our unit was told that it supports snooping.
  if (request.mode === 'second-stage' && field(request.path.at(-1)?.value ?? 0n, 11, 11) !== 0) {
    quirks.use('snoopAllowed');
  }
  return ours;
}

const isTooWide = (reason: number): boolean =>
  reason === reasons.LGN_1_BEYOND_WIDTH || reason === reasons.SGN_4_BEYOND_HAW;

/** Whether a PASID table entry's PGTT and AW are ones that QEMU's unit has. */
function hasValidType({ mode, stage }: Request): boolean {
  const PGTT = field(stage.entry ?? 0n, 8, 6);
  const AW = field(stage.entry ?? 0n, 4, 2);
  if (PGTT === 1) return mode === 'first-stage' && field(stage.entry ?? 0n, 0, 0) === 0;
  if (PGTT === 2) return mode === 'second-stage' && (AW === 1 || AW === 2);
  return PGTT === 4;
}

/** The words of a first-stage path that QEMU leaves otherwise than section 3.6.3 says: address and value. */
export function marksOfQemu(
  request: Request,
  ours: Outcome,
  qemu: Outcome,
  quirks: Quirks,
): Map<number, bigint> {
  if (request.stage.kind !== 'first') return new Map();
  // narrowCanonical, bothRootHalves: QEMU has not walked at all.
  if (qemu.reason === reasons.SGN_1_NOT_CANONICAL || qemu.reason === reasons.LRT_3_RESERVED) {
    return new Map(request.path.toReversed().map(({ at, value }) => [at, value]));
  }
  const now = new Map<number, bigint>();
  const specified = new Map<number, bigint>();
  const permitted = ours.reason === 0;
  const reached = permitted || WALK_FAULTS.has(ours.reason) || INTERRUPT_RANGE.has(ours.reason);
  const end = permitted ? request.path.length : firstFault(request, quirks).index;
  if (!reached) return now;
  for (const { at, value, leaf } of request.path.slice(0, end)) {
    const wanted = leaf && request.write ? 0x60n : 0x20n;
    const before = now.get(at) ?? value;
    if (permitted) specified.set(at, (specified.get(at) ?? value) | wanted);
    if ((before & wanted) === 0n) now.set(at, before | wanted);
  }
  const different = (at: number, value: bigint): boolean =>
    (now.get(at) ?? value) !== (specified.get(at) ?? value);
  const result = new Map<number, bigint>();
  for (const { at, value } of request.path.slice(0, end)) {
    if (!different(at, value)) continue;
    if (quirks.use(permitted ? 'partialMarks' : 'marksOnFault')) result.set(at, now.get(at) ?? value);
  }
  return result;
}
