/**
 * Invalidation queue. Intel VT-d Architecture Specification rev. 4.1, section 6.5.2 "Queued Invalidation Interface", registers
 * 11.4.9 (IQH, IQT, IQA, ICS, IECTL, IQERCD).
 *
 * Descriptors are carried out one after the other as soon as software moves the tail, so that fences and drains need
 * nothing further. A message sent on the way (interrupt, invalidation of a device's cache) may move the tail again.
 */
import { NO_PASID } from '../bus';
import { PhysicalMemory } from '../memory';
import { VtdCapabilities } from './capabilities';
import { FaultRecorder } from './fault-recording';
import {
  CONTEXT_CACHE_DESCRIPTOR,
  decodeSizedAddress,
  DEVICE_TLB_DESCRIPTOR,
  G_DEVICE,
  G_DOMAIN,
  G_GLOBAL,
  G_PAGE,
  INTERRUPT_ENTRY_CACHE_DESCRIPTOR,
  IOTLB_DESCRIPTOR,
  PAGE_GROUP_RESPONSE_DESCRIPTOR,
  PASID_CACHE_DESCRIPTOR,
  PASID_CACHE_G_DOMAIN,
  PASID_CACHE_G_GLOBAL,
  PASID_CACHE_G_PASID,
  PASID_DEVICE_TLB_DESCRIPTOR,
  PASID_IOTLB_DESCRIPTOR,
  PASID_IOTLB_G_PAGE,
  PASID_IOTLB_G_PASID,
  TYPE_CONTEXT_CACHE,
  TYPE_DEVICE_TLB,
  TYPE_INTERRUPT_ENTRY_CACHE,
  TYPE_IOTLB,
  TYPE_PAGE_GROUP_RESPONSE,
  TYPE_PASID_CACHE,
  TYPE_PASID_DEVICE_TLB,
  TYPE_PASID_IOTLB,
  TYPE_WAIT,
  WAIT_DESCRIPTOR,
} from './invalidation-descriptors';
import { anyBits } from './layout';
import { RegisterFile } from './register-file';
import {
  FSTS_ICE,
  FSTS_IQE,
  FSTS_ITE,
  FSTS_REG,
  GSTS_QIES,
  GSTS_REG,
  ICS_IWC,
  ICS_REG,
  IECTL_REG,
  IQA_DW,
  IQA_QS_MASK,
  IQA_REG,
  IQEI_FETCH_ERROR,
  IQEI_INVALID_TAIL,
  IQEI_INVALID_TYPE,
  IQEI_INVALID_TTM,
  IQEI_INVALID_WIDTH,
  IQEI_RESERVED_FIELD,
  IQEI_TAIL_MISALIGNED,
  IQERCD_REG,
  IQH_REG,
  IQT_REG,
  TTM_ABORT_DMA,
  TTM_LEGACY,
  TTM_SCALABLE,
} from './registers';

/** What the descriptors act on. Addresses are unsigned halves. */
export interface InvalidationTarget {
  invalidateContexts(): void;
  invalidateDomainContexts(did: number): void;
  invalidateContext(sid: number, fm: number): void;
  invalidatePasids(): void;
  invalidateDomainPasids(did: number): void;
  invalidatePasid(did: number, pasid: number): void;
  invalidateTranslations(): void;
  invalidateDomainTranslations(did: number): void;
  /** `hint`: IH, only leaf entries have changed. */
  invalidatePages(did: number, high: number, low: number, am: number, hint: boolean): void;
  invalidatePasidTranslations(did: number, pasid: number): void;
  invalidatePasidPages(
    did: number,
    pasid: number,
    high: number,
    low: number,
    am: number,
    hint: boolean,
  ): void;
  invalidateInterrupts(): void;
  /** False: the mask is larger than ECAP.MHMV. */
  invalidateInterrupt(index: number, mask: number): boolean;
  /** False: nothing answers at `sid`. */
  invalidateDevice(
    sid: number,
    pasid: number,
    high: number,
    low: number,
    length: number,
    global: boolean,
  ): boolean;
  respondToPageGroup(rid: number, pasid: number, prgIndex: number, code: number): void;
}

/** Types up to this one exist in legacy mode. */
const LEGACY_TYPES = TYPE_WAIT;
/** Page-request Drain in a wait descriptor's low word. */
const WAIT_PD = 1 << 7;

const LAYOUTS = new Map([
  [TYPE_CONTEXT_CACHE, CONTEXT_CACHE_DESCRIPTOR.reserved],
  [TYPE_IOTLB, IOTLB_DESCRIPTOR.reserved],
  [TYPE_DEVICE_TLB, DEVICE_TLB_DESCRIPTOR.reserved],
  [TYPE_INTERRUPT_ENTRY_CACHE, INTERRUPT_ENTRY_CACHE_DESCRIPTOR.reserved],
  [TYPE_WAIT, WAIT_DESCRIPTOR.reserved],
  [TYPE_PASID_IOTLB, PASID_IOTLB_DESCRIPTOR.reserved],
  [TYPE_PASID_CACHE, PASID_CACHE_DESCRIPTOR.reserved],
  [TYPE_PASID_DEVICE_TLB, PASID_DEVICE_TLB_DESCRIPTOR.reserved],
  [TYPE_PAGE_GROUP_RESPONSE, PAGE_GROUP_RESPONSE_DESCRIPTOR.reserved],
]);

