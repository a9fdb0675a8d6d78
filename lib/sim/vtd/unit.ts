/**
 * A DMA remapping hardware unit: the register block, the queues behind it, and the requests of devices.
 * Intel VT-d Architecture Specification rev. 4.1, sections 3.4.2 (legacy mode) and 3.4.3 (scalable mode).
 */
import { AtsEndpoint, PageRequest, PRG_SUCCESS, REFUSED, TranslationCompletion } from '../bus';
import { PhysicalMemory } from '../memory';
import { Caches } from './caches';
import { composeCapabilities, VtdCapabilities } from './capabilities';
import { FaultRecorder } from './fault-recording';
import { InterruptRemapper } from './interrupt-remapper';
import { InvalidationQueue } from './invalidation-queue';
import { joinHalves } from './layout';
import { PageRequestQueue } from './page-request-queue';
import { ProtectedMemory } from './protected-memory';
import { InterruptSink, RegisterFile } from './register-file';
import {
  CCMD_CAIG_SHIFT_HIGH,
  CCMD_CIRG_SHIFT_HIGH,
  CCMD_ICC_HIGH,
  CCMD_REG,
  FECTL_REG,
  FRCD_BYTES,
  FSTS_REG,
  GCMD_CFI,
  GCMD_IRE,
  GCMD_QIE,
  GCMD_REG,
  GCMD_SIRTP,
  GCMD_SRTP,
  GCMD_TE,
  GSTS_IRTPS,
  GSTS_QIES,
  GSTS_REG,
  GSTS_RTPS,
  ICS_REG,
  IECTL_REG,
  IOTLB_IAIG_SHIFT_HIGH,
  IOTLB_IIRG_SHIFT_HIGH,
  IOTLB_IVT_HIGH,
  IOTLB_REG,
  IQA_REG,
  IQT_REG,
  IRTA_EIME,
  IRTA_REG,
  IRTA_S_MASK,
  IVA_IH,
  IVA_REG,
  PECTL_REG,
  PHMBASE_REG,
  PHMLIMIT_REG,
  PLMBASE_REG,
  PLMLIMIT_REG,
  PMEN_REG,
  PQA_REG,
  PQH_REG,
  PQT_REG,
  PRS_REG,
  REGISTER_BYTES,
  RTADDR_REG,
  RTADDR_TTM_SHIFT,
  TTM_LEGACY,
} from './registers';
import { Remapper } from './remapper';
import { submitRequest, type RequestResult, type UnitRequest } from './request';
import { StaleUse, StrictChecker } from './strict';
import { isInterruptAddress } from './walk';

export interface VtdUnitOptions {
  readonly memory: PhysicalMemory;
  /** Changes to DEFAULT_CAPABILITIES. */
  readonly capabilities?: Partial<VtdCapabilities>;
  /**
   * Receives interrupt messages for the processors: the unit's own, and those of devices that
   * {@link VtdUnit.interruptRequest} lets through. Called while a register write or a request is being handled.
   */
  readonly interrupt: InterruptSink;
  /** False: the unit has no paging-structure caches, as is allowed (section 6.2.5). Default true. */
  readonly structureCaches?: boolean;
  /**
   * Strict mode: called for every request that was served from a cache although the tables have changed since and were
   * not invalidated. The request itself goes on as without.
   */
  readonly strict?: (use: StaleUse) => void;
  /** The function at a requester id, for device-TLB invalidations and page group responses. */
  readonly endpoint: (rid: number) => AtsEndpoint | undefined;
}

export class VtdUnit {
  readonly capabilities: VtdCapabilities;
  private readonly registers: RegisterFile;
  private readonly faults: FaultRecorder;
  private readonly remapper: Remapper;
  private readonly interrupts: InterruptRemapper;
  private readonly caches: Caches;
  private readonly invalidations: InvalidationQueue;
  private readonly pageRequests: PageRequestQueue;
  private readonly protectedMemory: ProtectedMemory;
  private readonly endpoint: (rid: number) => AtsEndpoint | undefined;
  private readonly faultBase: number;
  private readonly faultEnd: number;
  private readonly iotlbBase: number;
  /** See {@link locate}. */
  readonly host: { readonly high: number; readonly low: number };

