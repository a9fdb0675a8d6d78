/** The kernel's end of primary fault logging (VT-d specification, section 7.2): reads, reports, clears. */
import { IR_POSTED_RESERVED, IR_REQUEST_RESERVED } from '../../vtd/interrupt-fault-reasons';
import * as regs from '../../vtd/registers';
import type { VtdUnit } from '../../vtd/unit';

/** Messages kept; older ones go. */
const MOST_ENTRIES = 256;

/** A DMA that the hardware refused. */
export interface RefusedDma {
  readonly rid: number;
  /** Absent for requests without PASID. */
  readonly pasid?: number;
  /** Page address. */
  readonly address: bigint;
  readonly write: boolean;
  /** Fault reason (VT-d specification, appendix A). */
  readonly reason: number;
}

/** An interrupt message that the hardware blocked. */
export interface RefusedInterrupt {
  readonly rid: number;
  /** Index of the interrupt remapping table entry that it asked for; 0 where it could not be told. */
  readonly index: number;
  /** Fault reason, 0x20 to 0x28. */
  readonly reason: number;
}

export class FaultLog {
  readonly entries: RefusedDma[] = [];
  readonly interrupts: RefusedInterrupt[] = [];

  constructor(readonly unit: VtdUnit) {}

  /** The fault event. */
  handleEvent(): void {
    const { unit } = this;
    const { FRO, NFR } = unit.capabilities;
    let status = unit.read32(regs.FSTS_REG);
    let index = (status & regs.FSTS_FRI_MASK) >>> regs.FSTS_FRI_SHIFT;
    for (let seen = 0; seen <= NFR; seen++, index = (index + 1) % (NFR + 1)) {
      const at = FRO * 16 + index * regs.FRCD_BYTES;
      const words = Int32Array.from([0, 4, 8, 12], (offset) => unit.read32(at + offset));
      if (!(words[3] & regs.FRCD_F)) break;
      this.#add(words);
      unit.write32(at + 12, regs.FRCD_F);
    }
    status = unit.read32(regs.FSTS_REG);
    if (status & regs.FSTS_PFO) unit.write32(regs.FSTS_REG, regs.FSTS_PFO);
  }

  #add(words: Int32Array): void {
    const record = regs.FRCD_REG.decode(words);
    if (record.FR >= IR_REQUEST_RESERVED && record.FR <= IR_POSTED_RESERVED) {
      const index = words[1] >>> 16;
      keepLast(this.interrupts, { rid: record.SID, index, reason: record.FR });
      return;
    }
    keepLast(this.entries, {
      rid: record.SID,
      ...(record.PP ? { pasid: record.PV } : {}),
      address: (BigInt(words[1] >>> 0) << 32n) | BigInt((words[0] & ~0xfff) >>> 0),
      write: record.T1 === 0,
      reason: record.FR,
    });
  }
}

function keepLast<T>(entries: T[], entry: T): void {
  entries.push(entry);
  if (entries.length > MOST_ENTRIES) entries.shift();
}
