/**
 * DMA remapping: from a request to a host address, and the fault record if it is refused.
 * Intel VT-d Architecture Specification rev. 4.1, sections 3.4, 4.1-4.2 (device-TLB) and 7.
 */
import {
  ACCESS_ATOMIC,
  ACCESS_EXECUTE,
  ACCESS_PRIVILEGED,
  ACCESS_TRANSLATED,
  ACCESS_WRITE,
  NO_PASID,
  PageRequest,
  TranslationCompletion,
  NOT_MAPPED,
  REFUSED,
} from '../bus';
import { PhysicalMemory } from '../memory';
import { VtdCapabilities } from './capabilities';
import { FaultCache } from './caching-mode';
import { CachedContext } from './context-cache';
import { EntryLookup } from './entry-lookup';
import { AT_TRANSLATED, AT_TRANSLATION, AT_UNTRANSLATED, FaultRecorder } from './fault-recording';
import {
  LEGACY_REASONS,
  NOT_A_FAULT,
  RTA_3_PAGE_REQUEST_IN_LEGACY,
  SCALABLE_REASONS,
  SCT_8_PRE_CLEAR,
  TranslationReasons,
} from './fault-reasons';
import { Iotlb, OUTPUT_HIGH, SNOOP } from './iotlb';
import { CachedPasid } from './pasid-cache';
import { ProtectedMemory } from './protected-memory';
import { StrictChecker } from './strict';
import { complete, findBest, interruptRange, isRecoverable } from './translation-request';
import { Translator } from './translator';
import { isBeyond, isInterruptAddress, PAGE_OFFSET, REQUEST_KIND, Walk } from './walk';

// The engine makes literals of a module's own constants, and looks up imported ones whenever they are used.
const OTHER_ACCESS = ACCESS_TRANSLATED | ACCESS_ATOMIC;
const HOST_HIGH = OUTPUT_HIGH;
const OFFSET = PAGE_OFFSET;

export class Remapper {
  readonly iotlb = new Iotlb();
  /** Where {@link locate} has found the last request to go. */
  readonly host: Pick<Walk, 'high' | 'low'>;
  readonly entries: EntryLookup;
  private readonly translator: Translator;

  /** GSTS_REG.TES. Whoever changes it drops everything that is cached. */
  enabled = false;

  /** What the last request's (rid, pasid) resolved to; rid -1 where the caches have to be asked, or nothing is translated. */
  private lastRid = -1;
  private lastPasid = NO_PASID;
  private lastEntry: CachedPasid | null = null;
  private lastFpd = false;
  private lastTag = 0;
  private lastKindMask = REQUEST_KIND;
  private lastKindBits = 0;

  constructor(
    memory: PhysicalMemory,
    private readonly capabilities: VtdCapabilities,
    private readonly faults: FaultRecorder,
    private readonly protectedMemory: ProtectedMemory,
    structureCaches: boolean,
    /** Set in strict mode. */
    private readonly strict: StrictChecker | null,
  ) {
    this.iotlb.faults = capabilities.CM !== 0 ? new FaultCache() : null;
    this.entries = new EntryLookup(memory, capabilities, this.iotlb, strict, () => this.forget());
    this.translator = new Translator(
      memory,
      capabilities,
      this.iotlb,
      protectedMemory,
      structureCaches,
      strict,
    );
    this.host = this.translator.walk;
  }

  /** Drops everything cached. */
  dropAll(): void {
    this.entries.dropAll();
  }

  /** Has to follow every invalidation of contexts or PASIDs. */
  forget(): void {
    this.lastRid = -1;
  }