  constructor(options: VtdUnitOptions) {
    this.capabilities = composeCapabilities(options.capabilities);
    const { FRO, NFR, IRO, MHMV } = this.capabilities;
    this.faultBase = FRO * 16;
    this.faultEnd = this.faultBase + (NFR + 1) * FRCD_BYTES;
    this.iotlbBase = IRO * 16;
    this.endpoint = options.endpoint;
    this.registers = new RegisterFile(this.capabilities, options.interrupt);
    this.faults = new FaultRecorder(this.registers, this.faultBase, NFR + 1);
    const { memory, strict, structureCaches = true } = options;
    const checker = strict === undefined ? null : new StrictChecker(memory, strict);
    this.protectedMemory = new ProtectedMemory(this.registers, this.capabilities);
    this.remapper = new Remapper(
      memory,
      this.capabilities,
      this.faults,
      this.protectedMemory,
      structureCaches,
      checker,
    );
    this.host = this.remapper.host;
    this.interrupts = new InterruptRemapper(memory, this.capabilities, this.faults, options.interrupt);
    this.caches = new Caches(this.remapper, this.interrupts, MHMV, options.endpoint);
    this.invalidations = new InvalidationQueue(
      options.memory,
      this.registers,
      this.faults,
      this.caches,
      this.capabilities,
      () => this.remapper.entries.mode,
    );
    this.pageRequests = new PageRequestQueue(options.memory, this.registers);
  }

  /** The 32-bit register word at `offset` (a multiple of 4 below 4096), unsigned. */
  read32(offset: number): number {
    requireOffset(offset, 4);
    return this.registers.get(offset) >>> 0;
  }

  /** The 64-bit register at `offset`, a multiple of 8. */
  read64(offset: number): bigint {
    requireOffset(offset, 8);
    return (BigInt(this.registers.get(offset + 4) >>> 0) << 32n) | BigInt(this.registers.get(offset) >>> 0);
  }

  /** A 32-bit write. Commands, the queue tail and status clears take effect before it returns. */
  write32(offset: number, value: number): void {
    requireOffset(offset, 4);
    this.registers.write(offset, value);
    this.afterWrite(offset, value);
  }

  /** A 64-bit write: both words are stored before either takes effect. */
  write64(offset: number, high: number, low: number): void {
    requireOffset(offset, 8);
    this.registers.write(offset, low);
    this.registers.write(offset + 4, high);
    this.afterWrite(offset, low);
    this.afterWrite(offset + 4, high);
  }

  /** Carries out a request given as plain data, of any length: see {@link submitRequest}. */
  submit(request: UnitRequest): RequestResult {
    return submitRequest(this, request);
  }

  /**
   * Translates a memory request, recording the fault if it is refused.
   *
   * `pasid` is NO_PASID or 0 to 0xfffff; `high` and `low` are unsigned halves of any 64-bit address; `access` is a
   * sum of ACCESS_*. Returns the host physical address of that byte (good up to the end of its 4 KiB page), or minus the
   * fault reason; minus NOT_A_FAULT where the request is blocked and nothing is recorded. While translation is disabled
   * addresses pass unchanged, unless they are protected (PMEN_REG). An untranslated write without PASID to
   * {@link isInterruptAddress} is an interrupt message: it must not come here.
   */
  translate(rid: number, pasid: number, high: number, low: number, access: number): number {
    const reason = this.locate(rid, pasid, high, low, access);
    return reason !== 0 ? -reason : joinHalves(this.host.high, this.host.low);
  }

  /**
   * {@link translate} that makes no number of the address: 0 where the request goes through, and then its host physical
   * address is in {@link host} until the next request, in halves (signed); else the fault reason, positive.
   */
  locate(rid: number, pasid: number, high: number, low: number, access: number): number {
    return this.remapper.locate(rid, pasid, high | 0, low | 0, access);
  }

  /**
   * Whether a request that {@link translate} has just let through at this address, untranslated, snoops the processors'
   * caches even with the No Snoop attribute: SNP of a second-stage leaf, or PGSNP (sections 9.9 and 9.6).
   */
  forcesSnoop(high: number, low: number): boolean {
    return this.remapper.enabled && this.remapper.forcesSnoop(high | 0, low | 0);
  }

