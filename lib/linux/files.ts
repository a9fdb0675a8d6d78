/** Files through Node's fs, with a system call's results: what was read, or -errno. */
import {
  closeSync,
  constants,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  readSync,
  writeSync,
} from 'node:fs';
import type { KernelFiles } from '../kernel';

/** The files of this system, which take no addon. */
export const linuxFiles: KernelFiles = { open, close, read, readdir, readFile, writeFile, readlink };

function open(path: string, flags: number): number {
  return orErrno(() => openSync(path, flags));
}

function close(fd: number): number {
  return orErrno(() => (closeSync(fd), 0));
}

function read(fd: number, bytes: Uint8Array): number {
  return orErrno(() => readSync(fd, bytes));
}

/** One write(2) to a file that exists. */
export function writeFile(path: string, text: string): number {
  return orErrno(() => {
    const fd = openSync(path, constants.O_WRONLY);
    try {
      return writeSync(fd, text);
    } finally {
      closeSync(fd);
    }
  });
}

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
