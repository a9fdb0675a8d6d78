/**
 * From a PASID table entry and an address to a page: the IOTLB, then the stages the entry names.
 * Intel VT-d Architecture Specification rev. 4.1, sections 3.6 to 3.9.
 */
import { ACCESS_EXECUTE, ACCESS_WRITE } from '../bus';
import { PhysicalMemory } from '../memory';
import { VtdCapabilities } from './capabilities';
import {
  NOT_A_FAULT,
  SFS_5_NESTED_WIDTH,
  SGN_8_INTERRUPT_RANGE,
  SPT_5_ERE_CLEAR,
  SPT_6_SRE_CLEAR,
  TranslationReasons,
} from './fault-reasons';
import {
  checkFirstStage,
  checkFirstStageMarks,
  FirstStage,
  markFirstStage,
  walkFirstStage,
} from './first-stage';
import { Iotlb, KIND_PASS_THROUGH, KIND_SECOND_STAGE, OUTPUT_HIGH, SNOOP } from './iotlb';
import { joinHalves } from './layout';
import {
  PagingStructureCache,
  STRUCTURES_FIRST_STAGE,
  STRUCTURES_SECOND_STAGE,
} from './paging-structure-cache';
import { CachedPasid } from './pasid-cache';
import { ProtectedMemory } from './protected-memory';
import { checkSecondStage, markSecondStage, SecondStage, walkSecondStage } from './second-stage';
import { StrictChecker } from './strict';
import { isBeyond, isInterruptAddress, KINDS_ALL, KINDS_EXECUTE, PAGE_OFFSET, Walk } from './walk';

export class Translator {
  /** The result of the last {@link find} that succeeded. */
  readonly walk = new Walk();
  private readonly table = new Walk();
  private readonly nestedWalk = new Walk();
  private readonly structures: PagingStructureCache | null;

  constructor(
    private readonly memory: PhysicalMemory,
    private readonly capabilities: VtdCapabilities,
    private readonly iotlb: Iotlb,
    private readonly protectedMemory: ProtectedMemory,
    structureCaches: boolean,
    private readonly strict: StrictChecker | null,
  ) {
    this.structures = structureCaches ? iotlb.structures : null;
    if (strict !== null) for (const walk of [this.walk, this.table, this.nestedWalk]) walk.traced = true;
  }

  /**
   * Translates through the IOTLB or the tables. 0, with the result in {@link walk}, or a fault reason. `completes`: for a
   * translation request.
   */
  find(entry: CachedPasid, kind: number, high: number, low: number, completes = false): number {
    const at = this.iotlb.slot(entry.tag, high, low);
    if (at >= 0 && ((this.iotlb.words[at + 2]! >>> kind) & 1) !== 0) {
      this.walk.high = this.iotlb.words[at + 3]! & OUTPUT_HIGH;
      this.walk.snoop = (this.iotlb.words[at + 3]! & SNOOP) !== 0;
      this.walk.low = this.iotlb.words[at + 2]! & ~PAGE_OFFSET;
      this.walk.allowed = this.iotlb.words[at + 2]! & KINDS_ALL;
      this.walk.shift = this.iotlb.shiftAt(at);
      if (this.strict !== null && entry.kind !== KIND_PASS_THROUGH) {
        const differs = (): boolean => this.differs(entry, kind, high, low, 0, completes);
        const inner = `IOTLB invalidation of domain ${entry.did}`;
        this.strict.checkPath(at, differs, missing(entry, high, low), inner);
      }
      return 0;
    }
    const { faults } = this.iotlb;
    if (faults !== null && entry.second !== null) {
      const cached = faults.findPage(entry.tag, kind, high, low);
      if (cached !== 0) return cached;
    }
    const reason = this.walkTables(entry, kind, high, low);
    if (reason !== 0 && entry.second !== null) faults?.keepPage(entry.tag, kind, high, low, reason);
    if (this.strict !== null) {
      const differs = (): boolean => this.differs(entry, kind, high, low, reason, completes);
      this.checkStructures(this.strict, entry, high, low, differs);
    }
    if (reason !== 0) return reason;
    const { walk } = this;
    walk.allowed &= entry.kinds;
    walk.snoop ||= entry.snoop;
    const { tag, first } = entry;
    const index = this.iotlb.insert(
      tag,
      high,
      low,
      walk.snoop ? walk.high | SNOOP : walk.high,
      walk.low,
      walk.shift,
      entry.kind,
      walk.allowed,
    );
    if (this.strict !== null && entry.kind !== KIND_PASS_THROUGH) {
      this.strict.rememberPath(index, walk);
      if (first?.nested) this.rememberSecondStage(this.strict, index, first.nested);
    }
    return 0;
  }

