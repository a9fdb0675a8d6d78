/** An upstream port over plain memory with a page table of its own: what a device test sees of the machine. */
import {
  ACCESS_PRIVILEGED,
  ACCESS_TRANSLATED,
  ACCESS_WRITE,
  type DmaPort,
  type PageRequest,
  type TranslationCompletion,
} from '../../../lib/sim/bus';
import { Clock } from '../../../lib/sim/clock';

export const PAGE = 4096;

/** A mapping of one page, or of 2^n aligned pages. */
export interface Mapping {
  /** Physical page number. */
  to: number;
  pages: number;
  read: boolean;
  write: boolean;
  execute: boolean;
  global: boolean;
  untranslatedOnly: boolean;
  snooped: boolean;
}

export interface Message {
  high: number;
  low: number;
  data: number;
}

export interface Request {
  kind: 'read' | 'write';
  pasid: number;
  page: number;
  access: number;
}

export class FakePort implements DmaPort {
  readonly clock = new Clock();
  readonly memory = new Uint8Array(64 * PAGE);
  readonly messages: Message[] = [];
  readonly requests: Request[] = [];
  readonly pageRequests: PageRequest[] = [];
  /** Translation requests: page and access. */
  readonly translations: { pasid: number; page: number; access: number }[] = [];
  /** Whether translation requests are answered at all, and page requests taken. */
  ats = true;
  pri: boolean | ((request: PageRequest) => boolean) = true;
  private readonly mappings = new Map<string, Mapping>();

  map(pasid: number, page: number, to: number, options: Partial<Mapping> = {}): void {
    const mapping: Mapping = {
      to,
      pages: 1,
      read: true,
      write: true,
      execute: false,
      global: false,
      untranslatedOnly: false,
      snooped: false,
      ...options,
    };
    for (let i = 0; i < mapping.pages; i++) this.mappings.set(`${pasid}/${page + i}`, mapping);
  }

  unmap(pasid: number, page: number): void {
    this.mappings.delete(`${pasid}/${page}`);
  }

  read(
    pasid: number,
    high: number,
    low: number,
    into: Uint8Array,
    at: number,
    length: number,
    access: number,
  ) {
    return this.transfer('read', pasid, high, low, length, access, (physical, done, part) =>
      into.set(this.memory.subarray(physical, physical + part), at + done),
    );
  }

  write(
    pasid: number,
    high: number,
    low: number,
    from: Uint8Array,
    at: number,
    length: number,
    access: number,
  ) {
    if (high === 0 && low >>> 20 === 0xfee) {
      const data = new DataView(from.buffer, from.byteOffset + at, length).getUint32(0, true);
      this.messages.push({ high, low, data });
      return length;
    }
    return this.transfer('write', pasid, high, low, length, access, (physical, done, part) =>
      this.memory.set(from.subarray(at + done, at + done + part), physical),
    );
  }

  translate(pasid: number, high: number, low: number, access: number): TranslationCompletion {
    const page = high * 2 ** 20 + (low >>> 12);
    this.translations.push({ pasid, page, access });
    const found = this.mappings.get(`${pasid}/${page}`);
    const base = found ? found.to - (found.to % found.pages) : 0;
    return {
      success: this.ats,
      high: 0,
      low: base * PAGE,
      length: (found?.pages ?? 1) * PAGE,
      read: found?.read ?? false,
      write: (found?.write ?? false) && (access & ACCESS_WRITE) !== 0,
      execute: found?.execute ?? false,
      privileged: (access & ACCESS_PRIVILEGED) !== 0,
      global: found?.global ?? false,
      untranslatedOnly: found?.untranslatedOnly ?? false,
      snooped: found?.snooped ?? false,
    };
  }

  requestPage(request: PageRequest): boolean {
    const taken = typeof this.pri === 'boolean' ? this.pri : this.pri(request);
    if (taken) this.pageRequests.push(request);
    return taken;
  }

  schedule(nanoseconds: number, event: () => void): void {
    this.clock.schedule(nanoseconds, event);
  }

  private transfer(
    kind: 'read' | 'write',
    pasid: number,
    high: number,
    low: number,
    length: number,
    access: number,
    copy: (physical: number, done: number, part: number) => void,
  ): number {
    let done = 0;
    while (done < length) {
      const address = high * 2 ** 32 + low + done;
      const page = Math.floor(address / PAGE);
      const part = Math.min(length - done, PAGE - (address % PAGE));
      this.requests.push({ kind, pasid, page, access });
      const physical = (access & ACCESS_TRANSLATED) !== 0 ? page : this.walk(kind, pasid, page);
      if (physical < 0 || physical >= this.memory.length / PAGE) break;
      copy(physical * PAGE + (address % PAGE), done, part);
      done += part;
    }
    return done;
  }

  private walk(kind: 'read' | 'write', pasid: number, page: number): number {
    const found = this.mappings.get(`${pasid}/${page}`);
    if (!found || !(kind === 'read' ? found.read : found.write)) return -1;
    return found.pages === 1 ? found.to : found.to - (found.to % found.pages) + (page % found.pages);
  }
}
