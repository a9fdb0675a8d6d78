/**
 * Operations whose results are checked. DMA may go wrong in ways that the device does not tell of: a bit that flips on the
 * way, in data or in a completion record. What was moved or filled is compared afterwards, by the device; what is computed is
 * computed again. Descriptors are no such danger here: they reach the device by the processor's writes, not by its reads.
 */
import { OPCODE, type Operation, operations, overlaps } from './descriptor';
import { DsaError } from './errors';

/** How often an operation or a check is tried. */
const TRIES = 4;

/** Does an operation once, whole. */
export type Run = (operation: Operation) => Promise<number | undefined>;

/** Does an operation until its result is right. Rejects with DsaError: EBADMSG if it never is, what `run` says if that is so. */
export async function verified(name: string, operation: Operation, run: Run): Promise<number | undefined> {
  const { opcode, source, destination, size } = operation;
  const wrong = (what: string) => new DsaError('EBADMSG', `${name}: ${what}`);
  switch (opcode) {
    case OPCODE.MOVE:
      if (overlaps(operation)) return moveOverlapping(operation, run, wrong);
      return untilEqual(operation, run, operations.compare(source, destination, size), () =>
        wrong(`a copy differs from its source, ${TRIES} times`),
      );
    case OPCODE.FILL:
      return untilEqual(operation, run, operations.comparePattern(destination, size, source), () =>
        wrong(`memory is not what it was filled with, ${TRIES} times`),
      );
    case OPCODE.COMPARE:
    case OPCODE.COMPARE_PATTERN:
    case OPCODE.CRC:
      return twice(operation, run, () => wrong(`no two results are the same of ${TRIES}`));
    default:
      return run(operation);
  }
}

/** Does an operation again until a comparison says that it is right. */
async function untilEqual(operation: Operation, run: Run, comparison: Operation, wrong: () => DsaError) {
  let last: DsaError | undefined;
  for (let tries = 0; tries < TRIES; tries++) {
    try {
      await run(operation);
      if ((await run(comparison)) === undefined) return undefined;
      last = wrong();
    } catch (error) {
      last = passing(error);
    }
  }
  throw last ?? wrong();
}

/** The first result that comes twice in a row. */
async function twice(operation: Operation, run: Run, wrong: () => DsaError): Promise<number | undefined> {
  const results: (number | undefined)[] = [];
  let last: DsaError | undefined;
  for (let tries = 0; tries < TRIES; tries++) {
    try {
      results.push(await run(operation));
      if (results.length > 1 && results.at(-1) === results.at(-2)) return results.at(-1);
    } catch (error) {
      last = passing(error);
    }
  }
  throw last ?? wrong();
}

/** The source is gone afterwards: its CRC is taken before. What went wrong cannot be done again. */
async function moveOverlapping(
  operation: Operation,
  run: Run,
  wrong: (what: string) => DsaError,
): Promise<undefined> {
  const { source, destination, size } = operation;
  const unsure = () => wrong(`no two results are the same of ${TRIES}`);
  const expected = await twice(operations.crc(source, size), run, unsure);
  await run(operation);
  // One that is not as expected may be wrong itself.
  if ((await twice(operations.crc(destination, size), run, unsure)) === expected) return;
  throw wrong('a copy differs from its source, which it has overwritten');
}

/** An error that may not come again; throws others. */
function passing(error: unknown): DsaError {
  if (error instanceof DsaError && (error.code === 'EIO' || error.code === 'EBADMSG')) return error;
  throw error;
}
