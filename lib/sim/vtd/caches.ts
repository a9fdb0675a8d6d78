/**
 * What drops which cached entry: the invalidation queue and the command registers drive it.
 * Intel VT-d Architecture Specification rev. 4.1, section 6.5 "Invalidation of Translation Caches".
 */
import { AtsEndpoint } from '../bus';
import { InterruptRemapper } from './interrupt-remapper';
import { InvalidationTarget } from './invalidation-queue';
import { Remapper } from './remapper';

export class Caches implements InvalidationTarget {
  constructor(
    private readonly remapper: Remapper,
    private readonly interrupts: InterruptRemapper,
    private readonly maxHandleMask: number,
    private readonly endpoint: (rid: number) => AtsEndpoint | undefined,
  ) {}
  invalidateContexts(): void {
    this.remapper.entries.contexts.invalidateAll();
    this.remapper.iotlb.faults?.dropContexts();
    this.remapper.forget();
  }
  invalidateDomainContexts(did: number): void {
    this.remapper.entries.contexts.invalidateDomain(did);
    this.remapper.iotlb.faults?.dropContexts(did);
    this.remapper.forget();
  }
  invalidateContext(sid: number, fm: number): void {
    this.remapper.entries.contexts.invalidateDevice(sid, fm);
    this.remapper.iotlb.faults?.dropContextsOf(sid, fm);
    this.remapper.forget();
  }
  invalidatePasids(): void {
    this.remapper.entries.pasids.invalidateAll();
    this.remapper.iotlb.faults?.dropPasids();
    this.remapper.forget();
  }
  invalidateDomainPasids(did: number): void {
    this.remapper.entries.pasids.invalidateDomain(did);
    this.remapper.iotlb.faults?.dropPasids(did);
    this.remapper.forget();
  }
  invalidatePasid(did: number, pasid: number): void {
    this.remapper.entries.pasids.invalidatePasid(did, pasid);
    this.remapper.iotlb.faults?.dropPasid(pasid);
    this.remapper.forget();
  }
  invalidateTranslations(): void {
    this.remapper.iotlb.invalidateAll();
  }
  invalidateDomainTranslations(did: number): void {
    this.remapper.iotlb.invalidateDomain(did);
  }
  invalidatePages(did: number, high: number, low: number, am: number, hint: boolean): void {
    this.remapper.iotlb.invalidatePages(did, high, low, am, hint);
  }
  invalidatePasidTranslations(did: number, pasid: number): void {
    this.remapper.iotlb.invalidatePasid(did, pasid);
  }
  invalidatePasidPages(
    did: number,
    pasid: number,
    high: number,
    low: number,
    am: number,
    hint: boolean,
  ): void {
    this.remapper.iotlb.invalidatePasidPages(did, pasid, high, low, am, hint);
  }
  invalidateInterrupts(): void {
    this.interrupts.invalidateAll();
  }
  invalidateInterrupt(index: number, mask: number): boolean {
    if (mask > this.maxHandleMask) return false;
    this.interrupts.invalidate(index, mask);
    return true;
  }
  invalidateDevice(
    sid: number,
    pasid: number,
    high: number,
    low: number,
    length: number,
    global: boolean,
  ): boolean {
    const endpoint = this.endpoint(sid);
    endpoint?.invalidateTranslations(pasid, high, low, length, global);
    return endpoint !== undefined;
  }
  respondToPageGroup(rid: number, pasid: number, prgIndex: number, code: number): void {
    this.endpoint(rid)?.pageGroupResponse(pasid, prgIndex, code);
  }
}
