/**
 * Storage of the register block with the attributes of each bit (read-only, read-write, write 1 to clear), and the three
 * event interrupts, whose control registers are laid out alike.
 * Intel VT-d Architecture Specification rev. 4.1, sections 11.2 "Software Access to Registers" and 7.3 "Fault Event".
 */
import { VtdCapabilities, encodeCap, encodeEcap } from './capabilities';
import { joinHalves } from './layout';
import {
  CAP_REG_OFFSET,
  ECAP_REG_OFFSET,
  ECTL_IM,
  ECTL_IP,
  FRCD_BYTES,
  FRCD_F,
  IOTLB_REG,
  IRTA_EIME,
  IRTA_REG,
  REGISTER_BYTES,
  VER_6_0,
  VER_REG,
  WRITABLE_REGISTERS,
} from './registers';

/** Sends an interrupt message: 32-bit halves of the address, and the data. */
export type InterruptSink = (addressHigh: number, addressLow: number, data: number) => void;

export class RegisterFile {
  private readonly words = new Int32Array(REGISTER_BYTES / 4);
  private readonly writable = new Int32Array(REGISTER_BYTES / 4);
  private readonly clearedByOne = new Int32Array(REGISTER_BYTES / 4);

  constructor(
    capabilities: VtdCapabilities,
    private readonly interrupt: InterruptSink,
  ) {
    for (const [offset, writable, clearedByOne, reset] of WRITABLE_REGISTERS) {
      this.declare(offset, writable, clearedByOne, reset);
    }
    if (capabilities.IR !== 0) {
      this.declare(IRTA_REG, 0xffff_f00f | (capabilities.EIM !== 0 ? IRTA_EIME : 0), 0, 0);
      this.declare(IRTA_REG + 4, 0xffff_ffff, 0, 0);
    }
    for (let i = 0; i <= capabilities.NFR; i++) {
      this.declare(capabilities.FRO * 16 + i * FRCD_BYTES + 12, 0, FRCD_F, 0);
    }
    this.declare(capabilities.IRO * 16, 0xffff_f07f, 0, 0);
    this.declare(capabilities.IRO * 16 + 4, 0xffff_ffff, 0, 0);
    this.declare(capabilities.IRO * 16 + IOTLB_REG + 4, 0xb003_ffff, 0, 0);
    this.words[VER_REG >> 2] = VER_6_0;
    this.words.set(encodeCap(capabilities), CAP_REG_OFFSET >> 2);
    this.words.set(encodeEcap(capabilities), ECAP_REG_OFFSET >> 2);
  }

  get(offset: number): number {
    return this.words[offset >> 2]!;
  }

  /** The 64-bit register at `offset` as an address: exact below 2^53. */
  address(offset: number): number {
    return joinHalves(this.get(offset + 4), this.get(offset));
  }

  /** Hardware's own change of a word; software's is {@link write}. */
  set(offset: number, value: number): void {
    this.words[offset >> 2] = value;
  }

  write(offset: number, value: number): void {
    const at = offset >> 2;
    const writable = this.writable[at]!;
    const kept = this.words[at]! & ~writable & ~(value & this.clearedByOne[at]!);
    this.words[at] = kept | (value & writable);
  }

  /** An event of the control register at `control` (xECTL, data at +4, address at +8, upper address at +12). */
  raiseEvent(control: number): void {
    this.set(control, this.get(control) | ECTL_IP);
    this.deliverEvent(control);
  }

  /** After a write to a control register: a pending message goes out when it is unmasked. */
  deliverEvent(control: number): void {
    const value = this.get(control);
    if ((value & ECTL_IP) === 0 || (value & ECTL_IM) !== 0) return;
    this.set(control, value & ~ECTL_IP);
    this.interrupt(this.get(control + 12) >>> 0, this.get(control + 8) >>> 0, this.get(control + 4) >>> 0);
  }

  /** Software has served every condition behind the event: a message still held back is dropped. */
  dropEvent(control: number): void {
    this.set(control, this.get(control) & ~ECTL_IP);
  }

  private declare(offset: number, writable: number, clearedByOne: number, reset: number): void {
    this.writable[offset >> 2] = writable;
    this.clearedByOne[offset >> 2] = clearedByOne;
    this.words[offset >> 2] = reset;
  }
}