export class InvalidationQueue {
  private running = false;
  /** The descriptor at hand: 8 words, or the first 4 of them. */
  private readonly words = new Int32Array(8);
  private readonly narrowWords = this.words.subarray(0, 4);
  /** Source ids whose device-TLB invalidation was never completed; the next wait descriptor finds out. */
  private timedOut: number | undefined;

  constructor(
    private readonly memory: PhysicalMemory,
    private readonly registers: RegisterFile,
    private readonly faults: FaultRecorder,
    private readonly target: InvalidationTarget,
    private readonly capabilities: VtdCapabilities,
    /** The translation table mode (TTM) in force. */
    private readonly mode: () => number,
  ) {}

  /** Carries out descriptors up to the tail, or to the first error. */
  run(): void {
    if (this.running) return;
    this.running = true;
    try {
      while (this.step());
    } finally {
      this.running = false;
    }
  }

  /** Queued invalidation was switched off, or IQA_REG was written. */
  reset(): void {
    this.registers.set(IQH_REG, 0);
    this.timedOut = undefined;
  }

  /** A completion that was not asked for. ICESID keeps the first until software clears ICE. */
  unexpectedCompletion(sid: number): void {
    const { registers } = this;
    if ((registers.get(FSTS_REG) & FSTS_ICE) === 0) {
      registers.set(IQERCD_REG + 4, (registers.get(IQERCD_REG + 4) & 0xffff) | (sid << 16));
    }
    this.faults.raise(FSTS_ICE);
  }

  private step(): boolean {
    const registers = this.registers;
    if ((registers.get(GSTS_REG) & GSTS_QIES) === 0) return false;
    if ((registers.get(FSTS_REG) & (FSTS_IQE | FSTS_ITE)) !== 0) return false;
    const wide = (registers.get(IQA_REG) & IQA_DW) !== 0;
    const size = 4096 << (registers.get(IQA_REG) & IQA_QS_MASK);
    const bytes = wide ? 32 : 16;
    const head = registers.get(IQH_REG);
    const tail = registers.get(IQT_REG);
    if (head === tail) return false;
    const unfit = this.unfit(wide);
    if (unfit !== 0) return this.fail(unfit);
    if (wide && (tail & 16) !== 0) {
      registers.set(IQT_REG, tail & ~16);
      return this.fail(IQEI_TAIL_MISALIGNED);
    }
    if (tail >= size) return this.fail(IQEI_INVALID_TAIL);
    const { words } = this;
    const base = registers.address(IQA_REG);
    if (!wide) words.fill(0);
    if (!this.memory.readWords(base - (base % 4096) + head, wide ? words : this.narrowWords)) {
      return this.fail(IQEI_FETCH_ERROR);
    }
    const type = (words[0]! & 0xf) | (((words[0]! >>> 9) & 7) << 4);
    const reserved = this.reservedOf(type);
    if (reserved === undefined) return this.fail(IQEI_INVALID_TYPE);
    if (anyBits(words, reserved) || this.isReservedDrain(type, words) || !this.execute(type, words)) {
      return this.fail(IQEI_RESERVED_FIELD);
    }
    registers.set(IQH_REG, (head + bytes) % size);
    return true;
  }

  /** Whether the translation table mode and the width of descriptors go together: 0, or the error. */
  private unfit(wide: boolean): number {
    const { SMTS, ADMS } = this.capabilities;
    const mode = this.mode();
    const known =
      mode === TTM_LEGACY || (mode === TTM_SCALABLE && SMTS !== 0) || (mode === TTM_ABORT_DMA && ADMS !== 0);
    if (!known) return IQEI_INVALID_TTM;
    if (wide ? SMTS === 0 && ADMS === 0 : mode !== TTM_LEGACY) return IQEI_INVALID_WIDTH;
    return 0;
  }

  /** The reserved bits of a descriptor type; undefined if this unit, in this mode, has no such type (section 6.5.2). */
  private reservedOf(type: number): Int32Array | undefined {
    const { DT, IR, PRS } = this.capabilities;
    if (this.mode() === TTM_LEGACY && type > LEGACY_TYPES) return undefined;
    if ((type === TYPE_DEVICE_TLB || type === TYPE_PASID_DEVICE_TLB) && DT === 0) return undefined;
    if (type === TYPE_INTERRUPT_ENTRY_CACHE && IR === 0) return undefined;
    if (type === TYPE_PAGE_GROUP_RESPONSE && PRS === 0) return undefined;
    return LAYOUTS.get(type);
  }

  private isReservedDrain(type: number, words: Int32Array): boolean {
    return type === TYPE_WAIT && this.capabilities.PDS === 0 && (words[0]! & WAIT_PD) !== 0;
  }

