/**
 * PASID cache. Intel VT-d Architecture Specification rev. 4.1, section 6.2.3 "PASID-Cache", tagged by source id, PASID and domain id.
 *
 * Direct-mapped; entries leave only by invalidation or collision. Entries that would fault are not cached (CAP.CM = 0).
 */
import { TranslationReasons } from './fault-reasons';
import { FirstStage } from './first-stage';
import { LeafRules } from './leaf-rules';
import { SecondStage } from './second-stage';
import { Source } from './strict';

const SLOTS = 1024;

/** A PASID table entry, or a legacy context entry, made ready for translating. */
export interface CachedPasid {
  readonly rid: number;
  readonly pasid: number;
  readonly did: number;
  /** Faults are not recorded: FPD of the directory entry or the table entry. */
  readonly fpd: boolean;
  /** IOTLB tag and kind of its translations. */
  readonly tag: number;
  readonly kind: number;
  /** Request kinds SRE and ERE let through. */
  readonly kinds: number;
  /** PGSNP: SNOOP where all requests snoop, else 0. */
  readonly snoop: number;
  readonly reasons: TranslationReasons;
  /** Set for PGTT 1 and 3. */
  readonly first: FirstStage | null;
  /** Set for PGTT 2, and for legacy entries that translate. */
  readonly second: SecondStage | null;
  /** Set where there is one stage. */
  readonly leaf: LeafRules | null;
  /** What it was made from, in strict mode. */
  readonly source: Source | null;
}

export class PasidCache {
  private readonly slots: (CachedPasid | undefined)[] = new Array<CachedPasid | undefined>(SLOTS).fill(
    undefined,
  );

  find(rid: number, pasid: number): CachedPasid | undefined {
    const cached = this.slots[slotOf(rid, pasid)];
    return cached !== undefined && cached.rid === rid && cached.pasid === pasid ? cached : undefined;
  }

  insert(cached: CachedPasid): void {
    this.slots[slotOf(cached.rid, cached.pasid)] = cached;
  }

  invalidateAll(): void {
    this.slots.fill(undefined);
  }

  invalidateDomain(did: number): void {
    for (let i = 0; i < SLOTS; i++) if (this.slots[i]?.did === did) this.slots[i] = undefined;
  }

  invalidatePasid(did: number, pasid: number): void {
    for (let i = 0; i < SLOTS; i++) {
      const cached = this.slots[i];
      if (cached !== undefined && cached.did === did && cached.pasid === pasid) this.slots[i] = undefined;
    }
  }
}

function slotOf(rid: number, pasid: number): number {
  return (pasid ^ (pasid >>> 10) ^ rid ^ (rid << 5)) & (SLOTS - 1);
}
