/** Files through Node's fs, with a system call's results: what was read, or -errno. */
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';

export function readdir(path: string): string[] | number {
  return orErrno(() => readdirSync(path).sort());
}

export function readFile(path: string): string | number {
  return orErrno(() => readFileSync(path, 'utf8'));
}

export function readlink(path: string): string | number {
  return orErrno(() => readlinkSync(path));
}

function orErrno<T>(call: () => T): T | number {
  try {
    return call();
  } catch (error) {
    // libuv's errno of a failed system call is -errno on Linux. What has none is misuse, and goes on as it came.
    if (isSystemError(error)) return error.errno;
    throw error;
  }
}

// By form, not by class: under a test runner, Node's errors come from another realm.
function isSystemError(error: unknown): error is { errno: number } {
  return typeof error === 'object' && error !== null && 'errno' in error && typeof error.errno === 'number';
}
