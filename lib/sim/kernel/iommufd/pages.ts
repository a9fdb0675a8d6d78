/** Memory behind mappings (drivers/iommu/iommufd/pages.c's role). */
import { errno } from '../../../uapi/errno';
import type { PhysicalMemory } from '../../memory';
import type { Pin } from '../frames';
import { PAGE_SIZE, type UserMemory } from '../user-memory';
import { charge, payerOf, uncharge, type AccountMode, type Payer, type Task } from './accounting';
import { DmaBufSource, UserSource, type PageSource } from './page-source';

/** Pages [first, end), counted from the first of the Pages. */
interface Range {
  readonly first: number;
  readonly end: number;
}

/** Pages that somebody needs: a mapping that domains have, or an access. */
export interface Hold extends Range {
  /** Physical address of the first page; the others follow it. */
  readonly physical: number;
  release(): void;
}

interface Pinned extends Range {
  readonly pin: Pin;
}

/** Pages that are pinned for somebody. */
class PinnedHold implements Hold {
  constructor(
    private readonly pages: Pages,
    readonly first: number,
    readonly end: number,
  ) {}

  get physical(): number {
    return this.pages.physicalOf(this.first);
  }

  release(): void {
    this.pages.release(this);
  }
}

/** Nobody, or nothing: most memory has one hold and one pin, and there may be millions. */
const NONE: readonly never[] = [];

/**
 * Memory that areas are slices of; IOAS_COPY makes several areas share one. A page is pinned once, however many holds
 * it is in, and counted once.
 */
export class Pages {
  #payer: Payer;
  /** Whoever needs pages, a set once they are several. Together they cover exactly what is in #pins. */
  #holds: readonly Hold[] | Set<Hold> = NONE;
  #pins: readonly Pinned[] = NONE;
  /** Pages in #pins, and how many of them have been counted against the limit: equal between calls, mostly. */
  #pinned = 0;
  #charged = 0;
  #references = 0;

  constructor(
    readonly source: PageSource,
    readonly writable: boolean,
    task: Task,
    readonly mode: AccountMode,
  ) {
    this.#payer = payerOf(task);
  }

  get(): this {
    this.#references++;
    return this;
  }

