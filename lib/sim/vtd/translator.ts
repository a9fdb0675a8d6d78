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
import { LeafRules } from './leaf-rules';
import {
  PagingStructureCache,
  STRUCTURES_FIRST_STAGE,
  STRUCTURES_SECOND_STAGE,
} from './paging-structure-cache';
import { CachedPasid } from './pasid-cache';
import { ProtectedMemory } from './protected-memory';
import { checkSecondStage, markSecondStage, SecondStage, walkSecondStage } from './second-stage';
import { StrictChecker } from './strict';
import {
  isBeyond,
  isInterruptAddress,
  KINDS_ALL,
  KINDS_EXECUTE,
  KINDS_WRITE,
  PAGE_OFFSET,
  Walk,
} from './walk';

// The engine makes literals of a module's own constants, and looks up imported ones whenever they are used.
const READS = KINDS_ALL & ~KINDS_WRITE;
const HOST_HIGH = OUTPUT_HIGH;
const PAGE = ~PAGE_OFFSET;
const FORCED_SNOOP = SNOOP;

export class Translator {
  /** The result of the last {@link find} that succeeded. */
  readonly walk = new Walk();
  private readonly table = new Walk();
  private readonly nestedWalk = new Walk();
  private readonly structures: PagingStructureCache | null;
  /** The same, where {@link fillQuickly} may use them. */
  private readonly quick: PagingStructureCache | null;
  /** Strict mode: hears of what goes into {@link structures}. */
  private readonly structureInserted: ((at: number, level: number) => void) | null = null;

  constructor(
    private readonly memory: PhysicalMemory,
    private readonly capabilities: VtdCapabilities,
    private readonly iotlb: Iotlb,
    private readonly protectedMemory: ProtectedMemory,
    structureCaches: boolean,
    private readonly strict: StrictChecker | null,
  ) {
    this.structures = structureCaches ? iotlb.structures : null;
    // In strict mode every entry of a walk is looked at; with caching mode, what was not present comes first.
    this.quick = strict === null && iotlb.faults === null ? this.structures : null;
    if (strict !== null) {
      this.structureInserted = (at, level) => strict.rememberStructures(at, this.walk, level);
    }
  }

  /**
   * Translates through the IOTLB or the tables. 0, with the result in {@link walk}, or a fault reason. `completes`: for a
   * translation request.
   */
  find(entry: CachedPasid, kind: number, high: number, low: number, completes = false): number {
    const { iotlb, walk } = this;
    const { words } = iotlb;
    const at = iotlb.slot(entry.tag, high, low);
    if (at < 0 || ((words[at + 2]! >>> kind) & 1) === 0) return this.fill(entry, kind, high, low, completes);
    walk.high = words[at + 3]! & OUTPUT_HIGH;
    walk.snoop = words[at + 3]! & SNOOP;
    walk.low = words[at + 2]! & ~PAGE_OFFSET;
    walk.allowed = words[at + 2]! & KINDS_ALL;
    walk.shift = iotlb.shiftAt(at);
    if (this.strict !== null) this.checkHit(this.strict, at, entry, kind, high, low, completes);
    return 0;
  }

  /** {@link find} where the IOTLB has nothing that serves the request: what the tables say goes into it. */
  fill(entry: CachedPasid, kind: number, high: number, low: number, completes: boolean): number {
    const { leaf } = entry;
    if (leaf !== null && this.quick !== null && this.fillQuickly(this.quick, leaf, entry, kind, high, low))
      return 0;
    return this.fillByWalk(entry, kind, high, low, completes);
  }

  /** {@link fill} where the level-1 table is known and its entry leaves nothing to do; false where not, and then nothing was done. */
  private fillQuickly(
    structures: PagingStructureCache,
    leaf: LeafRules,
    entry: CachedPasid,
    kind: number,
    high: number,
    low: number,
  ): boolean {
    const { tag } = entry;
    const cached = structures.words;
    const table = structures.leafTable(tag, leaf.stage, high, low);
    if (table < 0) return false;
    const tableLow = cached[table + 3]!;
    const words = this.memory.chunkAt(cached[table + 2]!, tableLow);
    const at = ((tableLow & 0x1f_ffff) >>> 2) + ((low >>> 11) & 0x3fe);
    if (words === undefined || at + 1 >= words.length) return false;
    const entryLow = words[at]!;
    const entryHigh = words[at + 1]!;
    if (
      (entryLow & leaf.needed) !== leaf.needed ||
      (entryLow & leaf.reservedLow) !== 0 ||
      (entryHigh & leaf.reservedHigh) !== 0
    )
      return false;
    const permissions = ((cached[table + 4]! & entryLow) >>> leaf.permissionShift) & 3;
    let allowed = leaf.allowed[permissions | (((cached[table + 5]! | entryHigh) >>> 31) << 2)]! & entry.kinds;
    if ((entryLow & leaf.dirty) !== leaf.dirty) allowed &= READS;
    const outHigh = entryHigh & HOST_HIGH;
    const outLow = entryLow & PAGE;
    if (((allowed >>> kind) & 1) === 0 || isInterruptAddress(outHigh, outLow)) return false;
    const { walk } = this;
    walk.high = outHigh;
    walk.low = outLow;
    walk.shift = 12;
    walk.allowed = allowed;
    walk.snoop = (entryLow & leaf.snoop) !== 0 ? FORCED_SNOOP : entry.snoop;
    this.iotlb.insert(tag, entry.kind, high, low, walk);
    return true;
  }

