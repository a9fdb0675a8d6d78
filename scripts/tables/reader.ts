/**
 * A second reader of the tables, plain and slow: which pages they are in, which entries are present. It
 * shares nothing with the model (lib/sim/vtd), which is held against it. VT-d specification rev. 4.1, section 9.
 */

/** The 512 entries of 64 bits in the page at a physical address. */
export type ReadPage = (address: bigint) => BigUint64Array;

const ADDRESS = 0x000f_ffff_ffff_f000n;
const CONTEXT_ENTRIES = 128;
const LEGACY_CONTEXT_ENTRIES = 256;
const PASIDS_PER_TABLE = 64;
/** Of 64-bit words. */
const CONTEXT_WORDS = 4;
const LEGACY_CONTEXT_WORDS = 2;
const PASID_WORDS = 8;

const FIRST_STAGE = 1;
const SECOND_STAGE = 2;
const LARGE = 1n << 7n;
/** TT of a legacy context entry. */
const PASS_THROUGH = 2;
/** PASID of a legacy context entry: it has none. */
export const NO_PASID = -1;
const NO_ENTRY = [0n, 0n, 0n];

/** A present PASID table entry, and the entries that lead to it; in legacy mode a context entry. */
export interface Slot {
  readonly rid: number;
  /** NO_PASID in legacy mode. */
  readonly pasid: number;
  /** Both 64-bit halves, the low one first. */
  readonly root: readonly [bigint, bigint];
  /** The first two words. */
  readonly context: readonly [bigint, bigint];
  /** Zeros in legacy mode. */
  readonly entry: readonly bigint[];
}

/** The page table of a slot. */
export interface Table {
  readonly address: bigint;
  readonly levels: number;
  /** Bits of which a present entry has one at least: P of the first stage, R and W of the second. */
  readonly present: bigint;
}

/** An entry of a page table, on any level, present or not. */
export interface Entry {
  /** First IOVA that it stands for. */
  readonly iova: bigint;
  /** 1 is the last. */
  readonly level: number;
  /** Entries from the top to this one, by level; 0 for the levels below and those the table lacks. */
  readonly path: readonly bigint[];
  /** 'table': leads to another; 'page': maps one; 'none': maps nothing. */
  readonly kind: 'table' | 'page' | 'none';
}

/** Every present slot below the root table that RTADDR_REG names, by requester and PASID. */
export function* slots(read: ReadPage, rtaddr: bigint): Generator<Slot> {
  const mode = Number((rtaddr >> 10n) & 3n);
  if (mode > 1) throw new RangeError(`RTADDR_REG.TTM is ${mode}: nothing is translated`);
  yield* mode === 0 ? legacySlots(read, rtaddr & ADDRESS) : scalableSlots(read, rtaddr & ADDRESS);
}

function* legacySlots(read: ReadPage, rootTable: bigint): Generator<Slot> {
  const roots = read(rootTable);
  for (let bus = 0; bus < 256; bus++) {
    const root = [roots[2 * bus], roots[2 * bus + 1]] as const;
    if (!(root[0] & 1n)) continue;
    const contexts = read(root[0] & ADDRESS);
    for (let i = 0; i < LEGACY_CONTEXT_ENTRIES; i++) {
      const at = i * LEGACY_CONTEXT_WORDS;
      const context = [contexts[at], contexts[at + 1]] as const;
      if (context[0] & 1n) yield { rid: (bus << 8) | i, pasid: NO_PASID, root, context, entry: NO_ENTRY };
    }
  }
}

function* scalableSlots(read: ReadPage, rootTable: bigint): Generator<Slot> {
  const roots = read(rootTable);
  for (let bus = 0; bus < 256; bus++) {
    for (const half of [0, 1]) {
      const pointer = roots[2 * bus + half];
      if (!(pointer & 1n)) continue;
      const contexts = read(pointer & ADDRESS);
      for (let i = 0; i < CONTEXT_ENTRIES; i++) {
        const context = contexts.subarray(i * CONTEXT_WORDS, (i + 1) * CONTEXT_WORDS);
        if (!(context[0] & 1n)) continue;
        const above = {
          rid: (bus << 8) | (half << 7) | i,
          root: [roots[2 * bus], roots[2 * bus + 1]] as const,
          context: [context[0], context[1]] as const,
        };
        for (const [pasid, entry] of pasids(read, context[0])) yield { ...above, pasid, entry };
      }
    }
  }
}

function* pasids(read: ReadPage, context: bigint): Generator<[number, bigint[]]> {
  const directory = context & ADDRESS;
  const size = 2 ** (Number((context >> 9n) & 7n) + 7);
  for (let i = 0; i < size; i++) {
    const pointer = read(directory + BigInt((i >> 9) * 4096))[i % 512];
    if (!(pointer & 1n)) continue;
    const table = read(pointer & ADDRESS);
    for (let j = 0; j < PASIDS_PER_TABLE; j++) {
      const entry = [...table.subarray(j * PASID_WORDS, (j + 1) * PASID_WORDS)];
      if (entry[0] & 1n) yield [i * PASIDS_PER_TABLE + j, entry];
    }
  }
}

/** The table that a slot translates through; undefined where it has none (pass-through). RangeError if it has two. */
export function tableOf({ pasid, context, entry }: Slot): Table | undefined {
  if (pasid === NO_PASID) {
    const levels = 2 + Number(context[1] & 7n);
    const passes = Number((context[0] >> 2n) & 3n) === PASS_THROUGH;
    return passes ? undefined : { address: context[0] & ADDRESS, levels, present: 3n };
  }
  const type = Number((entry[0] >> 6n) & 7n);
  if (type === FIRST_STAGE)
    return { address: entry[2] & ADDRESS, levels: 4 + Number((entry[2] >> 2n) & 3n), present: 1n };
  if (type === SECOND_STAGE)
    return { address: entry[0] & ADDRESS, levels: 2 + Number((entry[0] >> 2n) & 7n), present: 3n };
  if (type === 4) return undefined;
  throw new RangeError(`a PASID entry of type ${type} is not something this can read`);
}

/** Every entry of every page that a table reaches, in the order of IOVAs. */
export function* entries(read: ReadPage, table: Table): Generator<Entry> {
  yield* level(read, table, table.levels, table.address, 0n, [0n, 0n, 0n, 0n, 0n, 0n]);
}

function* level(
  read: ReadPage,
  table: Table,
  depth: number,
  address: bigint,
  base: bigint,
  above: readonly bigint[],
): Generator<Entry> {
  const page = read(address);
  for (let i = 0; i < 512; i++) {
    const iova = base + BigInt(i) * spanOf(depth);
    const path = above.with(depth, page[i]);
    const present = (page[i] & table.present) !== 0n;
    const leaf = depth === 1 || (page[i] & LARGE) !== 0n;
    yield { iova, level: depth, path, kind: !present ? 'none' : leaf ? 'page' : 'table' };
    if (present && !leaf) yield* level(read, table, depth - 1, page[i] & ADDRESS, iova, path);
  }
}

/** Bytes that an entry of a level stands for. */
export function spanOf(depth: number): bigint {
  return 1n << BigInt(3 + 9 * depth);
}
