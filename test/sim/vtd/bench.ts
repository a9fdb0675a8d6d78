/** A unit on a bench: memory, one or more functions behind it, and a bare-bones driver to set up its structures. */
import { ACCESS_READ, AtsEndpoint, NO_PASID, TranslationCompletion } from '../../../lib/sim/bus';
import { PhysicalMemory } from '../../../lib/sim/memory';
import {
  AW_48_BIT,
  CONTEXT_ENTRY,
  contextEntryAddress,
  encodeContextEntry,
  encodeInvalidationWait,
  encodePasidDirectoryEntry,
  encodePasidEntry,
  encodeRootEntryHalf,
  FRCD_REG,
  FS_P,
  FS_RW,
  FS_US,
  FSTS_REG,
  GCMD_QIE,
  GCMD_REG,
  GCMD_SRTP,
  GCMD_TE,
  highHalf,
  IQA_DW,
  IQA_REG,
  IQT_REG,
  lowHalf,
  PASID_ENTRY,
  PGTT_FIRST_STAGE,
  PGTT_SECOND_STAGE,
  pasidDirectoryEntryAddress,
  pasidEntryAddress,
  PQA_REG,
  rootEntryAddress,
  RTADDR_REG,
  RTADDR_TTM_SHIFT,
  SS_R,
  SS_W,
  StaleUse,
  TTM_SCALABLE,
  VtdCapabilities,
  VtdUnit,
} from '../../../lib/sim/vtd';

export const RID = 0x0020;
/** Second-stage entries that give both rights; first-stage entries that are present, writable and the user's. */
export const RW = SS_R | SS_W;
export const ALL = FS_P | FS_RW | FS_US;

export type ContextFields = Partial<ReturnType<typeof CONTEXT_ENTRY.decode>>;
export type PasidFields = Partial<ReturnType<typeof PASID_ENTRY.decode>>;

export const high = (address: bigint): number => Number((address >> 32n) & 0xffff_ffffn);
export const low = (address: bigint): number => Number(address & 0xffff_ffffn);

export class Bench {
  readonly memory = new PhysicalMemory(64 * 2 ** 20);
  readonly interrupts: [number, number, number][] = [];
  readonly messages: unknown[][] = [];
  readonly absent = new Set<number>();
  readonly unit: VtdUnit;
  readonly rootTable = this.page();
  readonly contextTables = new Map<number, number>();
  readonly directories = new Map<number, number>();
  readonly queue = this.pages(2);
  readonly pageRequestQueue = this.page();
  readonly status = this.page();
  private tail = 0;
  private waits = 0;

  constructor(
    capabilities: Partial<VtdCapabilities> = {},
    strict?: (use: StaleUse) => void,
    structureCaches = true,
  ) {
    this.unit = new VtdUnit({
      memory: this.memory,
      ...(strict && { strict }),
      capabilities,
      structureCaches,
      interrupt: (addressHigh, addressLow, data) => this.interrupts.push([addressHigh, addressLow, data]),
      endpoint: (rid) => (this.absent.has(rid) ? undefined : this.endpoint(rid)),
    });
    this.write64(RTADDR_REG, this.rootTable, TTM_SCALABLE << RTADDR_TTM_SHIFT);
    this.write64(IQA_REG, this.queue, IQA_DW | 1);
    this.write64(PQA_REG, this.pageRequestQueue, 0);
    this.unit.write32(GCMD_REG, GCMD_SRTP);
    this.unit.write32(GCMD_REG, GCMD_QIE);
    this.unit.write32(GCMD_REG, GCMD_TE | GCMD_QIE);
  }

  page(): number {
    return this.memory.allocatePage();
  }

  /** Pages that lie one behind the other: fresh memory hands them out so. */
  pages(count: number): number {
    const first = this.page();
    for (let i = 1; i < count; i++) expect(this.page()).toBe(first + 4096 * i);
    return first;
  }

  write64(offset: number, address: number, bits: number): void {
    this.unit.write64(offset, highHalf(address), lowHalf(address) | bits);
  }

  /** Descriptors into the queue, and the tail behind them. */
  submit(...descriptors: Int32Array[]): void {
    for (const descriptor of descriptors) {
      this.memory.writeWords(this.queue + this.tail, descriptor);
      this.tail = (this.tail + 32) % 8192;
    }
    this.unit.write32(IQT_REG, this.tail);
  }

  /** The same, with a wait behind them; true if its status was written. */
  complete(...descriptors: Int32Array[]): boolean {
    const STATUS_DATA = ++this.waits;
    this.submit(
      ...descriptors,
      encodeInvalidationWait({ SW: 1, FN: 1, STATUS_DATA, STATUS_ADDRESS: this.status }),
    );
    return this.memory.read32(this.status) === STATUS_DATA;
  }

