/** One iommufd ioctl on its way through the kernel: the extensible struct in, fields out. */
import { errno } from '../../../uapi/errno';
import type { Input, Ioctl, Struct, Values } from '../../../uapi/layout';
import type { SimulatedProcess } from '../process';
import type { UserData } from '../iommu/core';
import type { UserMemory } from '../user-memory';
import type { IommufdFile } from './file';

type FieldsOf<S> = S extends Struct<infer F> ? F : never;

export interface Command<S extends Struct = Struct> {
  readonly file: IommufdFile;
  /** Memory of the calling process, for pointers in the struct. */
  readonly memory: UserMemory;
  readonly values: Values<FieldsOf<S>>;
  /** Writes the struct back with these fields changed, as far as the caller's `size` reaches. Returns 0. */
  respond(fields: Input<FieldsOf<S>>): number;
  /** The calling process. */
  readonly process: SimulatedProcess;
}

/** A row of the dispatch table. */
export interface Handler {
  readonly row: Ioctl;
  run(command: Command): number;
}

/** Ties a function to its ioctl. */
export function handler<S extends Struct>(row: Ioctl<S>, run: (command: Command<S>) => number): Handler {
  return { row: row as unknown as Ioctl, run: run as unknown as Handler['run'] };
}

/** A struct for a driver: `length` bytes at `address`. */
export function userData(memory: UserMemory, type: number, length: number, address: bigint): UserData {
  return {
    type,
    length,
    read: () => memory.read(address, length),
    write: (bytes) => memory.write(address, bytes.subarray(0, length)),
  };
}

/**
 * copy_struct_from_user: the caller's struct of `size` bytes in the form this kernel knows. A shorter one is
 * filled up with zeros; a longer one must be zero where the kernel knows nothing (E2BIG).
 */
export function copyStruct(
  argument: Uint8Array,
  size: number,
  known: number,
): Uint8Array<ArrayBuffer> | number {
  // The tail is looked at first, up to where memory ends.
  const present = Math.min(size, argument.length);
  for (let i = known; i < present; i++) if (argument[i]) return -errno.E2BIG;
  if (present < size) return -errno.EFAULT;
  const copy = new Uint8Array(known);
  copy.set(argument.subarray(0, Math.min(size, known)));
  return copy;
}
