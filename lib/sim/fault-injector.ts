/**
 * Hardware that misbehaves, on purpose and repeatably: what a device sends upstream is refused, corrupted, lost or late, by
 * a seed or on command. It stands between a function and the root complex, so that it works for every device.
 */
import { type DmaPort, NO_PASID, type PageRequest, REFUSED, type TranslationCompletion } from './bus';
import type { PciFunction } from './devices/pci-function';
import { Random } from './random';
import { isInterruptAddress } from './vtd';

/** Probabilities, 0 to 1, of what can go wrong; default 0. */
export interface FaultOptions {
  /** The same seed and the same requests give the same faults. */
  readonly seed: number;
  /** An interrupt is lost: an MSI or MSI-X message, or the assertion of INTx. */
  readonly dropInterrupt?: number;
  /** A read or write of memory, or a translation or page request, is refused: Unsupported Request. */
  readonly dmaError?: number;
  /** One bit of what a DMA read returns, or of what a DMA write stores, is wrong. */
  readonly corruptData?: number;
  /** What the device does next comes later: what it began afterwards may overtake it, as completions are reordered. */
  readonly delay?: number;
  /** Nanoseconds that it is later, at most. Default 1,000,000. */
  readonly longestDelay?: number;
  /** At each request: the device is pulled out. */
  readonly remove?: number;
}

const KINDS = ['dropInterrupt', 'dmaError', 'corruptData', 'delay', 'remove'] as const;
export type FaultKind = (typeof KINDS)[number];

/** A fault that was injected. */
export interface InjectedFault {
  readonly kind: FaultKind;
  /** What it happened to. */
  readonly request: 'read' | 'write' | 'translate' | 'page request' | 'interrupt' | 'event';
  /** Of a read, write, translation or page request: its address. */
  readonly address?: bigint;
}

const LONGEST_DELAY = 1_000_000;

export class FaultInjector implements DmaPort {
  /** What was injected, oldest first. */
  readonly log: InjectedFault[] = [];
  readonly #port: DmaPort;
  readonly #remove: () => void;
  readonly #longestDelay: number;
  readonly #probabilities: Record<FaultKind, number>;
  /** One sequence for each kind: another kind's probability does not change when this one strikes. */
  readonly #random: Record<FaultKind, Random>;
  readonly #forced: Record<FaultKind, number> = emptyCounts();

  /** @internal Use `machine.injectFaults()`. */
  constructor(device: PciFunction, options: FaultOptions, remove: () => void) {
    const { seed, longestDelay = LONGEST_DELAY } = options;
    if (!Number.isFinite(longestDelay) || longestDelay < 0)
      throw new RangeError(`longestDelay must be a number of nanoseconds, not ${longestDelay}`);
    this.#longestDelay = longestDelay;
    this.#probabilities = emptyCounts();
    for (const kind of KINDS) this.#probabilities[kind] = checkProbability(kind, options[kind] ?? 0);
    const randoms = KINDS.map((kind, i) => [kind, new Random(seed + i * 0x10001)]);
    this.#random = Object.fromEntries(randoms) as Record<FaultKind, Random>;
    this.#remove = remove;
    this.#port = device.interpose(this);
    // Another may stand there already.
    const loses = device.losesIntx;
    device.losesIntx = () => loses?.() || this.#strikes('dropInterrupt', 'interrupt');
  }

  /** The next thing that it can happen to suffers this fault, whatever the probability; or the next `count` of them. */
  once(kind: FaultKind, count = 1): void {
    if (!KINDS.includes(kind)) throw new TypeError(`faults are ${KINDS.join(', ')}, not ${String(kind)}`);
    if (!Number.isSafeInteger(count) || count < 1)
      throw new RangeError(`count must be how many faults, 1 or more, not ${count}`);
    this.#forced[kind] += count;
  }

  /** From now on everything works. */
  stop(): void {
    for (const kind of KINDS) {
      this.#probabilities[kind] = 0;
      this.#forced[kind] = 0;
    }
  }

  read(
    pasid: number,
    high: number,
    low: number,
    into: Uint8Array,
    at: number,
    length: number,
    access: number,
  ): number {
    this.#mayRemove('read');
    if (this.#strikes('dmaError', 'read', high, low)) return 0;
    const done = this.#port.read(pasid, high, low, into, at, length, access);
    if (done > 0 && this.#strikes('corruptData', 'read', high, low)) this.#flip(into, at, done);
    return done;
  }

  write(
    pasid: number,
    high: number,
    low: number,
    from: Uint8Array,
    at: number,
    length: number,
    access: number,
  ): number {
    this.#mayRemove('write');
    if (pasid === NO_PASID && length === 4 && isInterruptAddress(high, low)) {
      // A posted write: nobody tells the device.
      if (this.#strikes('dropInterrupt', 'interrupt')) return length;
      return this.#port.write(pasid, high, low, from, at, length, access);
    }
    if (this.#strikes('dmaError', 'write', high, low)) return 0;
    if (length === 0 || !this.#strikes('corruptData', 'write', high, low))
      return this.#port.write(pasid, high, low, from, at, length, access);
    const wrong = from.slice(at, at + length);
    this.#flip(wrong, 0, length);
    return this.#port.write(pasid, high, low, wrong, 0, length, access);
  }

  translate(pasid: number, high: number, low: number, access: number): TranslationCompletion {
    this.#mayRemove('translate');
    if (this.#strikes('dmaError', 'translate', high, low)) return REFUSED;
    return this.#port.translate(pasid, high, low, access);
  }

  requestPage(request: PageRequest): boolean {
    this.#mayRemove('page request');
    if (this.#strikes('dmaError', 'page request', request.high, request.low)) return false;
    return this.#port.requestPage(request);
  }

  schedule(nanoseconds: number, event: () => void): void {
    const late = this.#strikes('delay', 'event') ? this.#random.delay.below(this.#longestDelay + 1) : 0;
    this.#port.schedule(nanoseconds + late, event);
  }

  /** The request itself still gets through: the device goes when the present event is over. */
  #mayRemove(request: InjectedFault['request']): void {
    if (this.#strikes('remove', request)) this.#port.schedule(0, this.#remove);
  }

  #strikes(kind: FaultKind, request: InjectedFault['request'], high?: number, low?: number): boolean {
    if (this.#forced[kind] > 0) this.#forced[kind]--;
    else if (this.#probabilities[kind] === 0 || this.#random[kind].next() >= this.#probabilities[kind])
      return false;
    const where =
      high === undefined ? {} : { address: (BigInt(high) << 32n) | BigInt((low as number) >>> 0) };
    this.log.push({ kind, request, ...where });
    return true;
  }

  #flip(bytes: Uint8Array, at: number, length: number): void {
    const bit = this.#random.corruptData.below(8 * length);
    bytes[at + (bit >>> 3)] ^= 1 << (bit & 7);
  }
}

function emptyCounts(): Record<FaultKind, number> {
  return { dropInterrupt: 0, dmaError: 0, corruptData: 0, delay: 0, remove: 0 };
}

function checkProbability(kind: FaultKind, value: number): number {
  if (!(value >= 0 && value <= 1)) throw new RangeError(`${kind} is a probability, 0 to 1, not ${value}`);
  return value;
}
