/**
 * A user's bitmap of dirty pages (drivers/iommu/iommufd/iova_bitmap.c's role): bit n stands for the n-th page from
 * `iova` on, and bits are only ever set.
 */
import { PAGE_SIZE, type UserMemory } from '../user-memory';

/** Most pages of a bitmap that are held at a time. */
const MOST_PAGES = 512;

/** Pages of the bitmap that can be written now. */
interface Window {
  /** IOVA of the first bit. */
  readonly iova: bigint;
  /** And of the last that the bitmap has. */
  readonly last: bigint;
  /** Address of the byte with the first bit. */
  readonly address: bigint;
  /** Bits from there to the end of the last page: bits past the bitmap's own end are among them. */
  readonly bits: bigint;
}

export class DirtyBitmap {
  readonly #shift: bigint;
  /** Bytes that the bitmap has. */
  readonly #bytes: bigint;
  readonly #last: bigint;
  #window: Window | undefined;

  /** `length` and `pageSize` are not 0; of a page size that is no power of two the lowest bit counts. */
  constructor(
    readonly memory: UserMemory,
    readonly address: bigint,
    readonly iova: bigint,
    length: bigint,
    pageSize: bigint,
  ) {
    this.#shift = BigInt((pageSize & -pageSize).toString(2).length - 1);
    this.#bytes = ((length - 1n) >> this.#shift) / 8n + 1n;
    this.#last = iova + length - 1n;
  }

  /**
   * Sets the bits of [iova, iova + length). Linux's way with pages that stick out: one that starts before the
   * bitmap leaves no bit at all, and one that ends behind it sets bits behind it, as far as the memory page goes.
   */
  set(iova: bigint, length: bigint): void {
    const last = iova + length - 1n;
    while (iova <= last) {
      const held = this.#window;
      const window = held && iova >= held.iova && last <= held.last ? held : this.#advance(iova);
      if (!window) return;
      const first = (iova - window.iova) >> this.#shift;
      const final = (last - window.iova) >> this.#shift;
      const end = final < window.bits ? final : window.bits - 1n;
      if (first <= end) this.#write(window.address, Number(first), Number(end));
      if (end === final) return;
      iova = last - ((final - end) << this.#shift) + 1n;
    }
  }

  /** Moves the window to where `iova` has its bit. Undefined: it has none, or there is no memory. */
  #advance(iova: bigint): Window | undefined {
    const index = (BigInt.asUintN(64, iova - this.iova) >> this.#shift) / 8n;
    if (index >= this.#bytes) return undefined;
    const address = BigInt.asUintN(64, this.address + index);
    const offset = address % BigInt(PAGE_SIZE);
    const rest = this.#bytes - index;
    let pages = Number((rest + BigInt(PAGE_SIZE - 1)) / BigInt(PAGE_SIZE)) + (offset ? 1 : 0);
    pages = Math.min(pages, MOST_PAGES);
    const present = this.#presentPages(address - offset, pages);
    if (present === 0) return undefined;
    const bytes = BigInt(present * PAGE_SIZE) - offset;
    const start = this.iova + ((index * 8n) << this.#shift);
    const reach = start + (((bytes < rest ? bytes : rest) * 8n) << this.#shift) - 1n;
    this.#window = { iova: start, last: reach < this.#last ? reach : this.#last, address, bits: bytes * 8n };
    return this.#window;
  }

  /** How many of the pages from `address` on are there, before the first that is not. */
  #presentPages(address: bigint, pages: number): number {
    for (let i = 0; i < pages; i++)
      if (this.memory.pinCount(address + BigInt(i * PAGE_SIZE)) === undefined) return i;
    return pages;
  }

  #write(address: bigint, first: number, last: number): void {
    for (let at = first >> 3; at <= last >> 3; at++) {
      const from = at === first >> 3 ? first & 7 : 0;
      const to = at === last >> 3 ? last & 7 : 7;
      const byte = this.memory.read(address + BigInt(at), 1);
      // The rest of a page behind a program's array does not exist here.
      if (!byte) return;
      byte[0] |= (0xff << from) & (0xff >> (7 - to));
      this.memory.write(address + BigInt(at), byte);
    }
  }
}
