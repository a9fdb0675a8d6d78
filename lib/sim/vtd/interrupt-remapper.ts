/**
 * Interrupt remapping and posting: from a device's interrupt message to the one that reaches a processor.
 * Intel VT-d Architecture Specification rev. 4.1, section 5.1 "Interrupt Remapping".
 */
import { PhysicalMemory } from '../memory';
import { VtdCapabilities } from './capabilities';
import { FaultRecorder } from './fault-recording';
import { InterruptEntryCache } from './interrupt-entry-cache';
import {
  IR_COMPATIBILITY_BLOCKED,
  IR_INDEX_TOO_LARGE,
  IR_REQUEST_RESERVED,
  IR_SOURCE,
} from './interrupt-fault-reasons';
import { acceptsSource, Irte, lookUpIrte } from './interrupt-table';
import { postInterrupt } from './posted-interrupt';
import { InterruptSink } from './register-file';

// Low address word of a message in remappable format (section 5.1.2.2).
/** Interrupt format: 1 is remappable. */
export const MESSAGE_REMAPPABLE = 1 << 4;
/** SubHandle Valid: data 15:0 is added to the handle, and data 31:16 is reserved. */
export const MESSAGE_SHV = 1 << 3;
/** HANDLE 14:0 at bits 19:5, HANDLE 15 at bit 2. */
const HANDLE_SHIFT = 5;
const HANDLE_LOW_BITS = 0x7fff;
const HANDLE_15_SHIFT = 2;

const WINDOW = 0xfee0_0000;

// Message to a processor (Intel SDM volume 3, section 12.11).
const DESTINATION_SHIFT = 12;
const REDIRECTION_HINT = 1 << 3;
const LOGICAL = 1 << 2;
const DELIVERY_MODE_SHIFT = 8;
/** Trigger mode level, asserted. */
const LEVEL = (1 << 15) | (1 << 14);

/** Low address word of a message in remappable format for `handle`, with SHV = 1. */
export function remappableAddress(handle: number): number {
  const bits = ((handle & HANDLE_LOW_BITS) << HANDLE_SHIFT) | ((handle >>> 15) << HANDLE_15_SHIFT);
  return (WINDOW | bits | MESSAGE_REMAPPABLE | MESSAGE_SHV) >>> 0;
}

export class InterruptRemapper {
  /** GSTS_REG.IRES and CFIS. */
  private enabled = false;
  private compatibilityAllowed = false;
  private table = 0;
  private entries = 0;
  /** EIME: x2APIC destinations, 32 bits. */
  private extended = false;
  private readonly cache = new InterruptEntryCache();

  constructor(
    private readonly memory: PhysicalMemory,
    private readonly capabilities: VtdCapabilities,
    private readonly faults: FaultRecorder,
    private readonly deliver: InterruptSink,
  ) {}

  /** SIRTP: the table from now on. */
  setTable(table: number, entries: number, extended: boolean): void {
    this.table = table;
    this.entries = entries;
    this.extended = extended;
    if (this.capabilities.ESIRTPS !== 0) this.cache.invalidateAll();
  }

  setEnabled(enabled: boolean, compatibilityAllowed: boolean): void {
    this.enabled = enabled;
    this.compatibilityAllowed = compatibilityAllowed;
  }

  invalidateAll(): void {
    this.cache.invalidateAll();
  }

  invalidate(index: number, mask: number): void {
    this.cache.invalidate(index, mask);
  }

  /** See VtdUnit.interruptRequest. */
  request(rid: number, low: number, data: number): void {
    if (!this.enabled) return this.deliver(0, low >>> 0, data >>> 0);
    if ((low & MESSAGE_REMAPPABLE) !== 0) return this.remap(rid, low, data);
    if (this.extended || !this.compatibilityAllowed)
      return this.faults.recordInterrupt(rid, 0, IR_COMPATIBILITY_BLOCKED);
    this.deliver(0, low >>> 0, data >>> 0);
  }

  private remap(rid: number, low: number, data: number): void {
    const handle = ((low >>> HANDLE_SHIFT) & HANDLE_LOW_BITS) | (((low >>> HANDLE_15_SHIFT) & 1) << 15);
    const withSubhandle = (low & MESSAGE_SHV) !== 0;
    if (withSubhandle && data >>> 16 !== 0) return this.faults.recordInterrupt(rid, 0, IR_REQUEST_RESERVED);
    const index = withSubhandle ? handle + (data & 0xffff) : handle;
    if (index >= this.entries) return this.faults.recordInterrupt(rid, index, IR_INDEX_TOO_LARGE);
    const irte = this.find(rid, index);
    if (irte === undefined) return;
    if (!acceptsSource(irte, rid)) return this.refuse(rid, index, IR_SOURCE, irte.entry.FPD !== 0);
    if (irte.posted !== null) this.post(rid, index, irte.posted);
    else this.send(irte.entry);
  }

  private find(rid: number, index: number): Irte | undefined {
    const cached = this.cache.find(index);
    if (cached !== undefined) return cached;
    const { fault, fpd, irte } = lookUpIrte(this.memory, this.table, index, this.extended, this.capabilities);
    if (irte === null) {
      this.refuse(rid, index, fault, fpd);
      return undefined;
    }
    this.cache.insert(index, irte);
    return irte;
  }

  private refuse(rid: number, index: number, reason: number, fpd: boolean): void {
    if (!fpd) this.faults.recordInterrupt(rid, index, reason);
  }

  private send({ DST, RH, DM, TM, DLM, V }: Irte['entry']): void {
    const hints = (RH !== 0 ? REDIRECTION_HINT : 0) | (DM !== 0 ? LOGICAL : 0);
    this.message(DST, hints, V | (DLM << DELIVERY_MODE_SHIFT) | (TM !== 0 ? LEVEL : 0));
  }

  private post(rid: number, index: number, entry: NonNullable<Irte['posted']>): void {
    const { PDAH, PDAL, VV, URG, FPD } = entry;
    const { fault, notify } = postInterrupt(
      this.memory,
      PDAH * 2 ** 32 + PDAL * 64,
      VV,
      URG !== 0,
      this.extended,
    );
    if (fault !== 0) this.refuse(rid, index, fault, FPD !== 0);
    else if (notify !== null) this.message(notify.NDST, 0, notify.NV);
  }

  /** Destination bits 31:8 travel in the upper address, as in FEUADDR_REG. */
  private message(destination: number, hints: number, data: number): void {
    const id = this.extended ? destination : (destination >>> 8) & 0xff;
    const low = WINDOW | ((id & 0xff) << DESTINATION_SHIFT) | hints;
    this.deliver((id & ~0xff) >>> 0, low >>> 0, data);
  }
}
