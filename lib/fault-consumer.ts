import { failure } from './errors';
import { Fault, FaultGroup } from './fault';
import { FaultView } from './fault-view';
import { RecordConsumer } from './record-consumer';
import { faultRecord } from './rings/layout';
import type { Link } from './rings/pump';
import type { Ring } from './rings/ring';
import { openShare, type RingShare } from './ring-share';
import * as uapi from './uapi';

const FLAGS = faultRecord.flags >> 2;
const GROUP_COOKIE = faultRecord.groupCookie >> 2;
const GENERATION = faultRecord.generation >> 2;
// Copies: members of a module that another hands on are looked up in it each time.
const LAST_PAGE = uapi.IOMMU_PGFAULT_FLAGS_LAST_PAGE;
const { errno } = uapi;
const { IOMMUFD_PAGE_RESP_INVALID: INVALID, IOMMUFD_PAGE_RESP_SUCCESS: SUCCESS } = uapi;

/**
 * The consumer's side of the fault rings: takes faults, and writes the response of a group when all its faults have
 * theirs. Records of a group lie side by side.
 */
export class FaultConsumer extends RecordConsumer<Fault, FaultView> {
  readonly #words: Int32Array;
  /** What callbacks get. */
  readonly #view: FaultView;
  /** What objects are made from. */
  readonly #taken: FaultView;
  /** Groups with faults that are objects, and wait for their answers. */
  readonly #groups = new Set<FaultGroup>();
  /** 1: nothing is noted of the group of the record at hand, which has no other. A number is compared with less. */
  #lone = 0;
  // The group whose records are being taken.
  #open = false;
  #cookie = 0;
  #generation = 0;
  #seen = 0;
  #invalid = false;
  /** The generation of a group of which another consumer has taken a part before; 0: of none. */
  #begun = 0;
  #group: FaultGroup | undefined;

  /** @internal */
  constructor(ring: Ring, link: Link) {
    super(ring, link);
    this.#words = ring.words;
    this.#view = this.#newView();
    this.#taken = this.#newView();
    this.#begun = ring.partial;
  }

  /**
   * In a worker, the consumer of a queue whose consumer's side was handed over: `share` is what `queue.share()` gave.
   * close() when done; the queue stays.
   */
  static open(share: RingShare): FaultConsumer {
    const { ring, link } = openShare(share);
    return new FaultConsumer(ring, link);
  }

  /** @internal */
  override get label(): string {
    return 'fault consumer';
  }

  /** The faults that were read and wait for their answers, those included that nobody has taken yet. */
  get pending(): readonly Fault[] {
    if (!this.closed && this.lentTo === undefined) this.takeAll();
    return [...this.#groups].flatMap(({ faults }) => faults).filter(({ answered }) => !answered);
  }

  /** Faults that were taken wait for answers. */
  protected get isAwaited(): boolean {
    return this.#open || [...this.#groups].some(({ unanswered }) => unanswered > 0);
  }

  protected override isSettled(fault: Fault): boolean {
    return fault.answered;
  }

  /** @internal Forgets groups that wait for no response any more. */
  protected forgetAbandoned(): void {
    for (const group of this.#groups)
      if (!this.link.isCurrent(group.cookie, group.generation)) this.#groups.delete(group);
  }

  /**
   * Groups of one, as nearly every group is, go by with as little as possible for each: members and constants in variables,
   * no group, one `try` for many. This is one function, and a large one, on purpose: V8 does not inline it into its callers,
   * where no room would be left for what is inlined here, the callback before all.
   */
  protected override visitAll(callback: (record: FaultView) => void): void {
    const { ring } = this;
    const view = this.#view;
    const [flags, last, cookie, generation] = [FLAGS | 0, LAST_PAGE | 0, GROUP_COOKIE | 0, GENERATION | 0];
    const first = ring.slot(0) | 0;
    const step = ring.recordWords | 0;
    const end = this.#recordsEnd | 0;
    while (this.position !== this.end) {
      const before = this.position;
      let at = ring.slot(before) | 0;
      if (this.#open || this.#begun !== 0) {
        this.#visitNext(callback);
        continue;
      }
      let answered = true;
      this.#lone = 1;
      try {
        while (this.position !== this.end) {
          // In the loop: so V8 knows that those which the view reads are the same.
          const { words } = view;
          if ((words[(at + flags) | 0] & last) === 0) break;
          this.position = (this.position + 1) | 0;
          view.moveTo(at);
          answered = false;
          callback(view);
          // Closed meanwhile, nothing of it may be touched.
          if (view.answer < 0 || this.#lone === 0) break;
          // With a full ring there is more to do.
          if (!ring.respond(words[(at + cookie) | 0], view.answer, words[(at + generation) | 0])) break;
          answered = true;
          at = (at + step) | 0;
          if (at === end) at = first;
        }
      } finally {
        if (!answered) this.#settleLone(at);
        this.#lone = 0;
      }
      if (this.position === before) this.#visitNext(callback);
    }
  }

  #settleLone(at: number): void {
    if (this.closed) return;
    if (this.#lone === 1) {
      this.#lone = 0;
      this.#enter(at);
    }
    this.#settle(at, true);
  }

  #visitNext(callback: (record: FaultView) => void): void {
    const at = this.ring.slot(this.position);
    this.position = (this.position + 1) | 0;
    const more = this.position !== this.ring.head;
    const view = this.#view;
    this.#enter(at);
    view.moveTo(at);
    try {
      callback(view);
    } finally {
      if (!this.closed) this.#settle(at, more);
    }
  }

  #settle(at: number, more: boolean): void {
    const view = this.#view;
    if (view.answer === INVALID) this.#refuse();
    else if (view.answer < 0 && view.kept === undefined) view.keep();
    this.#leave(at, more);
  }

