/**
 * Interrupt entry cache. Intel VT-d Architecture Specification rev. 4.1, section 6.4 "Interrupt Entry Cache", tagged by
 * interrupt_index.
 *
 * Direct-mapped; entries leave only by invalidation or collision. Entries that would fault are not cached (CAP.CM = 0).
 */
import { Irte } from './interrupt-table';

const SLOTS = 256;

interface CachedIrte {
  readonly index: number;
  readonly irte: Irte;
}

export class InterruptEntryCache {
  private readonly slots = new Array<CachedIrte | undefined>(SLOTS).fill(undefined);

  find(index: number): Irte | undefined {
    const cached = this.slots[index & (SLOTS - 1)];
    return cached !== undefined && cached.index === index ? cached.irte : undefined;
  }

  insert(index: number, irte: Irte): void {
    this.slots[index & (SLOTS - 1)] = { index, irte };
  }

  invalidateAll(): void {
    this.slots.fill(undefined);
  }

  /** Index-selective: `index` and the entries that differ from it in the low `mask` bits only. */
  invalidate(index: number, mask: number): void {
    for (let i = 0; i < SLOTS; i++) {
      const cached = this.slots[i];
      if (cached !== undefined && cached.index >>> mask === index >>> mask) this.slots[i] = undefined;
    }
  }
}
