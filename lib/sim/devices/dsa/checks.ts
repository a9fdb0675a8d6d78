/** What is wrong with a descriptor, before anything of it is done. */
import {
  crcSeed,
  type Descriptor,
  FLAG,
  OPCODE,
  type Outcome,
  secondDestination,
  STATUS,
} from './descriptor';
import type { Job } from './work-queue';

const COMMON =
  FLAG.FENCE | FLAG.RECORD_ADDRESS_VALID | FLAG.REQUEST_RECORD | FLAG.REQUEST_INTERRUPT | FLAG.RECORD_TC;
const OPERANDS = COMMON | FLAG.BLOCK_ON_FAULT;
const STORES = OPERANDS | FLAG.CACHE_CONTROL | FLAG.STRICT_ORDERING;
const COMPARES = OPERANDS | FLAG.CHECK_RESULT | FLAG.ADDRESS_1_TC;
const CRCS = FLAG.READ_SEED | FLAG.BYPASS_CRC_REFLECTION | FLAG.BYPASS_DATA_REFLECTION | FLAG.ADDRESS_3_TC;

/**
 * Flags that an operation has: those that Intel's Data Mover Library knows of it, less what GENCAP says is not there. A batch
 * has no block on fault: accel-config's tests say that the bit is reserved there.
 */
const FLAGS = new Map<number, number>([
  [OPCODE.NOOP, COMMON],
  [OPCODE.BATCH, (COMMON | FLAG.ADDRESS_1_TC) & ~FLAG.FENCE],
  [OPCODE.DRAIN, (COMMON | FLAG.ADDRESS_1_TC | FLAG.ADDRESS_2_TC) & ~FLAG.FENCE],
  [OPCODE.MEMMOVE, STORES | FLAG.ADDRESS_1_TC | FLAG.ADDRESS_2_TC],
  [OPCODE.FILL, STORES | FLAG.ADDRESS_2_TC],
  [OPCODE.COMPARE, COMPARES | FLAG.ADDRESS_2_TC],
  [OPCODE.COMPARE_PATTERN, COMPARES],
  [OPCODE.DUALCAST, STORES | FLAG.ADDRESS_1_TC | FLAG.ADDRESS_2_TC | FLAG.ADDRESS_3_TC],
  [OPCODE.CRC, OPERANDS | CRCS | FLAG.ADDRESS_1_TC],
  [OPCODE.COPY_CRC, STORES | CRCS | FLAG.ADDRESS_1_TC | FLAG.ADDRESS_2_TC],
]);

/** Where the bytes begin that must be zero: behind the operation's own. */
const RESERVED_FROM = new Map<number, number>([
  [OPCODE.COMPARE, 41],
  [OPCODE.COMPARE_PATTERN, 41],
  [OPCODE.DUALCAST, 48],
  [OPCODE.CRC, 56],
  [OPCODE.COPY_CRC, 56],
]);
const CRC_OPERATIONS: ReadonlySet<number> = new Set([OPCODE.CRC, OPCODE.COPY_CRC]);
const COMMON_END = 40;
const PAGE_OFFSET = 0xfffn;

/** What a job's submitter may. */
export interface Permissions {
  /** Use the interrupt vector that the descriptor names. */
  readonly interrupt: boolean;
  /** Make privileged requests: software has switched them on. */
  readonly privileged: boolean;
}

/** Undefined: nothing. */
export function check(job: Job, may: Permissions): Outcome | undefined {
  const { descriptor } = job;
  const { opcode } = descriptor;
  if (job.privileged && !job.queue.dedicated && !may.privileged) return { status: STATUS.PRIVILEGE };
  const inBatch = job.batchIndex !== undefined;
  const known = FLAGS.get(opcode);
  if (known === undefined || (inBatch && (opcode === OPCODE.BATCH || opcode === OPCODE.DRAIN)))
    return { status: STATUS.BAD_OPCODE };
  const invalidFlags = invalid(job, known, inBatch);
  if (invalidFlags !== 0) return { status: STATUS.INVALID_FLAGS, invalidFlags };
  if (!reservedAreZero(descriptor)) return { status: STATUS.RESERVED };
  if (job.has(FLAG.RECORD_ADDRESS_VALID) && descriptor.record % 32n !== 0n)
    return { status: STATUS.RECORD_ALIGNMENT };
  if (job.has(FLAG.REQUEST_INTERRUPT) && !may.interrupt) return { status: STATUS.INTERRUPT_HANDLE };
  const status = checkOperands(job);
  return status === STATUS.NONE ? undefined : { status };
}

function invalid(job: Job, known: number, inBatch: boolean): number {
  const { flags } = job.descriptor;
  const blocks = job.queue.config.MODE.field('BLOCK_ON_FAULT') === 1;
  let allowed = blocks ? known : known & ~FLAG.BLOCK_ON_FAULT;
  if (!inBatch) allowed &= ~FLAG.FENCE;
  // A record cannot be asked for where there is no place for it.
  if (!(flags & FLAG.RECORD_ADDRESS_VALID)) allowed &= ~FLAG.REQUEST_RECORD;
  return flags & ~allowed;
}

function reservedAreZero({ opcode, flags, bytes }: Descriptor): boolean {
  if (bytes.getUint16(38, true) !== 0) return false;
  if (CRC_OPERATIONS.has(opcode)) {
    const unused = flags & FLAG.READ_SEED ? bytes.getUint32(40, true) : bytes.getBigUint64(48, true);
    if (BigInt(unused) !== 0n || bytes.getUint32(44, true) !== 0) return false;
  }
  for (let at = RESERVED_FROM.get(opcode) ?? COMMON_END; at < bytes.byteLength; at++)
    if (bytes.getUint8(at) !== 0) return false;
  return true;
}

function checkOperands({ descriptor, queue }: Job): number {
  const { opcode, size, source, destination } = descriptor;
  if (opcode === OPCODE.NOOP || opcode === OPCODE.DRAIN) return STATUS.NONE;
  const { MAX_TRANSFER, MAX_BATCH } = queue.config.LIMITS.read();
  if (opcode === OPCODE.BATCH) {
    if (size < 2 || size > 2 ** MAX_BATCH) return STATUS.DESCRIPTOR_COUNT;
    return source % 64n === 0n ? STATUS.NONE : STATUS.LIST_ALIGNMENT;
  }
  if (size < 1 || size > 2 ** MAX_TRANSFER) return STATUS.TRANSFER_SIZE;
  if (opcode === OPCODE.DUALCAST) return checkDualcast(descriptor);
  const seedAt = crcSeed(descriptor).address;
  if (CRC_OPERATIONS.has(opcode) && seedAt % 4n !== 0n) return STATUS.ADDRESS_ALIGNMENT;
  return opcode === OPCODE.COPY_CRC && !apart(source, destination, size) ? STATUS.OVERLAP : STATUS.NONE;
}

function apart(one: bigint, other: bigint, size: number): boolean {
  return one + BigInt(size) <= other || other + BigInt(size) <= one;
}

function checkDualcast(descriptor: Descriptor): number {
  const { source, destination, size } = descriptor;
  const second = secondDestination(descriptor);
  if ((destination & PAGE_OFFSET) !== (second & PAGE_OFFSET)) return STATUS.DUALCAST_ALIGNMENT;
  const free =
    apart(source, destination, size) && apart(source, second, size) && apart(destination, second, size);
  return free ? STATUS.NONE : STATUS.OVERLAP;
}