  protected override take(at: number, more: boolean): Fault {
    this.#enter(at);
    this.#taken.moveTo(at);
    const fault = this.#keep(this.#taken);
    this.#leave(at, more);
    return fault;
  }

  #enter(at: number): void {
    this.#seen++;
    const generation = this.#words[at + GENERATION];
    if (this.#open) {
      if (generation === this.#generation) return;
      // Its last request was nobody's, or its rest was forgotten with a detach.
      this.#finish();
    }
    this.#open = true;
    this.#cookie = this.#words[at + GROUP_COOKIE] >>> 0;
    this.#generation = generation;
    this.#seen = 1;
    // Nobody can tell any more what was to become of the rest.
    this.#invalid = this.#begun !== 0 && generation === this.#begun;
    this.#begun = 0;
    this.#group = undefined;
  }

  #newView(): FaultView {
    const view: FaultView = new FaultView(this.ring.words, () => this.#keep(view));
    return view;
  }

  /** The record at hand, which `view` shows, becomes an object. */
  #keep(view: FaultView): Fault {
    if (this.#lone === 1) {
      this.#enter(view.at);
      this.#lone = 0;
    }
    if (!this.#group) {
      this.#group = new FaultGroup(this.#cookie, this.#generation);
      this.#group.invalid = this.#invalid;
      this.#groups.add(this.#group);
    }
    const words = this.#words.slice(view.at, view.at + this.ring.recordWords);
    const fault = new Fault(view, words, this.#group, this);
    this.#group.faults.push(fault);
    this.#group.unanswered++;
    return fault;
  }

  #refuse(): void {
    this.#invalid = true;
    if (this.#group) this.#group.invalid = true;
  }

  /** `more`: there is another record behind it. */
  #leave(at: number, more: boolean): void {
    const last = (this.#words[at + FLAGS] & LAST_PAGE) !== 0;
    // Groups are published whole, but for one that is larger than the ring.
    const split = !more && !last && this.#seen >= this.ring.capacity;
    if (!last && (split || (more && this.#nextGeneration(at) === this.#generation))) return;
    this.#finish();
  }

  /** All records of the group are known. */
  #finish(): void {
    this.#open = false;
    const group = this.#group;
    if (!group) return void this.#write(this.#cookie, this.#generation, this.#invalid);
    group.complete = true;
    if (group.unanswered === 0) this.#answer(group);
  }

  #nextGeneration(at: number): number {
    const { words, recordWords } = this.ring;
    const next = at + recordWords;
    return words[(next < this.#recordsEnd ? next : this.ring.slot(0)) + GENERATION];
  }

  get #recordsEnd(): number {
    return this.ring.slot(0) + this.ring.capacity * this.ring.recordWords;
  }

  /** @internal A fault of the group has its answer. */
  settle(group: FaultGroup, invalid: boolean): boolean {
    if (this.closed || !this.link.isCurrent(group.cookie, group.generation)) {
      this.#groups.delete(group);
      return false;
    }
    group.unanswered--;
    group.invalid ||= invalid;
    return !group.complete || group.unanswered > 0 || this.#answer(group);
  }

  #answer(group: FaultGroup): boolean {
    this.#groups.delete(group);
    return this.#write(group.cookie, group.generation, group.invalid);
  }

  #write(cookie: number, generation: number, invalid: boolean): boolean {
    if (this.failed === errno.EBADF) return false;
    while (!this.ring.respond(cookie, invalid ? INVALID : SUCCESS, generation))
      if (!this.#flush() && this.failed !== 0) return false;
    // While records are taken, responses are written together.
    return this.busy || this.#flush();
  }

  protected override batchDone(): void {
    this.ring.publishResponses();
    const partial = this.#open ? this.#generation : 0;
    if (this.ring.partial !== partial) this.ring.partial = partial;
  }

  protected override takenBack(): void {
    this.#begun = this.ring.partial;
    super.takenBack();
  }

  /** False if nobody waited for one of them. */
  #flush(): boolean {
    this.ring.publishResponses();
    const { refused } = this.ring;
    const result = this.link.flush();
    // The owner has closed the queue, or has its side back: nobody waits.
    if (result === -errno.EBADF) return false;
    if (result < 0) throw failure(result, { syscall: 'write' });
    return this.ring.refused === refused;
  }

  protected override viewOf(item: Fault): FaultView {
    return FaultView.of(item);
  }

  /** What the callback at hand has answered; false where the ring is full. */
  #respondAlone(): boolean {
    const { at, answer } = this.#view;
    return this.ring.respond(this.#words[at + GROUP_COOKIE], answer, this.#words[at + GENERATION]);
  }

  /** Whatever was unanswered, the kernel answers 'invalid' when its device is detached. */
  protected override release(): void {
    // In a callback, which may have answered before.
    if (this.#lone === 1 && this.#view.answer >= 0 && !this.#respondAlone()) {
      this.ring.publishResponses();
      this.link.flush();
      this.#respondAlone();
    }
    this.#lone = 0;
    this.#groups.clear();
    super.release();
  }
}
