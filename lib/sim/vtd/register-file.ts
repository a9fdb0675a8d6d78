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
  IQA_REG,
  IRTA_EIME,
  IRTA_REG,
  COMMON_REGISTERS,
  CONTEXT_COMMAND_REGISTERS,
  PAGE_REQUEST_REGISTERS,
  PHMBASE_REG,
  PHMLIMIT_REG,
  PLMBASE_REG,
  PLMLIMIT_REG,
  PMEN_EPM,
  PMEN_REG,
  PMR_GRANULE,
  PQA_REG,
  QUEUE_REGISTERS,
  REGISTER_BYTES,
  RTADDR_REG,
  VER_6_0,
  VER_REG,
  type WritableWord,
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
    for (const word of writableWords(capabilities)) this.declare(...word);
    // Addresses of tables and queues: bits 63:HAW are not there (section 11.4).
    for (const high of [RTADDR_REG + 4, IQA_REG + 4, IRTA_REG + 4, PQA_REG + 4])
      this.writable[high >> 2]! &= 2 ** (capabilities.HAW - 32) - 1;
    this.words[VER_REG >> 2] = capabilities.VER;
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

  private declare(...[offset, writable, clearedByOne, reset]: WritableWord): void {
    this.writable[offset >> 2] = writable;
    this.clearedByOne[offset >> 2] = clearedByOne;
    this.words[offset >> 2] = reset;
  }
}

/** The registers that a unit with these capabilities has; the others read 0 and ignore writes. */
function writableWords(capabilities: VtdCapabilities): WritableWord[] {
  const { VER, QI, PRS, IR, EIM, FRO, NFR } = capabilities;
  const words = [...COMMON_REGISTERS];
  if (VER < VER_6_0) words.push(...CONTEXT_COMMAND_REGISTERS, ...iotlbRegisters(capabilities.IRO * 16));
  if (QI !== 0) words.push(...QUEUE_REGISTERS);
  if (PRS !== 0) words.push(...PAGE_REQUEST_REGISTERS);
  if (IR !== 0) {
    words.push(
      [IRTA_REG, 0xffff_f00f | (EIM !== 0 ? IRTA_EIME : 0), 0, 0],
      [IRTA_REG + 4, 0xffff_ffff, 0, 0],
    );
  }
  words.push(...protectedMemoryRegisters(capabilities));
  for (let i = 0; i <= NFR; i++) words.push([FRO * 16 + i * FRCD_BYTES + 12, 0, FRCD_F, 0]);
  return words;
}

/** IVA_REG and IOTLB_REG, at `base`. */
function iotlbRegisters(base: number): WritableWord[] {
  return [
    [base, 0xffff_f07f, 0, 0],
    [base + 4, 0xffff_ffff, 0, 0],
    [base + IOTLB_REG + 4, 0xb003_ffff, 0, 0],
  ];
}

function protectedMemoryRegisters({ PLMR, PHMR, HAW }: VtdCapabilities): WritableWord[] {
  const low = -PMR_GRANULE;
  const high = 2 ** (HAW - 32) - 1;
  const words: WritableWord[] = [];
  if (PLMR !== 0 || PHMR !== 0) words.push([PMEN_REG, PMEN_EPM, 0, 0]);
  if (PLMR !== 0) words.push([PLMBASE_REG, low, 0, 0], [PLMLIMIT_REG, low, 0, 0]);
  for (const register of PHMR !== 0 ? [PHMBASE_REG, PHMLIMIT_REG] : []) {
    words.push([register, low, 0, 0], [register + 4, high, 0, 0]);
  }
  return words;
}