  /** Strict mode, nested: the second-stage entries that lead to the page, and to the first stage's tables. */
  private rememberSecondStage(strict: StrictChecker, index: number, nested: SecondStage): void {
    const { memory, walk, table } = this;
    strict.extendPath(index, this.nestedWalk);
    for (let i = 0; i < walk.depth; i++) {
      walkSecondStage(memory, nested, walk.guestHigh[i]!, walk.guestLow[i]!, table, null, 0);
      strict.extendPath(index, table);
    }
  }

  /** Strict mode: a walk has begun with an entry of the paging-structure caches. */
  private checkStructures(
    strict: StrictChecker,
    entry: CachedPasid,
    high: number,
    low: number,
    differs: () => boolean,
  ): void {
    const { cachedAt } = this.walk;
    if (entry.kind === KIND_PASS_THROUGH || cachedAt < 0) return;
    strict.checkStructures(cachedAt, differs, `${missing(entry, high, low)} with IH = 0`);
  }

  /**
   * Strict mode: whether the tables alone make something else of a request than `reason`, or than {@link walk} has; if it
   * `completes` a translation request, also its size and whether it can be read count.
   */
  private differs(
    entry: CachedPasid,
    kind: number,
    high: number,
    low: number,
    reason: number,
    completes: boolean,
  ): boolean {
    const { walk } = this;
    const fresh = new Walk();
    const now = this.walkAfresh(entry, kind, high, low, fresh);
    if (now !== reason || now !== 0) return now !== reason;
    if (fresh.high !== walk.high || fresh.low !== walk.low) return true;
    if (fresh.snoop !== walk.snoop && !entry.snoop) return true;
    const plain = kind & ~(ACCESS_WRITE | ACCESS_EXECUTE);
    return (
      completes && (fresh.shift !== walk.shift || (((fresh.allowed ^ walk.allowed) >>> plain) & 1) !== 0)
    );
  }

  /** Translates by the tables alone, without setting A or D. */
  private walkAfresh(entry: CachedPasid, kind: number, high: number, low: number, walk: Walk): number {
    const { memory, table } = this;
    const { second } = entry;
    let reason = 0;
    if (second !== null) {
      reason =
        walkSecondStage(memory, second, high, low, walk, null, 0) || checkSecondStage(second, walk, kind);
    } else if (entry.first !== null) {
      const nested = entry.first.nested && { ...entry.first.nested, accessedDirty: false };
      const first = { ...entry.first, nested };
      reason =
        walkFirstStage(memory, first, high, low, walk, table, null, 0) || checkFirstStage(first, walk, kind);
      if (reason === 0 && nested !== null) {
        const { high: guestHigh, low: guestLow, shift, allowed } = walk;
        reason =
          walkSecondStage(memory, nested, guestHigh, guestLow, walk, null, 0) ||
          checkSecondStage(nested, walk, kind & ACCESS_WRITE);
        walk.shift = Math.min(walk.shift, shift);
        walk.allowed &= allowed;
      }
    }
    if (reason === 0 && isInterruptAddress(walk.high, walk.low)) return entry.reasons.interruptRange;
    return reason;
  }

  /** Keeps the entries above the leaf of a walk that ended well. */
  private rememberStructures(stage: number, tag: number, high: number, low: number): void {
    const { structures, strict, walk } = this;
    if (structures === null || walk.start === walk.leafLevel) return;
    const inserted =
      strict === null ? null : (at: number, level: number) => strict.rememberStructures(at, walk, level);
    structures.remember(tag, stage, high, low, walk, inserted);
  }

  private walkTables(entry: CachedPasid, kind: number, high: number, low: number): number {
    const bit = 1 << kind;
    this.walk.cachedAt = -1;
    if ((entry.kinds & bit) === 0) {
      return (kind & ACCESS_EXECUTE) !== 0 && (entry.kinds & KINDS_EXECUTE) === 0
        ? SPT_5_ERE_CLEAR
        : SPT_6_SRE_CLEAR;
    }
    const { tag, first, second } = entry;
    if (second !== null) return this.throughSecond(second, tag, kind, high, low);
    if (first === null) return this.passThrough(entry.reasons, high, low);
    return first.nested === null
      ? this.throughFirst(first, tag, kind, high, low)
      : this.throughBoth(first, first.nested, tag, kind, high, low);
  }

