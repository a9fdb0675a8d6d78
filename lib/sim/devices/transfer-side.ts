/** One end of a transfer by the DMA engine, when it is in memory. */
import { PAGE_SIZE, pageNumber } from './atc';

export class TransferSide {
  /** Whether the command has this end in memory; otherwise it is the buffer, or the pattern. */
  used = false;
  page = 0;
  offset = 0;
  /** Access bits of its translation requests, and of its untranslated requests. */
  wanted = 0;
  access = 0;
  // Where the next access goes: set by resolve().
  target = 0;
  translated = false;
  /** The translation forbids No Snoop. */
  snooped = false;

  constructor(readonly write: boolean) {}

  place(high: number, low: number): void {
    this.page = pageNumber(high, low);
    this.offset = low % PAGE_SIZE;
  }

  advance(length: number): void {
    const offset = this.offset + length;
    this.page += Math.floor(offset / PAGE_SIZE);
    this.offset = offset % PAGE_SIZE;
  }

  /** Pages from the present one to the end of what is left. */
  pages(remaining: number): number {
    return Math.ceil((this.offset + remaining) / PAGE_SIZE);
  }
}
