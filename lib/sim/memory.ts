/**
 * The machine's physical address space: sparse, byte-addressed, little-endian.
 *
 * Addresses are numbers below 2^52 (float64 holds them exactly). RAM for the kernel's use lies at [0, ramBytes);
 * memory of user processes is adopted above 4 GiB, so that a program's typed array and the device's view of the
 * page alias the same bytes. An address with neither behind it has no RAM: every accessor says so instead of
 * inventing a value, because hardware reports such a fetch with a fault reason of its own.
 */

/** What {@link PhysicalMemory.read32} returns where there is no RAM: a value no 32-bit word can have. */
export const UNREADABLE = 2 ** 32;

export const PAGE_BYTES = 4096;
/** Granularity in which backing store is created and adopted. */
export const CHUNK_BYTES = 0x20_0000;

const CHUNK_SHIFT = 21;
const CHUNK_MASK = CHUNK_BYTES - 1;
const MAX_ADDRESS = 2 ** 52;
/** Fixed hardware (I/O APIC, remapping registers, the interrupt window) starts here: RAM ends below it. */
const RAM_LIMIT = 0xfec0_0000;
/** First chunk handed to adopted memory, at 4 GiB: above every 32-bit window, interrupts included. */
const FIRST_ADOPTED = 2 ** 32 / CHUNK_BYTES;
/** Up to so many bytes are copied one by one: quicker than a view of them is made, and no garbage. */
const FEW_BYTES = 128;

interface Range {
  first: number;
  count: number;
}

export class PhysicalMemory {
  readonly ramBytes: number;
  /** One element a chunk; undefined where there is no RAM, or kernel RAM nobody has touched yet. */
  private readonly words = new Array<Int32Array | undefined>(FIRST_ADOPTED).fill(undefined);
  private readonly bytes = new Array<Uint8Array | undefined>(FIRST_ADOPTED).fill(undefined);
  private readonly adopted = new Map<number, number>();
  /** Released chunk ranges, in chunks, ascending and never adjacent. */
  private readonly holes: Range[] = [];
  private nextPage = 1;
  private readonly freePages: number[] = [];
  private readonly allocated: Uint8Array;

  /** `ramBytes`: kernel RAM, a positive multiple of 4096 up to 0xfec00000. */
  constructor(ramBytes: number) {
    if (!Number.isInteger(ramBytes) || ramBytes <= 0 || ramBytes % PAGE_BYTES !== 0 || ramBytes > RAM_LIMIT) {
      throw new RangeError(`ramBytes must be a multiple of 4096 in (0, 0xfec00000], got ${ramBytes}`);
    }
    this.ramBytes = ramBytes;
    this.allocated = new Uint8Array(ramBytes / PAGE_BYTES);
  }

  /** A zeroed 4 KiB page of kernel RAM: its physical address (never 0), or -1 when there is none left. */
  allocatePage(): number {
    let page = this.freePages.pop();
    if (page === undefined) {
      if (this.nextPage >= this.allocated.length) return -1;
      page = this.nextPage++;
    }
    this.allocated[page] = 1;
    const pa = page * PAGE_BYTES;
    const offset = pa & CHUNK_MASK;
    this.bytesAt(pa)!.fill(0, offset, offset + PAGE_BYTES);
    return pa;
  }

  /**
   * `count` contiguous zeroed pages: the address of the first, or -1. Each can be freed by itself; a run is always
   * fresh RAM, so this is for what is allocated once.
   */
  allocatePages(count: number): number {
    if (this.nextPage + count > this.allocated.length) return -1;
    const first = this.nextPage;
    this.nextPage += count;
    for (let page = first; page < first + count; page++) {
      this.allocated[page] = 1;
      const offset = (page * PAGE_BYTES) & CHUNK_MASK;
      this.bytesAt(page * PAGE_BYTES)!.fill(0, offset, offset + PAGE_BYTES);
    }
    return first * PAGE_BYTES;
  }

  /** Gives back a page of {@link allocatePage} or {@link allocatePages}; anything else is a RangeError. */
  freePage(pa: number): void {
    if (pa % PAGE_BYTES !== 0 || this.allocated[pa / PAGE_BYTES] !== 1) {
      throw new RangeError(`freePage: 0x${pa.toString(16)} is not an allocated page`);
    }
    this.allocated[pa / PAGE_BYTES] = 0;
    this.freePages.push(pa / PAGE_BYTES);
  }

  /** Pages {@link allocatePage} has given out and not got back. */
  get allocatedPages(): number {
    return this.nextPage - 1 - this.freePages.length;
  }

  /**
   * Makes `buffer`'s bytes RAM at a fresh physical range above 4 GiB, aligned to 2 MiB and contiguous; returns its
   * base. Addresses behind the buffer's end have no RAM. The buffer is kept alive until {@link release}.
   */
  adopt(buffer: ArrayBufferLike): number {
    if (buffer.byteLength === 0) throw new RangeError('adopt: the buffer is empty or detached');
    const count = Math.ceil(buffer.byteLength / CHUNK_BYTES);
    const first = this.takeChunks(count);
    this.adopted.set(first, count);
    this.rebase(first * CHUNK_BYTES, buffer);
    return first * CHUNK_BYTES;
  }

