// Random paging structures and what leads to them.
import type { Random } from '../conformance/random';
import * as at from './scene';
import { field, type Entry } from './tables';

/** The few indices tables are filled at, so that random addresses meet them. Large pages then end in data pages. */
const INDICES: readonly (readonly number[])[] = [
  [],
  at.DATA_INDICES,
  [1, 80, 82, 255, 511],
  [0, 1, 255, 256, 511],
  [0, 1, 255, 256, 511],
];
const MOST_TABLES = 12;
const PS = 1n << 7n;

export interface BuilderOptions {
  /** Reserved bits, loops, missing memory, targets that are no data. */
  readonly broken: boolean;
  /** Pages of 2 MiB and 1 GiB. */
  readonly large: boolean;
}

export class Builder {
  readonly words = new Map<number, bigint>();
  readonly levels: number;
  readonly root: number;
  readonly first: boolean;
  /** Tables by level. */
  readonly #tables: number[][] = [[], [], [], [], []];
  #next = at.TABLES;

  constructor(
    readonly random: Random,
    readonly mode: at.Mode,
    readonly options: BuilderOptions,
  ) {
    this.first = mode === 'first-stage';
    this.levels = this.first ? 4 : random.pick([3, 4]);
    this.root = this.#table(this.levels);
    this.#structures();
  }

