/** Completion records: layout and numbers of Linux's include/uapi/linux/idxd.h. */
import { COMPARISONS, FLAGS, OPCODE, type Operation, STATUS } from './descriptor';

export const RECORD_BYTES = 32;
const STATUS_BITS = 0x7f;
const STATUS_WRITE = 0x80;
const PAGE = 4096n;

export interface Completion {
  readonly status: number;
  /** The access that failed was a write. */
  readonly write: boolean;
  readonly result: number;
  /** Bytes of an operation that ended early, or descriptors of a batch. */
  readonly completed: number;
  readonly address: bigint;
  /** Of what is done. */
  readonly crc: number;
  /** What says that the record, or what it tells of, is not as a device writes it. */
  readonly flaw: string | undefined;
}

/** What the record of an operation says. Undefined: there is none yet. */
export function decode(operation: Operation, record: Uint8Array): Completion | undefined {
  const view = new DataView(record.buffer, record.byteOffset, RECORD_BYTES);
  const status = view.getUint8(0);
  if (status === 0) return undefined;
  const completion = {
    status: status & STATUS_BITS,
    write: (status & STATUS_WRITE) !== 0,
    result: view.getUint8(1),
    completed: view.getUint32(4, true),
    address: view.getBigUint64(8, true),
    crc: view.getUint32(16, true),
  };
  return { ...completion, flaw: flawOf(operation, completion, view) };
}

type Claims = Omit<Completion, 'flaw'>;

/** The first reason not to believe a record: DMA has no checksum that software sees, but few records make sense. */
function flawOf(operation: Operation, claims: Claims, view: DataView): string | undefined {
  const { status, completed } = claims;
  const invalidFlags = view.getUint32(16, true);
  // Bytes 2 and 3 are reserved in version 1 of the device.
  if (view.getUint16(2, true) !== 0) return 'reserved bytes are not zero';
  if (operation.opcode !== OPCODE.CRC && invalidFlags !== 0 && status !== STATUS.INVALID_FLAGS)
    return 'flags are invalid, and the status is another';
  if (completed > operation.size) return `${completed} of ${operation.size} are done`;
  switch (status) {
    case STATUS.SUCCESS:
    case STATUS.FALSE_PREDICATE:
      return flawOfSuccess(operation, claims);
    case STATUS.PAGE_FAULT:
    case STATUS.PAGE_FAULT_REFUSED:
    case STATUS.BATCH_PAGE_FAULT:
      return flawOfFault(operation, claims);
    case STATUS.BATCH_FAILED:
      return operation.opcode === OPCODE.BATCH ? undefined : 'it is no batch';
    case STATUS.INVALID_FLAGS:
      return invalidFlags !== 0 && (invalidFlags & ~FLAGS) === 0
        ? undefined
        : 'flags are invalid that it has not';
    default:
      return ERRORS.has(status) ? undefined : `no status 0x${status.toString(16)}`;
  }
}

/** Of what is left when those above are taken away, what these operations can end with. */
const ERRORS: ReadonlySet<number> = new Set([
  ...[0x10, 0x12, 0x13, 0x14, 0x16, 0x18, 0x19, 0x1a, 0x1b, 0x1c, 0x1d, 0x1e],
  ...[STATUS.HARDWARE, STATUS.TRANSLATION],
]);

function flawOfSuccess(
  operation: Operation,
  { status, write, result, completed }: Claims,
): string | undefined {
  const { opcode, size } = operation;
  if (write) return 'a write has failed, and nothing has';
  const whole = completed === 0 || completed === size;
  if (opcode === OPCODE.BATCH) return completed === size && result === 0 ? undefined : 'a batch is not whole';
  if (!COMPARISONS.has(opcode))
    return whole && result === 0 && status === STATUS.SUCCESS ? undefined : 'it is done, and not whole';
  if (result > 1) return `result ${result}`;
  if ((status === STATUS.SUCCESS) !== (result === 0)) return 'status and result do not agree';
  return result === 0
    ? whole
      ? undefined
      : 'all is equal, of a part'
    : completed < size
      ? undefined
      : 'nothing differs';
}

/** Something is left to do, and the page is one of those that the operation needs. */
function flawOfFault(
  operation: Operation,
  { status, write, result, completed, address }: Claims,
): string | undefined {
  const { opcode, size } = operation;
  if ((status === STATUS.BATCH_PAGE_FAULT) !== (opcode === OPCODE.BATCH))
    return 'a page fault of another kind';
  if (completed >= size) return 'a page was missing, and all is done';
  if (result > (opcode === OPCODE.MOVE || opcode === OPCODE.BATCH ? 1 : 0)) return `result ${result}`;
  const page = address / PAGE;
  const needs = rangesOf(operation).some(
    (range) => range.write === write && range.start / PAGE <= page && page <= (range.end - 1n) / PAGE,
  );
  return needs ? undefined : 'it needs no such page';
}

interface Range {
  readonly start: bigint;
  readonly end: bigint;
  readonly write: boolean;
}

/** Memory that an operation reads and writes. */
function rangesOf({ opcode, source, destination, size }: Operation): readonly Range[] {
  const range = (start: bigint, bytes: number, write = false) => ({
    start,
    end: start + BigInt(bytes),
    write,
  });
  switch (opcode) {
    case OPCODE.MOVE:
      return [range(source, size), range(destination, size, true)];
    case OPCODE.FILL:
      return [range(destination, size, true)];
    case OPCODE.COMPARE:
      return [range(source, size), range(destination, size)];
    case OPCODE.BATCH:
      return [range(source, 64 * size)];
    default:
      return [range(source, size)];
  }
}

/** What an operation that succeeded results in: where memory differs, or a CRC. */
export function resultOf(
  { opcode, done = 0 }: Operation,
  { result, completed, crc }: Completion,
): number | undefined {
  if (opcode === OPCODE.CRC) return crc;
  return COMPARISONS.has(opcode) && result === 1 ? done + completed : undefined;
}
