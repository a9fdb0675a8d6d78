/**
 * The root complex: where requests of PCI functions enter the machine. Every one passes the remapping unit, if there is
 * one; what it translates goes to memory, and writes to the interrupt window become interrupts.
 */
import {
  ACCESS_NO_SNOOP,
  ACCESS_READ,
  ACCESS_TRANSLATED,
  ACCESS_WRITE,
  type DmaPort,
  NO_PASID,
  type PageRequest,
  REFUSED,
  type TranslationCompletion,
} from './bus';
import type { Clock } from './clock';
import { PciBridge } from './devices/bridge';
import type { PciFunction } from './devices/pci-function';
import type { PhysicalMemory } from './memory';
import { isInterruptAddress } from './vtd';
import type { VtdUnit } from './vtd';

const PAGE = 4096;

/** DMA that came with the No Snoop attribute, and that no table made snoop all the same. */
export interface UnsnoopedDma {
  readonly rid: number;
  readonly write: boolean;
  /** The address of the request; of one with a translated address, the physical one. */
  readonly address: bigint;
  /** Bytes, within a page. */
  readonly length: number;
}

/** Entries that are kept of it; older ones go. */
const MOST_UNSNOOPED = 256;

/** Takes an interrupt message. */
export type MessageSink = (addressLow: number, data: number) => void;

export class RootComplex {
  readonly #functions = new Map<number, PciFunction>();
  /** DMA that has not looked into the processors' caches, oldest first. */
  readonly unsnooped: UnsnoopedDma[] = [];
  /** By the number of the bus behind each. */
  readonly #bridges = new Map<number, PciBridge>();

  constructor(
    readonly memory: PhysicalMemory,
    readonly clock: Clock,
    /** Undefined: addresses of requests are physical. */
    readonly unit: VtdUnit | undefined,
    /** Takes messages where no unit remaps them. */
    readonly message: MessageSink,
  ) {}

  /** `alias`: the requester ID that the function's requests leave with, where that is not its own; messages have that. */
  plug(rid: number, pci: PciFunction, alias = rid): void {
    if (this.#functions.has(rid)) throw new RangeError(`requester ID 0x${rid.toString(16)} is taken`);
    pci.connect(rid, new Port(this, this.#arrival(rid, alias), this.#arrival(rid, rid)));
    this.#functions.set(rid, pci);
    if (pci instanceof PciBridge) this.#bridges.set(pci.bus, pci);
  }

  unplug(rid: number): void {
    const pci = this.#functions.get(rid);
    pci?.disconnect();
    this.#functions.delete(rid);
    if (pci instanceof PciBridge) this.#bridges.delete(pci.bus);
  }

  noteUnsnooped(entry: UnsnoopedDma): void {
    this.unsnooped.push(entry);
    if (this.unsnooped.length > MOST_UNSNOOPED) this.unsnooped.shift();
  }

  /** The requester ID under which what leaves the function at `rid` as `requester` comes up here. */
  #arrival(rid: number, requester: number): number {
    let arrival = requester;
    for (
      let bridge = this.#bridges.get(rid >> 8);
      bridge;
      bridge = this.#bridges.get(bridge.requesterId >> 8)
    )
      arrival = bridge.forward(arrival);
    return arrival;
  }

  function(rid: number): PciFunction | undefined {
    return this.#functions.get(rid);
  }
}

/** The upstream port of one function. */
class Port implements DmaPort {
  readonly #word = new Uint8Array(4);

  constructor(
    readonly root: RootComplex,
    readonly rid: number,
    /** Requester ID of interrupt messages. */
    readonly messageRid: number,
  ) {}

  read(
    pasid: number,
    high: number,
    low: number,
    into: Uint8Array,
    at: number,
    length: number,
    access: number,
  ): number {
    // The interrupt window cannot be read.
    if (this.#isMessage(pasid, high, low, access)) return 0;
    return this.#transfer(pasid, high | 0, low | 0, into, at, length, access & ~ACCESS_WRITE, true);
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
    if (this.#isMessage(pasid, high, low, access)) return this.#interrupt(low, from, at, length);
    return this.#transfer(pasid, high | 0, low | 0, from, at, length, access | ACCESS_WRITE, false);
  }

  translate(pasid: number, high: number, low: number, access: number): TranslationCompletion {
    return this.root.unit?.translationRequest(this.rid, pasid, high, low, access) ?? REFUSED;
  }

  requestPage(request: PageRequest): boolean {
    return this.root.unit?.pageRequest(this.rid, request) ?? false;
  }

  schedule(nanoseconds: number, event: () => void): void {
    this.root.clock.schedule(nanoseconds, event);
  }

  #isMessage(pasid: number, high: number, low: number, access: number): boolean {
    return pasid === NO_PASID && !(access & ACCESS_TRANSLATED) && isInterruptAddress(high, low);
  }

  /** One aligned 4-byte write is a message (Intel SDM volume 3, section 12.11); anything else is refused. */
  #interrupt(low: number, from: Uint8Array, at: number, length: number): number {
    if (length !== 4 || low % 4 !== 0) return 0;
    this.#word.set(from.subarray(at, at + 4));
    const data = new DataView(this.#word.buffer).getUint32(0, true);
    if (this.root.unit) this.root.unit.interruptRequest(this.messageRid, low, data);
    else this.root.message(low, data);
    // It was a posted write: the device does not learn what became of it.
    return 4;
  }

  /** A request with No Snoop, which went through. A translated one is not looked up: the device was told what it may do. */
  #noteUnsnooped(high: number, low: number, length: number, access: number): void {
    const { unit } = this.root;
    if (!(access & ACCESS_TRANSLATED) && unit?.forcesSnoop(high, low)) return;
    const address = (BigInt(high >>> 0) << 32n) | BigInt(low >>> 0);
    this.root.noteUnsnooped({ rid: this.rid, write: (access & ACCESS_WRITE) !== 0, address, length });
  }

  /**
   * Page by page: translation holds up to the end of a 4 KiB page. Returns the bytes before the first refusal. Halves are signed
   * here: those are numbers that the engine need not allocate.
   */
  #transfer(
    pasid: number,
    high: number,
    low: number,
    bytes: Uint8Array,
    at: number,
    length: number,
    access: number,
    reading: boolean,
  ): number {
    const { unit, memory } = this.root;
    let done = 0;
    while (done < length) {
      const part = Math.min(length - done, PAGE - (low & (PAGE - 1)));
      let hostHigh = high;
      let hostLow = low;
      if (unit !== undefined) {
        if (unit.locate(this.rid, pasid, high, low, access || ACCESS_READ) !== 0) break;
        hostHigh = unit.host.high;
        hostLow = unit.host.low;
      } else if (pasid !== NO_PASID) break;
      const moved = reading
        ? memory.copyOutAt(hostHigh, hostLow, bytes, at + done, part)
        : memory.copyInAt(hostHigh, hostLow, bytes, at + done, part);
      if (!moved) break;
      if (access & ACCESS_NO_SNOOP) this.#noteUnsnooped(high, low, part, access);
      done += part;
      low = (low + part) | 0;
      if (low === 0) high = (high + 1) | 0;
    }
    return done;
  }
}