  private fail(information: number): boolean {
    this.registers.set(IQERCD_REG, information);
    this.faults.raise(FSTS_IQE);
    return false;
  }

  /** False: a field has a value it must not have. */
  private execute(type: number, words: Int32Array): boolean {
    switch (type) {
      case TYPE_CONTEXT_CACHE:
        return this.contextCache(words);
      case TYPE_PASID_CACHE:
        return this.pasidCache(words);
      case TYPE_IOTLB:
        return this.iotlb(words);
      case TYPE_PASID_IOTLB:
        return this.pasidIotlb(words);
      case TYPE_DEVICE_TLB:
      case TYPE_PASID_DEVICE_TLB:
        this.deviceTlb(type, words);
        return true;
      case TYPE_WAIT:
        this.wait(words);
        return true;
      case TYPE_PAGE_GROUP_RESPONSE: {
        const { RID, PP, PASID, PRGI, RESPONSE_CODE } = PAGE_GROUP_RESPONSE_DESCRIPTOR.decode(words);
        this.target.respondToPageGroup(RID, PP === 0 ? NO_PASID : PASID, PRGI, RESPONSE_CODE);
        return true;
      }
      default:
        return this.interruptEntryCache(words);
    }
  }

  private interruptEntryCache(words: Int32Array): boolean {
    const { G, IIDX, IM } = INTERRUPT_ENTRY_CACHE_DESCRIPTOR.decode(words);
    if (G !== 0) return this.target.invalidateInterrupt(IIDX, IM);
    this.target.invalidateInterrupts();
    return true;
  }

  private contextCache(words: Int32Array): boolean {
    const { G, DID, SID, FM } = CONTEXT_CACHE_DESCRIPTOR.decode(words);
    if (G === G_GLOBAL) this.target.invalidateContexts();
    else if (G === G_DOMAIN) this.target.invalidateDomainContexts(DID);
    else if (G === G_DEVICE) this.target.invalidateContext(SID, FM);
    return G !== 0;
  }

  private pasidCache(words: Int32Array): boolean {
    const { G, DID, PASID } = PASID_CACHE_DESCRIPTOR.decode(words);
    if (G === PASID_CACHE_G_DOMAIN) this.target.invalidateDomainPasids(DID);
    else if (G === PASID_CACHE_G_PASID) this.target.invalidatePasid(DID, PASID);
    else if (G === PASID_CACHE_G_GLOBAL) this.target.invalidatePasids();
    else return false;
    return true;
  }

  private iotlb(words: Int32Array): boolean {
    const { G, DID, AM, IH } = IOTLB_DESCRIPTOR.decode(words);
    if (G === G_GLOBAL) this.target.invalidateTranslations();
    else if (G === G_DOMAIN) this.target.invalidateDomainTranslations(DID);
    else if (G === G_PAGE && this.capabilities.PSI !== 0 && AM <= this.capabilities.MAMV) {
      this.target.invalidatePages(DID, words[3]! >>> 0, (words[2]! & ~0xfff) >>> 0, AM, IH !== 0);
    } else return false;
    return true;
  }

  private pasidIotlb(words: Int32Array): boolean {
    const { G, DID, PASID, AM, IH } = PASID_IOTLB_DESCRIPTOR.decode(words);
    if (G === PASID_IOTLB_G_PASID) this.target.invalidatePasidTranslations(DID, PASID);
    else if (G === PASID_IOTLB_G_PAGE) {
      const low = (words[2]! & ~0xfff) >>> 0;
      this.target.invalidatePasidPages(DID, PASID, words[3]! >>> 0, low, AM, IH !== 0);
    } else return false;
    return true;
  }

  private deviceTlb(type: number, words: Int32Array): void {
    const tagged = type === TYPE_PASID_DEVICE_TLB ? PASID_DEVICE_TLB_DESCRIPTOR.decode(words) : undefined;
    const { SID, S } = tagged ?? DEVICE_TLB_DESCRIPTOR.decode(words);
    const { high, low, length } = decodeSizedAddress(words, 0, S !== 0);
    const { PASID, G } = tagged ?? { PASID: NO_PASID, G: 0 };
    if (!this.target.invalidateDevice(SID, PASID, high, low, length, G !== 0)) this.timedOut = SID;
  }

  private wait(words: Int32Array): void {
    const registers = this.registers;
    if (this.timedOut !== undefined) {
      // The wait descriptor is aborted; nothing further is fetched until software clears ITE.
      registers.set(IQERCD_REG + 4, (registers.get(IQERCD_REG + 4) & ~0xffff) | this.timedOut);
      this.timedOut = undefined;
      this.faults.raise(FSTS_ITE);
      return;
    }
    const { IF, SW, STATUS_DATA, STATUS_ADDRESS } = WAIT_DESCRIPTOR.decode(words);
    if (SW !== 0) this.memory.write32(STATUS_ADDRESS, STATUS_DATA);
    if (IF !== 0 && (registers.get(ICS_REG) & ICS_IWC) === 0) {
      registers.set(ICS_REG, ICS_IWC);
      registers.raiseEvent(IECTL_REG);
    }
  }
}
