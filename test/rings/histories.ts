/** For both pumps: random groups with random answers, and what the kernel must have heard in the end. */
import assert from 'node:assert/strict';
import type { Fault } from '../../lib/fault';
import type { FaultView } from '../../lib/fault-view';
import { Random } from '../../lib/sim/random';
import { OWNER, pages, until, type Rig, type Scenario } from './scenarios';

const GROUPS = 400;
/** Nobody's: the pump answers it 'invalid'. */
const STRANGER = OWNER.device + 7;
const FRESH = Number(process.env['HISTORY_SEED'] ?? Date.now() % 0x7fff_ffff);

type Done = 'success' | 'invalid' | 'kept' | 'nothing' | 'success, thrown' | 'thrown';

interface Group {
  readonly cookie: number;
  readonly stranger: boolean;
  invalid: boolean;
}

class History {
  readonly #random: Random;
  readonly #groups: Group[] = [];
  /** By page: nobody's are not seen. */
  readonly #pages = new Map<number, Group>();
  readonly #kept: Fault[] = [];
  readonly #seen = new Set<bigint>();
  #page = 0;

  constructor(
    readonly rig: Rig,
    seed: number,
  ) {
    this.#random = new Random(seed);
  }

  async run(): Promise<void> {
    while (this.#groups.length < GROUPS) {
      this.#deliver();
      this.#drain();
      this.#answerKept(3);
      if (this.#random.below(30) === 0) this.#answerAll();
      // The addon's pump has a thread, once somebody has waited.
      if (this.#random.below(20) === 0) await this.#wait();
    }
    const { file, ring } = this.rig;
    await until('all seen', () => {
      this.#drain();
      // A group that is larger than the ring comes when nothing waits for an answer.
      this.#answerAll();
      return this.#seen.size === this.#pages.size;
    });
    await until('all answered', () => file.responses().length === GROUPS);
    const heard = new Map(file.responses().map(({ cookie, code }) => [cookie, code]));
    const expected = this.#groups.map(({ cookie, invalid }) => [cookie, Number(invalid)] as const);
    assert.deepEqual([...heard].sort(byCookie), expected.sort(byCookie));
    assert.deepEqual([ring.dropped, ring.refused], [0, 0]);
  }

  async #wait(): Promise<void> {
    try {
      await this.rig.consumer.ready({ timeout: 1 });
    } catch (error) {
      if ((error as { code?: string }).code !== 'ETIMEDOUT') throw error;
    }
  }

  /** Mostly groups of one, and mostly the device's. */
  #deliver(): void {
    for (let count = this.#random.below(12); count > 0 && this.#groups.length < GROUPS; count--) {
      const cookie = 1 + this.#groups.length;
      const stranger = this.#random.below(10) === 0;
      const size = this.#random.below(4) === 0 ? 1 + this.#random.below(6) : 1;
      const group = { cookie, stranger, invalid: stranger };
      this.#groups.push(group);
      this.rig.file.deliver(pages(cookie, this.#page, size, stranger ? STRANGER : OWNER.device));
      for (const end = this.#page + size; this.#page < end; this.#page++)
        if (!stranger) this.#pages.set(this.#page, group);
    }
  }

  #drain(): void {
    try {
      if (this.#random.below(5) > 0) this.rig.consumer.drain((record) => this.#visit(record));
      else this.#keep(this.rig.consumer.drain());
    } catch (error) {
      if ((error as Error).message !== 'thrown') throw error;
    }
  }

  #keep(faults: readonly Fault[]): void {
    for (const { address } of faults) this.#see(address);
    this.#kept.push(...faults);
  }

  /** It comes once. */
  #see(address: bigint): Group {
    const group = this.#pages.get(Number(address / 4096n));
    assert.ok(group && !group.stranger && !this.#seen.has(address));
    this.#seen.add(address);
    return group;
  }

  #visit(record: FaultView): void {
    const group = this.#see(record.address);
    const done = this.#choose();
    if (done === 'kept') this.#kept.push(record.keep());
    if (done === 'success' || done === 'success, thrown') record.respond('success');
    if (done === 'invalid') {
      group.invalid = true;
      record.respond('invalid');
    }
    // Another is answered from within.
    if (this.#random.below(8) === 0) this.#answerKept(1);
    if (done === 'thrown' || done === 'success, thrown') throw new Error('thrown');
  }

  #choose(): Done {
    const choices: readonly Done[] = ['invalid', 'kept', 'nothing', 'success, thrown', 'thrown'];
    return choices[this.#random.below(40)] ?? 'success';
  }

  /** Those included that a callback did nothing with. */
  #answerAll(): void {
    this.#keep(this.rig.consumer.drain());
    for (const fault of this.rig.consumer.pending) {
      // It may have come since.
      if (!this.#seen.has(fault.address)) this.#see(fault.address);
      if (!this.#kept.includes(fault)) this.#kept.push(fault);
    }
    this.#answerKept(Infinity);
  }

  #answerKept(most: number): void {
    for (let i = 0; i < most && this.#kept.length > 0; i++) {
      const [fault] = this.#kept.splice(this.#random.below(this.#kept.length), 1);
      const response = this.#random.below(3) === 0 ? 'invalid' : 'success';
      const group = this.#pages.get(Number(fault.address / 4096n))!;
      if (response === 'invalid') group.invalid = true;
      assert.equal(fault.respond(response), true);
    }
  }
}

function byCookie(a: readonly [number, number], b: readonly [number, number]): number {
  return a[0] - b[0];
}

function history(slots: number, seed: number): [string, Scenario] {
  const run: Scenario['run'] = (open) => new History(open({ slots, start: 2 ** 32 - 100 }), seed).run();
  return [`random groups and answers, ${slots} slots, seed ${seed}`, { run }];
}

/** Names are the same in a child: HISTORY_SEED is in its environment. */
export function histories(seed = FRESH): Record<string, Scenario> {
  process.env['HISTORY_SEED'] = String(seed);
  return Object.fromEntries([4, 8, 64].flatMap((slots) => [1, 2, seed].map((s) => history(slots, s))));
}
