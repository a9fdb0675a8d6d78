/** Descriptors and completion records of a DSA: layouts and numbers of Linux's include/uapi/linux/idxd.h. */
import { DsaError } from './errors';

export const DESCRIPTOR_BYTES = 64;
export const RECORD_BYTES = 32;

export const OPCODE = {
  BATCH: 0x01,
  DRAIN: 0x02,
  MOVE: 0x03,
  FILL: 0x04,
  COMPARE: 0x05,
  COMPARE_PATTERN: 0x06,
  CRC: 0x10,
} as const;
export const FLAG = {
  BLOCK_ON_FAULT: 0x02,
  RECORD_VALID: 0x04,
  REQUEST_RECORD: 0x08,
  REQUEST_INTERRUPT: 0x10,
  CHECK_RESULT: 0x80,
} as const;

export const STATUS = {
  SUCCESS: 0x01,
  FALSE_PREDICATE: 0x02,
  PAGE_FAULT: 0x03,
  BATCH_FAILED: 0x05,
  BATCH_PAGE_FAULT: 0x06,
  INVALID_FLAGS: 0x11,
  HARDWARE: 0x20,
  TRANSLATION: 0x22,
} as const;

/** Something for the device to do. Addresses are those of the work queue's address space. */
export interface Operation {
  readonly opcode: number;
  /** Source, pattern, or descriptor list. */
  readonly source: bigint;
  readonly destination: bigint;
  /** Bytes; of a batch, descriptors. */
  readonly size: number;
  /** Bytes that were done before, by a descriptor that could not do the rest. */
  readonly done?: number;
}

/** Operations, for `run()` and `batch()`. */
export const operations = {
  move: (source: bigint, destination: bigint, size: number): Operation => ({
    opcode: OPCODE.MOVE,
    source,
    destination,
    size,
  }),
  /** Fills memory with 8 bytes again and again, the lowest first. */
  fill: (destination: bigint, size: number, pattern: bigint): Operation => ({
    opcode: OPCODE.FILL,
    source: pattern,
    destination,
    size,
  }),
  /** Results in the offset of the first byte that differs; undefined if none does. */
  compare: (one: bigint, other: bigint, size: number): Operation => ({
    opcode: OPCODE.COMPARE,
    source: one,
    destination: other,
    size,
  }),
  /** Ends after all that was submitted before. */
  drain: (): Operation => ({ opcode: OPCODE.DRAIN, source: 0n, destination: 0n, size: 0 }),
  batch: (list: bigint, descriptors: number): Operation => ({
    opcode: OPCODE.BATCH,
    source: list,
    destination: 0n,
    size: descriptors,
  }),
};

/** Reserved there: what these need themselves the device asks for anyway. */
const NEVER_BLOCKS: ReadonlySet<number> = new Set([OPCODE.DRAIN, OPCODE.BATCH]);

export interface Submission {
  /** Address of the completion record. */
  readonly record: bigint;
  /** Vector that tells of the end; none where the record is looked at. */
  readonly vector?: number | undefined;
  /** Whether pages that are missing are waited for. */
  readonly block: boolean;
}

export function encode(operation: Operation, { record, vector, block }: Submission): Uint8Array {
  const { opcode, source, destination, size } = operation;
  const view = new DataView(new ArrayBuffer(DESCRIPTOR_BYTES));
  const blocks = block && !NEVER_BLOCKS.has(opcode) ? FLAG.BLOCK_ON_FAULT : 0;
  const interrupts = vector === undefined ? 0 : FLAG.REQUEST_INTERRUPT;
  const flags = FLAG.RECORD_VALID | FLAG.REQUEST_RECORD | blocks | interrupts;
  view.setUint32(4, (opcode << 24) | flags, true);
  view.setBigUint64(8, record, true);
  view.setBigUint64(16, source, true);
  view.setBigUint64(24, destination, true);
  view.setUint32(32, size, true);
  view.setUint16(36, vector ?? 0, true);
  return new Uint8Array(view.buffer);
}

/** A completion record. */
export interface Completion {
  readonly status: number;
  readonly write: boolean;
  readonly result: number;
  readonly completed: number;
  readonly address: bigint;
}

/** Undefined: there is none yet. */
export function decode(record: Uint8Array): Completion | undefined {
  const view = new DataView(record.buffer, record.byteOffset, RECORD_BYTES);
  const status = view.getUint8(0);
  if (status === 0) return undefined;
  return {
    status: status & 0x7f,
    write: (status & 0x80) !== 0,
    result: view.getUint8(1),
    completed: view.getUint32(4, true),
    address: view.getBigUint64(8, true),
  };
}

/** What is left of an operation that ended early. Throws DsaError where the record cannot be right. */
export function rest(operation: Operation, { completed, result }: Completion): Operation {
  const { opcode, source, destination, size, done = 0 } = operation;
  if (opcode === OPCODE.DRAIN || opcode === OPCODE.BATCH) return operation;
  if (completed > size)
    throw new DsaError('EIO', `a completion record is wrong: ${completed} of ${size} bytes are done`);
  const left = { ...operation, size: size - completed, done: done + completed };
  const behind = { ...left, destination: destination + BigInt(completed) };
  // The pattern goes on where it stopped.
  if (opcode === OPCODE.FILL) return { ...behind, source: rotate(source, completed) };
  // A copy to a higher address that overlaps begins at the end: what is left is in front.
  if (opcode === OPCODE.MOVE && result === 1) return left;
  return { ...behind, source: source + BigInt(completed) };
}

function rotate(pattern: bigint, bytes: number): bigint {
  const shift = BigInt(8 * (bytes % 8));
  return BigInt.asUintN(64, (pattern >> shift) | (pattern << (64n - shift)));
}

/** Whether it may be done again from its start, when nobody knows how far it came. */
export function repeatable({ opcode, source, destination, size }: Operation): boolean {
  const distance = source < destination ? destination - source : source - destination;
  return opcode !== OPCODE.MOVE || distance >= BigInt(size);
}

/** What an operation that succeeded results in. */
export function resultOf(
  { opcode, done = 0 }: Operation,
  { result, completed }: Completion,
): number | undefined {
  return opcode === OPCODE.COMPARE && result === 1 ? done + completed : undefined;
}
