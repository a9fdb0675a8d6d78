/**
 * From a request's source to its PASID table entry: root, context, PASID directory and table, through the caches.
 * Intel VT-d Architecture Specification rev. 4.1, sections 3.4.3 "Scalable Mode Address Translation", 3.4.2 (legacy mode) and 6.2.
 */
import { PhysicalMemory } from '../memory';
import { VtdCapabilities } from './capabilities';
import { FaultCache } from './caching-mode';
import { CachedContext, ContextCache } from './context-cache';
import {
  CONTEXT_ENTRY_BYTES,
  contextEntryAddress,
  contextReservedBits,
  lookUpContext,
  pasidLimit,
} from './context-table';
import {
  LEGACY_REASONS,
  NOT_A_FAULT,
  RTA_1_INVALID_MODE,
  RTA_2_PASID_IN_LEGACY,
  SCALABLE_REASONS,
  SCT_4_INVALID,
  SCT_6_PASIDE_CLEAR,
  SCT_7_PASID_TOO_LARGE,
  SPD_1_ACCESS,
  SPT_1_ACCESS,
} from './fault-reasons';
import { firstStageOf } from './first-stage';
import { Iotlb, KIND_FIRST_STAGE, KIND_NESTED, KIND_PASS_THROUGH, KIND_SECOND_STAGE, SNOOP } from './iotlb';
import {
  LEGACY_CONTEXT_ENTRY_BYTES,
  LEGACY_IGNORED_LOW,
  legacyContextEntryAddress,
  lookUpLegacyContext,
  TT_ALL,
  TT_PASS_THROUGH,
} from './legacy-context-table';
import { firstStageLeafRules, secondStageLeafRules } from './leaf-rules';
import { CachedPasid, PasidCache } from './pasid-cache';
import {
  lookUpPasid,
  PASID_DIRECTORY_ENTRY,
  PASID_ENTRY_BYTES,
  pasidDirectoryEntryAddress,
  pasidEntryAddress,
  PasidEntry,
  PGTT_FIRST_STAGE,
  PGTT_NESTED,
  PGTT_PASS_THROUGH,
  PGTT_SECOND_STAGE,
} from './pasid-table';
import {
  lookUpContextTable,
  lookUpLegacyContextTable,
  ROOT_ENTRY_BYTES,
  rootEntryAddress,
} from './root-table';
import { Source, StrictChecker } from './strict';
import { legacySecondStageOf, secondStageOf } from './second-stage';
import { TTM_ABORT_DMA, TTM_LEGACY, TTM_SCALABLE } from './registers';
import { KINDS_ALL, KINDS_EXECUTE, KINDS_PRIVILEGED } from './walk';

const KIND_OF_PGTT = new Map([
  [PGTT_FIRST_STAGE, KIND_FIRST_STAGE],
  [PGTT_SECOND_STAGE, KIND_SECOND_STAGE],
  [PGTT_NESTED, KIND_NESTED],
  [PGTT_PASS_THROUGH, KIND_PASS_THROUGH],
]);

export class EntryLookup {
  readonly contexts = new ContextCache();
  readonly pasids = new PasidCache();
  /** Why the last look-up failed; 0 if it did not. */
  reason = 0;
  /** Whether FPD, in an entry of the last look-up, keeps its faults from being recorded. */
  fpd = false;

  private rootTable = 0;
  /** RTADDR_REG.TTM of the last SRTP. */
  mode = TTM_LEGACY;
  private readonly contextReserved: Int32Array;
  /** With caching mode. */
  private readonly faults: FaultCache | null;

  constructor(
    private readonly memory: PhysicalMemory,
    private readonly capabilities: VtdCapabilities,
    private readonly iotlb: Iotlb,
    private readonly strict: StrictChecker | null,
    /** Called when everything was dropped: tags mean something else from then on. */
    private readonly dropped: () => void,
  ) {
    this.contextReserved = contextReservedBits(capabilities);
    this.faults = iotlb.faults;
  }

  /** SRTP: the root table and RTADDR_REG.TTM from now on. */
  setRootTable(rootTable: number, mode: number): void {
    this.rootTable = rootTable;
    this.mode = mode;
  }

  get isLegacy(): boolean {
    return this.mode === TTM_LEGACY;
  }

