/** Status of commands. NVM Express 1.4, 4.6.1: status code type << 8 | status code. */
export const STATUS = {
  // Generic command status (figure 128).
  SUCCESS: 0x000,
  INVALID_OPCODE: 0x001,
  INVALID_FIELD: 0x002,
  COMMAND_ID_CONFLICT: 0x003,
  DATA_TRANSFER_ERROR: 0x004,
  ABORT_REQUESTED: 0x007,
  ABORTED_SQ_DELETION: 0x008,
  INVALID_NAMESPACE: 0x00b,
  COMMAND_SEQUENCE_ERROR: 0x00c,
  INVALID_SGL_SEGMENT: 0x00d,
  INVALID_SGL_COUNT: 0x00e,
  DATA_SGL_LENGTH_INVALID: 0x00f,
  SGL_TYPE_INVALID: 0x011,
  PRP_OFFSET_INVALID: 0x013,
  LBA_OUT_OF_RANGE: 0x080,
  // Command specific status (figure 130).
  COMPLETION_QUEUE_INVALID: 0x100,
  INVALID_QUEUE_IDENTIFIER: 0x101,
  INVALID_QUEUE_SIZE: 0x102,
  ABORT_LIMIT_EXCEEDED: 0x103,
  EVENT_LIMIT_EXCEEDED: 0x105,
  INVALID_INTERRUPT_VECTOR: 0x108,
  INVALID_LOG_PAGE: 0x109,
  INVALID_QUEUE_DELETION: 0x10c,
  FEATURE_NOT_SAVEABLE: 0x10d,
  FEATURE_NOT_CHANGEABLE: 0x10e,
  // Of the NVM command set (figure 131).
  INVALID_PROTECTION_INFORMATION: 0x181,
  // Media and data integrity errors (figure 133).
  WRITE_FAULT: 0x280,
  UNRECOVERED_READ_ERROR: 0x281,
  GUARD_CHECK_ERROR: 0x282,
  APPLICATION_TAG_CHECK_ERROR: 0x283,
  REFERENCE_TAG_CHECK_ERROR: 0x284,
} as const;

/** What may go well when the command is submitted once more: everything else has Do Not Retry set. */
const TRANSIENT: ReadonlySet<number> = new Set([
  STATUS.DATA_TRANSFER_ERROR,
  STATUS.ABORT_REQUESTED,
  STATUS.ABORTED_SQ_DELETION,
  STATUS.ABORT_LIMIT_EXCEEDED,
  STATUS.WRITE_FAULT,
  STATUS.UNRECOVERED_READ_ERROR,
  // What was wrong on its way may be right the next time.
  STATUS.GUARD_CHECK_ERROR,
  STATUS.APPLICATION_TAG_CHECK_ERROR,
  STATUS.REFERENCE_TAG_CHECK_ERROR,
]);

/** How a command ends that does not succeed. */
export class CommandError extends Error {
  constructor(readonly status: number) {
    super(`NVMe status 0x${status.toString(16)}`);
    this.name = 'CommandError';
  }
}

/** Throws CommandError where the command is wrong. */
export function ensure(condition: boolean, status: number): asserts condition {
  if (!condition) throw new CommandError(status);
}

/** The status field of a completion queue entry, bits 31:16 of dword 3, without the phase tag (4.6.1). */
export function statusField(status: number): number {
  const doNotRetry = status !== STATUS.SUCCESS && !TRANSIENT.has(status);
  return (status << 1) | (doNotRetry ? 0x8000 : 0);
}
