/**
 * The ioctls that programs make all the time, through the kernel's call page: map, unmap and invalidate, alone or in
 * batches. Fields are stored where the declarations of lib/uapi have them; nothing is allocated and no bigint computed.
 *
 * Writing a struct, making the call and reading what came back belong together: whoever comes next uses the same memory.
 */
import { CALL_PAGE_BYTES, CALL_STRUCTS_AT, MOST_CALLS, type CallPage, type Kernel } from './kernel';
import * as uapi from './uapi';

/** Bytes from one struct of a batch to the next: those of mappings are the longest, and equally long. */
const STRIDE = uapi.iommu_ioas_map.size;
/** Calls that a batch can have. */
export const MOST_IN_BATCH = Math.min(MOST_CALLS, Math.floor((CALL_PAGE_BYTES - CALL_STRUCTS_AT) / STRIDE));

// Kept here: what a module passes on from others it passes on through a function.
const { IOMMU_IOAS_MAP, IOMMU_IOAS_MAP_FILE, IOMMU_IOAS_COPY, IOMMU_IOAS_UNMAP, IOMMU_HWPT_INVALIDATE } =
  uapi;
const MAP = inWords(IOMMU_IOAS_MAP.struct.offsets);
const MAP_FILE = inWords(IOMMU_IOAS_MAP_FILE.struct.offsets);
const COPY = inWords(IOMMU_IOAS_COPY.struct.offsets);
const UNMAP = inWords(IOMMU_IOAS_UNMAP.struct.offsets);
const INVALIDATE = inWords(IOMMU_HWPT_INVALIDATE.struct.offsets);
const INVALIDATE_BYTES = IOMMU_HWPT_INVALIDATE.struct.size;
/** The entries of an invalidation lie behind its own struct. */
const ENTRIES_AT = CALL_STRUCTS_AT + STRIDE;
/** Bytes that they may have in all. */
export const MOST_ENTRY_BYTES = CALL_PAGE_BYTES - ENTRIES_AT;
const MAP_BYTES = IOMMU_IOAS_MAP.struct.size;
const MAP_FILE_BYTES = IOMMU_IOAS_MAP_FILE.struct.size;
const COPY_BYTES = IOMMU_IOAS_COPY.struct.size;
const UNMAP_BYTES = IOMMU_IOAS_UNMAP.struct.size;
const TWO_32 = 2 ** 32;

/** Which request it is. */
export interface HotRow {
  readonly name: string;
  readonly request: number;
}

/** What the three mapping requests have in common. `iova` counts with IOMMU_IOAS_MAP_FIXED_IOVA only. */
export interface Placing {
  readonly ioasId: number;
  /** IOMMU_IOAS_MAP_*. */
  readonly flags: number;
  readonly length: number;
  readonly iova: bigint;
}

export class HotCalls {
  readonly #page: CallPage;
  /** The page: words of 32 and of 64 bits. */
  readonly #words: Uint32Array;
  readonly #wide: BigUint64Array;
  readonly #bytes: Uint8Array;
  readonly #entries: bigint;

  constructor(
    kernel: Kernel,
    /** The open /dev/iommu. */
    readonly fd: number,
  ) {
    this.#page = kernel.callPage();
    this.#words = new Uint32Array(this.#page.buffer);
    this.#wide = new BigUint64Array(this.#page.buffer);
    this.#bytes = new Uint8Array(this.#page.buffer);
    this.#entries = this.#page.address + BigInt(ENTRIES_AT);
  }

  // Each of these writes the struct of call `index`, from 0 to MOST_IN_BATCH - 1, and returns its row.

  /** Memory at `address` of the process. */
  writeMap(index: number, { ioasId, flags, length, iova }: Placing, address: number): HotRow {
    const at = wordOf(index);
    const words = this.#words;
    words[at + MAP.size] = MAP_BYTES;
    words[at + MAP.flags] = flags;
    words[at + MAP.ioas_id] = ioasId;
    words[at + MAP.__reserved] = 0;
    this.#writeNumber(at + MAP.user_va, address);
    this.#writeNumber(at + MAP.length, length);
    this.#wide[(at + MAP.iova) >> 1] = iova;
    return IOMMU_IOAS_MAP;
  }

  /** A file from byte `start` on. */
  writeMapFile(index: number, { ioasId, flags, length, iova }: Placing, fd: number, start: number): HotRow {
    const at = wordOf(index);
    const words = this.#words;
    words[at + MAP_FILE.size] = MAP_FILE_BYTES;
    words[at + MAP_FILE.flags] = flags;
    words[at + MAP_FILE.ioas_id] = ioasId;
    words[at + MAP_FILE.fd] = fd;
    this.#writeNumber(at + MAP_FILE.start, start);
    this.#writeNumber(at + MAP_FILE.length, length);
    this.#wide[(at + MAP_FILE.iova) >> 1] = iova;
    return IOMMU_IOAS_MAP_FILE;
  }

