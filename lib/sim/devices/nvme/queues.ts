/** Rings of commands and completions. NVM Express 1.4, 4.1. */
import { COMPLETION_ENTRY, SUBMISSION_ENTRY, type Running } from './command';

/** What a doorbell write is (3.1.16, 3.1.17; 5.2, figure 148). */
export type Doorbell = 'ok' | 'invalid';

/** Entries from one index of a ring to another. */
function distance(from: number, to: number, size: number): number {
  return (to - from + size) % size;
}

export class CompletionQueue {
  /** Index of the oldest entry that software has not consumed. */
  head = 0;
  /** Index of the next entry that the controller writes. */
  tail = 0;
  /** Phase tag of entries in this pass through the ring (4.6, "P"). */
  phase = 1;
  /** Submission queues whose completions go here. */
  users = 0;
  /** Completions that wait for a free entry. */
  readonly waiting: (() => void)[] = [];

  constructor(
    readonly id: number,
    readonly base: bigint,
    /** Entries. */
    readonly size: number,
    /** Interrupt vector; undefined: interrupts are off. */
    readonly vector: number | undefined,
  ) {}

  /** One entry stays empty: head and tail are equal in an empty queue only (4.1.1, 4.1.2). */
  get full(): boolean {
    return distance(this.tail, this.head, this.size) === 1;
  }

  get empty(): boolean {
    return this.head === this.tail;
  }

  /** Takes the next entry: where it is, and its phase tag. */
  take(): { address: bigint; phase: number } {
    const entry = { address: this.base + BigInt(this.tail * COMPLETION_ENTRY), phase: this.phase };
    if (++this.tail === this.size) {
      this.tail = 0;
      this.phase ^= 1;
    }
    return entry;
  }

  /** Software says how far it has come: never past what was written. */
  moveHead(head: number): Doorbell {
    if (head >= this.size || head === this.head) return 'invalid';
    if (distance(this.head, head, this.size) > distance(this.head, this.tail, this.size)) return 'invalid';
    this.head = head;
    return 'ok';
  }
}

export class SubmissionQueue {
  /** Index of the next entry that the controller fetches. */
  head = 0;
  tail = 0;
  /** Entries are being fetched. */
  fetching = false;
  /** It is being deleted: nothing more is fetched. */
  deleted = false;
  /** By command identifier. */
  readonly running = new Map<number, Running>();

  constructor(
    readonly id: number,
    readonly base: bigint,
    /** Entries. */
    readonly size: number,
    readonly completions: CompletionQueue,
  ) {
    completions.users++;
  }

  get empty(): boolean {
    return this.head === this.tail;
  }

  /** The longest stretch of entries to fetch: it ends where the ring, or a fetch's size, does. */
  next(most: number): { address: bigint; entries: number } {
    const end = this.tail < this.head ? this.size : this.tail;
    const address = this.base + BigInt(this.head * SUBMISSION_ENTRY);
    return { address, entries: Math.min(end - this.head, most) };
  }

  advance(): void {
    this.head = (this.head + 1) % this.size;
  }

  /** Software has added entries: never more than were free. */
  moveTail(tail: number): Doorbell {
    if (tail >= this.size || tail === this.tail) return 'invalid';
    const used = distance(this.head, this.tail, this.size);
    if (used + distance(this.tail, tail, this.size) >= this.size) return 'invalid';
    this.tail = tail;
    return 'ok';
  }
}
