/** Flips one bit of one DMA access of a simulated device: which, a test says. */
import type { Machine } from '../../../lib/sim';
import type { DmaPort, PageRequest, TranslationCompletion } from '../../../lib/sim/bus';
import { isInterruptAddress } from '../../../lib/sim/vtd';

export interface Access {
  readonly write: boolean;
  readonly address: bigint;
  /** Bytes. */
  readonly length: number;
}

export class Flipper implements DmaPort {
  /** Accesses since the last arm(). */
  readonly accesses: Access[] = [];
  readonly #port: DmaPort;
  #number = -1;
  #bit = 0;
  #every = -1;

  constructor(machine: Machine, bdf: string) {
    const device = machine.device(bdf);
    if (!device) throw new RangeError(`there is no device at ${bdf}`);
    this.#port = device.interpose(this);
  }

  /** Flips bit `bit` of the access of this number from now on, 0 is the next; -1: of none. */
  arm(number: number, bit: number): void {
    this.accesses.length = 0;
    this.#number = number;
    this.#bit = bit;
  }

  /** From now on, flips bit `bit` of all that the device writes in pieces of `length` bytes. */
  spoil(length: number, bit: number): void {
    this.arm(-1, bit);
    this.#every = length;
  }

  read(...[pasid, high, low, into, at, length, access]: Parameters<DmaPort['read']>): number {
    const done = this.#port.read(pasid, high, low, into, at, length, access);
    if (this.#strikes(false, addressOf(high, low), length)) flip(into, at, this.#bit);
    return done;
  }

  write(...[pasid, high, low, from, at, length, access]: Parameters<DmaPort['write']>): number {
    // Interrupts are not data.
    if (length === 4 && isInterruptAddress(high, low))
      return this.#port.write(pasid, high, low, from, at, length, access);
    const bytes = from.slice(at, at + length);
    if (this.#strikes(true, addressOf(high, low), length)) flip(bytes, 0, this.#bit);
    return this.#port.write(pasid, high, low, bytes, 0, length, access);
  }

  translate(...args: Parameters<DmaPort['translate']>): TranslationCompletion {
    return this.#port.translate(...args);
  }

  requestPage(request: PageRequest): boolean {
    return this.#port.requestPage(request);
  }

  schedule(nanoseconds: number, event: () => void): void {
    this.#port.schedule(nanoseconds, event);
  }

  #strikes(write: boolean, address: bigint, length: number): boolean {
    const number = this.accesses.push({ write, address, length }) - 1;
    return number === this.#number || (write && length === this.#every);
  }
}

function addressOf(high: number, low: number): bigint {
  return (BigInt(high) << 32n) | BigInt(low >>> 0);
}

function flip(bytes: Uint8Array, at: number, bit: number): void {
  bytes[at + (bit >>> 3)] ^= 1 << (bit & 7);
}
