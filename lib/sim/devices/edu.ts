/**
 * QEMU's `edu` device, register-compatible: a function to teach drivers with. It identifies itself, inverts, computes
 * factorials, raises interrupts and copies between memory and a 4 KiB buffer. QEMU, docs/specs/edu; what that leaves
 * open was measured on QEMU 7.2:
 * - 1- and 2-byte reads give 0; 8-byte reads below 0x80 and reads of unknown registers give all ones.
 * - The buffer is for DMA only: the processor reads all ones at its address.
 * - A refused DMA is not reported. What could not be read arrives in the buffer as zeros, page by page; what could
 *   not be written is lost; the command completes.
 * - While a DMA runs, its four registers keep their values.
 * Two things are different here. A DMA outside the buffer, which ends QEMU's process, moves nothing and completes.
 * A reset clears the registers, which QEMU's device leaves alone.
 */
import { NO_PASID } from '../bus';
import { type Halves, PciFunction } from './pci-function';
import { COMMAND_IO_SPACE, COMMAND_SERR_ENABLE } from './pci-registers';

/** Offsets in BAR 0. */
export const edu = {
  IDENTIFICATION: 0x00,
  LIVENESS: 0x04,
  FACTORIAL: 0x08,
  STATUS: 0x20,
  INTERRUPT_STATUS: 0x24,
  INTERRUPT_RAISE: 0x60,
  INTERRUPT_ACKNOWLEDGE: 0x64,
  DMA_SOURCE: 0x80,
  DMA_DESTINATION: 0x88,
  DMA_COUNT: 0x90,
  DMA_COMMAND: 0x98,
} as const;

/** 0xRRrr00ed: major and minor version. */
export const EDU_ID = 0x010000ed;
export const STATUS_COMPUTING = 0x01;
export const STATUS_RAISE_INTERRUPT = 0x80;
/** Causes in the interrupt status register. */
export const INTERRUPT_FACTORIAL = 0x001;
export const INTERRUPT_DMA = 0x100;
export const DMA_START = 0x1;
export const DMA_TO_MEMORY = 0x2;
export const DMA_INTERRUPT = 0x4;
/** Where the buffer is in the device's own address space: a source or destination of DMA. */
export const EDU_BUFFER = 0x40000;
export const EDU_BUFFER_SIZE = 4096;

/** Simulated time: of a factorial, and per factor; and of a DMA, for which QEMU takes 100 ms. */
const FACTORIAL_NANOSECONDS = 1_000;
const FACTOR_NANOSECONDS = 1;
const DMA_NANOSECONDS = 100_000_000;

const ALL_ONES = 0xffffffff;

export interface EduOptions {
  /** Address bits the device drives in DMA, QEMU's `dma_mask`; the others become 0. Default 28 bits. */
  dmaMask?: bigint;
  /** It is function 0 of several. */
  multifunction?: boolean;
}

function factorial(n: number): number {
  // From 34! on, 32 bits are all zero.
  if (n >= 34) return 0;
  let product = 1;
  for (let factor = 2; factor <= n; factor++) product = Math.imul(product, factor);
  return product >>> 0;
}

export class Edu extends PciFunction {
  private readonly buffer = new Uint8Array(EDU_BUFFER_SIZE);
  private readonly maskHigh: number;
  private readonly maskLow: number;
  private inverted = 0;
  private factorial = 0;
  private status = 0;
  private interruptStatus = 0;
  private readonly source: Halves = { high: 0, low: 0 };
  private readonly destination: Halves = { high: 0, low: 0 };
  private readonly count: Halves = { high: 0, low: 0 };
  private readonly command: Halves = { high: 0, low: 0 };

  constructor(options: EduOptions = {}) {
    super({
      vendorId: 0x1234,
      deviceId: 0x11e8,
      revisionId: 0x10,
      classCode: 0x00ff00,
      subsystemVendorId: 0x1af4,
      subsystemId: 0x1100,
      // QEMU lets software set I/O Space though there is nothing in it, and not Parity Error Response.
      command: COMMAND_IO_SPACE | COMMAND_SERR_ENABLE,
      multifunction: options.multifunction ?? false,
      interruptPin: 1,
      bars: [{ bar: 0, size: 1 << 20, width: 32, prefetchable: false }],
      capabilities: [{ kind: 'msi', vectors: 1, wide: true, maskable: false }],
    });
    const mask = options.dmaMask ?? (1n << 28n) - 1n;
    if (mask < 0n || mask >= 1n << 64n) throw new RangeError(`dmaMask must have 64 bits at most: ${mask}`);
    this.maskHigh = Number(mask >> 32n);
    this.maskLow = Number(mask & 0xffffffffn);
  }

  protected override readRegister(_bar: number, offset: number, width: number): number {
    if (width !== 4) return 0;
    switch (offset) {
      case edu.IDENTIFICATION:
        return EDU_ID;
      case edu.LIVENESS:
        return this.inverted;
      case edu.FACTORIAL:
        return this.factorial;
      case edu.STATUS:
        return this.status;
      case edu.INTERRUPT_STATUS:
        return this.interruptStatus;
      default:
        return this.dmaRegister(offset)?.low ?? ALL_ONES;
    }
  }