  put(): void {
    if (--this.#references === 0) this.source.release();
  }

  /** The memory was taken back: no table may have it. */
  get revoked(): boolean {
    return this.source instanceof DmaBufSource && this.source.revoked;
  }

  /** Pages that somebody pays for. */
  get charged(): number {
    return this.#charged;
  }

  /**
   * Keeps the pages that hold [startByte, startByte + length) where they are, or -errno. `charge` counts them. A
   * DMA-buf has them for tables only, which `onRevoke` takes them out of.
   */
  hold(startByte: bigint, length: bigint, onRevoke?: () => void): Hold | number {
    const first = Number(startByte / BigInt(PAGE_SIZE));
    const end = Number((startByte + length - 1n) / BigInt(PAGE_SIZE)) + 1;
    const { source } = this;
    if (source instanceof DmaBufSource) {
      const release = onRevoke && source.use(onRevoke);
      return release ? { first, end, physical: source.physical + first * PAGE_SIZE, release } : source.pin();
    }
    const range = { first, end };
    const added = this.#pin(this.#holds === NONE ? [range] : uncovered(range, this.#holds));
    if (added) return added;
    const hold = new PinnedHold(this, first, end);
    if (this.#holds === NONE) this.#holds = [hold];
    else if (this.#holds instanceof Set) this.#holds.add(hold);
    else this.#holds = new Set(this.#holds).add(hold);
    return hold;
  }

  /** Counts what has been pinned since the last time. 0, or -errno: then the hold it was for must go again. */
  charge(): number {
    const more = this.#pinned - this.#charged;
    if (more <= 0) return this.#giveBack();
    const result = charge(this.#payer, this.mode, more);
    if (!result) this.#charged = this.#pinned;
    return result;
  }

  /**
   * Copies from or to the memory, for the kernel itself. `current` is the calling process's memory: its own pages are
   * copied at the program's addresses, others as devices see them. 0 or -errno.
   */
  copy(
    startByte: bigint,
    data: Uint8Array,
    write: boolean,
    memory: PhysicalMemory,
    current: UserMemory | undefined,
  ): number {
    if (write && !this.writable) return -errno.EPERM;
    const { source } = this;
    const offset = Number(startByte % BigInt(PAGE_SIZE));
    if (source instanceof UserSource && !source.memory.ended) {
      const onePage = offset + data.length <= PAGE_SIZE;
      if (onePage || source.memory === current) return source.copy(startByte, data, write);
    }
    const hold = this.hold(startByte, BigInt(data.length));
    if (typeof hold === 'number') return hold;
    const at = hold.physical + offset;
    const copied = write ? memory.copyIn(at, data, 0, data.length) : memory.copyOut(at, data, 0, data.length);
    hold.release();
    return copied ? 0 : -errno.EFAULT;
  }

  /** IOAS_CHANGE_PROCESS: whether `task` would pay where somebody else does now. */
  paidByOther(task: Task): boolean {
    const { user } = this.#payer;
    const { memory } = this.#payer.task;
    if (this.mode === 'none') return false;
    return memory !== task.memory || (this.mode === 'user' && user !== task.user);
  }

  /** Gives everything back to the one who paid, because another does now. 0 or -errno. */
  unchargeAll(): number {
    const result = uncharge(this.#payer, this.mode, this.#pinned);
    // What could not be given back is forgotten, as in Linux: the new one will not get it back either.
    this.#charged = result ? 0 : this.#pinned;
    return result;
  }

  /** From now on `task` pays, also for what is pinned. */
  changePayer(task: Task): void {
    this.#payer = payerOf(task);
  }

  #pin(ranges: readonly Range[]): number {
    const before = this.#pins.length;
    for (const { first, end } of ranges) {
      const pin = this.source.pin(first, end);
      if (typeof pin === 'number') {
        for (const each of this.#pins.slice(before)) this.#unpin(each);
        this.#pins = this.#pins.slice(0, before);
        return pin;
      }
      // A literal is as long as what is in it, and no longer.
      const pinned = { first, end, pin };
      this.#pins = this.#pins === NONE ? [pinned] : [...this.#pins, pinned];
      this.#pinned += end - first;
    }
    return 0;
  }

  #unpin({ first, end, pin }: Pinned): void {
    pin.unpin();
    this.#pinned -= end - first;
  }

  /** @internal Of a page that is held. */
  physicalOf(page: number): number {
    const { first, pin } = this.#pins.find((each) => each.first <= page && page < each.end)!;
    return pin.physical + (page - first) * PAGE_SIZE;
  }

  /** @internal Of a hold that it gave. Does nothing the second time. */
  release(hold: Hold): void {
    if (!this.#forget(hold)) return;
    for (const range of uncovered(hold, this.#holds)) {
      this.#cut(range.first);
      this.#cut(range.end);
      const inside = (each: Pinned) => range.first <= each.first && each.end <= range.end;
      for (const each of this.#pins) if (inside(each)) this.#unpin(each);
      this.#pins = this.#pins.filter((each) => !inside(each));
    }
    this.#giveBack();
  }

  #forget(hold: Hold): boolean {
    if (this.#holds instanceof Set) return this.#holds.delete(hold);
    if (this.#holds[0] !== hold) return false;
    this.#holds = NONE;
    return true;
  }

  /** Makes a page the first of a pin, so that it can go without those before it. */
  #cut(page: number): void {
    const index = this.#pins.findIndex(({ first, end }) => first < page && page < end);
    if (index < 0) return;
    const { first, end, pin } = this.#pins[index];
    const rest = pin.split(page - first);
    const halves = [
      { first, end: page, pin },
      { first: page, end, pin: rest },
    ];
    this.#pins = this.#pins.toSpliced(index, 1, ...halves);
  }

  #giveBack(): number {
    if (this.#pinned >= this.#charged) return 0;
    const result = uncharge(this.#payer, this.mode, this.#charged - this.#pinned);
    if (!result) this.#charged = this.#pinned;
    return result;
  }
}

/** What of a range is in none of the others, ascending. */
function uncovered(range: Range, others: Iterable<Range>): Range[] {
  let left: Range[] = [range];
  for (const { first, end } of others) {
    if (left.length === 0) break;
    left = left.flatMap((part) => {
      if (end <= part.first || first >= part.end) return [part];
      const before = { first: part.first, end: first };
      const after = { first: end, end: part.end };
      return [before, after].filter((each) => each.first < each.end);
    });
  }
  return left.sort((a, b) => a.first - b.first);
}
