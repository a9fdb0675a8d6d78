/** What a system call's arguments must be: anything else is misuse, and throws before anything happens. */

const INT32_MAX = 2 ** 31 - 1;

/** Throws TypeError or RangeError unless `value` is an integer from `least` to `most`. */
export function checkInteger(value: number, name: string, least: number, most: number): void {
  if (typeof value !== 'number') throw new TypeError(`${name} must be an integer, not ${typeof value}`);
  if (!Number.isInteger(value) || value < least || value > most)
    throw new RangeError(`${name} must be an integer from ${least} to ${most}`);
}

/** A file descriptor, or flags: any 32-bit integer. */
export function checkInt32(value: number, name: string): void {
  checkInteger(value, name, -INT32_MAX - 1, INT32_MAX);
}

/** A request number, or another 32-bit quantity. */
export function checkUint32(value: number, name: string): void {
  checkInteger(value, name, 0, 2 ** 32 - 1);
}

/** An offset or a length in bytes. */
export function checkSize(value: number, name: string): void {
  checkInteger(value, name, 0, Number.MAX_SAFE_INTEGER);
}

/** An access of `width` bytes to a mapping of `length` bytes. */
export function checkAccess(offset: number, width: number, length: number): void {
  if (!Number.isInteger(offset) || offset < 0 || offset % width || offset + width > length)
    throw new RangeError(`no aligned ${width}-byte access at ${offset} of a ${length}-byte mapping`);
}

/** poll(2)'s bits. */
export function checkEvents(value: number): void {
  checkInteger(value, 'events', 0, 2 ** 15 - 1);
}

export function checkBytes(value: Uint8Array, name = 'bytes'): void {
  if (!(value instanceof Uint8Array)) throw new TypeError(`${name} must be a Uint8Array`);
}

export function checkPath(value: string): void {
  if (typeof value !== 'string' || value.includes('\0'))
    throw new TypeError('path must be a string without null characters');
}
