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
import { Iotlb, KIND_PASS_THROUGH, KIND_SECOND_STAGE } from './iotlb';
import { joinHalves } from './layout';
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

  constructor(
    private readonly memory: PhysicalMemory,
    private readonly capabilities: VtdCapabilities,
    private readonly iotlb: Iotlb,
    private readonly protectedMemory: ProtectedMemory,
    private readonly strict: StrictChecker | null,
  ) {
    if (strict !== null) for (const walk of [this.walk, this.nestedWalk]) walk.traced = true;
  }

  /** Translates through the IOTLB or the tables. 0, with the result in {@link walk}, or a fault reason. */
  find(entry: CachedPasid, kind: number, high: number, low: number): number {
    const at = this.iotlb.slot(entry.tag, high, low);
    if (at >= 0 && ((this.iotlb.words[at + 2]! >>> kind) & 1) !== 0) {
      this.walk.high = this.iotlb.words[at + 3]!;
      this.walk.low = this.iotlb.words[at + 2]! & ~PAGE_OFFSET;
      this.walk.allowed = this.iotlb.words[at + 2]! & KINDS_ALL;
      this.walk.shift = this.iotlb.shiftAt(at);
      if (this.strict !== null && entry.kind !== KIND_PASS_THROUGH) {
        const differs = (): boolean => this.differs(entry, kind, high, low, at);
        const inner = `IOTLB invalidation of domain ${entry.did}`;
        this.strict.checkPath(at, differs, missing(entry, high, low), inner);
      }
      return 0;
    }
    const reason = this.walkTables(entry, kind, high, low);
    if (reason !== 0) return reason;
    const { walk } = this;
    walk.allowed &= entry.kinds;
    const { tag, first } = entry;
    const index = this.iotlb.insert(
      tag,
      high,
      low,
      walk.high,
      walk.low,
      walk.shift,
      entry.kind,
      walk.allowed,
    );
    if (this.strict !== null && entry.kind !== KIND_PASS_THROUGH) {
      this.strict.rememberPath(index, walk, first?.nested ? this.nestedWalk : null);
    }
    return 0;
  }

  /** Strict mode: whether the tables now say otherwise than the IOTLB entry at `at`. */
  private differs(entry: CachedPasid, kind: number, high: number, low: number, at: number): boolean {
    const { memory } = this;
    const { first, second } = entry;
    let fresh = new Walk();
    let reason = 0;
    if (second !== null) {
      reason = walkSecondStage(memory, second, high, low, fresh) || checkSecondStage(second, fresh, kind);
    } else if (first !== null) {
      reason =
        walkFirstStage(memory, first, high, low, fresh, this.table) || checkFirstStage(first, fresh, kind);
      if (reason === 0 && first.nested !== null) {
        const guest = fresh;
        fresh = new Walk();
        reason =
          walkSecondStage(memory, first.nested, guest.high, guest.low, fresh) ||
          checkSecondStage(first.nested, fresh, kind & ACCESS_WRITE);
      }
    }
    const { words } = this.iotlb;
    return reason !== 0 || fresh.high !== words[at + 3] || fresh.low !== (words[at + 2]! & ~PAGE_OFFSET);
  }

  private walkTables(entry: CachedPasid, kind: number, high: number, low: number): number {
    const bit = 1 << kind;
    if ((entry.kinds & bit) === 0) {
      return (kind & ACCESS_EXECUTE) !== 0 && (entry.kinds & KINDS_EXECUTE) === 0
        ? SPT_5_ERE_CLEAR
        : SPT_6_SRE_CLEAR;
    }
    if (entry.second !== null) return this.throughSecond(entry.second, kind, high, low);
    if (entry.first === null) return this.passThrough(entry.reasons, high, low);
    return entry.first.nested === null
      ? this.throughFirst(entry.first, kind, high, low)
      : this.throughBoth(entry.first, entry.first.nested, kind, high, low);
  }

  private throughSecond(stage: SecondStage, kind: number, high: number, low: number): number {
    const { walk } = this;
    const reason =
      walkSecondStage(this.memory, stage, high, low, walk) || checkSecondStage(stage, walk, kind);
    if (reason !== 0) return reason;
    if (isInterruptAddress(walk.high, walk.low)) return stage.reasons.interruptRange;
    return markSecondStage(stage, walk, (kind & ACCESS_WRITE) !== 0);
  }

  private throughFirst(stage: FirstStage, kind: number, high: number, low: number): number {
    const { memory, walk, table } = this;
    const write = (kind & ACCESS_WRITE) !== 0;
    const reason =
      walkFirstStage(memory, stage, high, low, walk, table) || checkFirstStage(stage, walk, kind);
    if (reason !== 0) return reason;
    if (isInterruptAddress(walk.high, walk.low)) return SGN_8_INTERRUPT_RANGE;
    return (
      checkFirstStageMarks(memory, stage, walk, table, write) ||
      markFirstStage(memory, stage, walk, table, write)
    );
  }

  private throughBoth(
    stage: FirstStage,
    nested: SecondStage,
    kind: number,
    high: number,
    low: number,
  ): number {
    const { memory, walk, table, nestedWalk } = this;
    const write = (kind & ACCESS_WRITE) !== 0;
    let reason = walkFirstStage(memory, stage, high, low, walk, table) || checkFirstStage(stage, walk, kind);
    if (reason !== 0) return reason;
    if (isBeyond(nested.width, walk.high)) return SFS_5_NESTED_WIDTH;
    reason =
      checkFirstStageMarks(memory, stage, walk, table, write) ||
      walkSecondStage(memory, nested, walk.high, walk.low, nestedWalk) ||
      checkSecondStage(nested, nestedWalk, kind & ACCESS_WRITE);
    if (reason !== 0) return reason;
    if (isInterruptAddress(nestedWalk.high, nestedWalk.low)) return SGN_8_INTERRUPT_RANGE;
    reason = markSecondStage(nested, nestedWalk, write) || markFirstStage(memory, stage, walk, table, write);
    walk.high = nestedWalk.high;
    walk.low = nestedWalk.low;
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