  /** Drops everything cached, translations included. */
  dropAll(): void {
    this.contexts.invalidateAll();
    this.pasids.invalidateAll();
    this.faults?.clear();
    this.iotlb.reset();
    this.dropped();
  }

  /** The request's context entry, with the checks it decides; null: see {@link reason}. */
  findContext(rid: number, pasid: number): CachedContext | null {
    if (this.isLegacy && pasid >= 0) {
      this.fpd = false;
      this.reason = RTA_2_PASID_IN_LEGACY;
      return null;
    }
    let context = this.contexts.find(rid);
    this.fpd = context !== undefined && context.entry.FPD !== 0;
    if (context === undefined) {
      const faulted = this.faults?.findContext(rid);
      if (faulted !== undefined) {
        this.fpd = faulted.fpd;
        this.reason = faulted.reason;
        return null;
      }
      context = this.fetchContext(rid);
      if (context === undefined) {
        this.faults?.keepContext(rid, { reason: this.reason, fpd: this.fpd });
        return null;
      }
      this.contexts.insert(context);
    } else if (this.strict !== null) {
      const ignored = context.legacy === null ? 0 : LEGACY_IGNORED_LOW;
      const missing = 'context-cache invalidation of the function';
      this.strict.checkEntry('context-cache', context.source, missing, ignored);
    }
    this.reason = 0;
    const entry = context.scalable;
    if (entry === null) return context;
    if (pasid < 0) {
      if (entry.RID_PASID >= pasidLimit(entry)) this.reason = SCT_4_INVALID;
    } else if (entry.PASIDE === 0) this.reason = SCT_6_PASIDE_CLEAR;
    else if (pasid >= pasidLimit(entry)) this.reason = SCT_7_PASID_TOO_LARGE;
    return this.reason === 0 ? context : null;
  }

  private fetchContext(rid: number): CachedContext | undefined {
    if (this.isLegacy) return this.fetchLegacyContext(rid);
    if (this.mode !== TTM_SCALABLE || this.capabilities.SMTS === 0) {
      const aborts = this.mode === TTM_ABORT_DMA && this.capabilities.ADMS !== 0;
      this.reason = aborts ? NOT_A_FAULT : RTA_1_INVALID_MODE;
      return undefined;
    }
    const contextTable = lookUpContextTable(this.memory, this.rootTable, rid, this.capabilities.HAW);
    if (contextTable < 0) {
      this.reason = -contextTable;
      return undefined;
    }
    const { fault, entry } = lookUpContext(this.memory, contextTable, rid, this.contextReserved);
    this.fpd = entry.FPD !== 0;
    this.reason = fault;
    if (fault !== 0) return undefined;
    const source = this.contextSource(
      rootEntryAddress(this.rootTable, rid),
      1,
      contextEntryAddress(contextTable, rid),
      CONTEXT_ENTRY_BYTES,
    );
    return { rid, entry, scalable: entry, legacy: null, source };
  }

  private fetchLegacyContext(rid: number): CachedContext | undefined {
    const { memory, capabilities } = this;
    const contextTable = lookUpLegacyContextTable(memory, this.rootTable, rid, capabilities.HAW);
    if (contextTable < 0) {
      this.reason = -contextTable;
      return undefined;
    }
    const { fault, entry } = lookUpLegacyContext(memory, contextTable, rid, capabilities);
    this.fpd = entry.FPD !== 0;
    this.reason = fault;
    if (fault !== 0) return undefined;
    if (this.iotlb.tagsExhausted) this.dropAll();
    const source = this.contextSource(
      this.rootTable + (rid >>> 8) * ROOT_ENTRY_BYTES,
      2,
      legacyContextEntryAddress(contextTable, rid),
      LEGACY_CONTEXT_ENTRY_BYTES,
    );
    const passThrough = entry.TT === TT_PASS_THROUGH;
    const second = passThrough ? null : legacySecondStageOf(entry, capabilities);
    return {
      rid,
      entry: { FPD: entry.FPD, DTE: entry.TT === TT_ALL ? 1 : 0, RID_PRIV: 0 },
      scalable: null,
      source,
      legacy: {
        rid,
        pasid: 0,
        did: entry.DID,
        fpd: this.fpd,
        tag: this.iotlb.tagOf(entry.DID, 0),
        kind: passThrough ? KIND_PASS_THROUGH : KIND_SECOND_STAGE,
        kinds: KINDS_ALL,
        snoop: 0,
        reasons: LEGACY_REASONS,
        first: null,
        second,
        leaf: second && secondStageLeafRules(second),
        source: null,
      },
    };
  }

