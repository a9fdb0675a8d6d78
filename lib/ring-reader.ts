import { Handle } from './handle';
import type { Link } from './rings/pump';
import type { Ring, RingCounters } from './rings/ring';
import { errno } from './uapi';

/** Slots are given back to the pump after this many records at the latest. */
const BATCH = 256;

/** Takes records out of a ring, a batch at a time: as objects, or by a callback. */
export abstract class RingReader<T, View> extends Handle {
  /** @internal */
  protected readonly ring: Ring;
  /** @internal */
  protected readonly link: Link;
  /** @internal Index of the next record to be taken, and the end of the batch, while some are taken. */
  protected position = 0;
  /** @internal */
  protected end = 0;
  /** Records are being taken: not again from within. */
  #busy = false;
  /** As they were when it was closed. */
  #counters: RingCounters | undefined;

  /** @internal */
  protected constructor(ring: Ring, link: Link) {
    super();
    this.ring = ring;
    this.link = link;
  }

  /** What went through the ring, since it was made; all counts are modulo 2^32. */
  get counters(): RingCounters {
    return this.#counters ?? this.ring.counters;
  }

  /** The errno for which nothing will come here any more; 0 while something may. */
  protected get failed(): number {
    return this.link.takenBack ? errno.EBADF : this.ring.error;
  }

  /** Records that may be taken. */
  protected get available(): number {
    return this.link.takenBack ? 0 : this.ring.available;
  }

  /** Records are being taken: what is answered meanwhile is written in one go. */
  protected get busy(): boolean {
    return this.#busy;
  }

  /** Runs `visits` as if records were being taken; afterwards what was answered meanwhile is there to be written. */
  protected visiting<R>(visits: () => R): R {
    this.#busy = true;
    try {
      return visits();
    } finally {
      this.#busy = false;
      if (!this.closed) this.batchDone();
    }
  }

  /** Records that are in the ring now, `most` at most, as objects. */
  protected collect(most: number): T[] {
    const items: T[] = [];
    this.consume(() => {
      const { head } = this.ring;
      while (this.position !== this.end) {
        const at = this.ring.slot(this.position);
        this.position = (this.position + 1) | 0;
        items.push(this.take(at, this.position !== head));
      }
    }, most);
    return items;
  }

  /** Has records visited that are in the ring now, `most` at most, and gives their slots back. */
  protected consume(visitAll: () => void, most: number): number {
    const { ring } = this;
    const first = ring.consumed;
    const last = (first + Math.min(this.available, most)) | 0;
    this.position = first;
    this.#busy = true;
    try {
      while (this.position !== last && !this.closed) {
        this.end = (this.position + Math.min((last - this.position) >>> 0, BATCH)) | 0;
        visitAll();
        this.#giveBack();
      }
    } finally {
      this.#busy = false;
      // Also where the callback threw: what it was called for is consumed.
      if (!this.closed && ring.consumed !== this.position) this.#giveBack();
    }
    return (this.position - first) >>> 0;
  }

  #giveBack(): void {
    if (this.closed) return;
    this.batchDone();
    if (this.ring.consume(this.position)) this.link.kick();
  }

  /** Some records were visited. */
  protected batchDone(): void {}
  /** Calls back for the records from `position` on, which it moves, up to `end`. */
  protected abstract visitAll(callback: (record: View) => void): void;
  /** The record whose first word is `at` as an object of its own. `more`: there is another behind it. */
  protected abstract take(at: number, more: boolean): T;
  /** What a callback gets for a record that is an object already. */
  protected abstract viewOf(item: T): View;

  protected override release(): void {
    if (this.#busy) {
      // In a callback. What was answered goes out, and there is no other call.
      this.batchDone();
      this.link.flush();
      this.end = this.position;
    }
    this.#counters = this.ring.counters;
    this.link.close();
  }
}