  /** What another IOAS has at `sourceIova`. */
  writeCopy(
    index: number,
    { ioasId, flags, length, iova }: Placing,
    source: number,
    sourceIova: bigint,
  ): HotRow {
    const at = wordOf(index);
    const words = this.#words;
    words[at + COPY.size] = COPY_BYTES;
    words[at + COPY.flags] = flags;
    words[at + COPY.dst_ioas_id] = ioasId;
    words[at + COPY.src_ioas_id] = source;
    this.#writeNumber(at + COPY.length, length);
    this.#wide[(at + COPY.dst_iova) >> 1] = iova;
    this.#wide[(at + COPY.src_iova) >> 1] = sourceIova;
    return IOMMU_IOAS_COPY;
  }

  writeUnmap(index: number, ioasId: number, iova: bigint, length: bigint | number): HotRow {
    const at = wordOf(index);
    const words = this.#words;
    words[at + UNMAP.size] = UNMAP_BYTES;
    words[at + UNMAP.ioas_id] = ioasId;
    this.#wide[(at + UNMAP.iova) >> 1] = iova;
    if (typeof length === 'number') this.#writeNumber(at + UNMAP.length, length);
    else this.#wide[(at + UNMAP.length) >> 1] = length;
    return IOMMU_IOAS_UNMAP;
  }

  /**
   * The first call of all: on a nested table or a virtual IOMMU. `entries` are of one length, MOST_ENTRY_BYTES together at
   * most.
   */
  writeInvalidate(id: number, type: number, entries: readonly Uint8Array[]): HotRow {
    const words = this.#words;
    const at = wordOf(0);
    const length = entries.length > 0 ? entries[0].length : 0;
    words[at + INVALIDATE.size] = INVALIDATE_BYTES;
    words[at + INVALIDATE.hwpt_id] = id;
    this.#wide[(at + INVALIDATE.data_uptr) >> 1] = this.#entries;
    words[at + INVALIDATE.data_type] = type;
    words[at + INVALIDATE.entry_len] = length;
    words[at + INVALIDATE.entry_num] = entries.length;
    words[at + INVALIDATE.__reserved] = 0;
    for (let i = 0; i < entries.length; i++) this.#bytes.set(entries[i], ENTRIES_AT + i * length);
    return IOMMU_HWPT_INVALIDATE;
  }

  /** Makes the call whose struct was written as the first. Returns 0 or more, or -errno. */
  make(row: HotRow): number {
    return this.#page.ioctl(this.fd, row.request, CALL_STRUCTS_AT);
  }

  /** Puts call `index`, whose struct was written, into the next batch. */
  add(index: number, row: HotRow): void {
    this.#page.describe(index, this.fd, row.request, placeOf(index));
  }

  /** Makes the first `count` calls of the batch until one fails; how many did not. */
  run(count: number): number {
    return this.#page.run(count);
  }

  /** What call `index` of the last batch returned: of the one that failed, -errno. */
  result(index: number): number {
    return this.#page.result(index);
  }

  // What the calls left in their structs.

  /** Where the memory of mapping request `index` went. */
  mappedAt(index: number, row: HotRow): bigint {
    const offset = row === IOMMU_IOAS_COPY ? COPY.dst_iova : MAP.iova;
    return this.#wide[(wordOf(index) + offset) >> 1];
  }

  /** Entries of the invalidation that were carried out. */
  get invalidated(): number {
    return this.#words[wordOf(0) + INVALIDATE.entry_num];
  }

  /** Bytes that the first request unmapped. */
  get unmapped(): number {
    const at = wordOf(0) + UNMAP.length;
    return this.#words[at] + this.#words[at + 1] * TWO_32;
  }

  /** Below 2^53. A store takes what a word has room for. */
  #writeNumber(at: number, value: number): void {
    this.#words[at] = value;
    this.#words[at + 1] = value / TWO_32;
  }
}

function placeOf(index: number): number {
  return CALL_STRUCTS_AT + index * STRIDE;
}

/** Of the struct of call `index`. */
function wordOf(index: number): number {
  return placeOf(index) >> 2;
}

/** Offsets in words of 32 bits. */
function inWords<T extends Readonly<Record<string, number>>>(offsets: T): T {
  return Object.fromEntries(Object.entries(offsets).map(([name, offset]) => [name, offset >> 2])) as T;
}