  private fillByWalk(
    entry: CachedPasid,
    kind: number,
    high: number,
    low: number,
    completes: boolean,
  ): number {
    const { iotlb, walk, strict } = this;
    const { faults } = iotlb;
    if (faults !== null && entry.second !== null) {
      const cached = faults.findPage(entry.tag, kind, high, low);
      if (cached !== 0) return cached;
    }
    const reason = this.walkTables(entry, kind, high, low);
    if (strict !== null) this.checkStructures(strict, entry, kind, high, low, reason, completes);
    if (reason !== 0) {
      if (faults !== null && entry.second !== null) faults.keepPage(entry.tag, kind, high, low, reason);
      return reason;
    }
    walk.allowed &= entry.kinds;
    walk.snoop |= entry.snoop;
    const at = iotlb.insert(entry.tag, entry.kind, high, low, walk);
    if (strict !== null) this.rememberPath(strict, at, entry);
    return 0;
  }

  /** Strict mode: an entry of the IOTLB is used. */
  private checkHit(
    strict: StrictChecker,
    at: number,
    entry: CachedPasid,
    kind: number,
    high: number,
    low: number,
    completes: boolean,
  ): void {
    if (entry.kind === KIND_PASS_THROUGH) return;
    const differs = (): boolean => this.differs(entry, kind, high, low, 0, completes);
    const inner = `IOTLB invalidation of domain ${entry.did}`;
    strict.checkPath(at, differs, missing(entry, high, low), inner);
  }

  /** Strict mode: the table entries that an entry of the IOTLB was made from; nested, those of both stages. */
  private rememberPath(strict: StrictChecker, index: number, { kind, first }: CachedPasid): void {
    const { memory, walk, table } = this;
    if (kind === KIND_PASS_THROUGH) return;
    strict.rememberPath(index, walk);
    const nested = first?.nested;
    if (!nested) return;
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
    kind: number,
    high: number,
    low: number,
    reason: number,
    completes: boolean,
  ): void {
    const { cachedAt } = this.walk;
    if (entry.kind === KIND_PASS_THROUGH || cachedAt < 0) return;
    const differs = (): boolean => this.differs(entry, kind, high, low, reason, completes);
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
    if (((fresh.snoop ^ walk.snoop) & ~entry.snoop) !== 0) return true;
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
      const nested = entry.first.nested && { ...entry.first.nested, accessed: 0 };
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
    const { structures, walk } = this;
    if (structures === null || walk.start === walk.leafLevel) return;
    structures.remember(tag, stage, high, low, walk, this.structureInserted);
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
    reason = markSecondStage(this.memory, stage, walk, (kind & ACCESS_WRITE) !== 0);
    if (reason === 0) this.rememberStructures(STRUCTURES_SECOND_STAGE, tag, high, low);
    return reason;
  }

  private throughFirst(stage: FirstStage, tag: number, kind: number, high: number, low: number): number {
    const { memory, walk, table } = this;
    const write = (kind & ACCESS_WRITE) !== 0;
    let reason = walkFirstStage(memory, stage, high, low, walk, table, this.structures, tag);
    if (reason === 0) reason = checkFirstStage(stage, walk, kind);
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
    reason =
      markSecondStage(memory, nested, nestedWalk, write) || markFirstStage(memory, stage, walk, table, write);
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
    if (this.protectedMemory.covers(high, low)) return NOT_A_FAULT;
    this.walk.high = high;
    this.walk.low = low & ~PAGE_OFFSET;
    this.walk.shift = 12;
    this.walk.allowed = KINDS_ALL;
    this.walk.snoop = 0;
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