  /** See VtdUnit.locate. */
  locate(rid: number, pasid: number, high: number, low: number, access: number): number {
    if (rid !== this.lastRid || pasid !== this.lastPasid || (access & OTHER_ACCESS) !== 0)
      return this.locateSlowly(rid, pasid, high, low, access);
    const { words } = this.iotlb;
    const kind = (access & this.lastKindMask) | this.lastKindBits;
    const at = this.iotlb.slot(this.lastTag, high, low);
    if (at < 0 || ((words[at + 2]! >>> kind) & 1) === 0) return this.fill(kind, high, low, access);
    this.host.high = words[at + 3]! & HOST_HIGH;
    this.host.low = (words[at + 2]! & ~OFFSET) | (low & OFFSET);
    return 0;
  }

  /** The IOTLB has no answer to a request by whom the last one was from. */
  private fill(kind: number, high: number, low: number, access: number): number {
    const reason = this.translator.fill(this.lastEntry!, kind, high, low, false);
    if (reason === 0) {
      this.host.low |= low & OFFSET;
      return 0;
    }
    this.entries.fpd = this.lastFpd;
    return this.refuse(this.lastRid, this.lastPasid, high, low, access, AT_UNTRANSLATED, reason);
  }

  private locateSlowly(rid: number, pasid: number, high: number, low: number, access: number): number {
    if (!this.enabled) return this.pass(high, low);
    let reason: number;
    if ((access & ACCESS_TRANSLATED) !== 0) reason = this.passTranslated(rid, pasid, high, low, access);
    else if ((access & ACCESS_ATOMIC) !== 0) reason = this.resolveAtomic(rid, pasid, high, low, access);
    else reason = this.resolve(rid, pasid, high, low, access);
    this.strict?.finish(rid, pasid, high, low, access);
    return reason;
  }

  /** While translation is disabled, addresses are what they are. */
  private pass(high: number, low: number): number {
    this.host.high = high;
    this.host.low = low;
    return this.protectedMemory.covers(high, low) ? NOT_A_FAULT : 0;
  }

  /** Reading and writing have to be permitted. Where writing is not, A can be set nevertheless, as by a read that came before. */
  private resolveAtomic(rid: number, pasid: number, high: number, low: number, access: number): number {
    const reason = this.resolve(rid, pasid, high, low, access & ~ACCESS_WRITE);
    return reason !== 0 ? reason : this.resolve(rid, pasid, high, low, access | ACCESS_WRITE);
  }

  private resolve(rid: number, pasid: number, high: number, low: number, access: number): number {
    const entry = this.findEntry(rid, pasid);
    if (entry === null)
      return this.refuse(rid, pasid, high, low, access, AT_UNTRANSLATED, this.entries.reason);
    const kind = (access & this.lastKindMask) | this.lastKindBits;
    const reason = this.translator.find(entry, kind, high, low, false);
    if (reason !== 0) return this.refuse(rid, pasid, high, low, access, AT_UNTRANSLATED, reason);
    this.host.low |= low & OFFSET;
    return 0;
  }

  /** The PASID table entry of a request, which is the last one from now on; null: see {@link EntryLookup.reason}. */
  private findEntry(rid: number, pasid: number): CachedPasid | null {
    const context = this.entries.findContext(rid, pasid);
    const entry = context === null ? null : this.entries.findPasid(context, pasid);
    if (context === null || entry === null) return null;
    // In strict mode every request is looked at.
    if (this.strict === null) this.lastRid = rid;
    this.lastPasid = pasid;
    this.lastEntry = entry;
    this.lastFpd = this.entries.fpd;
    this.lastTag = entry.tag;
    this.lastKindMask = pasid < 0 ? ACCESS_WRITE : REQUEST_KIND;
    this.lastKindBits = kindBits(context, pasid);
    return entry;
  }

  /** See VtdUnit.forcesSnoop. The request that was translated last has left its translation in the IOTLB. */
  forcesSnoop(high: number, low: number): boolean {
    const at = this.iotlb.slot(this.lastTag, high, low);
    return at >= 0 && (this.iotlb.words[at + 3]! & SNOOP) !== 0;
  }

