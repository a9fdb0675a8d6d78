/**
 * The address space of a simulated process: virtual addresses for JavaScript buffers, the kernel's copies to
 * and from them, and pinning, which gives their pages physical addresses that devices can reach.
 *
 * A buffer and its physical pages are the same bytes: a device's write is seen by the program at once, and
 * nothing is copied.
 */
import type { PhysicalMemory } from '../memory';

export const PAGE_SIZE = 4096;
const HUGE_PAGE_SIZE = 2 * 1024 * 1024;
/** Where mappings start: below the top of a 47-bit user address space, as mmap(2) places them on x86-64. */
const FIRST_ADDRESS = 0x7f00_0000_0000;

/** Addresses from here on are the kernel's. */
const END_OF_USER_SPACE = 1n << 47n;

/** One contiguous mapping of the process: a buffer and the pages it occupies. */
interface Area {
  /** Virtual address of the first byte, page-aligned. */
  readonly start: number;
  /** Bytes covered, whole pages. */
  readonly length: number;
  /** Held weakly: a buffer that the program dropped, and no device can reach, may be collected. */
  readonly buffer: WeakRef<ArrayBufferLike>;
  /** The same, strongly, while a page is pinned or the mapping is the kernel's own. */
  held: ArrayBufferLike | undefined;
  /** Made by `allocate`: stays until `unmap`, whoever still has a view of it. */
  readonly allocated: boolean;
  /** Physical address of the first byte, or -1 while no page is pinned. */
  physical: number;
  pins: number;
  /** The pins one by one: first page and the page after the last, counted from `start`. */
  readonly pinned: Set<{ readonly first: number; readonly end: number; readonly owner: object }>;
  /** Made of huge pages. */
  readonly huge: boolean;
  /** munmap happened: no new access through the address, but pinned pages live on. */
  gone: boolean;
}

/** Pages that stay where they are while devices use them. */
export interface Pin {
  /** Physical address of the first page; the others follow it. */
  readonly physical: number;
  unpin(): void;
}

export class UserMemory {
  readonly #physical: PhysicalMemory;
  /** Ascending by start: addresses are handed out upwards and never reused. */
  #areas: Area[] = [];
  #byBuffer = new WeakMap<ArrayBufferLike, Area>();
  #next = FIRST_ADDRESS;
  #collected = new FinalizationRegistry<Area>((area) => this.#drop(area));

  constructor(physical: PhysicalMemory) {
    this.#physical = physical;
  }

  /** The address of the first byte of `view`, giving its buffer a place in the address space if it has none. */
  addressOf(view: ArrayBufferView): number {
    const area = this.#byBuffer.get(view.buffer) ?? this.#place(view.buffer, PAGE_SIZE, false);
    return area.start + view.byteOffset;
  }

  /** mmap(2) of anonymous memory: zeroed, whole pages. RangeError where V8 has not that much. */
  allocate(length: number, huge: boolean): { buffer: ArrayBuffer; address: number } {
    const granule = huge ? HUGE_PAGE_SIZE : PAGE_SIZE;
    const buffer = new ArrayBuffer(Math.ceil(length / granule) * granule);
    const area = this.#place(buffer, granule, true);
    return { buffer, address: area.start };
  }

  /** munmap(2) of what `allocate` gave. Pages that are pinned stay with the devices that use them. */
  unmap(address: number): void {
    const area = this.#find(address);
    if (!area) return;
    area.gone = true;
    const buffer = area.buffer.deref();
    if (buffer instanceof ArrayBuffer && buffer.byteLength > 0) {
      // The program's views must become empty, as after munmap, while a device that still has the pages
      // pinned must go on seeing them: the contents move to a buffer only the machine knows.
      const moved = structuredClone(buffer, { transfer: [buffer] });
      if (area.pins > 0) {
        this.#physical.rebase(area.physical, moved);
        area.held = moved;
        return;
      }
    }
    area.held = undefined;
    this.#drop(area);
  }

  /** Everything from `address` to the end of the buffer it is in; undefined where nothing is mapped. */
  rest(address: number): Uint8Array | undefined {
    const area = this.#find(address);
    const buffer = area?.buffer.deref();
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
   * Undefined where any page is not mapped (EFAULT). `address` below 2^64, `length` in bytes. Pins of one `owner` on
   * the same page count as one.
   */
  pin(address: bigint, length: bigint, owner: object): Pin | undefined {
    if (address + length > END_OF_USER_SPACE) return undefined;
    const first = Number(address) - (Number(address) % PAGE_SIZE);
    const area = this.#find(first);
    const buffer = area?.buffer.deref();
    if (!area || !buffer || Number(address + length) > area.start + area.length) return undefined;
    if (buffer.byteLength === 0) return undefined;
    if (area.pins++ === 0) {
      area.held = buffer;
      area.physical = this.#physical.adopt(buffer as ArrayBuffer);
    }
    const end = Math.ceil((Number(address + length) - area.start) / PAGE_SIZE);
    const entry = { first: (first - area.start) / PAGE_SIZE, end, owner };
    area.pinned.add(entry);
    return {
      physical: area.physical + (first - area.start),
      unpin: () => {
        area.pinned.delete(entry);
        this.#unpin(area);
      },
    };
  }

  /**
   * How many owners have the page at `address` pinned; -1 where that cannot be told from outside because it is part
   * of a huge page. Undefined: not mapped (EFAULT).
   */
  pinCount(address: bigint): number | undefined {
    const area = address < END_OF_USER_SPACE ? this.#find(Number(address)) : undefined;
    if (!area) return undefined;
    if (area.huge) return -1;
    const page = Math.floor((Number(address) - area.start) / PAGE_SIZE);
    const owners = new Set<object>();
    for (const { first, end, owner } of area.pinned) if (first <= page && page < end) owners.add(owner);
    return owners.size;
  }

  #unpin(area: Area): void {
    if (--area.pins > 0) return;
    this.#physical.release(area.physical);
    area.physical = -1;
    if (!area.allocated) area.held = undefined;
    if (area.gone) this.#drop(area);
  }

  #place(buffer: ArrayBufferLike, alignment: number, allocated: boolean): Area {
    const start = Math.ceil(this.#next / alignment) * alignment;
    const length = Math.max(Math.ceil(buffer.byteLength / PAGE_SIZE), 1) * PAGE_SIZE;
    // One unmapped page between areas, so that an access past the end of a buffer faults.
    this.#next = start + length + PAGE_SIZE;
    const area: Area = {
      start,
      length,
      buffer: new WeakRef(buffer),
      held: allocated ? buffer : undefined,
      allocated,
      physical: -1,
      pins: 0,
      pinned: new Set(),
      huge: alignment > PAGE_SIZE,
      gone: false,
    };
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
    return area && !area.gone && address < area.start + area.length ? area : undefined;
  }
}
