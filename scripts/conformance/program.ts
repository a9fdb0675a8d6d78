/**
 * Call sequences as data. A sequence names what earlier calls gave by the label of the call, so that calls can be
 * taken out and values changed without the rest losing its meaning, and it can be sent to another kernel as JSON.
 */

/** An integer: a number up to 2^53, or any 64-bit value as hexadecimal text ('0x…'). */
export type Literal = number | string;

/** A file descriptor: that of the call with this label, or one that every sequence has. */
export type FdRef = number | 'memfd' | 'none';

/** What goes into a field. What refers to a call that failed, or is not there, is 0; a descriptor is -1. */
export type Value =
  | Literal
  /** A field as call `of` returned it, plus `plus`. */
  | { readonly of: number; readonly field: string; readonly plus?: Literal }
  | { readonly fd: FdRef }
  /** An address: `offset` bytes into the memory for mappings ('data'), that for pointers ('scratch'), or the memfd's. */
  | { readonly at: 'data' | 'scratch' | 'memfd'; readonly offset: number };

/** Integers of `width` bytes, one after another, from `offset` on. */
export interface Words {
  readonly offset: number;
  readonly width: 1 | 2 | 4 | 8;
  readonly values: readonly Value[];
}

export type Fields = Readonly<Record<string, Value>>;

export interface IoctlCall {
  readonly op: 'ioctl';
  readonly fd: FdRef;
  /** Name of a row of lib/uapi, or a request number. */
  readonly request: string | number;
  /** By name, nested ones as `dirty.iova`. `size` and `argsz` are the struct's size unless given; all else 0. */
  readonly fields: Fields;
  /** More bytes of the argument, from its first byte on: what follows the struct. */
  readonly extra?: Words;
  /** Written to the scratch memory before the call. */
  readonly scratch?: readonly Words[];
  /** The argument itself, in place of the address of the struct. */
  readonly argument?: Literal;
}

export type Call = { readonly label: number } & (
  | IoctlCall
  | { readonly op: 'open'; readonly path: string }
  | { readonly op: 'close'; readonly fd: FdRef }
  | { readonly op: 'read'; readonly fd: FdRef; readonly length: number }
  | { readonly op: 'write'; readonly fd: FdRef; readonly length: number; readonly bytes: Words }
  | { readonly op: 'pread'; readonly fd: FdRef; readonly length: number; readonly offset: number }
  | {
      readonly op: 'pwrite';
      readonly fd: FdRef;
      readonly length: number;
      readonly offset: number;
      readonly bytes: Words;
    }
  | { readonly op: 'poll'; readonly fd: FdRef; readonly events: number }
  | { readonly op: 'eventfd'; readonly initial: number }
  /** A size that /proc/self/status shows; the result is in pages. */
  | { readonly op: 'status'; readonly line: 'VmLck' | 'VmPin' }
  | {
      readonly op: 'mmap';
      readonly fd: FdRef;
      readonly offset: number;
      readonly length: number;
      /** It stays until its `munmap`, or the end of the sequence; otherwise it goes at once. */
      readonly keep?: true;
    }
  | { readonly op: 'munmap'; readonly mapping: number }
);

/** One sequence: it starts with nothing open, and whatever it leaves open is closed after it. */
export interface Sequence {
  readonly name: string;
  readonly calls: readonly Call[];
}

/** Bytes that a call changed: of the argument struct, the scratch memory, or the buffer of a read. */
export interface Change {
  readonly area: 'argument' | 'scratch' | 'buffer';
  readonly offset: number;
  /** Hexadecimal. */
  readonly bytes: string;
}

/** What one call did. */
export interface CallRecord {
  /** 0 or more, or -errno; `REFUSED` where the executor did not make the call. */
  readonly result: number;
  readonly changes: readonly Change[];
}

/** The result of a call that would make a real kernel write outside the memory that is there for it. */
export const REFUSED = -4096;

/** What a call is counted as: the name of the ioctl, or of the system call. */
export function nameOf(call: Call): string {
  if (call.op !== 'ioctl') return call.op;
  return typeof call.request === 'string' ? call.request : 'unknown';
}