  /** A request with an address from the device's own cache (section 4.2.4). */
  private passTranslated(rid: number, pasid: number, high: number, low: number, access: number): number {
    const context = this.entries.findContext(rid, pasid);
    let { reason } = this.entries;
    if (context !== null) {
      const { noDeviceTlb, beyondHost, interruptRange: inRange } = reasonsOf(context);
      if (context.entry.DTE === 0) reason = noDeviceTlb;
      else if (isBeyond(this.capabilities.HAW, high)) reason = beyondHost;
      else if (isInterruptAddress(high, low)) reason = inRange;
      else if (this.protectedMemory.covers(high, low)) reason = NOT_A_FAULT;
    }
    if (reason !== 0) return this.refuse(rid, pasid, high, low, access, AT_TRANSLATED, reason);
    this.host.high = high;
    this.host.low = low;
    return 0;
  }

  private refuse(
    rid: number,
    pasid: number,
    high: number,
    low: number,
    access: number,
    addressType: number,
    reason: number,
  ): number {
    if (!this.entries.fpd && reason !== NOT_A_FAULT)
      this.faults.recordRequest(rid, pasid, high, low, access, addressType, reason);
    return reason;
  }

  /** See VtdUnit.translationRequest; translation is enabled. */
  translationRequest(
    rid: number,
    pasid: number,
    high: number,
    low: number,
    access: number,
  ): TranslationCompletion {
    const completion = this.lookUp(rid, pasid, high, low, access);
    this.strict?.finish(rid, pasid, high, low, access);
    return completion;
  }

  private lookUp(
    rid: number,
    pasid: number,
    high: number,
    low: number,
    access: number,
  ): TranslationCompletion {
    const context = this.entries.findContext(rid, pasid);
    const enabled = context !== null && context.entry.DTE !== 0;
    const entry = enabled ? this.entries.findPasid(context, pasid) : null;
    if (!enabled || entry === null) {
      const reason = context !== null && !enabled ? reasonsOf(context).noDeviceTlb : this.entries.reason;
      this.refuse(rid, pasid, high, low, access, AT_TRANSLATION, reason);
      return REFUSED;
    }
    if (pasid < 0 && isInterruptAddress(high, low)) return interruptRange(low);
    const asked = (access & (pasid < 0 ? ACCESS_WRITE : REQUEST_KIND)) | kindBits(context, pasid);
    const found = findBest(this.translator, entry, asked, high, low);
    if (found >= 0) return complete(this.translator.walk, asked, found, pasid);
    if (isRecoverable(-found)) return NOT_MAPPED;
    this.refuse(rid, pasid, high, low, access, AT_TRANSLATION, -found);
    return REFUSED;
  }

  /** Whether a page request may be queued (section 7.4); records the fault if not. */
  acceptsPageRequest(rid: number, request: PageRequest): boolean {
    const legacy = this.entries.isLegacy;
    const context = legacy ? null : this.entries.findContext(rid, request.pasid);
    this.strict?.finish(rid, request.pasid, request.high, request.low, 0);
    if (context?.scalable?.PRE === 1) return true;
    const scalable = context === null ? this.entries.reason : SCT_8_PRE_CLEAR;
    const reason = legacy ? RTA_3_PAGE_REQUEST_IN_LEGACY : scalable;
    if (reason !== NOT_A_FAULT && (legacy || !this.entries.fpd)) {
      const access = (request.execute ? ACCESS_EXECUTE : 0) | (request.privileged ? ACCESS_PRIVILEGED : 0);
      this.faults.recordPageRequest(rid, request.pasid, request.high, request.low, access, reason);
    }
    return false;
  }
}

/** RID_PRIV: requests without PASID have supervisor privilege. */
function kindBits(context: CachedContext, pasid: number): number {
  return pasid < 0 && context.entry.RID_PRIV !== 0 ? ACCESS_PRIVILEGED : 0;
}

function reasonsOf(context: CachedContext): TranslationReasons {
  return context.scalable === null ? LEGACY_REASONS : SCALABLE_REASONS;
}
