/**
 * Page request queue. Intel VT-d Architecture Specification rev. 4.1, sections 7.4 "Page Request Queue" and 7.5 "Page Request
 * Event", registers 11.4.11 (PQH, PQT, PQA, PRS, PECTL).
 */
import { PageRequest } from '../bus';
import { PhysicalMemory } from '../memory';
import { RegisterFile } from './register-file';
import { layout } from './layout';
import { PECTL_REG, PQA_PQS_MASK, PQA_REG, PQH_REG, PQT_REG, PRS_PPR, PRS_PRO, PRS_REG } from './registers';

export const PAGE_REQUEST_BYTES = 32;
/** TYPE of a page request descriptor. */
export const PAGE_REQUEST_TYPE = 1;

export const PAGE_REQUEST_DESCRIPTOR = layout(256, {
  TYPE: [7, 0],
  /** PASID present. */
  PP: [8, 8],
  /** Requester id. */
  RID: [31, 16],
  PASID: [51, 32],
  /** Execute requested. */
  EXE: [52, 52],
  /** Privilege mode requested. */
  PRIV: [53, 53],
  /** Read requested. */
  RD: [64, 64],
  /** Write requested. */
  WR: [65, 65],
  /** Last Page In Group. */
  LPIG: [66, 66],
  /** Page Request Group Index. */
  PRGI: [75, 67],
  /** Page address. */
  ADDR: { address: [127, 76] },
});

export type PageRequestDescriptor = ReturnType<typeof PAGE_REQUEST_DESCRIPTOR.decode>;

/** The 8 words of the descriptor hardware writes for `request`; the address keeps all 64 bits. */
export function encodePageRequest(rid: number, request: PageRequest): Int32Array {
  const words = PAGE_REQUEST_DESCRIPTOR.encode({
    TYPE: PAGE_REQUEST_TYPE,
    PP: request.pasid >= 0 ? 1 : 0,
    RID: rid,
    PASID: Math.max(request.pasid, 0),
    EXE: Number(request.execute),
    PRIV: Number(request.privileged),
    RD: Number(request.read),
    WR: Number(request.write),
    LPIG: Number(request.last),
    PRGI: request.prgIndex,
  });
  words[2]! |= request.low & ~0xfff;
  words[3] = request.high;
  return words;
}

/** Field values; ADDR is exact for any 64-bit page address. */
export const decodePageRequest = PAGE_REQUEST_DESCRIPTOR.decode;

export class PageRequestQueue {
  constructor(
    private readonly memory: PhysicalMemory,
    private readonly registers: RegisterFile,
  ) {}

  /**
   * Puts a request in the queue. False: it was dropped, because the queue has overflowed (PRS_REG.PRO, set by this
   * request or an earlier one) or lies where there is no RAM; the unit then answers for software.
   */
  push(rid: number, request: PageRequest): boolean {
    const registers = this.registers;
    const size = 4096 << (registers.get(PQA_REG) & PQA_PQS_MASK);
    const tail = registers.get(PQT_REG) % size;
    const next = (tail + PAGE_REQUEST_BYTES) % size;
    if ((registers.get(PRS_REG) & PRS_PRO) !== 0) return false;
    if (next === registers.get(PQH_REG) % size) {
      this.raise(PRS_PRO);
      return false;
    }
    const base = registers.address(PQA_REG);
    if (!this.memory.writeWords(base - (base % 4096) + tail, encodePageRequest(rid, request))) return false;
    registers.set(PQT_REG, next);
    this.raise(PRS_PPR);
    return true;
  }

  /** After software wrote PRS_REG. */
  settle(): void {
    if ((this.registers.get(PRS_REG) & (PRS_PPR | PRS_PRO)) === 0) this.registers.dropEvent(PECTL_REG);
  }

  /** Sets a status bit; the event is for the first to be set. */
  private raise(bit: number): void {
    const status = this.registers.get(PRS_REG);
    this.registers.set(PRS_REG, status | bit);
    if ((status & (PRS_PPR | PRS_PRO)) === 0) this.registers.raiseEvent(PECTL_REG);
  }
}
