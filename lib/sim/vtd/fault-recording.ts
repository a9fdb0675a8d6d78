/**
 * Primary fault logging. Intel VT-d Architecture Specification rev. 4.1, sections 7.2.1 "Primary Fault Logging" and
 * 7.3 "Reporting Faults to Software: fault events", registers 11.4.9 (FSTS_REG) and 11.4.14 (FRCD_REG).
 */
import { ACCESS_ATOMIC, ACCESS_EXECUTE, ACCESS_PRIVILEGED, ACCESS_WRITE, NO_PASID } from '../bus';
import { RegisterFile } from './register-file';
import {
  FECTL_REG,
  FRCD_BYTES,
  FRCD_F,
  FSTS_FRI_MASK,
  FSTS_FRI_SHIFT,
  FSTS_ICE,
  FSTS_IQE,
  FSTS_ITE,
  FSTS_PFO,
  FSTS_PPF,
  FSTS_REG,
} from './registers';

// Address type (AT) of the faulted request.
export const AT_UNTRANSLATED = 0;
export const AT_TRANSLATION = 1;
export const AT_TRANSLATED = 2;

/** T2: with T1 = 0 a page request, with T1 = 1 an AtomicOp. */
const TYPE_2 = 1 << 28;

const STATUS = FSTS_PFO | FSTS_PPF | FSTS_IQE | FSTS_ICE | FSTS_ITE;

export class FaultRecorder {
  /** The register the next fault goes to. */
  private next = 0;

  /** `offset`: of the first fault-recording register; `count`: how many there are. */
  constructor(
    private readonly registers: RegisterFile,
    private readonly offset: number,
    private readonly count: number,
  ) {}

  /** Records a faulted DMA or translation request, if there is room. `pasid` is below 0 where there is none. */
  recordRequest(
    rid: number,
    pasid: number,
    high: number,
    low: number,
    access: number,
    addressType: number,
    reason: number,
  ): void {
    // T1, in the highest word, is 1 for reads and AtomicOps; T2 is 1 for AtomicOps.
    const atomic = (access & ACCESS_ATOMIC) !== 0;
    const type1 = atomic || (access & ACCESS_WRITE) === 0 ? 1 << 30 : 0;
    const top = type1 | (addressType << 28) | reason;
    this.record(rid, pasid, high, low, access, top, atomic ? TYPE_2 : 0);
  }

  /** Records a faulted page request. */
  recordPageRequest(
    rid: number,
    pasid: number,
    high: number,
    low: number,
    access: number,
    reason: number,
  ): void {
    this.record(rid, pasid, high, low, access, reason, TYPE_2);
  }

  /** Records a blocked interrupt message: bits 63:48 of the fault info have its interrupt_index. */
  recordInterrupt(rid: number, index: number, reason: number): void {
    this.record(rid, NO_PASID, index << 16, 0, 0, reason, 0);
  }

  private record(
    rid: number,
    pasid: number,
    high: number,
    low: number,
    access: number,
    top: number,
    type2: number,
  ): void {
    const registers = this.registers;
    if ((registers.get(FSTS_REG) & FSTS_PFO) !== 0) return;
    if (this.isPending(rid)) return;
    const at = this.offset + this.next * FRCD_BYTES;
    if ((registers.get(at + 12) & FRCD_F) !== 0) {
      this.raise(FSTS_PFO);
      return;
    }
    let third = rid | type2;
    let fourth = top | FRCD_F;
    if (pasid >= 0) {
      third |= 1 << 31;
      if ((access & ACCESS_PRIVILEGED) !== 0) third |= 1 << 29;
      if ((access & ACCESS_EXECUTE) !== 0) third |= 1 << 30;
      fourth |= pasid << 8;
    }
    registers.set(at, low & ~0xfff);
    registers.set(at + 4, high);
    registers.set(at + 8, third);
    registers.set(at + 12, fourth);
    if ((registers.get(FSTS_REG) & FSTS_PPF) === 0) {
      const others = registers.get(FSTS_REG) & ~FSTS_FRI_MASK;
      registers.set(FSTS_REG, others | (this.next << FSTS_FRI_SHIFT));
    }
    this.next = (this.next + 1) % this.count;
    this.raise(FSTS_PPF);
  }

  /** Sets status bits; the event is for the first of them to be set. */
  raise(bits: number): void {
    const status = this.registers.get(FSTS_REG);
    this.registers.set(FSTS_REG, status | bits);
    if ((status & STATUS) === 0) this.registers.raiseEvent(FECTL_REG);
  }

  /** After software wrote FSTS_REG or a fault-recording register: PPF follows the F bits. */
  settle(): void {
    let pending = 0;
    for (let i = 0; i < this.count; i++)
      pending |= this.registers.get(this.offset + i * FRCD_BYTES + 12) & FRCD_F;
    const status = this.registers.get(FSTS_REG) & ~FSTS_PPF;
    this.registers.set(FSTS_REG, pending === 0 ? status : status | FSTS_PPF);
    if ((this.registers.get(FSTS_REG) & STATUS) === 0) this.registers.dropEvent(FECTL_REG);
  }

  /** Faults of a source that has one pending already are collapsed into it. */
  private isPending(rid: number): boolean {
    for (let i = 0; i < this.count; i++) {
      const at = this.offset + i * FRCD_BYTES;
      if ((this.registers.get(at + 12) & FRCD_F) !== 0 && (this.registers.get(at + 8) & 0xffff) === rid)
        return true;
    }
    return false;
  }
}