  context(rid: number, fields: ContextFields = {}): number {
    const half = rid >>> 7;
    let table = this.contextTables.get(half);
    if (table === undefined) {
      this.contextTables.set(half, (table = this.page()));
      this.memory.writeWords(rootEntryAddress(this.rootTable, rid), encodeRootEntryHalf(table));
    }
    let directory = this.directories.get(rid);
    if (directory === undefined) this.directories.set(rid, (directory = this.page()));
    const entry = encodeContextEntry({ P: 1, PASIDE: 1, PDTS: 2, PASIDDIRPTR: directory, ...fields });
    const at = contextEntryAddress(table, rid);
    this.memory.writeWords(at, entry);
    return at;
  }

  /** Address of the PASID table entry it wrote. */
  pasid(rid: number, pasid: number, fields: PasidFields): number {
    if (!this.directories.has(rid)) this.context(rid);
    const at = pasidDirectoryEntryAddress(this.directories.get(rid)!, pasid);
    let table = this.memory.read32(at) & ~0xfff;
    if (table === 0) {
      table = this.page();
      this.memory.writeWords(at, encodePasidDirectoryEntry(table));
    }
    const entry = pasidEntryAddress(table, pasid);
    this.memory.writeWords(entry, encodePasidEntry({ P: 1, PWSNP: 1, ...fields }));
    return entry;
  }

  /**
   * Points the entry for `address` in tables of `levels` below `root` at `target`, creating tables with `tableFlags`.
   * Returns the address of the leaf entry. `leafLevel`: 1, 2 (2 MiB) or 3 (1 GiB).
   */
  map(
    root: number,
    levels: number,
    address: bigint,
    target: number,
    flags: number,
    tableFlags: number,
    leafLevel = 1,
    highFlags = 0,
  ): number {
    let table = root;
    for (let level = levels; ; level--) {
      const entry = table + 8 * Number((address >> BigInt(3 + 9 * level)) & 0x1ffn);
      if (level === leafLevel) {
        this.memory.write64(entry, highHalf(target) | highFlags, lowHalf(target) | flags);
        return entry;
      }
      table = this.next(entry, tableFlags);
    }
  }

  private next(entry: number, flags: number): number {
    const present = this.memory.read32(entry) & ~0xfff;
    if (present !== 0) return present;
    const table = this.page();
    this.memory.write64(entry, highHalf(table), lowHalf(table) | flags);
    return table;
  }

  translate(address: bigint, access = ACCESS_READ, pasid = NO_PASID, rid = RID): number {
    return this.unit.translate(rid, pasid, high(address), low(address), access);
  }

  request(address: bigint, access = ACCESS_READ, pasid = NO_PASID, rid = RID): TranslationCompletion {
    return this.unit.translationRequest(rid, pasid, high(address), low(address), access);
  }

  /** The fault-recording register `index`. */
  fault(index = 0): ReturnType<typeof FRCD_REG.decode> {
    const at = this.unit.capabilities.FRO * 16 + 16 * index;
    return FRCD_REG.decode([0, 4, 8, 12].map((offset) => this.unit.read32(at + offset)));
  }

  /** Reads and clears every recorded fault; their reasons, oldest first. */
  takeFaults(): number[] {
    const { NFR, FRO } = this.unit.capabilities;
    const first = (this.unit.read32(FSTS_REG) >>> 8) & 0xff;
    const taken: number[] = [];
    for (let i = 0; i <= NFR; i++) {
      const index = (first + i) % (NFR + 1);
      const { F, FR } = this.fault(index);
      if (F === 0) continue;
      taken.push(FR);
      this.unit.write32(FRO * 16 + 16 * index + 12, 0x8000_0000);
    }
    this.unit.write32(FSTS_REG, 1);
    return taken;
  }

  /** Translates a request that must be refused: the reason, which must also be the one recorded. */
  refusal(address: bigint, access = ACCESS_READ, pasid = NO_PASID, rid = RID): number {
    const result = this.translate(address, access, pasid, rid);
    expect(result).toBeLessThan(0);
    expect(this.takeFaults()).toEqual([-result]);
    return -result;
  }

  private endpoint(rid: number): AtsEndpoint {
    return {
      invalidateTranslations: (...message) => this.messages.push([rid, 'invalidate', ...message]),
      pageGroupResponse: (...message) => this.messages.push([rid, 'response', ...message]),
    };
  }
}

/** Requests without PASID go through a second stage, those with PASID 1 through a first stage; both in domain DID. */
export class TwoStages extends Bench {
  static readonly DID = 7;
  readonly second = this.page();
  readonly first = this.page();

  constructor(...options: ConstructorParameters<typeof Bench>) {
    super(...options);
    const { DID } = TwoStages;
    this.context(RID);
    this.pasid(RID, 0, { PGTT: PGTT_SECOND_STAGE, AW: AW_48_BIT, DID, SSPTPTR: this.second });
    this.pasid(RID, 1, { PGTT: PGTT_FIRST_STAGE, DID, FSPTPTR: this.first });
  }
}
