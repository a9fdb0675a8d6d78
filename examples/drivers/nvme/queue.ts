/** A submission queue and its completion queue. NVM Express 1.4, chapter 4. */
import type { DmaSlice } from 'iommufd';
import type { Memory, MemoryRange } from './memory';

const SQ_ENTRY = 64;
const CQ_ENTRY = 16;
export const PAGE = 4096;
/** Pages that one page of a PRP list points to, and one more. */
export const MOST_PAGES = PAGE / 8;
/**
 * A command identifier is a slot, above it how often the slot was used, and a bit of parity, so that an odd number of bits are
 * set: a late completion is noticed, and one of which a bit was flipped is never that of another command. 0 is none.
 */
const SLOT_BITS = 12;
const USES_MASK = 7;
const PARITY = 0x8000;
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
  readonly data: MemoryRange | undefined;
  /** Metadata of the blocks, in a buffer of its own. */
  readonly metadata: MemoryRange | undefined;
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

  constructor(id: number, depth: number, memory: Memory, doorbells: { tail: Doorbell; head: Doorbell }) {
    this.id = id;
    this.depth = depth;
    this.sqMemory = memory.toDevice.allocate(Math.max(depth * SQ_ENTRY, PAGE));
    this.cqMemory = memory.fromDevice.allocate(Math.max(depth * CQ_ENTRY, PAGE));
    this.#lists = memory.toDevice.allocate((depth - 1) * PAGE);
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

  /** Hands a request to the controller. Returns its command identifier. What throws has handed over nothing. */
  submit(request: Request): number {
    const slot = this.#free.at(-1);
    if (slot === undefined) throw new RangeError(`queue ${this.id} is full`);
    this.#uses[slot]++;
    const id = this.#identifier(slot);
    const { opcode, namespace = 0, dwords = [] } = request.command;
    const at = this.#tail * SQ_ENTRY;
    this.sqMemory.bytes.fill(0, at, at + SQ_ENTRY);
    this.#sq.setUint8(at, opcode);
    this.#sq.setUint16(at + 2, id, true);
    this.#sq.setUint32(at + 4, namespace, true);
    if (request.metadata) this.#sq.setBigUint64(at + 16, request.metadata.iova, true);
    if (request.data) this.#describeData(at, slot, request.data);
    for (let i = 0; i < dwords.length; i++) this.#sq.setUint32(at + 40 + 4 * i, dwords[i], true);
    const tail = (this.#tail + 1) % this.depth;
    this.#tailDoorbell.write(tail);
    this.#tail = tail;
    this.#free.pop();
    this.#slots[slot] = request;
    return id;
  }

  /** Takes what the controller has completed, and says how many. Throws ProtocolError. */
  poll(): number {
    let count = 0;
    for (let entry = this.#next(); entry; entry = this.#next()) {
      const { id, field, result } = entry;
      const request = this.#requestOf(id);
      if (!request) throw this.#wrong(`a completion of command 0x${id.toString(16)}, which is none`);
      // No identifier: what is in the entry from now on is none that was just written.
      this.#cq.setUint16(this.#head * CQ_ENTRY + 12, 0, true);
      if (++this.#head === this.depth) {
        this.#head = 0;
        this.#phase ^= 1;
      }
      const slot = id & (MOST_ENTRIES - 1);
      this.#slots[slot] = undefined;
      this.#free.push(slot);
      count++;
      // Do Not Retry is bit 15, above the status.
      request.completed((field >>> 1) & 0x7ff, result, (field & 0x8000) === 0);
    }
    if (count > 0) this.#headDoorbell.write(this.#head);
    return count;
  }

  /** The entry at the head, if it is new: the phase tag tells this pass through the ring from the last one. */
  #next(): { id: number; field: number; result: number } | undefined {
    const at = this.#head * CQ_ENTRY;
    // At once: the controller may be writing.
    const last = this.#cq.getUint32(at + 12, true);
    const [id, field] = [last & 0xffff, last >>> 16];
    if ((field & 1) !== this.#phase) {
      if (id !== 0) throw this.#wrong(`a completion of command 0x${id.toString(16)} with a wrong phase tag`);
      return undefined;
    }
    const queue = this.#cq.getUint16(at + 10, true);
    if (queue !== this.id) throw this.#wrong(`a completion of a command of queue ${queue}`);
    return { id, field, result: this.#cq.getUint32(at, true) };
  }

  #wrong(what: string): ProtocolError {
    return new ProtocolError(`queue ${this.id}: ${what}`);
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
    const id = ((this.#uses[slot] & USES_MASK) << SLOT_BITS) | slot;
    let bits = id ^ (id >>> 8);
    for (const shift of [4, 2, 1]) bits ^= bits >>> shift;
    return (bits & 1) === 1 ? id : id | PARITY;
  }

  #requestOf(id: number): Request | undefined {
    const slot = id & (MOST_ENTRIES - 1);
    return this.#identifier(slot) === id ? this.#slots[slot] : undefined;
  }

  /** The memory in pages (4.3): the first may begin anywhere, a second is named directly, more are in a list. */
  #describeData(at: number, slot: number, { iova, length }: MemoryRange): void {
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