  /** True for 0xFEEx_xxxx: where an untranslated request without PASID is an interrupt message, never translated. */
  isInterruptAddress(high: number, low: number): boolean {
    return isInterruptAddress(high, low);
  }

  /**
   * An interrupt message of a device: an untranslated write without PASID of the 4 bytes `data` to 0xFEEx_xxxx (`low`).
   * It goes to the interrupt sink as the table says, or unchanged where interrupts are not remapped; a message that is
   * blocked is recorded.
   */
  interruptRequest(rid: number, low: number, data: number): void {
    this.interrupts.request(rid, low, data);
  }

  /**
   * A translation request (PCIe ATS). Refused (success = false) while translation is disabled or ECAP.DT is 0, and for
   * conditions in tables up to the PASID entry and malformed paging entries, which are recorded. A page that is not
   * mapped, or not as asked, is a success without R or W, and nothing is recorded. W and X are granted only if asked for.
   */
  translationRequest(
    rid: number,
    pasid: number,
    high: number,
    low: number,
    access: number,
  ): TranslationCompletion {
    if (!this.remapper.enabled || this.capabilities.DT === 0) return REFUSED;
    return this.remapper.translationRequest(rid, pasid, high | 0, low | 0, access);
  }

  /**
   * An invalidation completion message (PCIe ATS) that answers no request: functions answer theirs before
   * {@link AtsEndpoint.invalidateTranslations} returns. FSTS_REG.ICE, and IQERCD_REG says whose it was; the queue goes on.
   */
  invalidationCompletion(rid: number): void {
    this.invalidations.unexpectedCompletion(rid);
  }

  /**
   * A page request message. False: refused, recorded if there was a fault, no response will come. True: queued; or dropped
   * because the queue has overflowed, and then the last request of a group is answered with success right away (before
   * this returns), so that the device tries again.
   */
  pageRequest(rid: number, request: PageRequest): boolean {
    if (!this.remapper.enabled || this.capabilities.PRS === 0) return false;
    if (!this.remapper.acceptsPageRequest(rid, request)) return false;
    if (!this.pageRequests.push(rid, request) && request.last) {
      this.endpoint(rid)?.pageGroupResponse(request.pasid, request.prgIndex, PRG_SUCCESS);
    }
    return true;
  }

  private afterWrite(offset: number, value: number): void {
    switch (offset) {
      case GCMD_REG:
        return this.command(value);
      case CCMD_REG + 4:
        return this.contextCommand();
      case FSTS_REG:
        this.faults.settle();
        return this.invalidations.run();
      case IQT_REG:
        return this.invalidations.run();
      case ICS_REG:
        if (this.registers.get(ICS_REG) === 0) this.registers.dropEvent(IECTL_REG);
        return;
      case PRS_REG:
        return this.pageRequests.settle();
      case IQA_REG:
      case IQA_REG + 4:
        // A new queue: head and tail are 0 (section 11.4.9.3).
        this.registers.set(IQT_REG, 0);
        return this.invalidations.reset();
      case PQA_REG:
      case PQA_REG + 4:
        this.registers.set(PQH_REG, 0);
        return this.registers.set(PQT_REG, 0);
      case PMEN_REG:
      case PLMBASE_REG:
      case PLMLIMIT_REG:
      case PHMBASE_REG:
      case PHMBASE_REG + 4:
      case PHMLIMIT_REG:
      case PHMLIMIT_REG + 4:
        return this.protect();
      case FECTL_REG:
      case IECTL_REG:
      case PECTL_REG:
        return this.registers.deliverEvent(offset);
      case this.iotlbBase + IOTLB_REG + 4:
        return this.iotlbCommand();
      default:
        if (offset >= this.faultBase && offset < this.faultEnd) this.faults.settle();
    }
  }

