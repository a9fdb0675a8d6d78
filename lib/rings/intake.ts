/** What was read from a kernel's file, on its way into the ring's slots. */
import { FAULT_SOURCE_BYTES, faultRecord } from './layout';
import type { GroupTable } from './groups';
import type { Ring } from './ring';
import type { SlotTable } from './slots';

const SOURCE_WORDS = FAULT_SOURCE_BYTES >> 2;
const [DEVICE, PASID, GROUP_COOKIE] = [
  faultRecord.devId >> 2,
  faultRecord.pasid >> 2,
  faultRecord.groupCookie >> 2,
];
const [COOKIE, IOASID, GENERATION] = [
  faultRecord.cookie >> 2,
  faultRecord.ioasid >> 2,
  faultRecord.generation >> 2,
];
/** The kernel has no object of this ID. */
const NOBODY = -1;
/** Bit of iommufd_vevent_header.flags: no event follows, the newest were lost (linux/iommufd.h). */
const LOST_EVENTS = 1;
const EVENT_HEADER_BYTES = 8;

export interface Intake {
  /** Takes what was read: `length` bytes at the beginning of `words`, which stay as they are until `waiting` is false. */
  accept(words: Int32Array, length: number): void;
  /** Something that was accepted has had no room yet. */
  readonly waiting: boolean;
  /** Writes records from the index `head` on, `free` at most, and returns the index behind them. */
  write(head: number, free: number): number;
  /** The attach has ended, and the kernel has answered its faults. Before its slot is emptied. */
  forget(device: number, pasid: number): void;
}

/** Writes when a record was read at the end of its slot: the clock, and the halves that it has to be split into. */
export class Stamp {
  readonly #now = new BigUint64Array(1);
  readonly #halves = new Int32Array(this.#now.buffer);
  low = 0;
  high = 0;

  take(): void {
    this.#now[0] = process.hrtime.bigint();
    [this.low, this.high] = this.#halves;
  }
}

/**
 * Faults: whole groups, unless one is larger than the ring. Each record gets its device cookie, IOASID and generation.
 * What belongs to nobody any more is left out; a group of such alone is answered 'invalid' through `refuse`.
 */
export class FaultIntake implements Intake {
  #words: Int32Array = new Int32Array(0);
  #at = 0;
  #end = 0;
  /** Where the group that is being written ends, and what is known of it. */
  #groupEnd = 0;
  #fallback = -1;
  #generation = 0;

  constructor(
    readonly ring: Ring,
    readonly slots: SlotTable,
    readonly groups: GroupTable,
    readonly refuse: (groupCookie: number) => void,
    readonly stamp: Stamp,
  ) {}

  accept(words: Int32Array, length: number): void {
    this.#words = words;
    this.#at = this.#groupEnd = 0;
    this.#end = length >> 2;
  }

  get waiting(): boolean {
    return this.#at < this.#end;
  }

  write(head: number, free: number): number {
    while (this.#at < this.#end) {
      if (this.#at === this.#groupEnd && !this.#begin(free)) break;
      for (; this.#at < this.#groupEnd; this.#at += SOURCE_WORDS) {
        const slot = this.#slotOf(this.#at);
        if (slot < 0) continue;
        if (free === 0) return head;
        this.#copy(this.ring.slot(head), slot);
        head = (head + 1) | 0;
        free--;
      }
    }
    return head;
  }

  forget(device: number, pasid: number): void {
    const slot = this.slots.numberOf(device, pasid);
    if (slot < 0) return;
    if (this.#at < this.#groupEnd && this.#fallback === slot) this.#at = this.#groupEnd;
    // What has not begun must not become the next attach's.
    for (let at = Math.max(this.#at, this.#groupEnd); at < this.#end;) {
      const end = this.#endOfGroup(at);
      const forgotten = this.#ownSlotOf(end - SOURCE_WORDS) === slot;
      for (; at < end; at += SOURCE_WORDS) if (forgotten) this.#words[at + DEVICE] = NOBODY;
    }
  }

  /** A group begins. False: it has no room now. */
  #begin(free: number): boolean {
    const cookie = this.#words[this.#at + GROUP_COOKIE];
    const end = this.#endOfGroup(this.#at);
    // The kernel chose the queue by the last request; the others of a group may carry other PASIDs.
    const fallback = this.#ownSlotOf(end - SOURCE_WORDS);
    this.#fallback = fallback;
    let count = 0;
    for (let at = this.#at; at < end; at += SOURCE_WORDS) if (this.#slotOf(at) >= 0) count++;
    if (count > free && (count <= this.ring.capacity || free < this.ring.capacity)) return false;
    this.#groupEnd = end;
    this.#generation = (this.#generation + 1) | 0;
    this.groups.add(cookie >>> 0, this.#generation, count, fallback);
    if (count === 0) this.refuse(cookie >>> 0);
    return true;
  }

  /** Where the group that begins at `at` ends. */
  #endOfGroup(at: number): number {
    const words = this.#words;
    let end = at + SOURCE_WORDS;
    while (end < this.#end && words[end + GROUP_COOKIE] === words[at + GROUP_COOKIE]) end += SOURCE_WORDS;
    return end;
  }

  #ownSlotOf(at: number): number {
    return this.slots.find(this.#words[at + DEVICE] >>> 0, this.#words[at + PASID] >>> 0);
  }

  #slotOf(at: number): number {
    const own = this.#ownSlotOf(at);
    return own >= 0 ? own : this.#fallback;
  }

  #copy(to: number, slot: number): void {
    const { words } = this.ring;
    const from = this.#words;
    for (let i = 0; i < SOURCE_WORDS; i++) words[to + i] = from[this.#at + i];
    words[to + COOKIE] = this.slots.cookieLow(slot);
    words[to + COOKIE + 1] = this.slots.cookieHigh(slot);
    words[to + IOASID] = this.slots.ioasid(slot);
    words[to + GENERATION] = this.#generation;
    words[to + this.ring.recordWords - 2] = this.stamp.low;
    words[to + this.ring.recordWords - 1] = this.stamp.high;
  }
}

/** Events of a virtual IOMMU: a header, and the event's data unless the header says that events were lost. */
export class EventIntake implements Intake {
  #source: Uint8Array = new Uint8Array(0);
  #at = 0;
  #end = 0;
  readonly #bytes: Uint8Array;

  constructor(
    readonly ring: Ring,
    readonly stamp: Stamp,
  ) {
    this.#bytes = new Uint8Array(ring.words.buffer);
  }

  accept(words: Int32Array, length: number): void {
    this.#source = new Uint8Array(words.buffer);
    this.#at = 0;
    this.#end = length;
  }

  get waiting(): boolean {
    return this.#at < this.#end;
  }

  write(head: number, free: number): number {
    const { words, recordWords, shape } = this.ring;
    for (; free > 0 && this.#at < this.#end; free--) {
      const length = this.#source[this.#at] & LOST_EVENTS ? EVENT_HEADER_BYTES : shape.sourceBytes;
      const to = this.ring.slot(head);
      words.fill(0, to, to + recordWords);
      this.#bytes.set(this.#source.subarray(this.#at, this.#at + length), 4 * to);
      words[to + recordWords - 2] = this.stamp.low;
      words[to + recordWords - 1] = this.stamp.high;
      this.#at += length;
      head = (head + 1) | 0;
    }
    return head;
  }

  /** Events belong to a virtual IOMMU, whatever is attached. */
  forget(): void {}
}
