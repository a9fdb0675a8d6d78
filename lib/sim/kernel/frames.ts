/**
 * The page frames of a buffer: memory of a program that devices reach too, once a page of it is pinned. Both see the
 * same bytes, and nothing is copied.
 */
import type { PhysicalMemory } from '../memory';

export const PAGE_SIZE = 4096;

export class Frames {
  readonly #memory: PhysicalMemory;
  /** Held weakly: a buffer that the program dropped, and nobody else needs, may be collected. */
  #buffer: WeakRef<ArrayBufferLike>;
  #held: ArrayBufferLike | undefined;
  #holders = 0;
  /** Physical address of the first byte while a page is pinned. */
  #physical = 0;
  readonly #pins = new Set<Pin>();

  /** `huge`: made of huge pages. */
  constructor(
    memory: PhysicalMemory,
    buffer: ArrayBufferLike,
    readonly huge: boolean,
  ) {
    this.#memory = memory;
    this.#buffer = new WeakRef(buffer);
  }

  /** Physical address of page 0, while a page is pinned. */
  get physical(): number {
    return this.#physical;
  }

  /** The bytes; undefined once they were collected. */
  get buffer(): ArrayBufferLike | undefined {
    return this.#held ?? this.#buffer.deref();
  }

  /** Keeps the memory, whatever becomes of the program's views, until `drop`. */
  hold(): void {
    if (this.#holders++ === 0) this.#held = this.#buffer.deref();
  }

  drop(): void {
    if (--this.#holders === 0) this.#held = undefined;
  }

  /**
   * Takes the memory away from the program: its views become empty, as after munmap. Whoever holds the memory goes on
   * with the same bytes.
   */
  detach(): void {
    const { buffer } = this;
    if (!(buffer instanceof ArrayBuffer) || buffer.byteLength === 0) return;
    const moved = structuredClone(buffer, { transfer: [buffer] });
    this.#buffer = new WeakRef(moved);
    if (this.#holders > 0) this.#held = moved;
    if (this.#pins.size > 0) this.#memory.rebase(this.#physical, moved);
  }

  /** Pins pages [first, end), which the buffer must have. Undefined if its memory is gone. */
  pin(first: number, end: number): Pin | undefined {
    if (this.#pins.size === 0) {
      const { buffer } = this;
      if (!buffer || buffer.byteLength === 0) return undefined;
      this.#physical = this.#memory.adopt(buffer);
    }
    this.hold();
    const pin = new Pin(this, first, end);
    this.#pins.add(pin);
    return pin;
  }

  /** Only for the pin itself. */
  unpin(pin: Pin): void {
    if (!this.#pins.delete(pin)) return;
    if (this.#pins.size === 0) this.#memory.release(this.#physical);
    this.drop();
  }

  /** How many pins a page has. */
  pinCount(page: number): number {
    let count = 0;
    for (const pin of this.#pins) if (pin.first <= page && page < pin.end) count++;
    return count;
  }
}

/** Pages that stay where they are while devices use them. */
export class Pin {
  #end: number;

  constructor(
    private readonly frames: Frames,
    /** Page of the frames. */
    readonly first: number,
    end: number,
  ) {
    this.#end = end;
  }

  /** The page after the last. */
  get end(): number {
    return this.#end;
  }

  /** Physical address of the first page; the others follow it. */
  get physical(): number {
    return this.frames.physical + this.first * PAGE_SIZE;
  }

  /** Keeps the first `pages` pages; the rest becomes a pin of its own. */
  split(pages: number): Pin {
    const middle = this.first + pages;
    const rest = this.frames.pin(middle, this.#end);
    if (!rest) throw new Error('pinned memory is gone');
    this.#end = middle;
    return rest;
  }

  unpin(): void {
    this.frames.unpin(this);
  }
}