  /** Puts another buffer, of as many chunks, behind the range at `base` (from {@link adopt}). */
  rebase(base: number, buffer: ArrayBufferLike): void {
    const first = base / CHUNK_BYTES;
    const count = this.adopted.get(first);
    if (count !== Math.ceil(buffer.byteLength / CHUNK_BYTES)) {
      throw new RangeError(
        `rebase: ${buffer.byteLength} bytes do not fit what was adopted at 0x${base.toString(16)}`,
      );
    }
    for (let i = 0; i < count; i++) {
      const offset = i * CHUNK_BYTES;
      const length = Math.min(CHUNK_BYTES, buffer.byteLength - offset);
      this.words[first + i] = new Int32Array(buffer, offset, length >> 2);
      this.bytes[first + i] = new Uint8Array(buffer, offset, length);
    }
  }

  /** Removes the RAM at `base` (from {@link adopt}); its addresses may be handed out again. */
  release(base: number): void {
    const first = base / CHUNK_BYTES;
    const count = this.adopted.get(first);
    if (count === undefined) throw new RangeError(`release: nothing was adopted at 0x${base.toString(16)}`);
    this.adopted.delete(first);
    for (let i = first; i < first + count; i++) {
      this.words[i] = undefined;
      this.bytes[i] = undefined;
    }
    this.returnChunks(first, count);
  }

  /** True where every byte of [pa, pa + length) has RAM. */
  has(pa: number, length: number): boolean {
    if (!(pa >= 0 && length >= 0 && pa + length <= MAX_ADDRESS)) return false;
    const end = pa + length;
    while (pa < end) {
      const part = this.partAt(pa, end - pa);
      if (part === 0) return false;
      pa += part;
    }
    return true;
  }

  /** The signed 32-bit word at `pa` (a multiple of 4), or {@link UNREADABLE} where there is no RAM. */
  read32(pa: number): number {
    requireAligned(pa);
    const words = this.wordsAt(pa);
    const at = (pa % CHUNK_BYTES) >>> 2;
    return words !== undefined && at < words.length ? words[at]! : UNREADABLE;
  }

  /** Writes the low 32 bits of `value`; false, and nothing written, where there is no RAM. */
  write32(pa: number, value: number): boolean {
    requireAligned(pa);
    const words = this.wordsAt(pa);
    const at = (pa % CHUNK_BYTES) >>> 2;
    if (words === undefined || at >= words.length) return false;
    words[at] = value;
    return true;
  }

  /** Writes a 64-bit entry at `pa` (a multiple of 8), low half at the lower address; false where there is no RAM. */
  write64(pa: number, high: number, low: number): boolean {
    if (pa % 8 !== 0) throw new RangeError(`0x${pa.toString(16)} is not a multiple of 8`);
    const words = this.wordsAt(pa);
    const at = (pa % CHUNK_BYTES) >>> 2;
    if (words === undefined || at + 1 >= words.length) return false;
    words[at] = low;
    words[at + 1] = high;
    return true;
  }

  /** Reads `into.length` words at `pa`; false, with `into` partly filled, where one of them has no RAM. */
  readWords(pa: number, into: Int32Array): boolean {
    for (let i = 0; i < into.length; i++) {
      const word = this.read32(pa + 4 * i);
      if (word === UNREADABLE) return false;
      into[i] = word;
    }
    return true;
  }

  /** Writes all of `from` at `pa`; false where one word has no RAM, and then nothing past it was written. */
  writeWords(pa: number, from: ArrayLike<number>): boolean {
    for (let i = 0; i < from.length; i++) {
      if (!this.write32(pa + 4 * i, from[i]!)) return false;
    }
    return true;
  }

  /** Memory to `into`. False where a byte has no RAM: everything before it was copied, nothing from it on. */
  copyOut(pa: number, into: Uint8Array, at: number, length: number): boolean {
    if (!(pa >= 0 && pa < MAX_ADDRESS)) return length === 0;
    return this.copyOutAt(Math.floor(pa / 2 ** 32), pa | 0, into, at, length);
  }

  /** `from` to memory. False where a byte has no RAM: everything before it was copied, nothing from it on. */
  copyIn(pa: number, from: Uint8Array, at: number, length: number): boolean {
    if (!(pa >= 0 && pa < MAX_ADDRESS)) return length === 0;
    return this.copyInAt(Math.floor(pa / 2 ** 32), pa | 0, from, at, length);
  }

