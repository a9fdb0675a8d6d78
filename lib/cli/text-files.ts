/** Small readers of text files: what cannot be read is undefined, or nothing. */
import { posix } from 'node:path';
import type { KernelFiles } from '../kernel';

export function readText(files: KernelFiles, path: string): string | undefined {
  const text = files.readFile(path);
  return typeof text === 'number' ? undefined : text;
}

/** One line of text, without what some drivers end it with. */
export function readWord(files: KernelFiles, path: string): string | undefined {
  return readText(files, path)?.replaceAll('\0', '').trim();
}

/** The words of each line, without the first `skip` lines. */
export function readTable(files: KernelFiles, path: string, skip = 0): string[][] {
  const lines = (readText(files, path) ?? '').split('\n').filter((line) => line.trim() !== '');
  return lines.slice(skip).map((line) => line.trim().split(/\s+/));
}

export function list(files: KernelFiles, path: string): string[] {
  const names = files.readdir(path);
  return typeof names === 'number' ? [] : names;
}

/** Where a link leads, as an absolute path; links on the way there are not followed. */
export function linkedPath(files: KernelFiles, path: string): string | undefined {
  const target = files.readlink(path);
  return typeof target === 'number' ? undefined : posix.resolve(posix.dirname(path), target);
}
