/** What is wrong with a descriptor, before anything of it is done. */
import { type Descriptor, FLAG, OPCODE, type Outcome, secondDestination, STATUS } from './descriptor';
import type { Job } from './work-queue';

const COMMON =
  FLAG.FENCE |
  FLAG.RECORD_ADDRESS_VALID |
  FLAG.REQUEST_RECORD |
  FLAG.REQUEST_INTERRUPT |
  FLAG.TRAFFIC_CLASSES;
const STORES = COMMON | FLAG.BLOCK_ON_FAULT | FLAG.CACHE_CONTROL | FLAG.STRICT_ORDERING;
const COMPARES = COMMON | FLAG.BLOCK_ON_FAULT | FLAG.CHECK_RESULT;

/** Flags that an operation has. */
const FLAGS = new Map<number, number>([
  [OPCODE.NOOP, COMMON],
  [OPCODE.BATCH, (COMMON | FLAG.BLOCK_ON_FAULT) & ~FLAG.FENCE],
  [OPCODE.DRAIN, COMMON & ~FLAG.FENCE],
  [OPCODE.MEMMOVE, STORES],
  [OPCODE.FILL, STORES],
  [OPCODE.COMPARE, COMPARES],
  [OPCODE.COMPARE_PATTERN, COMPARES],
  [OPCODE.DUALCAST, STORES],
]);

/** Where the bytes begin that must be zero: behind the operation's own. */
const RESERVED_FROM = new Map<number, number>([
  [OPCODE.COMPARE, 41],
  [OPCODE.COMPARE_PATTERN, 41],
  [OPCODE.DUALCAST, 48],
]);
const COMMON_END = 40;
const PAGE_OFFSET = 0xfffn;

/** Undefined: nothing. `allowed`: whether the interrupt vector is this job's to use. */
export function check(job: Job, allowed: boolean): Outcome | undefined {
  const { descriptor } = job;
  const { opcode } = descriptor;
  const inBatch = job.batchIndex !== undefined;
  const known = FLAGS.get(opcode);
  if (known === undefined || (inBatch && (opcode === OPCODE.BATCH || opcode === OPCODE.DRAIN)))
    return { status: STATUS.BAD_OPCODE };
  const invalidFlags = invalid(job, known, inBatch);
  if (invalidFlags !== 0) return { status: STATUS.INVALID_FLAGS, invalidFlags };
  if (!reservedAreZero(descriptor)) return { status: STATUS.RESERVED };
  if (job.has(FLAG.RECORD_ADDRESS_VALID) && descriptor.record % 32n !== 0n)
    return { status: STATUS.RECORD_ALIGNMENT };
  if (job.has(FLAG.REQUEST_INTERRUPT) && !allowed) return { status: STATUS.INTERRUPT_HANDLE };
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

function reservedAreZero({ opcode, bytes }: Descriptor): boolean {
  if (bytes.getUint16(38, true) !== 0) return false;
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
  if (opcode !== OPCODE.DUALCAST) return STATUS.NONE;
  const second = secondDestination(descriptor);
  if ((destination & PAGE_OFFSET) !== (second & PAGE_OFFSET)) return STATUS.DUALCAST_ALIGNMENT;
  const apart = (one: bigint, other: bigint) => one + BigInt(size) <= other || other + BigInt(size) <= one;
  return apart(source, destination) && apart(source, second) && apart(destination, second)
    ? STATUS.NONE
    : STATUS.OVERLAP;
}
