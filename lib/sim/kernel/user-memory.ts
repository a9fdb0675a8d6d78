/**
 * The address space of a simulated process (mm_struct): virtual addresses for JavaScript buffers, the kernel's copies
 * to and from them, and pinning, which gives their pages physical addresses that devices can reach.
 */
import type { PhysicalMemory } from '../memory';
import { Frames, PAGE_SIZE, type Pin } from './frames';

export { PAGE_SIZE } from './frames';
const HUGE_PAGE_SIZE = 2 * 1024 * 1024;
/** Where mappings start: below the top of a 47-bit user address space, as mmap(2) places them on x86-64. */
const FIRST_ADDRESS = 0x7f00_0000_0000;

/** Addresses from here on are the kernel's. */
const END_OF_USER_SPACE = 1n << 47n;

/** One contiguous mapping of the process: some frames, all of them. */
interface Area {
  /** Virtual address of the first byte, page-aligned. */
  readonly start: number;
  /** Bytes covered, whole pages. */
  readonly length: number;
  readonly frames: Frames;
}

/** Memory that the process asked for. */
export interface Allocation {
  readonly buffer: ArrayBuffer;
  readonly address: number;
  readonly frames: Frames;
}

export class UserMemory {
  /** Pages that count against the RLIMIT_MEMLOCK of this process (mm_struct's locked_vm). */
  lockedPages = 0;
  /** Pages that devices hold, counted against a limit or not (mm_struct's pinned_vm). */
  pinnedPages = 0;
  readonly #physical: PhysicalMemory;
  /** Ascending by start: addresses are handed out upwards and never reused. */
  #areas: Area[] = [];
  #byBuffer = new WeakMap<ArrayBufferLike, Area>();
  #next = FIRST_ADDRESS;
  #collected = new FinalizationRegistry<Area>((area) => this.#drop(area));
  #ended = false;

  constructor(physical: PhysicalMemory) {
    this.#physical = physical;
  }

  /** The process has ended: nothing is mapped any more, for good. Pages that are pinned stay with their devices. */
  end(): void {
    this.#ended = true;
    this.#areas = [];
  }

  get ended(): boolean {
    return this.#ended;
  }

  /** The address of the first byte of `view`, giving its buffer a place in the address space if it has none. */
  addressOf(view: ArrayBufferView): number {
    const area = this.#byBuffer.get(view.buffer) ?? this.#place(view.buffer, PAGE_SIZE);
    return area.start + view.byteOffset;
  }

  /** mmap(2) of anonymous memory: zeroed, whole pages. RangeError where V8 has not that much. */
  allocate(length: number, huge: boolean): Allocation {
    const granule = huge ? HUGE_PAGE_SIZE : PAGE_SIZE;
    const buffer = new ArrayBuffer(Math.ceil(length / granule) * granule);
    const { start: address, frames } = this.#place(buffer, granule);
    frames.hold();
    return { buffer, address, frames };
  }

  /** munmap(2) of what `allocate` gave. Pages that are pinned stay with the devices that use them. */
  unmap({ address, frames }: Allocation): void {
    const area = this.#find(address);
    if (!area) return;
    this.#drop(area);
    frames.detach();
    frames.drop();
  }

  /** Everything from `address` to the end of the buffer it is in; undefined where nothing is mapped. */
  rest(address: number): Uint8Array | undefined {
    const area = this.#find(address);
    const buffer = area?.frames.buffer;
    if (!area || !buffer || address - area.start > buffer.byteLength) return undefined;
    return new Uint8Array(buffer, address - area.start);
  }

  /** The bytes of [address, address + length) up to the first that is not mapped. */
  mapped(address: bigint, length: number): Uint8Array {
    const bytes = address < END_OF_USER_SPACE ? this.rest(Number(address)) : undefined;
    return bytes ? bytes.subarray(0, length) : new Uint8Array(0);
  }

  /** copy_from_user: the bytes at `address`, copied, or undefined where any of them is not mapped (EFAULT). */
  read(address: bigint, length: number): Uint8Array<ArrayBuffer> | undefined {
    const source = this.mapped(address, length);
    return source.length === length ? new Uint8Array(source) : undefined;
  }

  /** copy_to_user: false where a byte is not mapped; those before it are written. */
  write(address: bigint, bytes: Uint8Array): boolean {
    const target = this.mapped(address, bytes.length);
    target.set(bytes.subarray(0, target.length));
    return target.length === bytes.length;
  }

  /** clear_user: likewise, with zeros. */
  clear(address: bigint, length: number): boolean {
    const target = this.mapped(address, length);
    target.fill(0);
    return target.length === length;
  }

  /**
   * Pins the whole pages that hold [address, address + length), so that devices can reach them until `unpin`.
   * Undefined where any page is not mapped (EFAULT). `address` below 2^64, `length` in bytes.
   */
  pin(address: bigint, length: bigint): Pin | undefined {
    if (address + length > END_OF_USER_SPACE) return undefined;
    const first = Number(address) - (Number(address) % PAGE_SIZE);
    const area = this.#find(first);
    if (!area || Number(address + length) > area.start + area.length) return undefined;
    const end = Math.ceil((Number(address + length) - area.start) / PAGE_SIZE);
    return area.frames.pin((first - area.start) / PAGE_SIZE, end);
  }

  /**
   * How often the page at `address` is pinned; -1 where that cannot be told from outside because it is part of a huge
   * page. Undefined: not mapped (EFAULT).
   */
  pinCount(address: bigint): number | undefined {
    const area = address < END_OF_USER_SPACE ? this.#find(Number(address)) : undefined;
    if (!area) return undefined;
    if (area.frames.huge) return -1;
    return area.frames.pinCount(Math.floor((Number(address) - area.start) / PAGE_SIZE));
  }

  #place(buffer: ArrayBufferLike, alignment: number): Area {
    const start = Math.ceil(this.#next / alignment) * alignment;
    const length = Math.max(Math.ceil(buffer.byteLength / PAGE_SIZE), 1) * PAGE_SIZE;
    // One unmapped page between areas, so that an access past the end of a buffer faults.
    this.#next = start + length + PAGE_SIZE;
    const frames = new Frames(this.#physical, buffer, alignment > PAGE_SIZE);
    const area: Area = { start, length, frames };
    this.#areas.push(area);
    this.#byBuffer.set(buffer, area);
    this.#collected.register(buffer, area, area);
    return area;
  }

  /** Takes the area out of the address space, if it is still there: unmapping and collection may both come. */
  #drop(area: Area): void {
    const index = this.#indexOf(area.start);
    if (this.#areas[index] === area) this.#areas.splice(index, 1);
  }

  /** Index of the last area that starts at or below `address`; -1 where there is none. */
  #indexOf(address: number): number {
    let low = 0;
    let high = this.#areas.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#areas[middle].start <= address) low = middle + 1;
      else high = middle;
    }
    return low - 1;
  }

  #find(address: number): Area | undefined {
    const area = this.#areas[this.#indexOf(address)];
    return area && address < area.start + area.length ? area : undefined;
  }
}
