/** What descriptors do to memory, page by page, and how far they got where a page was missing. */
import { PAGE_SIZE } from '../atc';
import { DmaError, type DeviceDma } from '../device-dma';
import type { Process } from '../process';
import { crc32c } from './crc';
import {
  crcSeed,
  expectedResult,
  FLAG,
  OPCODE,
  type Outcome,
  secondDestination,
  STATUS,
  SUCCESS,
} from './descriptor';
import type { Job } from './work-queue';

const PAGE = BigInt(PAGE_SIZE);

/** Runs an operation on memory. Throws what is no DmaError. */
export function* operate(dma: DeviceDma, job: Job): Process<Outcome> {
  const { opcode } = job.descriptor;
  switch (opcode) {
    case OPCODE.MEMMOVE:
      return yield* move(dma, job);
    case OPCODE.FILL:
      return yield* fill(dma, job);
    case OPCODE.COMPARE:
    case OPCODE.COMPARE_PATTERN:
      return yield* compare(dma, job);
    case OPCODE.DUALCAST:
      return yield* dualcast(dma, job);
    case OPCODE.CRC:
    case OPCODE.COPY_CRC:
      return yield* crc(dma, job);
    default:
      return SUCCESS;
  }
}

/** The outcome of an access that failed, after `completed` bytes. */
export function failed(error: unknown, completed: number, result = 0): Outcome {
  if (!(error instanceof DmaError)) throw error;
  const { address: faultAddress, write } = error;
  switch (error.reason) {
    case 'no-access':
      return { status: STATUS.PAGE_FAULT, completed, result, faultAddress, write };
    case 'page-invalid':
    case 'page-failure':
      return { status: STATUS.PAGE_FAULT_REFUSED, completed, result, faultAddress, write };
    case 'translation':
    case 'page-request':
      return { status: STATUS.TRANSLATION, completed, result, faultAddress, write };
    case 'refused':
      return { status: STATUS.HARDWARE, completed, result, faultAddress, write };
  }
}

/** Bytes from an address to the end of its page. */
export function toPageEnd(address: bigint): number {
  return PAGE_SIZE - Number(address % PAGE);
}

/** Bytes from the start of the page that ends with, or before, an address. */
function fromPageStart(address: bigint): number {
  return Number((address - 1n) % PAGE) + 1;
}

/** Calls `step` for pieces that lie in one page at each of `addresses`, from the start or from the end on. */
function* pieces(
  size: number,
  addresses: readonly bigint[],
  step: (offset: number, length: number) => Process<Outcome | undefined>,
  backwards = false,
): Process<Outcome> {
  for (let done = 0; done < size;) {
    const left = size - done;
    const room = addresses.map((start) =>
      backwards ? fromPageStart(start + BigInt(left)) : toPageEnd(start + BigInt(done)),
    );
    const length = Math.min(left, ...room);
    try {
      const outcome = yield* step(backwards ? left - length : done, length);
      if (outcome) return outcome;
    } catch (error) {
      return failed(error, done, backwards ? 1 : 0);
    }
    done += length;
  }
  return SUCCESS;
}

/** Source and destination may overlap. */
function* move(dma: DeviceDma, { descriptor, access }: Job): Process<Outcome> {
  const { source, destination, size } = descriptor;
  const backwards = destination > source && destination < source + BigInt(size);
  return yield* pieces(
    size,
    [source, destination],
    function* (offset, length) {
      const bytes = yield* dma.read(source + BigInt(offset), length, access);
      yield* dma.write(destination + BigInt(offset), bytes, access);
      return undefined;
    },
    backwards,
  );
}

/** 8 bytes again and again, from `offset` on. */
function repeat(pattern: bigint, offset: number, length: number): Uint8Array {
  const eight = new DataView(new ArrayBuffer(8));
  eight.setBigUint64(0, pattern, true);
  return Uint8Array.from({ length }, (_, i) => eight.getUint8((offset + i) % 8));
}

function* fill(dma: DeviceDma, { descriptor, access }: Job): Process<Outcome> {
  const { source: pattern, destination, size } = descriptor;
  return yield* pieces(size, [destination], function* (offset, length) {
    yield* dma.write(destination + BigInt(offset), repeat(pattern, offset, length), access);
    return undefined;
  });
}

function* compare(dma: DeviceDma, job: Job): Process<Outcome> {
  const { opcode, source, destination, size } = job.descriptor;
  const withPattern = opcode === OPCODE.COMPARE_PATTERN;
  const outcome = yield* pieces(
    size,
    withPattern ? [source] : [source, destination],
    function* (offset, length) {
      const one = yield* dma.read(source + BigInt(offset), length, job.access);
      const other = withPattern
        ? repeat(destination, offset, length)
        : yield* dma.read(destination + BigInt(offset), length, job.access);
      const differs = one.findIndex((byte, i) => byte !== other[i]);
      return differs < 0 ? undefined : { ...SUCCESS, result: 1, completed: offset + differs };
    },
  );
  if (outcome.status !== STATUS.SUCCESS || !job.has(FLAG.CHECK_RESULT)) return outcome;
  const expected = expectedResult(job.descriptor) === (outcome.result ?? 0);
  return expected ? outcome : { ...outcome, status: STATUS.FALSE_PREDICATE };
}

function* dualcast(dma: DeviceDma, { descriptor, access }: Job): Process<Outcome> {
  const { source, destination, size } = descriptor;
  const second = secondDestination(descriptor);
  return yield* pieces(size, [source, destination], function* (offset, length) {
    const bytes = yield* dma.read(source + BigInt(offset), length, access);
    yield* dma.write(destination + BigInt(offset), bytes, access);
    yield* dma.write(second + BigInt(offset), bytes, access);
    return undefined;
  });
}

/** With or without a copy. The CRC so far is told of also where a page is missing: it is the seed for what is left. */
function* crc(dma: DeviceDma, job: Job): Process<Outcome> {
  const { descriptor, access } = job;
  const { opcode, source, destination, size } = descriptor;
  const copies = opcode === OPCODE.COPY_CRC;
  const style = {
    plainCrc: job.has(FLAG.BYPASS_CRC_REFLECTION),
    plainData: job.has(FLAG.BYPASS_DATA_REFLECTION),
  };
  const { seed, address } = crcSeed(descriptor);
  let value = seed;
  if (job.has(FLAG.READ_SEED)) {
    try {
      const bytes = yield* dma.read(address, 4, access);
      value = new DataView(bytes.buffer).getUint32(0, true);
    } catch (error) {
      return failed(error, 0);
    }
  }
  const outcome = yield* pieces(size, copies ? [source, destination] : [source], function* (offset, length) {
    const bytes = yield* dma.read(source + BigInt(offset), length, access);
    if (copies) yield* dma.write(destination + BigInt(offset), bytes, access);
    value = crc32c(bytes, value, style);
    return undefined;
  });
  return { ...outcome, crc: value };
}