  /** {@link copyOut} at an address given as halves; makes no garbage of a few bytes. */
  copyOutAt(high: number, low: number, into: Uint8Array, at: number, length: number): boolean {
    requireRange(into, at, length);
    while (length > 0) {
      const bytes = this.chunkBytesAt(high, low);
      const offset = low & CHUNK_MASK;
      if (bytes === undefined || offset >= bytes.length) return false;
      const part = Math.min(length, bytes.length - offset);
      if (part > FEW_BYTES) into.set(bytes.subarray(offset, offset + part), at);
      else for (let i = 0; i < part; i++) into[at + i] = bytes[offset + i]!;
      at += part;
      length -= part;
      low = (low + part) | 0;
      if (low === 0) high++;
    }
    return true;
  }

  /** {@link copyIn} at an address given as halves; makes no garbage of a few bytes. */
  copyInAt(high: number, low: number, from: Uint8Array, at: number, length: number): boolean {
    requireRange(from, at, length);
    while (length > 0) {
      const bytes = this.chunkBytesAt(high, low);
      const offset = low & CHUNK_MASK;
      if (bytes === undefined || offset >= bytes.length) return false;
      const part = Math.min(length, bytes.length - offset);
      if (part > FEW_BYTES) bytes.set(from.subarray(at, at + part), offset);
      else for (let i = 0; i < part; i++) bytes[offset + i] = from[at + i]!;
      at += part;
      length -= part;
      low = (low + part) | 0;
      if (low === 0) high++;
    }
    return true;
  }

  /**
   * The words of the 2 MiB chunk that holds an address given as halves (high below 2^20), or undefined: for table
   * walkers. The address's word is at `(low & 0x1fffff) >>> 2`, if that is below the array's length.
   */
  chunkAt(high: number, low: number): Int32Array | undefined {
    const index = (high << (32 - CHUNK_SHIFT)) | (low >>> CHUNK_SHIFT);
    if (index < this.words.length) {
      const words = this.words[index];
      if (words !== undefined) return words;
    }
    return this.touch(index);
  }

  /** Sets `bits` in the word at an address given as halves (high below 2^20), which has RAM. */
  setBits(high: number, low: number, bits: number): void {
    const words = this.chunkAt(high, low)!;
    words[(low & CHUNK_MASK) >>> 2]! |= bits;
  }

  private chunkBytesAt(high: number, low: number): Uint8Array | undefined {
    if (high >>> 20 !== 0 || this.chunkAt(high, low) === undefined) return undefined;
    return this.bytes[(high << (32 - CHUNK_SHIFT)) | (low >>> CHUNK_SHIFT)];
  }

  private wordsAt(pa: number): Int32Array | undefined {
    if (!(pa >= 0 && pa < MAX_ADDRESS)) return undefined;
    const index = Math.floor(pa / CHUNK_BYTES);
    return this.words[index] ?? this.touch(index);
  }

  private bytesAt(pa: number): Uint8Array | undefined {
    return this.wordsAt(pa) === undefined ? undefined : this.bytes[Math.floor(pa / CHUNK_BYTES)];
  }

  /** How many of `length` bytes from `pa` are in `pa`'s chunk and have RAM. */
  private partAt(pa: number, length: number): number {
    const bytes = this.bytesAt(pa);
    if (bytes === undefined) return 0;
    return Math.max(0, Math.min(length, bytes.length - (pa % CHUNK_BYTES)));
  }

  /** Kernel RAM gets its backing store with the first access. */
  private touch(index: number): Int32Array | undefined {
    if (index < 0 || index * CHUNK_BYTES >= this.ramBytes) return undefined;
    const bytes = new Uint8Array(Math.min(CHUNK_BYTES, this.ramBytes - index * CHUNK_BYTES));
    this.bytes[index] = bytes;
    return (this.words[index] = new Int32Array(bytes.buffer));
  }

  private takeChunks(count: number): number {
    const hole = this.holes.find((range) => range.count >= count);
    if (hole === undefined) {
      const first = this.words.length;
      if ((first + count) * CHUNK_BYTES > MAX_ADDRESS) throw new RangeError('physical address space is full');
      // One by one: an array that is written far behind its end becomes a slow hash table.
      for (let i = 0; i < count; i++) {
        this.words.push(undefined);
        this.bytes.push(undefined);
      }
      return first;
    }
    const first = hole.first;
    hole.first += count;
    hole.count -= count;
    if (hole.count === 0) this.holes.splice(this.holes.indexOf(hole), 1);
    return first;
  }

  private returnChunks(first: number, count: number): void {
    this.holes.push({ first, count });
    this.holes.sort((a, b) => a.first - b.first);
    for (let i = this.holes.length - 1; i > 0; i--) {
      const before = this.holes[i - 1]!;
      const range = this.holes[i]!;
      if (before.first + before.count === range.first) {
        before.count += range.count;
        this.holes.splice(i, 1);
      }
    }
  }
}

function requireAligned(pa: number): void {
  if (pa % 4 !== 0) throw new RangeError(`0x${pa.toString(16)} is not a multiple of 4`);
}

function requireRange(array: Uint8Array, at: number, length: number): void {
  if (!(at >= 0 && length >= 0 && at + length <= array.length)) {
    throw new RangeError(`[${at}, ${at + length}) is outside an array of ${array.length} bytes`);
  }
}
