/** A function that reads and writes where a test says, by itself or through its translation cache, and asks for pages. */
import { ACCESS_TRANSLATED, ACCESS_WRITE, NO_PASID } from '../../lib/sim';
import { PciFunction } from '../../lib/sim';
import { PROBE } from '../sim/kernel/probe-function';

const PAGE = 4096;

/** How the device gets its addresses translated. */
export type Route = 'untranslated' | 'cached';

export class Prober extends PciFunction {
  constructor() {
    super(PROBE);
  }

  protected override readRegister(): number {
    return 0;
  }
  protected override writeRegister(): void {}
  protected override onReset(): void {}

  /** Reads into `bytes`, or writes them; returns how many bytes went through before the first page that was refused. */
  transfer(write: boolean, address: number, bytes: Uint8Array, pasid: number, route: Route): number {
    let done = 0;
    while (done < bytes.length) {
      const at = address + done;
      const part = Math.min(bytes.length - done, PAGE - (at % PAGE));
      const moved = this.#part(write, at, bytes, done, part, pasid, route);
      done += moved;
      if (moved < part) break;
    }
    return done;
  }

  /** Asks for a page; false: nobody will answer. */
  ask(address: number, pasid: number, prgIndex: number): boolean {
    const [high, low] = halves(address - (address % PAGE));
    const wanted = { read: true, write: true, execute: false, privileged: false };
    return this.requestPage({ pasid, high, low, ...wanted, last: true, prgIndex });
  }

  #part(
    write: boolean,
    address: number,
    bytes: Uint8Array,
    at: number,
    length: number,
    pasid: number,
    route: Route,
  ): number {
    let access = write ? ACCESS_WRITE : 0;
    let target = address;
    if (route === 'cached' && this.atsEnabled) {
      const page = this.#translated(Math.floor(address / PAGE), pasid, access);
      if (page < 0) return 0;
      target = page * PAGE + (address % PAGE);
      access |= ACCESS_TRANSLATED;
    }
    const [high, low] = halves(target);
    return write
      ? this.dmaWrite(pasid, high, low, bytes, at, length, access)
      : this.dmaRead(pasid, high, low, bytes, at, length, access);
  }

  /** The host page, from the cache or by asking; -1 where the answer does not permit it. */
  #translated(page: number, pasid: number, access: number): number {
    const { atc } = this;
    if (atc === undefined) return -1;
    let entry = atc.find(pasid, page, access);
    if (entry < 0) {
      const [high, low] = halves(page * PAGE);
      atc.insert(pasid, page, this.translate(pasid, high, low, access));
      entry = atc.find(pasid, page, access);
    }
    return entry < 0 ? -1 : atc.translate(entry, page);
  }
}

const halves = (address: number): [number, number] => [Math.floor(address / 2 ** 32), address >>> 0];

export { NO_PASID };
