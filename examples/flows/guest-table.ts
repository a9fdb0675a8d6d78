/** A guest's page table in VT-d first-stage format, four levels, in guest memory: what a user-managed IOASID points to. */
import type { DmaBuffer } from 'iommufd';

const PAGE = 4096n;
/** Present, for user-mode requests; and writable. */
const PRESENT = 0b101n;
const WRITABLE = 0b010n;
const LEVELS = 4;

export class GuestTable {
  readonly #words: BigUint64Array;
  #next = 1;

  /** In `memory` from its page `firstPage` on, which devices see at guest-physical address `gpa`. The root is at `gpa`. */
  constructor(
    memory: DmaBuffer,
    firstPage: number,
    readonly gpa: bigint,
  ) {
    const { buffer, byteOffset, length } = memory.bytes.subarray(firstPage * Number(PAGE));
    this.#words = new BigUint64Array(buffer, byteOffset, length / 8);
  }

  /** Leads the page at `address` to the guest-physical page `target`, or nowhere. */
  set(address: bigint, target: bigint | undefined, writable = true): void {
    let table = 0;
    for (let level = LEVELS - 1; level > 0; level--) {
      const at = table * 512 + index(address, level);
      if (this.#words[at] === 0n)
        this.#words[at] = (this.gpa + BigInt(this.#next++) * PAGE) | PRESENT | WRITABLE;
      table = Number(((this.#words[at] & ~0xfffn) - this.gpa) / PAGE);
    }
    this.#words[table * 512 + index(address, 0)] =
      target === undefined ? 0n : target | PRESENT | (writable ? WRITABLE : 0n);
  }
}

const index = (address: bigint, level: number): number =>
  Number((address >> BigInt(12 + 9 * level)) & 0x1ffn);