  private throughSecond(stage: SecondStage, tag: number, kind: number, high: number, low: number): number {
    const { walk } = this;
    let reason =
      walkSecondStage(this.memory, stage, high, low, walk, this.structures, tag) ||
      checkSecondStage(stage, walk, kind);
    if (reason !== 0) return reason;
    if (isInterruptAddress(walk.high, walk.low)) return stage.reasons.interruptRange;
    reason = markSecondStage(stage, walk, (kind & ACCESS_WRITE) !== 0);
    if (reason === 0) this.rememberStructures(STRUCTURES_SECOND_STAGE, tag, high, low);
    return reason;
  }

  private throughFirst(stage: FirstStage, tag: number, kind: number, high: number, low: number): number {
    const { memory, walk, table } = this;
    const write = (kind & ACCESS_WRITE) !== 0;
    let reason =
      walkFirstStage(memory, stage, high, low, walk, table, this.structures, tag) ||
      checkFirstStage(stage, walk, kind);
    if (reason !== 0) return reason;
    if (isInterruptAddress(walk.high, walk.low)) return SGN_8_INTERRUPT_RANGE;
    reason =
      checkFirstStageMarks(memory, stage, walk, table, write) ||
      markFirstStage(memory, stage, walk, table, write);
    if (reason === 0) this.rememberStructures(STRUCTURES_FIRST_STAGE, tag, high, low);
    return reason;
  }

  private throughBoth(
    stage: FirstStage,
    nested: SecondStage,
    tag: number,
    kind: number,
    high: number,
    low: number,
  ): number {
    const { memory, walk, table, nestedWalk } = this;
    // In strict mode every second-stage entry of a nested walk is looked at.
    const structures = this.strict === null ? this.structures : null;
    const write = (kind & ACCESS_WRITE) !== 0;
    let reason =
      walkFirstStage(memory, stage, high, low, walk, table, structures, tag) ||
      checkFirstStage(stage, walk, kind);
    if (reason !== 0) return reason;
    if (isBeyond(nested.width, walk.high)) return SFS_5_NESTED_WIDTH;
    reason =
      checkFirstStageMarks(memory, stage, walk, table, write) ||
      walkSecondStage(memory, nested, walk.high, walk.low, nestedWalk, structures, tag) ||
      checkSecondStage(nested, nestedWalk, kind & ACCESS_WRITE);
    if (reason !== 0) return reason;
    if (isInterruptAddress(nestedWalk.high, nestedWalk.low)) return SGN_8_INTERRUPT_RANGE;
    reason = markSecondStage(nested, nestedWalk, write) || markFirstStage(memory, stage, walk, table, write);
    if (reason === 0)
      structures?.remember(tag, STRUCTURES_SECOND_STAGE, walk.high, walk.low, nestedWalk, null);
    walk.high = nestedWalk.high;
    walk.low = nestedWalk.low;
    walk.snoop = nestedWalk.snoop;
    walk.shift = Math.min(walk.shift, nestedWalk.shift);
    walk.allowed &= nestedWalk.allowed;
    return reason;
  }

  private passThrough(reasons: TranslationReasons, high: number, low: number): number {
    if (isBeyond(this.capabilities.HAW, high)) return reasons.beyondHost;
    if (isInterruptAddress(high, low)) return reasons.interruptRange;
    if (this.protectedMemory.covers(joinHalves(high, low))) return NOT_A_FAULT;
    this.walk.high = high;
    this.walk.low = low & ~PAGE_OFFSET;
    this.walk.shift = 12;
    this.walk.allowed = KINDS_ALL;
    this.walk.snoop = false;
    return 0;
  }
}

/** What a cached translation goes by. */
function missing({ kind, did, pasid }: CachedPasid, high: number, low: number): string {
  const page = `page 0x${(joinHalves(high, low & ~PAGE_OFFSET) / 4096).toString(16)}`;
  if (kind !== KIND_SECOND_STAGE)
    return `PASID-based IOTLB invalidation of ${page}, PASID ${pasid}, domain ${did}`;
  return `IOTLB invalidation of ${page} in domain ${did}`;
}