  private command(value: number): void {
    const { QI, IR } = this.capabilities;
    const kept = GCMD_TE | (QI !== 0 ? GCMD_QIE : 0) | (IR !== 0 ? GCMD_IRE | GCMD_CFI : 0);
    const before = this.registers.get(GSTS_REG);
    let status = (before & ~kept) | (value & kept);
    if ((value & GCMD_SRTP) !== 0) {
      status |= GSTS_RTPS;
      const rootAddress = this.registers.address(RTADDR_REG);
      const mode = (this.registers.get(RTADDR_REG) >>> RTADDR_TTM_SHIFT) & 3;
      this.remapper.entries.setRootTable(rootAddress - (rootAddress % 4096), mode);
      if (this.capabilities.ESRTPS !== 0) this.remapper.dropAll();
    }
    if ((value & GCMD_SIRTP) !== 0 && IR !== 0) {
      status |= GSTS_IRTPS;
      this.setInterruptTable();
    }
    this.registers.set(GSTS_REG, status);
    this.interrupts.setEnabled((status & GCMD_IRE) !== 0, (status & GCMD_CFI) !== 0);
    this.remapper.enabled = (status & GCMD_TE) !== 0;
    if (((before ^ status) & GCMD_TE) !== 0) this.remapper.dropAll();
    if ((before & ~status & GCMD_QIE) !== 0) this.invalidations.reset();
    if ((status & ~before & GCMD_QIE) !== 0) this.invalidations.run();
  }

  private protect(): void {
    this.protectedMemory.update();
    this.remapper.iotlb.forgetPassThrough();
  }

  /**
   * Register-based invalidation is for legacy mode without the queue; anything else is an incorrect request, which is
   * ignored and reported as granularity 0 (section 6.5.1).
   */
  private get takesCommands(): boolean {
    return (this.registers.get(GSTS_REG) & GSTS_QIES) === 0 && this.remapper.entries.mode === TTM_LEGACY;
  }

  private setInterruptTable(): void {
    const table = this.registers.address(IRTA_REG);
    const low = this.registers.get(IRTA_REG);
    const extended = (low & IRTA_EIME) !== 0;
    this.interrupts.setTable(table - (table % 4096), 2 << (low & IRTA_S_MASK), extended);
  }

  /** Register-based context-cache invalidation (section 6.5.1.1). */
  private contextCommand(): void {
    const high = this.registers.get(CCMD_REG + 4);
    if ((high & CCMD_ICC_HIGH) === 0) return;
    const granularity = this.takesCommands ? (high >>> CCMD_CIRG_SHIFT_HIGH) & 3 : 0;
    const low = this.registers.get(CCMD_REG);
    if (granularity === 3) this.caches.invalidateContext(low >>> 16, high & 3);
    else if (granularity === 2) this.caches.invalidateDomainContexts(low & 0xffff);
    else if (granularity === 1) this.caches.invalidateContexts();
    const done = high & ~CCMD_ICC_HIGH & ~(3 << CCMD_CAIG_SHIFT_HIGH);
    this.registers.set(CCMD_REG + 4, done | (granularity << CCMD_CAIG_SHIFT_HIGH));
  }

  /** Register-based IOTLB invalidation (section 6.5.1.2). */
  private iotlbCommand(): void {
    const at = this.iotlbBase + IOTLB_REG + 4;
    const high = this.registers.get(at);
    if ((high & IOTLB_IVT_HIGH) === 0) return;
    const granularity = this.takesCommands ? (high >>> IOTLB_IIRG_SHIFT_HIGH) & 3 : 0;
    const did = high & 0xffff;
    const addressLow = this.registers.get(this.iotlbBase + IVA_REG);
    const am = addressLow & 0x3f;
    let actual = granularity;
    if (granularity === 1) this.caches.invalidateTranslations();
    else if (granularity === 2) this.caches.invalidateDomainTranslations(did);
    else if (granularity === 3 && this.capabilities.PSI !== 0 && am <= this.capabilities.MAMV) {
      const addressHigh = this.registers.get(this.iotlbBase + IVA_REG + 4);
      const hint = (addressLow & IVA_IH) !== 0;
      this.caches.invalidatePages(did, addressHigh, addressLow & ~0xfff, am, hint);
    } else actual = 0;
    const done = high & ~IOTLB_IVT_HIGH & ~(3 << IOTLB_IAIG_SHIFT_HIGH);
    this.registers.set(at, done | (actual << IOTLB_IAIG_SHIFT_HIGH));
  }
}

function requireOffset(offset: number, size: number): void {
  if (!(offset >= 0 && offset <= REGISTER_BYTES - size && offset % size === 0)) {
    throw new RangeError(`no ${8 * size}-bit register at offset ${offset}`);
  }
}
