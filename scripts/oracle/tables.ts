// The entries that translating an address meets, read the plainest way: no check, no permission. It is what as-qemu.ts
// looks at, and what a report prints.
import type { PhysicalMemory } from '../../lib/sim/memory';
import { contextEntry, pageOf, type Mode } from './scene';

export interface Entry {
  /** Physical address. */
  readonly at: number;
  readonly value: bigint;
  readonly level: number;
  readonly leaf: boolean;
}

/** What the device's context or PASID entry selects. */
export interface Stage {
  readonly kind: 'first' | 'second' | 'pass-through' | 'none';
  readonly root: number;
  readonly levels: number;
  /** Bits of the AW field's width. */
  readonly width: number;
  /** The entry that says so, or undefined where something above it is missing. */
  readonly entry: bigint | undefined;
}

const bytes = new Uint8Array(8);
const view = new DataView(bytes.buffer);

/** The 64-bit word at an address, or undefined where there is no memory. */
export function readWord(memory: PhysicalMemory, at: number): bigint | undefined {
  return memory.copyOut(at, bytes, 0, 8) ? view.getBigUint64(0, true) : undefined;
}

export function writeWord(memory: PhysicalMemory, at: number, value: bigint): void {
  memory.write64(at, Number(value >> 32n), Number(value & 0xffff_ffffn));
}

/** Bits 51:12 of an entry. */
export function pointer(value: bigint): number {
  return Number(value & 0xf_ffff_ffff_f000n);
}

export const field = (value: bigint, high: number, low: number): number =>
  Number((value >> BigInt(low)) & ((1n << BigInt(high - low + 1)) - 1n));

const NO_STAGE: Stage = { kind: 'none', root: 0, levels: 0, width: 0, entry: undefined };

/** The context entry's words, as far as the root entry leads to one. */
export function contextWords(memory: PhysicalMemory, mode: Mode, root: number): (bigint | undefined)[] {
  const entry = readWord(memory, pageOf(root));
  if (entry === undefined) return [];
  const at = pointer(entry) + (contextEntry(mode).at % 4096);
  return [readWord(memory, at), readWord(memory, at + 8)];
}

export function stageOf(memory: PhysicalMemory, mode: Mode, root: number): Stage {
  const [low, high] = contextWords(memory, mode, root);
  if (low === undefined || high === undefined) return NO_STAGE;
  if (mode === 'legacy') {
    const AW = field(high, 2, 0);
    const kind = field(low, 3, 2) === 2 ? 'pass-through' : 'second';
    return { kind, root: pointer(low), levels: AW + 2, width: 30 + 9 * AW, entry: low };
  }
  const directory = readWord(memory, pointer(low));
  if (directory === undefined) return NO_STAGE;
  const first = readWord(memory, pointer(directory));
  const third = readWord(memory, pointer(directory) + 16);
  if (first === undefined || third === undefined) return NO_STAGE;
  const AW = field(first, 4, 2);
  const width = 30 + 9 * AW;
  switch (field(first, 8, 6)) {
    case 1:
      return { kind: 'first', root: pointer(third), levels: 4, width, entry: first };
    case 2:
      return { kind: 'second', root: pointer(first), levels: AW + 2, width, entry: first };
    case 4:
      return { kind: 'pass-through', root: 0, levels: 0, width, entry: first };
    default:
      return { kind: 'none', root: 0, levels: 0, width, entry: first };
  }
}

/** Down to a leaf, or to where there is no memory. */
export function pathOf(memory: PhysicalMemory, stage: Stage, address: bigint): Entry[] {
  const path: Entry[] = [];
  let table = stage.root;
  for (let level = stage.levels; level >= 1; level--) {
    const at = table + 8 * field(address, 11 + 9 * level, 3 + 9 * level);
    const value = readWord(memory, at);
    if (value === undefined) break;
    const leaf = level === 1 || (level <= 3 && field(value, 7, 7) === 1);
    path.push({ at, value, level, leaf });
    if (leaf) break;
    table = pointer(value);
  }
  return path;
}

/** Whether a path ends at the host address of `address`: one that does not is not what was used, but a cached entry. */
export function leadsTo(path: readonly Entry[], address: bigint, host: number): boolean {
  const leaf = path.at(-1);
  if (leaf === undefined || !leaf.leaf || path.some(({ value }) => value === 0n)) return false;
  const size = 2 ** (3 + 9 * leaf.level);
  const page = pointer(leaf.value) - (pointer(leaf.value) % size);
  return host === page + Number(address % BigInt(size));
}

/** The other half of the device's scalable root entry. */
export function otherRootHalf(memory: PhysicalMemory, root: number): bigint {
  return readWord(memory, pageOf(root) + 8) ?? 0n;
}

/** Whether an entry has a reserved bit set, on a unit like QEMU's (48 bits, no device-TLB). */
export function hasReserved(kind: 'first' | 'second', entry: Entry, snoopAllowed: boolean): boolean {
  const { value, level, leaf } = entry;
  if (field(value, 51, 48) !== 0 || (!leaf && field(value, 7, 7) !== 0)) return true;
  const lowest = kind === 'first' ? 13 : 12;
  if (leaf && level > 1 && field(value, 2 + 9 * level, lowest) !== 0) return true;
  if (kind === 'first') return false;
  return field(value, 62, 62) !== 0 || (field(value, 11, 11) !== 0 && !(leaf && snoopAllowed));
}
