/**
 * A second implementation of the translation rules, slow and naive, for comparison: BigInt, one entry at a time, straight
 * from the text of the specification (sections 3.6 to 3.9, 9.8, 9.9, table 26). It shares no code with the model.
 */

export interface Tables {
  readonly kind: 'first' | 'second' | 'nested';
  readonly firstRoot: bigint;
  readonly firstLevels: 4 | 5;
  readonly secondRoot: bigint;
  readonly secondLevels: 3 | 4 | 5;
  readonly secondMarks: boolean;
  readonly extendedAccess: boolean;
  readonly writeProtect: boolean;
  readonly supervisorAllowed: boolean;
  readonly executeAllowed: boolean;
  readonly noExecute: boolean;
  readonly hostWidth: number;
  readonly guestWidth: number;
}

export interface Request {
  readonly address: bigint;
  readonly write: boolean;
  readonly execute: boolean;
  readonly privileged: boolean;
}

export interface Outcome {
  /** Host address, or undefined if there was a fault. */
  address?: bigint;
  fault?: number;
}

class Fault extends Error {
  constructor(readonly reason: number) {
    super(`fault 0x${reason.toString(16)}`);
  }
}

interface Visited {
  readonly at: bigint;
  readonly value: bigint;
  /** Guest address the entry was fetched from (nested). */
  readonly guest: bigint;
}

interface Found {
  readonly address: bigint;
  readonly path: Visited[];
  readonly leaf: Visited;
  readonly all: bigint;
  readonly any: bigint;
}

const bit = (value: bigint, n: number): boolean => ((value >> BigInt(n)) & 1n) === 1n;
const bits = (value: bigint, high: number, low: number): bigint =>
  (value >> BigInt(low)) & ((1n << BigInt(high - low + 1)) - 1n);

export class Reference {
  /** 64-bit words the request changed. */
  readonly changes = new Map<bigint, bigint>();

  /** `read`: the 64-bit word at an address, undefined where there is no memory. */
  constructor(
    private readonly tables: Tables,
    private readonly readMemory: (address: bigint) => bigint | undefined,
  ) {}

  translate(request: Request): Outcome {
    try {
      return { address: this.attempt(request) };
    } catch (error) {
      if (!(error instanceof Fault)) throw error;
      // What a nested walk marked on its way stays: those second-stage walks did succeed.
      return { fault: error.reason };
    }
  }

  private attempt(request: Request): bigint {
    const { tables } = this;
    if (tables.kind !== 'second') {
      if (request.execute && !tables.executeAllowed) throw new Fault(0x5c);
      if (request.privileged && !tables.supervisorAllowed) throw new Fault(0x5d);
    }
    if (tables.kind === 'second') {
      const found = this.second(request.address);
      this.requireSecond(found, request.write);
      this.forbidInterrupts(found.address);
      this.markSecond(found, request.write);
      return found.address;
    }
    const first = this.first(request.address);
    this.requireFirst(first, request);
    if (tables.kind === 'first') {
      this.forbidInterrupts(first.address);
      this.markFirst(first, request.write);
      return first.address;
    }
    if (first.address >> BigInt(this.inputWidth()) !== 0n) throw new Fault(0x74);
    this.requireWritableTables(first, request.write);
    const second = this.second(first.address);
    this.requireSecond(second, request.write);
    this.forbidInterrupts(second.address);
    this.markSecond(second, request.write);
    this.markFirst(first, request.write);
    return second.address;
  }

  private read(address: bigint): bigint | undefined {
    return this.changes.get(address) ?? this.readMemory(address);
  }

  private forbidInterrupts(address: bigint): void {
    if (address >= 0xfee0_0000n && address <= 0xfeef_ffffn) throw new Fault(0x87);
  }

  private inputWidth(): number {
    return Math.min(this.tables.guestWidth, { 3: 39, 4: 48, 5: 57 }[this.tables.secondLevels]);
  }

  private second(address: bigint): Found {
    const { secondLevels, secondRoot, hostWidth } = this.tables;
    if (address >= 1n << BigInt(this.inputWidth())) throw new Fault(0x84);
    const path: Visited[] = [];
    let table = secondRoot;
    let all = 3n;
    for (let level: number = secondLevels; level >= 1; level--) {
      const at = table + 8n * bits(address, 12 + 9 * level - 1, 12 + 9 * (level - 1));
      const value = this.read(at);
      if (value === undefined) throw new Fault(level === secondLevels ? 0x7b : 0x78);
      if (bits(value, 1, 0) === 0n) throw new Fault(0x79);
      const isLeaf = level === 1 || ((level === 2 || level === 3) && bit(value, 7));
      if (hostWidth < 52 && bits(value, 51, hostWidth) !== 0n) throw new Fault(0x7a);
      if (!isLeaf && (bit(value, 62) || bit(value, 11) || bit(value, 7))) throw new Fault(0x7a);
      if (isLeaf && level === 2 && bits(value, 20, 12) !== 0n) throw new Fault(0x7a);
      if (isLeaf && level === 3 && bits(value, 29, 12) !== 0n) throw new Fault(0x7a);
      all &= bits(value, 1, 0);
      const visited = { at, value, guest: 0n };
      path.push(visited);
      if (isLeaf) {
        if (all === 0n) throw new Fault(0x79);
        const offset = BigInt(12 + 9 * (level - 1));
        const page = ((bits(value, 51, 12) << 12n) >> offset) << offset;
        return { address: page + bits(address, Number(offset) - 1, 0), path, leaf: visited, all, any: 0n };
      }
      table = bits(value, 51, 12) << 12n;
    }
    throw new Error('unreachable');
  }

