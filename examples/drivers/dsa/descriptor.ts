/** Descriptors of a DSA: layouts and numbers of Linux's include/uapi/linux/idxd.h. */
export const DESCRIPTOR_BYTES = 64;

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
/** All that a descriptor of ours has. */
export const FLAGS = Object.values<number>(FLAG).reduce((bits, flag) => bits | flag, 0);

/** Status of a completion record. */
export const STATUS = {
  SUCCESS: 0x01,
  FALSE_PREDICATE: 0x02,
  PAGE_FAULT: 0x03,
  PAGE_FAULT_REFUSED: 0x04,
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
  /** Destination, second source, or pattern to compare with. */
  readonly destination: bigint;
  /** Bytes; of a batch, descriptors. */
  readonly size: number;
  /** Bytes that were done before, by a descriptor that could not do the rest. */
  readonly done?: number;
  /** Of a CRC: that of the bytes before. Default 0. */
  readonly seed?: number;
}

const operation = (opcode: number, source: bigint, destination: bigint, size: number): Operation => ({
  ...{ opcode, source, destination, size },
});

/** Operations, for `run()` and `batch()`. */
export const operations = {
  move: (source: bigint, destination: bigint, size: number) =>
    operation(OPCODE.MOVE, source, destination, size),
  /** Fills memory with 8 bytes again and again, the lowest first. */
  fill: (destination: bigint, size: number, pattern: bigint) =>
    operation(OPCODE.FILL, pattern, destination, size),
  /** Results in the offset of the first byte that differs; undefined if none does. */
  compare: (one: bigint, other: bigint, size: number) => operation(OPCODE.COMPARE, one, other, size),
  /** As compare, with 8 bytes again and again. */
  comparePattern: (address: bigint, size: number, pattern: bigint) =>
    operation(OPCODE.COMPARE_PATTERN, address, pattern, size),
  /** Results in the CRC-32C of memory. */
  crc: (address: bigint, size: number) => operation(OPCODE.CRC, address, 0n, size),
  /** Ends after all that was submitted before. */
  drain: () => operation(OPCODE.DRAIN, 0n, 0n, 0),
  batch: (list: bigint, descriptors: number) => operation(OPCODE.BATCH, list, 0n, descriptors),
};

export interface Submission {
  /** Address of the completion record. */
  readonly record: bigint;
  /** Vector that tells of the end; none where the record is looked at. */
  readonly vector?: number | undefined;
  /** Whether pages that are missing are waited for. */
  readonly block: boolean;
}

export const COMPARISONS: ReadonlySet<number> = new Set([OPCODE.COMPARE, OPCODE.COMPARE_PATTERN]);

/** Block on fault is reserved there: for what these need themselves the device asks anyway. */
const NEVER_BLOCKS: ReadonlySet<number> = new Set([OPCODE.DRAIN, OPCODE.BATCH]);

/** Comparisons expect that nothing differs: byte 40 is zero. */
export function encode(what: Operation, { record, vector, block }: Submission): Uint8Array {
  const { opcode, source, destination, size, seed = 0 } = what;
  const view = new DataView(new ArrayBuffer(DESCRIPTOR_BYTES));
  const blocks = block && !NEVER_BLOCKS.has(opcode) ? FLAG.BLOCK_ON_FAULT : 0;
  const interrupts = vector === undefined ? 0 : FLAG.REQUEST_INTERRUPT;
  // The device says in two fields then whether something differs: a flipped bit does not make one answer of the other.
  const checks = COMPARISONS.has(opcode) ? FLAG.CHECK_RESULT : 0;
  const flags = FLAG.RECORD_VALID | FLAG.REQUEST_RECORD | blocks | interrupts | checks;
  view.setUint32(4, (opcode << 24) | flags, true);
  view.setBigUint64(8, record, true);
  view.setBigUint64(16, source, true);
  view.setBigUint64(24, destination, true);
  view.setUint32(32, size, true);
  view.setUint16(36, vector ?? 0, true);
  if (opcode === OPCODE.CRC) view.setUint32(40, seed, true);
  return new Uint8Array(view.buffer);
}

/** What is left of an operation of which `completed` bytes are done: a copy that overlaps, from its end on if `result` is 1. */
export function rest(
  what: Operation,
  { completed, result, crc }: { readonly completed: number; readonly result: number; readonly crc: number },
): Operation {
  const { opcode, source, destination, size, done = 0 } = what;
  if (NEVER_BLOCKS.has(opcode)) return what;
  const left = { ...what, size: size - completed, done: done + completed };
  const bytes = BigInt(completed);
  switch (opcode) {
    case OPCODE.FILL:
      // The pattern goes on where it stopped.
      return { ...left, source: rotate(source, completed), destination: destination + bytes };
    case OPCODE.COMPARE_PATTERN:
      return { ...left, source: source + bytes, destination: rotate(destination, completed) };
    case OPCODE.CRC:
      return completed === 0 ? left : { ...left, source: source + bytes, seed: crc };
    default:
      // A copy to a higher address that overlaps begins at the end: what is left is in front.
      if (opcode === OPCODE.MOVE && result === 1) return left;
      return { ...left, source: source + bytes, destination: destination + bytes };
  }
}

function rotate(pattern: bigint, bytes: number): bigint {
  const shift = BigInt(8 * (bytes % 8));
  return BigInt.asUintN(64, (pattern >> shift) | (pattern << (64n - shift)));
}

/** Whether source and destination of a copy have bytes in common. */
export function overlaps({ source, destination, size }: Operation): boolean {
  const distance = source < destination ? destination - source : source - destination;
  return distance < BigInt(size);
}

/** Whether it may be done again from its start, when nobody knows how far it came. */
export function repeatable(what: Operation): boolean {
  return what.opcode !== OPCODE.MOVE || !overlaps(what);
}