  protected override readRegister64(_bar: number, offset: number, into: Halves): void {
    const register = this.dmaRegister(offset);
    into.high = register?.high ?? ALL_ONES;
    into.low = register?.low ?? ALL_ONES;
  }

  protected override writeRegister(_bar: number, offset: number, width: number, value: number): void {
    if (width !== 4) return;
    switch (offset) {
      case edu.LIVENESS:
        this.inverted = ~value >>> 0;
        break;
      case edu.FACTORIAL:
        this.compute(value);
        break;
      case edu.STATUS:
        this.status = (this.status & STATUS_COMPUTING) | (value & STATUS_RAISE_INTERRUPT);
        break;
      case edu.INTERRUPT_RAISE:
        this.raise(value);
        break;
      case edu.INTERRUPT_ACKNOWLEDGE:
        this.acknowledge(value);
        break;
      default:
        this.writeDmaRegister(offset, 0, value);
    }
  }

  protected override writeRegister64(_bar: number, offset: number, high: number, low: number): void {
    this.writeDmaRegister(offset, high, low);
  }

  protected override onReset(): void {
    this.inverted = 0;
    this.factorial = 0;
    this.status = 0;
    this.interruptStatus = 0;
    for (const register of [this.source, this.destination, this.count, this.command]) {
      register.high = 0;
      register.low = 0;
    }
    this.buffer.fill(0);
  }

  private compute(n: number): void {
    if ((this.status & STATUS_COMPUTING) !== 0) return;
    this.factorial = n;
    this.status |= STATUS_COMPUTING;
    this.schedule(FACTORIAL_NANOSECONDS + n * FACTOR_NANOSECONDS, () => {
      this.factorial = factorial(n);
      this.status &= ~STATUS_COMPUTING;
      if ((this.status & STATUS_RAISE_INTERRUPT) !== 0) this.raise(INTERRUPT_FACTORIAL);
    });
  }

  private raise(causes: number): void {
    this.interruptStatus = (this.interruptStatus | causes) >>> 0;
    if (this.interruptStatus === 0) return;
    if (this.msiEnabled) this.raiseMsi(0);
    else this.setIntx(true);
  }

  private acknowledge(causes: number): void {
    this.interruptStatus = (this.interruptStatus & ~causes) >>> 0;
    if (this.interruptStatus === 0) this.setIntx(false);
  }

  private dmaRegister(offset: number): Halves | undefined {
    switch (offset) {
      case edu.DMA_SOURCE:
        return this.source;
      case edu.DMA_DESTINATION:
        return this.destination;
      case edu.DMA_COUNT:
        return this.count;
      case edu.DMA_COMMAND:
        return this.command;
      default:
        return undefined;
    }
  }

  /** A 4-byte write sets the whole register, its high half to 0. */
  private writeDmaRegister(offset: number, high: number, low: number): void {
    const register = this.dmaRegister(offset);
    if (register === undefined || (this.command.low & DMA_START) !== 0) return;
    if (register === this.command && (low & DMA_START) === 0) return;
    register.high = high;
    register.low = low;
    if (register === this.command) this.schedule(DMA_NANOSECONDS, () => this.transfer());
  }

  private transfer(): void {
    const toMemory = (this.command.low & DMA_TO_MEMORY) !== 0;
    const inner = toMemory ? this.source : this.destination;
    const outer = toMemory ? this.destination : this.source;
    const at = inner.low - EDU_BUFFER;
    const inside = inner.high === 0 && this.count.high === 0 && at >= 0;
    if (inside && at + this.count.low <= EDU_BUFFER_SIZE) this.move(toMemory, outer, at, this.count.low);
    this.command.low = (this.command.low & ~DMA_START) >>> 0;
    if ((this.command.low & DMA_INTERRUPT) !== 0) this.raise(INTERRUPT_DMA);
  }

  /** Goes on after a refused page with the next one, as QEMU does. */
  private move(toMemory: boolean, address: Halves, at: number, count: number): void {
    const first = (address.low & this.maskLow) >>> 0;
    let done = 0;
    while (done < count) {
      const sum = first + done;
      const high = (((address.high & this.maskHigh) >>> 0) + Math.floor(sum / 2 ** 32)) >>> 0;
      const low = sum >>> 0;
      const left = count - done;
      const moved = toMemory
        ? this.dmaWrite(NO_PASID, high, low, this.buffer, at + done, left)
        : this.dmaRead(NO_PASID, high, low, this.buffer, at + done, left);
      done += moved;
      if (done === count) return;
      const skipped = Math.min(4096 - ((low + moved) % 4096), count - done);
      if (!toMemory) this.buffer.fill(0, at + done, at + done + skipped);
      done += skipped;
    }
  }
}
