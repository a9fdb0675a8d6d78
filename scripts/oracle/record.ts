// The fault record: FRCD_REG as two 64-bit halves.
import type { PhysicalMemory } from '../../lib/sim/memory';
import { FRCD_REG } from '../../lib/sim/vtd';
import * as reasons from '../../lib/sim/vtd/fault-reasons';
import type { Request } from './as-qemu';
import type { Quirks } from './quirks';
import { RID, ROOT, type Mode } from './scene';
import { contextWords, field, pointer, readWord } from './tables';

export interface FaultRecord {
  readonly low: bigint;
  readonly high: bigint;
}

export const NO_RECORD: FaultRecord = { low: 0n, high: 0n };

/** The record of a request that only QEMU has recorded. */
export function buildRecord({ address, write }: Request, reason: number): FaultRecord {
  const words = FRCD_REG.encode({ SID: RID, FR: reason, T1: write ? 0 : 1, F: 1 });
  const high = BigInt(words[2]! >>> 0) | (BigInt(words[3]! >>> 0) << 32n);
  return { low: address & ~0xfffn, high };
}

export function withReason(record: FaultRecord, reason: number): FaultRecord {
  return { low: record.low, high: (record.high & ~(0xffn << 32n)) | (BigInt(reason) << 32n) };
}

const RESERVED: readonly number[] = [reasons.LCT_3_RESERVED, reasons.SCT_3_RESERVED];
const OF_PASID_TABLES: readonly number[] = [
  reasons.SPD_2_NOT_PRESENT,
  reasons.SPD_3_RESERVED,
  reasons.SPT_2_NOT_PRESENT,
  reasons.SPT_3_RESERVED,
  reasons.SPT_4_INVALID,
];

/** Reasons FPD has no say in. */
export const isQualified = (reason: number): boolean => reason !== reasons.LRT_3_RESERVED;

/** Whether QEMU, too, keeps silent about a fault that our unit does not record because of FPD. */
export function isSilent(memory: PhysicalMemory, mode: Mode, reason: number, quirks: Quirks): boolean {
  if (RESERVED.includes(reason)) return !quirks.use('unrecordedReserved');
  const [context] = contextWords(memory, mode, ROOT);
  if (OF_PASID_TABLES.includes(reason) && field(context ?? 0n, 1, 1) === 0) {
    return !quirks.use('pasidFpdIgnored');
  }
  return true;
}

/** Whether FPD, in the context entry, the PASID directory entry or the PASID table entry, keeps a fault of the walk from being recorded. */
export function hasFpd(memory: PhysicalMemory, { mode, stage }: Request): boolean {
  const [context = 0n] = contextWords(memory, mode, ROOT);
  const directory = mode === 'legacy' ? 0n : (readWord(memory, pointer(context)) ?? 0n);
  return [context, directory, stage.entry ?? 0n].some((word) => field(word, 1, 1) !== 0);
}
