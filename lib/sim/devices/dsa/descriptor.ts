/**
 * Descriptors of 64 bytes and completion records of 32: layouts and numbers as Linux publishes them in
 * include/uapi/linux/idxd.h. Little-endian.
 */
export const DESCRIPTOR_BYTES = 64;
export const RECORD_BYTES = 32;

export const OPCODE = {
  NOOP: 0x00,
  BATCH: 0x01,
  DRAIN: 0x02,
  MEMMOVE: 0x03,
  FILL: 0x04,
  COMPARE: 0x05,
  COMPARE_PATTERN: 0x06,
  DUALCAST: 0x09,
  CRC: 0x10,
  COPY_CRC: 0x11,
} as const;

/** Descriptor flags. */
export const FLAG = {
  FENCE: 0x0001,
  BLOCK_ON_FAULT: 0x0002,
  RECORD_ADDRESS_VALID: 0x0004,
  REQUEST_RECORD: 0x0008,
  REQUEST_INTERRUPT: 0x0010,
  CHECK_RESULT: 0x0080,
  CACHE_CONTROL: 0x0100,
  ADDRESS_1_TC: 0x0200,
  ADDRESS_2_TC: 0x0400,
  ADDRESS_3_TC: 0x0800,
  RECORD_TC: 0x1000,
  STRICT_ORDERING: 0x2000,
  /** Of the operations with a CRC alone; the published header has no names for these three. The seed is in memory; */
  READ_SEED: 0x010000,
  /** seed and result are neither inverted nor reflected; */
  BYPASS_CRC_REFLECTION: 0x020000,
  /** bit 7 of a byte comes first. */
  BYPASS_DATA_REFLECTION: 0x040000,
} as const;

/** Status of a completion record, and ERROR of SWERR. */
export const STATUS = {
  NONE: 0x00,
  SUCCESS: 0x01,
  FALSE_PREDICATE: 0x02,
  PAGE_FAULT: 0x03,
  PAGE_FAULT_REFUSED: 0x04,
  BATCH_FAILED: 0x05,
  BATCH_PAGE_FAULT: 0x06,
  BAD_OPCODE: 0x10,
  INVALID_FLAGS: 0x11,
  RESERVED: 0x12,
  TRANSFER_SIZE: 0x13,
  DESCRIPTOR_COUNT: 0x14,
  OVERLAP: 0x16,
  DUALCAST_ALIGNMENT: 0x17,
  LIST_ALIGNMENT: 0x18,
  INTERRUPT_HANDLE: 0x19,
  RECORD_PAGE_FAULT: 0x1a,
  RECORD_ALIGNMENT: 0x1b,
  ADDRESS_ALIGNMENT: 0x1c,
  PRIVILEGE: 0x1d,
  HARDWARE: 0x20,
  TRANSLATION: 0x22,
  /**
   * A descriptor that no work queue took: in SWERR alone. The published header has no number for it.
   */
  NOT_ACCEPTED: 0x80,
} as const;
/** Bit of a status: the access that faulted was a write. */
export const STATUS_WRITE = 0x80;

/** A descriptor, taken apart. */
export interface Descriptor {
  readonly bytes: DataView;
  readonly opcode: number;
  readonly flags: number;
  readonly record: bigint;
  /** Source, pattern or descriptor list. */
  readonly source: bigint;
  /** Destination, second source or pattern to compare with. */
  readonly destination: bigint;
  /** Bytes, or descriptors. */
  readonly size: number;
  readonly interrupt: number;
}

export function decodeDescriptor(bytes: Uint8Array): Descriptor {
  const view = new DataView(bytes.slice(0, DESCRIPTOR_BYTES).buffer);
  const operation = view.getUint32(4, true);
  return {
    bytes: view,
    opcode: operation >>> 24,
    flags: operation & 0xffffff,
    record: view.getBigUint64(8, true),
    source: view.getBigUint64(16, true),
    destination: view.getBigUint64(24, true),
    size: view.getUint32(32, true),
    interrupt: view.getUint16(36, true),
  };
}

/** The PASID that a submission through a shared work queue carries, and its mode. */
export function submitterOf({ bytes }: Descriptor): { pasid: number; privileged: boolean } {
  const word = bytes.getUint32(0, true);
  return { pasid: word & 0xfffff, privileged: word >= 0x80000000 };
}

export function secondDestination({ bytes }: Descriptor): bigint {
  return bytes.getBigUint64(40, true);
}

export function expectedResult({ bytes }: Descriptor): number {
  return bytes.getUint8(40);
}

/** Of an operation with a CRC: the seed, and where it is if it is read. */
export function crcSeed({ bytes }: Descriptor): { seed: number; address: bigint } {
  return { seed: bytes.getUint32(40, true), address: bytes.getBigUint64(48, true) };
}

/** How an operation ended. */
export interface Outcome {
  readonly status: number;
  /**
   * Of a comparison: 1, unequal. Of a copy that ended early: 1, it was from the end on. Of a batch: 1, something in it has not
   * succeeded.
   */
  readonly result?: number;
  /** Bytes, of an operation that ended early; 0 of one that did all. Of a batch: descriptors, always. */
  readonly completed?: number;
  /** Of the bytes that are done. */
  readonly crc?: number;
  readonly faultAddress?: bigint;
  readonly write?: boolean;
  readonly invalidFlags?: number;
}

export const SUCCESS: Outcome = { status: STATUS.SUCCESS };

export function encodeRecord(outcome: Outcome): Uint8Array {
  const { status, result = 0, completed = 0, faultAddress = 0n, write = false } = outcome;
  const view = new DataView(new ArrayBuffer(RECORD_BYTES));
  view.setUint8(0, status | (write ? STATUS_WRITE : 0));
  view.setUint8(1, result);
  view.setUint32(4, completed, true);
  view.setBigUint64(8, faultAddress, true);
  // The same place: of an operation with invalid flags there is no CRC.
  view.setUint32(16, outcome.invalidFlags ?? outcome.crc ?? 0, true);
  return new Uint8Array(view.buffer);
}