  private requireSecond(found: Found, write: boolean): void {
    if (write && !bit(found.all, 1)) throw new Fault(0x85);
    if (!write && !bit(found.all, 0)) throw new Fault(0x86);
  }

  private markSecond(found: Found, write: boolean): void {
    if (!this.tables.secondMarks) return;
    for (const { at } of found.path) this.changes.set(at, this.read(at)! | (1n << 8n));
    if (write) this.changes.set(found.leaf.at, this.read(found.leaf.at)! | (1n << 9n));
  }

  private first(address: bigint): Found {
    const { firstLevels, firstRoot, hostWidth, kind } = this.tables;
    const width = firstLevels === 4 ? 48 : 57;
    if (BigInt.asUintN(64, BigInt.asIntN(width, address)) !== address) throw new Fault(0x80);
    const path: Visited[] = [];
    let table = firstRoot;
    let all = (1n << 64n) - 1n;
    let any = 0n;
    for (let level: number = firstLevels; level >= 1; level--) {
      const guest = table + 8n * bits(address, 12 + 9 * level - 1, 12 + 9 * (level - 1));
      const top = level === firstLevels;
      const at = kind === 'nested' ? this.locate(guest, top) : guest;
      const value = this.read(at);
      if (value === undefined) throw new Fault(top ? 0x73 : 0x70);
      if (!bit(value, 0)) throw new Fault(0x71);
      const isLeaf = level === 1 || ((level === 2 || level === 3) && bit(value, 7));
      if (kind === 'first' && hostWidth < 52 && bits(value, 51, hostWidth) !== 0n) throw new Fault(0x72);
      if (!isLeaf && bit(value, 7)) throw new Fault(0x72);
      if (isLeaf && level === 2 && bits(value, 20, 13) !== 0n) throw new Fault(0x72);
      if (isLeaf && level === 3 && bits(value, 29, 13) !== 0n) throw new Fault(0x72);
      all &= value;
      any |= value;
      const visited = { at, value, guest };
      path.push(visited);
      if (isLeaf) {
        const offset = BigInt(12 + 9 * (level - 1));
        const page = ((bits(value, 51, 12) << 12n) >> offset) << offset;
        return { address: page + bits(address, Number(offset) - 1, 0), path, leaf: visited, all, any };
      }
      table = bits(value, 51, 12) << 12n;
    }
    throw new Error('unreachable');
  }

  private locate(guest: bigint, top: boolean): bigint {
    if (guest >> BigInt(this.inputWidth()) !== 0n) throw new Fault(top ? 0x84 : 0x74);
    const found = this.second(guest);
    if (!bit(found.all, 0)) throw new Fault(top ? 0x75 : 0x76);
    this.markSecond(found, false);
    return found.address;
  }

  private requireFirst(found: Found, request: Request): void {
    const { noExecute, writeProtect } = this.tables;
    if (!request.privileged && !bit(found.all, 2)) throw new Fault(0x81);
    if (request.execute && noExecute && bit(found.any, 63)) throw new Fault(0x82);
    if (request.write && !bit(found.all, 1) && (!request.privileged || writeProtect)) throw new Fault(0x85);
  }

  private wanted(entry: Visited, found: Found, write: boolean): bigint {
    let flags = 1n << 5n;
    if (this.tables.extendedAccess) flags |= 1n << 10n;
    if (write && entry === found.leaf) flags |= 1n << 6n;
    return flags;
  }

  private requireWritableTables(found: Found, write: boolean): void {
    for (const entry of found.path) {
      const flags = this.wanted(entry, found, write);
      if ((this.read(entry.at)! & flags) === flags) continue;
      if (!bit(this.second(entry.guest).all, 1)) throw new Fault(0x77);
    }
  }

  private markFirst(found: Found, write: boolean): void {
    for (const entry of found.path) {
      const flags = this.wanted(entry, found, write);
      const value = this.read(entry.at)!;
      if ((value & flags) === flags) continue;
      if (this.tables.kind === 'nested') this.markSecond(this.second(entry.guest), true);
      this.changes.set(entry.at, this.read(entry.at)! | flags);
    }
  }
}