  /** The request's PASID table entry, or what a legacy context entry says itself; null: see {@link reason}. */
  findPasid(context: CachedContext, requestPasid: number): CachedPasid | null {
    const { scalable } = context;
    if (scalable === null) return context.legacy;
    const pasid = requestPasid < 0 ? scalable.RID_PASID : requestPasid;
    const cached = this.pasids.find(context.rid, pasid);
    if (cached !== undefined) {
      this.fpd ||= cached.fpd;
      if (this.strict !== null) {
        const missing = `PASID-cache invalidation of PASID ${pasid} in domain ${cached.did}`;
        this.strict.checkEntry('PASID-cache', cached.source, missing);
      }
      return cached;
    }
    const faulted = this.faults?.findPasid(context.rid, pasid);
    if (faulted !== undefined) {
      this.fpd = faulted.fpd;
      this.reason = faulted.reason;
      return null;
    }
    const { fault, fpd, entry } = lookUpPasid(this.memory, scalable.PASIDDIRPTR, pasid, this.capabilities);
    // Entries that could not be read are not qualified faults: no FPD keeps them from being recorded.
    this.fpd = (this.fpd || fpd) && fault !== SPD_1_ACCESS && fault !== SPT_1_ACCESS;
    this.reason = fault;
    if (fault !== 0) {
      this.faults?.keepPasid(context.rid, pasid, { reason: fault, fpd: this.fpd });
      return null;
    }
    if (this.iotlb.tagsExhausted) this.dropAll();
    const source = this.pasidSource(scalable.PASIDDIRPTR, pasid);
    const prepared = this.prepare(context.rid, pasid, fpd, entry, source);
    this.pasids.insert(prepared);
    return prepared;
  }

  /** The words of a root entry (`count` of 64 bits) and a context entry, in strict mode. */
  private contextSource(root: number, count: number, entry: number, bytes: number): Source | null {
    if (this.strict === null) return null;
    const source = this.strict.remember({ addresses: [], words: [] }, root, count);
    return this.strict.remember(source, entry, bytes / 8);
  }

  /** The words of a PASID's directory entry and table entry, in strict mode. */
  private pasidSource(directory: number, pasid: number): Source | null {
    if (this.strict === null) return null;
    const at = pasidDirectoryEntryAddress(directory, pasid);
    const pointer = new Int32Array(PASID_DIRECTORY_ENTRY.wordCount);
    this.memory.readWords(at, pointer);
    const table = PASID_DIRECTORY_ENTRY.decode(pointer).SMPTBLPTR;
    const source = this.strict.remember({ addresses: [], words: [] }, at, 1);
    return this.strict.remember(source, pasidEntryAddress(table, pasid), PASID_ENTRY_BYTES / 8);
  }

  private prepare(
    rid: number,
    pasid: number,
    fpd: boolean,
    entry: PasidEntry,
    source: Source | null,
  ): CachedPasid {
    const first = entry.PGTT === PGTT_FIRST_STAGE || entry.PGTT === PGTT_NESTED;
    let kinds = KINDS_ALL;
    if (first && entry.SRE === 0) kinds &= ~KINDS_PRIVILEGED;
    if (first && entry.ERE === 0) kinds &= ~KINDS_EXECUTE;
    const firstStage = first ? firstStageOf(entry, this.capabilities) : null;
    const second = entry.PGTT === PGTT_SECOND_STAGE ? secondStageOf(entry, this.capabilities) : null;
    const leaf = firstStage?.nested === null ? firstStageLeafRules(firstStage) : null;
    return {
      rid,
      pasid,
      did: entry.DID,
      fpd,
      tag: this.iotlb.tagOf(entry.DID, pasid),
      kind: KIND_OF_PGTT.get(entry.PGTT)!,
      kinds,
      // Of a second stage alone the leaves say it.
      snoop: entry.PGSNP !== 0 && entry.PGTT !== PGTT_SECOND_STAGE ? SNOOP : 0,
      reasons: SCALABLE_REASONS,
      first: firstStage,
      second,
      leaf: second === null ? leaf : secondStageLeafRules(second),
      source,
    };
  }
}