  #structures(): void {
    const { random, mode, words, root, levels } = this;
    const AW = BigInt(levels - 2);
    const { at: context } = at.contextEntry(mode);
    words.set(at.ROOT, BigInt(at.CONTEXTS) | 1n);
    const did = BigInt(random.below(4) + 1);
    if (mode === 'legacy') {
      words.set(context, BigInt(root) | 1n);
      words.set(context + 8, AW | (did << 8n));
      return;
    }
    words.set(context, BigInt(at.DIRECTORY) | BigInt(random.below(8) << 9) | 1n);
    words.set(at.DIRECTORY, BigInt(at.PASIDS) | 1n);
    words.set(at.PASIDS + 8, did);
    if (this.first) {
      words.set(at.PASIDS, 1n | (2n << 2n) | (1n << 6n));
      words.set(at.PASIDS + 16, BigInt(root));
    } else words.set(at.PASIDS, 1n | (AW << 2n) | (2n << 6n) | BigInt(root));
  }

  /** The domain id the device's entry names. */
  get did(): number {
    if (this.mode !== 'legacy') return field(this.words.get(at.PASIDS + 8)!, 15, 0);
    return field(this.words.get(at.contextEntry('legacy').at + 8)!, 23, 8);
  }

  #table(level: number): number {
    const page = this.#next;
    this.#next += at.PAGE;
    this.#tables[level]!.push(page);
    for (const index of INDICES[level]!) {
      if (!this.random.oneIn(7)) this.words.set(page + 8 * index, this.#entry(level));
    }
    return page;
  }

  #entry(level: number): bigint {
    const { random, options } = this;
    const large = options.large && level > 1 && level <= 3 && random.oneIn(4);
    if (level === 1 || large) return this.leaf(level);
    const entry = this.pointerTo(this.#below(level)) | this.#ignored(random.oneIn(4));
    // A PML4 entry that claims to map a page.
    const wrong = options.broken && level === 4 && random.oneIn(40) ? PS : 0n;
    return this.#corrupt(entry | wrong);
  }

  /** An entry that refers to a table. */
  pointerTo(table: number): bigint {
    return BigInt(table) | this.#permissions();
  }

  /** A table for an entry of `level` to refer to. */
  #below(level: number): number {
    const { random, options } = this;
    const made = this.#tables.flat();
    if (options.broken && random.oneIn(30)) return at.NOWHERE;
    if (options.broken && random.oneIn(20)) return random.pick(made);
    const there = this.#tables[level - 1]!;
    if (there.length > 0 && (made.length >= MOST_TABLES || random.oneIn(3))) return random.pick(there);
    return this.#table(level - 1);
  }

  /** Another table of a level, if there is one. */
  tableOf(level: number): number | undefined {
    const tables = this.#tables[level]!;
    return tables.length > 0 ? this.random.pick(tables) : undefined;
  }

  /** An entry of `level` that maps a page. */
  leaf(level: number): bigint {
    const { random, options } = this;
    const target = BigInt(this.#target(level));
    const entry =
      target | this.#permissions() | (level > 1 ? PS : 0n) | this.#ignored(random.oneIn(4)) | this.#marks();
    if (level > 1 && options.broken && random.oneIn(12)) {
      // A bit of the address below the page's size.
      return entry | (1n << BigInt(12 + random.below(9 * (level - 1))));
    }
    const isInterrupts = target >> 28n === 0xfn || target === 0xc000_0000n;
    // A flipped address bit must not lead into a device of QEMU's.
    return isInterrupts ? entry : this.#corrupt(entry);
  }

  #target(level: number): number {
    const { random, options } = this;
    const page = at.DATA + random.below(at.DATA_BASES) * 0x20_0000;
    if (options.broken) {
      if (random.oneIn(20)) return [0xfee0_0000, 0xfee0_0000, 0xc000_0000][level - 1]!;
      if (level === 1 && random.oneIn(20)) return random.pick(this.#tables.flat());
      if (random.oneIn(20)) return level === 3 ? 0x4000_0000 : random.pick([0x1fe0_0000, 0x8000_0000_0000]);
    }
    if (level === 1) return page + random.pick(at.DATA_INDICES) * at.PAGE;
    return level === 2 ? page : 0;
  }

  #permissions(): bigint {
    const { random } = this;
    if (!this.first) return BigInt(random.oneIn(5) ? random.below(4) : 3);
    return 1n | BigInt(random.oneIn(7) ? random.below(4) << 1 : 6);
  }

  /** A and D. */
  #marks(): bigint {
    if (!this.first) return 0n;
    return this.random.oneIn(3) ? this.random.pick([0x20n, 0x40n, 0x60n]) : 0n;
  }

  /** Bits that hardware does not look at. */
  #ignored(some: boolean): bigint {
    if (!some) return 0n;
    const bits = this.first ? [3n, 4n, 8n, 9n, 52n, 58n, 63n] : [2n, 3n, 6n, 8n, 9n, 10n, 52n, 61n, 63n];
    const accessed = this.first && this.random.oneIn(2) ? 0x20n : 0n;
    return (1n << this.random.pick(bits)) | accessed;
  }

  #corrupt(entry: bigint): bigint {
    if (!this.options.broken || !this.random.oneIn(20)) return entry;
    return entry ^ (1n << BigInt(this.random.below(64)));
  }

  /** An address that meets entries of these tables, most of the time. */
  address(): bigint {
    const { random } = this;
    for (;;) {
      let address = 0n;
      for (let level = 1; level <= this.levels; level++) {
        // What lies below 1 MiB is not all plain RAM in QEMU.
        const any = level <= 2 ? random.below(256) + 256 : random.below(512);
        const index = random.oneIn(30) ? any : random.pick(INDICES[level]!);
        address |= BigInt(index) << BigInt(3 + 9 * level);
      }
      if (this.first) address = BigInt.asUintN(64, BigInt.asIntN(48, address));
      if (this.options.broken && random.oneIn(25)) address ^= 1n << BigInt(38 + random.below(26));
      if (at.isUsable(address)) return address + this.#offset();
    }
  }

  #offset(): bigint {
    if (this.random.oneIn(20)) return 0xffcn;
    return BigInt(this.random.oneIn(20) ? this.random.below(512) * 8 : this.random.pick(at.DATA_OFFSETS));
  }

  /** The entries an address meets, in `words` as they are. */
  path(words: ReadonlyMap<number, bigint>, address: bigint): Entry[] {
    const path: Entry[] = [];
    let table = this.root;
    for (let level = this.levels; level >= 1; level--) {
      const entry = table + 8 * field(address, 11 + 9 * level, 3 + 9 * level);
      const value = words.get(entry) ?? 0n;
      const leaf = level === 1 || (level <= 3 && field(value, 7, 7) === 1);
      path.push({ at: entry, value, level, leaf });
      if (leaf || value === 0n) break;
      table = field(value, 47, 12) * at.PAGE;
    }
    return path;
  }
}
