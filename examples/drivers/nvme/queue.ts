/** A submission queue and its completion queue. NVM Express 1.4, chapter 4. */
import type { DmaPool, DmaSlice } from 'iommufd';

const SQ_ENTRY = 64;
const CQ_ENTRY = 16;
export const PAGE = 4096;
/** Pages that one page of a PRP list points to, and one more. */
export const MOST_PAGES = PAGE / 8;
/** A command identifier is a slot, and above it how often the slot was used: a late or wrong completion is noticed. */
const SLOT_BITS = 12;
export const MOST_ENTRIES = 2 ** SLOT_BITS;

/** What the controller is asked to do. */
export interface Command {
  readonly opcode: number;
  /** Default 0. */
  readonly namespace?: number;
  /** Command dwords 10 to 15. */
  readonly dwords?: readonly number[];
}

/** A command, its memory, and who waits for its end. */
export interface Request {
  readonly command: Command;
  readonly data: DmaSlice | undefined;
  /** The controller is done with it. `retry`: it may go well the next time. */
  completed(status: number, result: number, retry: boolean): void;
}

/** A completion that cannot be: the controller is broken. */
export class ProtocolError extends Error {}

interface Doorbell {
  write(value: number): void;
}

export class QueuePair {
  readonly id: number;
  /** Entries. One stays empty. */
  readonly depth: number;
  readonly sqMemory: DmaSlice;
  readonly cqMemory: DmaSlice;
  /** A page for each slot: its PRP list. */
  readonly #lists: DmaSlice;
  readonly #tailDoorbell: Doorbell;
  readonly #headDoorbell: Doorbell;
  readonly #sq: DataView;
  readonly #cq: DataView;
  readonly #listView: DataView;
  readonly #slots: (Request | undefined)[];
  readonly #uses: Uint8Array;
  #free: number[];
  #tail = 0;
  #head = 0;
  #phase = 1;

  constructor(id: number, depth: number, pool: DmaPool, doorbells: { tail: Doorbell; head: Doorbell }) {
    this.id = id;
    this.depth = depth;
    this.sqMemory = pool.allocate(Math.max(depth * SQ_ENTRY, PAGE));
    this.cqMemory = pool.allocate(Math.max(depth * CQ_ENTRY, PAGE));
    this.#lists = pool.allocate((depth - 1) * PAGE);
    this.#tailDoorbell = doorbells.tail;
    this.#headDoorbell = doorbells.head;
    this.#sq = view(this.sqMemory);
    this.#cq = view(this.cqMemory);
    this.#listView = view(this.#lists);
    this.#slots = Array.from({ length: depth - 1 }, () => undefined);
    this.#uses = new Uint8Array(depth - 1);
    this.#free = [...this.#slots.keys()];
  }

  /** Requests that the controller has. */
  get busy(): number {
    return this.#slots.length - this.#free.length;
  }

  get full(): boolean {
    return this.#free.length === 0;
  }

  /** The requests that the controller has. */
  get pending(): Request[] {
    return this.#slots.filter((request) => request !== undefined);
  }

  /** Hands a request to the controller. Returns its command identifier. */
  submit(request: Request): number {
    const slot = this.#free.pop();
    if (slot === undefined) throw new RangeError(`queue ${this.id} is full`);
    this.#uses[slot]++;
    const id = this.#identifier(slot);
    this.#slots[slot] = request;
    const { opcode, namespace = 0, dwords = [] } = request.command;
    const at = this.#tail * SQ_ENTRY;
    this.sqMemory.bytes.fill(0, at, at + SQ_ENTRY);
    this.#sq.setUint8(at, opcode);
    this.#sq.setUint16(at + 2, id, true);
    this.#sq.setUint32(at + 4, namespace, true);
    if (request.data) this.#describeData(at, slot, request.data);
    for (let i = 0; i < dwords.length; i++) this.#sq.setUint32(at + 40 + 4 * i, dwords[i], true);
    this.#tail = (this.#tail + 1) % this.depth;
    this.#tailDoorbell.write(this.#tail);
    return id;
  }

  /** Takes what the controller has completed, and says how many. Throws ProtocolError. */
  poll(): number {
    let count = 0;
    // The phase tag tells entries of this pass through the ring from those of the last one.
    for (
      let at = 0;
      (this.#cq.getUint16((at = this.#head * CQ_ENTRY) + 14, true) & 1) === this.#phase;
      count++
    ) {
      const result = this.#cq.getUint32(at, true);
      const id = this.#cq.getUint16(at + 12, true);
      const field = this.#cq.getUint16(at + 14, true);
      const slot = id & (MOST_ENTRIES - 1);
      const request = this.#slots[slot];
      if (!request || this.#identifier(slot) !== id)
        throw new ProtocolError(
          `queue ${this.id}: a completion of command 0x${id.toString(16)}, which is none`,
        );
      if (++this.#head === this.depth) {
        this.#head = 0;
        this.#phase ^= 1;
      }
      this.#slots[slot] = undefined;
      this.#free.push(slot);
      // Do Not Retry is bit 15, above the status.
      request.completed((field >>> 1) & 0x7ff, result, (field & 0x8000) === 0);
    }
    if (count > 0) this.#headDoorbell.write(this.#head);
    return count;
  }

  /** Starts afresh, with a controller that was reset. Returns the requests that were not completed. */
  reset(): Request[] {
    const lost = this.pending;
    this.#slots.fill(undefined);
    this.#free = [...this.#slots.keys()];
    this.cqMemory.bytes.fill(0);
    this.#tail = 0;
    this.#head = 0;
    this.#phase = 1;
    return lost;
  }

  #identifier(slot: number): number {
    return ((this.#uses[slot] & 15) << SLOT_BITS) | slot;
  }

  /** The memory in pages (4.3): the first may begin anywhere, a second is named directly, more are in a list. */
  #describeData(at: number, slot: number, { iova, length }: DmaSlice): void {
    this.#sq.setBigUint64(at + 24, iova, true);
    const first = PAGE - Number(iova % BigInt(PAGE));
    const pages = Math.ceil(Math.max(0, length - first) / PAGE);
    let page = iova + BigInt(first);
    if (pages <= 1) {
      if (pages === 1) this.#sq.setBigUint64(at + 32, page, true);
      return;
    }
    for (let i = 0; i < pages; i++, page += BigInt(PAGE))
      this.#listView.setBigUint64(slot * PAGE + 8 * i, page, true);
    this.#sq.setBigUint64(at + 32, this.#lists.iova + BigInt(slot * PAGE), true);
  }
}

function view({ bytes }: DmaSlice): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
}
