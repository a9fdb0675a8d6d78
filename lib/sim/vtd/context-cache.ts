/**
 * Context cache. Intel VT-d Architecture Specification rev. 4.1, section 6.2.2 "Context-Cache", tagged by source id.
 *
 * Direct-mapped; entries leave only by invalidation or collision. Entries that would fault are not cached (CAP.CM = 0).
 */
import { ContextEntry } from './context-table';
import { CachedPasid } from './pasid-cache';
import { Source } from './strict';

const SLOTS = 256;

export interface CachedContext {
  readonly rid: number;
  /** A legacy entry has the fields it shares: FPD, and DTE where its TT allows translation requests. */
  readonly entry: Pick<ContextEntry, 'FPD' | 'DTE' | 'RID_PRIV'>;
  /** What a scalable-mode entry says of PASIDs; null in legacy mode. */
  readonly scalable: ContextEntry | null;
  /** A legacy entry's own translation; null in scalable mode. */
  readonly legacy: CachedPasid | null;
  /** What it was made from, in strict mode. */
  readonly source: Source | null;
}

/** Bits of the function number that FM leaves out of the comparison. */
const FUNCTION_MASKS = [0, 0b100, 0b110, 0b111];

/** Whether `rid` is `sid`, or differs from it only in the bits that function mask `fm` (0-3) names. */
export function isFunctionOf(rid: number, sid: number, fm: number): boolean {
  return ((rid ^ sid) & ~FUNCTION_MASKS[fm]!) === 0;
}

export class ContextCache {
  private readonly slots: (CachedContext | undefined)[] = new Array<CachedContext | undefined>(SLOTS).fill(
    undefined,
  );

  find(rid: number): CachedContext | undefined {
    const cached = this.slots[(rid ^ (rid >>> 8)) & (SLOTS - 1)];
    return cached !== undefined && cached.rid === rid ? cached : undefined;
  }

  insert(cached: CachedContext): void {
    this.slots[(cached.rid ^ (cached.rid >>> 8)) & (SLOTS - 1)] = cached;
  }

  invalidateAll(): void {
    this.slots.fill(undefined);
  }

  /** Domain-selective. Scalable-mode entries have no domain id: they all go. */
  invalidateDomain(did: number): void {
    for (let i = 0; i < SLOTS; i++) {
      const legacy = this.slots[i]?.legacy ?? null;
      if (legacy === null || legacy.did === did) this.slots[i] = undefined;
    }
  }

  /** Device-selective: `sid` and the functions that differ from it only in the bits function mask `fm` (0-3) names. */
  invalidateDevice(sid: number, fm: number): void {
    for (let i = 0; i < SLOTS; i++) {
      const cached = this.slots[i];
      if (cached !== undefined && isFunctionOf(cached.rid, sid, fm)) this.slots[i] = undefined;
    }
  }
}
