/**
 * The layout of a mapped ring: what native/ring.h says to C. All fields are 32-bit words, little-endian; indices count
 * on from 0 to 2^32 - 1 and then from 0 again, and a record lies in slot `index & (count - 1)`.
 *
 * Fields that one side writes often have a cache line (64 bytes) of their own.
 */

/** 'RING'. */
export const RING_MAGIC = 0x474e4952;
export const RING_VERSION = 1;

/** What a ring's records are. */
export const RING_FAULTS = 1;
export const RING_EVENTS = 2;

/** Offsets in bytes from the beginning of the mapping. */
export const ring = {
  magic: 0x00,
  version: 0x04,
  /** RING_FAULTS or RING_EVENTS. */
  kind: 0x08,
  /** Bytes of a record here: 64, or the next multiple for events that are larger. */
  recordBytes: 0x0c,
  /** Slots for records, a power of two. */
  recordCount: 0x10,
  /** Slots for responses, a power of two; 0: records of this kind are not answered. */
  responseCount: 0x14,
  /** Where the records begin, in bytes. */
  records: 0x18,
  /** Where the responses begin, in bytes. */
  responses: 0x1c,
  /** Bytes of the whole mapping. */
  length: 0x20,
  /** Bytes of the largest record that the kernel's file gives. */
  sourceBytes: 0x24,
  /** 64 random bits: tells the ring from another that has its descriptors' numbers later. */
  identity: 0x28,

  /** The pump's: records published so far. */
  head: 0x40,
  /** The pump's: records lost here. Always 0: what has no room stays in the kernel. */
  dropped: 0x44,
  /** The pump's: 0 while it runs; else why it ended, an errno. */
  error: 0x48,
  /** The pump's: how often it rang the consumer's doorbell. */
  wakeups: 0x4c,
  /** The consumer's: records consumed so far. */
  tail: 0x80,
  /** The consumer's: the generation of a group of which it has taken a part; 0: of none. For who is the next consumer. */
  partial: 0x84,
  /** 1: the consumer is about to sleep, or does; whoever publishes has to ring. */
  consumerWaiting: 0xc0,
  /** The consumer's: responses written so far. */
  responseHead: 0x100,
  /** The pump's: responses taken so far. */
  responseTail: 0x140,
  /** The pump's: responses that nobody waited for. */
  refused: 0x144,
  /** The pump is about to sleep, or does: PUMP_WAITS or PUMP_WAITS_FOR_ROOM; 0: it does not. */
  pumpWaiting: 0x180,
} as const;

/** The pump sleeps until there are responses. */
export const PUMP_WAITS = 1;
/** The pump sleeps until there are responses, or slots again for what it holds back. */
export const PUMP_WAITS_FOR_ROOM = 2;

/** The header has a page of its own. */
export const HEADER_BYTES = 4096;
export const CACHE_LINE = 64;

/**
 * A fault record: one cache line. The kernel's struct iommu_hwpt_pgfault as it is (40 bytes), and what the attach data
 * say of it.
 */
export const faultRecord = {
  flags: 0,
  devId: 4,
  pasid: 8,
  group: 12,
  permissions: 16,
  address: 24,
  length: 32,
  /** The kernel's name for the group. It uses it again as soon as the group is answered. */
  groupCookie: 36,
  /** The device's cookie, 64 bits. */
  cookie: 40,
  ioasid: 48,
  /** Tells the group from others with the same group cookie. */
  generation: 52,
} as const;
export const FAULT_SOURCE_BYTES = 40;
export const FAULT_RECORD_BYTES = 64;

/**
 * An event record is the kernel's struct iommufd_vevent_header and the event's data behind it. Every record, of
 * whatever kind, ends with the time at which it was read: nanoseconds of CLOCK_MONOTONIC, 64 bits.
 */
export const TIMESTAMP_BYTES = 8;

/** A response: the kernel's struct iommu_hwpt_page_response, and the generation of the group that it is meant for. */
export const response = { groupCookie: 0, code: 4, generation: 8 } as const;
export const RESPONSE_BYTES = 16;

/** What a ring is made for. */
export interface RingShape {
  readonly kind: typeof RING_FAULTS | typeof RING_EVENTS;
  /** Bytes of the largest record that the kernel's file gives. */
  readonly sourceBytes: number;
  /** Slots for records, a power of two. */
  readonly records: number;
  /** Slots for responses, a power of two or 0. */
  readonly responses: number;
}

/** Bytes of one record's slot. */
export function recordBytes({ sourceBytes, kind }: RingShape): number {
  if (kind === RING_FAULTS) return FAULT_RECORD_BYTES;
  return Math.ceil((sourceBytes + TIMESTAMP_BYTES) / CACHE_LINE) * CACHE_LINE;
}

/** Bytes of the whole mapping. */
export function ringBytes(shape: RingShape): number {
  return HEADER_BYTES + shape.records * recordBytes(shape) + shape.responses * RESPONSE_BYTES;
}

/** Writes the header of an empty ring. `start`: the first index, for tests of what wraps. */
export function writeHeader(words: Int32Array, shape: RingShape, start = 0): void {
  const values: [number, number][] = [
    [ring.magic, RING_MAGIC],
    [ring.version, RING_VERSION],
    [ring.kind, shape.kind],
    [ring.recordBytes, recordBytes(shape)],
    [ring.recordCount, shape.records],
    [ring.responseCount, shape.responses],
    [ring.records, HEADER_BYTES],
    [ring.responses, HEADER_BYTES + shape.records * recordBytes(shape)],
    [ring.length, ringBytes(shape)],
    [ring.sourceBytes, shape.sourceBytes],
  ];
  for (const index of [ring.head, ring.tail, ring.responseHead, ring.responseTail])
    values.push([index, start]);
  for (const [offset, value] of values) words[offset >> 2] = value;
}

/** The shape that a header says. Throws RangeError for memory that is no ring of this version. */
export function readHeader(words: Int32Array, length: number): RingShape {
  const at = (offset: number) => words[offset >> 2] >>> 0;
  if (length < HEADER_BYTES || at(ring.magic) !== RING_MAGIC)
    throw new RangeError('this memory holds no ring: it begins with other bytes');
  if (at(ring.version) !== RING_VERSION)
    throw new RangeError(`the ring has version ${at(ring.version)}; this package reads ${RING_VERSION}`);
  const kind = at(ring.kind);
  if (kind !== RING_FAULTS && kind !== RING_EVENTS)
    throw new RangeError(`the ring's header says kind ${kind}, which this package does not know`);
  const shape: RingShape = {
    kind,
    sourceBytes: at(ring.sourceBytes),
    records: at(ring.recordCount),
    responses: at(ring.responseCount),
  };
  // Slots are found by masks.
  if (!isPowerOfTwo(shape.records) || (shape.responses !== 0 && !isPowerOfTwo(shape.responses)))
    throw new RangeError(
      `the ring's header says ${shape.records} records and ${shape.responses} responses: no powers of two`,
    );
  if (ringBytes(shape) > length || at(ring.recordBytes) !== recordBytes(shape))
    throw new RangeError(`the ring's header says ${ringBytes(shape)} bytes, but there are ${length}`);
  return shape;
}

function isPowerOfTwo(count: number): boolean {
  return Number.isInteger(Math.log2(count));
}
