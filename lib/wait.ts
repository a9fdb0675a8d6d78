/** Waiting with an end: a timeout, an AbortSignal. */
import { refusal } from './errors';

/** How long to wait for an event. */
export interface WaitOptions {
  /** Ends the wait: the promise rejects with the signal's reason, an AbortError unless it was given another. */
  readonly signal?: AbortSignal | undefined;
  /** Milliseconds to wait at most, below 2^31; then the promise rejects with IommuError ETIMEDOUT. */
  readonly timeout?: number | undefined;
}

/** Longest delay a Node timer takes. */
const LONGEST_TIMEOUT = 2 ** 31 - 1;

/** Throws TypeError or RangeError. */
export function checkMilliseconds(what: string, value: unknown): void {
  if (value === undefined) return;
  if (typeof value !== 'number') throw new TypeError(`${what} must be a number, not ${typeof value}`);
  if (!(value >= 0 && value <= LONGEST_TIMEOUT))
    throw new RangeError(`${what} ${value} is outside 0 to ${LONGEST_TIMEOUT} milliseconds`);
}

/**
 * Runs `start`, which settles the promise by the functions that it gets and returns what undoes it; that runs before anybody
 * hears of the end. The timeout ends the wait with IommuError ETIMEDOUT, `late` telling what did not happen; the signal with
 * its reason.
 */
export function limited<T>(
  { signal, timeout }: WaitOptions,
  late: () => string,
  start: (resolve: (value: T) => void, reject: (error: unknown) => void) => () => void,
): Promise<T> {
  return new Promise<T>((resolve, reject) => {
    checkMilliseconds('timeout', timeout);
    signal?.throwIfAborted();
    let undo = () => {};
    let timer: NodeJS.Timeout | undefined;
    let over = false;
    const end = (settle: () => void) => {
      if (over) return;
      over = true;
      clearTimeout(timer);
      signal?.removeEventListener('abort', abort);
      undo();
      settle();
    };
    const fail = (error: unknown) => end(() => reject(error));
    const abort = () => fail(signal?.reason);
    const expire = () => fail(refusal('ETIMEDOUT', late(), { syscall: 'poll' }));
    signal?.addEventListener('abort', abort);
    // The event loop runs timers before it looks at descriptors, and immediates after: what is there goes first.
    if (timeout !== undefined) timer = setTimeout(() => setImmediate(expire), timeout);
    try {
      undo = start((value) => end(() => resolve(value)), fail);
    } catch (error) {
      fail(error);
    }
    // It was over before there was anything to undo.
    if (over) undo();
  });
}

/** How to poll. */
export interface PollOptions extends WaitOptions {
  /** Milliseconds from one look to the next. Default: as fast as the event loop turns for some turns, then 1. */
  readonly interval?: number | undefined;
}

/** Looks that are made one turn of the event loop after the other: what is quick is noticed at once. */
const QUICK_LOOKS = 64;

/** Looks until `look` gives something. It looks once more when the time is over. Rejects as `limited` does. */
export async function poll<T>(
  look: () => T | undefined,
  { signal, timeout, interval }: PollOptions,
  late: () => string,
): Promise<T> {
  checkMilliseconds('interval', interval);
  checkMilliseconds('timeout', timeout);
  return limited({ signal }, late, (resolve, reject) => {
    let over = timeout === 0;
    // The last look is made at once, however long the pause is.
    const expire = () => {
      over = true;
      clearTimeout(next);
      clearImmediate(soon);
      again();
    };
    const limit = timeout ? setTimeout(expire, timeout) : undefined;
    let next: NodeJS.Timeout | undefined;
    let soon: NodeJS.Immediate | undefined;
    let looks = 0;
    const again = () => {
      const last = over;
      try {
        const found = look();
        if (found !== undefined) return resolve(found);
        if (last) throw refusal('ETIMEDOUT', late(), { syscall: 'poll' });
      } catch (error) {
        return reject(error);
      }
      if (interval === undefined && looks++ < QUICK_LOOKS) soon = setImmediate(again);
      else next = setTimeout(again, interval ?? 1);
    };
    again();
    return () => {
      clearTimeout(limit);
      clearTimeout(next);
      clearImmediate(soon);
    };
  });
}
