/** Trial: the same translations by a remapper as one first writes it. Arguments: pages, milliseconds. */
import { measure, report } from './measure';
import { addressOrder, CALLS, fold, IOVA_HIGH, IOVA_LOW, targetOf } from './pages';

const PRESENT = 1n << 0n;
const WRITE = 1n << 1n;
const USER = 1n << 2n;
const ACCESSED = 1n << 5n;
const DIRTY = 1n << 6n;
const ADDRESS = 0xf_ffff_ffff_f000n;
const PAGE_OFFSET = 0xfffn;
const LEVELS = 4n;
/** As many as the model's IOTLB has. */
const CACHED = 4096;
const RID = 0x0020;

interface Cached {
  readonly page: bigint;
  readonly write: boolean;
}

/** Addresses are bigint, the caches are Maps, entries are 64-bit values: nothing clever. */
class NaiveRemapper {
  readonly #memory = new DataView(new ArrayBuffer(2 * 2 ** 20));
  /** Top-level table of each requester. */
  readonly #tables = new Map<number, bigint>();
  /** Emptied when full: deleting the oldest, one by one, makes a Map's iterator skip over thousands of holes. */
  readonly #cache = new Map<bigint, Cached>();
  #free = 4096n;

  attach(rid: number): void {
    this.#tables.set(rid, this.#allocate());
  }

  map(rid: number, address: bigint, target: bigint): void {
    let table = this.#table(rid);
    for (let level = LEVELS; level > 1n; level--) {
      const at = this.#entryAddress(table, level, address);
      if ((this.#read(at) & PRESENT) === 0n) this.#write(at, this.#allocate() | PRESENT | WRITE | USER);
      table = this.#read(at) & ADDRESS;
    }
    this.#write(this.#entryAddress(table, 1n, address), target | PRESENT | WRITE | USER);
  }

  /** The host address; throws where there is none. */
  translate(rid: number, address: bigint, write: boolean): bigint {
    const page = address & ~PAGE_OFFSET;
    const cached = this.#cache.get(page);
    if (cached !== undefined && (cached.write || !write)) return cached.page | (address & PAGE_OFFSET);
    const found = this.#walk(rid, page, write);
    if (this.#cache.size >= CACHED) this.#cache.clear();
    this.#cache.set(page, found);
    return found.page | (address & PAGE_OFFSET);
  }

  #walk(rid: number, address: bigint, write: boolean): Cached {
    if (BigInt.asIntN(48, address) !== BigInt.asIntN(64, address)) throw new Error('not canonical');
    let table = this.#table(rid);
    for (let level = LEVELS; ; level--) {
      const at = this.#entryAddress(table, level, address);
      const entry = this.#read(at);
      if ((entry & PRESENT) === 0n) throw new Error('not present');
      if ((entry & USER) === 0n || (write && (entry & WRITE) === 0n)) throw new Error('not permitted');
      const marked = entry | ACCESSED | (level === 1n && write ? DIRTY : 0n);
      if (marked !== entry) this.#write(at, marked);
      if (level === 1n) return { page: entry & ADDRESS, write: (marked & DIRTY) !== 0n };
      table = entry & ADDRESS;
    }
  }

  #table(rid: number): bigint {
    const table = this.#tables.get(rid);
    if (table === undefined) throw new Error('no such requester');
    return table;
  }

  #entryAddress(table: bigint, level: bigint, address: bigint): bigint {
    return table + 8n * ((address >> (3n + 9n * level)) & 0x1ffn);
  }

  #read(at: bigint): bigint {
    return this.#memory.getBigUint64(Number(at), true);
  }

  #write(at: bigint, entry: bigint): void {
    this.#memory.setBigUint64(Number(at), entry, true);
  }

  #allocate(): bigint {
    const page = this.#free;
    this.#free += 4096n;
    return page;
  }
}

async function main(): Promise<void> {
  const pages = Number(process.argv[2]);
  const remapper = new NaiveRemapper();
  const address = (low: number): bigint => (BigInt(IOVA_HIGH) << 32n) | BigInt(low >>> 0);
  remapper.attach(RID);
  for (let i = 0; i < pages; i++) {
    remapper.map(RID, address(IOVA_LOW + 4096 * i), BigInt(targetOf(i, pages)));
  }
  const order = addressOrder(pages);
  const iovas = [...order].map(address);
  const isWrite = (low: number): boolean => (low & 0x1000) !== 0;
  let check = 0;
  for (let i = 0; i < iovas.length; i++) {
    const result = remapper.translate(RID, iovas[i], isWrite(order[i]));
    check = fold(check, Number(result >> 32n), Number(result & 0xffff_ffffn) | 0);
  }
  let at = 0;
  let last = 0n;
  const value = await measure({ calls: CALLS }, () => {
    for (let i = at; i < at + CALLS; i++) {
      last = remapper.translate(RID, iovas[i], isWrite(order[i]));
    }
    at = (at + CALLS) % order.length;
  });
  if (last === 0n) throw new Error('nothing was translated');
  report(value, check);
}

void main();
