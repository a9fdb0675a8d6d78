// Faults through the simulated IOMMU, answered at random, while their device is detached, moved and let go of. Every one
// must be answered once: by us, or 'invalid' by the kernel where its attach ended. Arguments: faults, seed.
import { Iommu, type AddressSpace, type Fault, type FaultQueue, type FaultView } from '../../lib';
import { DmaEngine, Machine, NO_PASID } from '../../lib/sim';
import { Progress } from './progress';

const DEVICE = '0000:00:05.0';
const PRG_INDICES = 512;
const PAGE_SHIFT = 12;
const PAGES_LOW = 2 ** 20;
const SUCCESS = 0;

interface Group {
  /** Numbers of its faults: from `first` on. */
  readonly first: number;
  readonly count: number;
  /** The attach during which it was asked for. */
  readonly attach: number;
  seen: number;
  answered: number;
  invalid: boolean;
}

/** A device that asks for pages, and hears what comes of it. */
class Asker extends DmaEngine {
  readonly groups = new Map<number, Group>();
  onAnswer: (group: Group, code: number) => void = () => {};
  #next = 0;

  /** Asks for a group of pages, whose numbers are their addresses. False: it may not now. */
  ask(first: number, count: number, attach: number): boolean {
    const prgIndex = this.#next;
    if (!this.isGroupFree(prgIndex) || this.groups.has(prgIndex) || this.pageRequestCredits < count)
      return false;
    this.#next = (prgIndex + 1) % PRG_INDICES;
    this.groups.set(prgIndex, { first, count, attach, seen: 0, answered: 0, invalid: false });
    for (let i = 0; i < count; i++) {
      const number = first + i;
      this.requestPage({
        ...{ pasid: NO_PASID, read: true, write: false, execute: false, privileged: false, prgIndex },
        ...{
          last: i === count - 1,
          high: Math.trunc(number / PAGES_LOW),
          low: (number % PAGES_LOW) << PAGE_SHIFT,
        },
      });
    }
    return true;
  }

  protected override onPageGroupResponse(_pasid: number, prgIndex: number, code: number): void {
    const group = this.groups.get(prgIndex);
    if (!group) throw new Error(`an answer to group ${prgIndex}, which waits for none`);
    this.groups.delete(prgIndex);
    this.onAnswer(group, code);
  }
}

/** mulberry32: whole numbers below a limit. */
function randomizer(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) % below;
  };
}

class Soak {
  readonly #random: (below: number) => number;
  readonly #asker = new Asker();
  readonly #machine = new Machine({ devices: { [DEVICE]: this.#asker } });
  readonly #iommu = Iommu.open({ backend: this.#machine });
  readonly #device = this.#iommu.bind(DEVICE, { cookie: 7 });
  #queue: FaultQueue = this.#iommu.createFaultQueue();
  #space: AddressSpace = this.#iommu.createAddressSpace({ faults: this.#queue });
  #attach = 0;
  #asked = 0;
  #last = -1;
  /** Kept to be answered later. */
  #kept: Fault[] = [];
  readonly counts = { ours: 0, kernels: 0, attaches: 0, late: 0 };

  constructor(
    readonly total: number,
    seed: number,
  ) {
    this.#random = randomizer(seed);
    this.#asker.onAnswer = (group, code) => this.#hear(group, code);
    this.#device.attach(this.#space);
    this.#device.enableBusMaster();
  }

  run(progress: Progress): void {
    while (this.#answered < this.total) {
      this.#askSome();
      this.#settle();
      if (this.#random(3) > 0) this.#queue.drain((record) => this.#visit(record));
      this.#answerSome();
      if (this.#random(20) === 0) this.#change();
      progress.at(this.#answered);
    }
    if (this.#asker.groups.size > 0) throw new Error(`${this.#asker.groups.size} groups without an answer`);
    const { dropped } = this.#queue.counters;
    if (dropped !== 0) throw new Error(`${dropped} dropped`);
    this.#iommu.close();
  }

  get #answered(): number {
    return this.counts.ours + this.counts.kernels;
  }

  #settle(): void {
    while (this.#machine.step());
  }

  #askSome(): void {
    for (let i = this.#random(24); i > 0 && this.#asked < this.total; i--) {
      const count = Math.min(1 + this.#random(4), this.total - this.#asked);
      if (!this.#asker.ask(this.#asked, count, this.#attach)) return;
      this.#asked += count;
    }
  }

  #groupOf(number: number): Group | undefined {
    for (const group of this.#asker.groups.values())
      if (number >= group.first && number < group.first + group.count) return group;
    return undefined;
  }

  /** Faults come in the order in which they were asked for, each once. */
  #see(number: number): Group {
    const group = this.#groupOf(number);
    if (number <= this.#last || !group) throw new Error(`fault ${number} after ${this.#last}`);
    this.#last = number;
    group.seen++;
    return group;
  }

  #visit(record: FaultView): void {
    const number = record.addressHigh * PAGES_LOW + (record.addressLow >>> PAGE_SHIFT);
    const group = this.#see(number);
    const choice = this.#random(8);
    if (choice === 0) this.#kept.push(record.keep());
    else {
      record.respond(choice === 1 ? 'invalid' : 'success');
      group.answered++;
      group.invalid ||= choice === 1;
    }
  }

  #answerSome(): void {
    const kept = this.#kept;
    for (let i = this.#asked === this.total ? kept.length : this.#random(kept.length + 1); i > 0; i--) {
      const [fault] = kept.splice(this.#random(kept.length), 1);
      const group = this.#groupOf(Number(fault.address >> BigInt(PAGE_SHIFT)));
      const invalid = this.#random(4) === 0;
      if (group) {
        group.answered++;
        group.invalid ||= invalid;
      } else this.counts.late++;
      const taken = fault.respond(invalid ? 'invalid' : 'success');
      if (taken !== (group !== undefined)) throw new Error(`respond() says ${taken} at ${fault.address}`);
    }
  }

  #hear({ first, count, attach, answered, invalid }: Group, code: number): void {
    if (answered === count && (code === SUCCESS) !== invalid) {
      this.counts.ours += count;
      return;
    }
    // What the attach's end has answered, is invalid.
    if (code === SUCCESS || (attach === this.#attach && !this.#changing))
      throw new Error(`fault ${first}: code ${code}, ${answered} of ${count} answered`);
    this.counts.kernels += count;
  }

  #changing = false;

  /** Ends the attach, one way or another. */
  #change(): void {
    this.#changing = true;
    this.counts.attaches++;
    const way = this.#random(4);
    const [space, queue] = [this.#space, this.#queue];
    if (way === 0) this.#device.detach();
    if (way >= 2) this.#queue = way === 3 ? this.#iommu.createFaultQueue() : queue;
    if (way >= 1) this.#space = this.#iommu.createAddressSpace({ faults: this.#queue });
    this.#device.attach(this.#space, { replace: way > 0 });
    this.#settle();
    if (way > 0) space.close();
    if (queue !== this.#queue) queue.close();
    this.#settle();
    this.#attach++;
    this.#changing = false;
  }
}

function main(): void {
  const [total, seed] = process.argv.slice(2).map(Number);
  const progress = new Progress('simulated', total);
  const soak = new Soak(total, seed);
  soak.run(progress);
  progress.report(soak.counts);
}

main();
