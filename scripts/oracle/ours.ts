// Our unit, put through a scene: what each step must have done in QEMU's, by our model and the deviations allowed for.
import { ACCESS_WRITE, NO_PASID } from '../../lib/sim/bus';
import { PhysicalMemory } from '../../lib/sim/memory';
import * as vtd from '../../lib/sim/vtd';
import { asQemu, marksOfQemu, type Outcome, type Request } from './as-qemu';
import {
  buildRecord,
  hasFpd,
  isQualified,
  isSilent,
  NO_RECORD,
  withReason,
  type FaultRecord,
} from './record';
import { QemuCache } from './qemu-cache';
import type { Quirks } from './quirks';
import * as at from './scene';
import { inputEdits } from './input-edits';
import { leadsTo, otherRootHalf, pathOf, readWord, stageOf, writeWord } from './tables';

/** What a step must have left. */
export interface Expectation {
  readonly record: FaultRecord;
  /** FSTS_REG. */
  readonly status: number;
  /** Words that DMA has written, and their values. */
  readonly stored: ReadonlyMap<number, bigint>;
  /** IQH_REG. */
  readonly head: number;
}

const NOTHING: ReadonlyMap<number, bigint> = new Map();

export type UnitFactory = (options: vtd.VtdUnitOptions) => vtd.VtdUnit;

export class Ours {
  readonly memory = new PhysicalMemory(at.RAM_BYTES);
  readonly unit: vtd.VtdUnit;
  /** Pages that a scene may have changed. */
  readonly dirty = new Set<number>();
  readonly #buffer = new Uint8Array(at.ACCESS_BYTES);
  #tail = 0;
  /** PPF in FSTS_REG. */
  #pending = 0;
  #edits = new Map<number, { original: bigint; edited: bigint }>();
  readonly #cache: QemuCache;
  readonly #frcd: number;

  constructor(
    capabilities: vtd.VtdCapabilities,
    readonly quirks: Quirks,
    create: UnitFactory = (options) => new vtd.VtdUnit(options),
  ) {
    const { memory } = this;
    const SC = quirks.allows('snoopAllowed') && capabilities.SSTS === 1 ? 1 : capabilities.SC;
    const handed = { ...capabilities, SC };
    this.unit = create({
      memory,
      capabilities: handed,
      // QEMU's has none.
      structureCaches: false,
      interrupt: () => {},
      endpoint: () => undefined,
    });
    this.#cache = new QemuCache(quirks);
    this.#frcd = this.unit.capabilities.FRO * 16;
    for (const [address, value] of at.DATA_WORDS) writeWord(memory, address, value);
  }

  /** Puts a scene's tables in memory, and the unit at its start. */
  load(scene: at.Scene): void {
    this.dirty.clear();
    this.#edits = inputEdits(scene, this.unit.capabilities, this.quirks);
    for (const [address, value] of scene.words) {
      this.dirty.add(at.pageOf(address));
      writeWord(this.memory, address, this.#edits.get(address)?.edited ?? value);
    }
    this.#tail = 0;
    this.#pending = 0;
    this.unit.write32(vtd.GCMD_REG, vtd.GCMD_TE);
    this.#clearFaults();
    this.unit.write32(vtd.FSTS_REG, 0xff);
    this.unit.write32(vtd.IQT_REG, 0);
    this.unit.write64(vtd.IQA_REG, 0, at.QUEUE | (scene.mode === 'legacy' ? 0 : vtd.IQA_DW));
    this.unit.write64(vtd.RTADDR_REG, 0, scene.root);
    this.#command(scene);
  }

  /** One after the other, in order. */
  perform(scene: at.Scene, step: at.Step): Expectation {
    let stored = NOTHING;
    let record = NO_RECORD;
    if (step.kind === 'access') {
      this.#clearFaults();
      ({ stored, record } = this.#access(scene, step));
      this.#pending = record === NO_RECORD ? 0 : vtd.FSTS_PPF;
    } else if (step.kind === 'drop') this.#command(scene);
    else {
      this.#cache.clear();
      if (step.kind === 'poke') writeWord(this.memory, step.at, step.value);
      else if (step.kind === 'invalidate') this.#invalidate(step.words);
      else this.#iotlbCommand(step);
    }
    const status = (this.unit.read32(vtd.FSTS_REG) & ~vtd.FSTS_PPF) | this.#pending;
    return { record, status, stored, head: this.unit.read32(vtd.IQH_REG) };
  }

  /** A page's bytes as QEMU must have them. */
  page(address: number): Buffer {
    const bytes = Buffer.alloc(at.PAGE);
    this.memory.copyOut(address, bytes, 0, at.PAGE);
    for (const [word, { original, edited }] of this.#edits) {
      if (at.pageOf(word) !== address || bytes.readBigUInt64LE(word % at.PAGE) !== edited) continue;
      bytes.writeBigUInt64LE(original, word % at.PAGE);
    }
    return bytes;
  }

  /** What is in edu's buffer. */
  get buffer(): bigint {
    return new DataView(this.#buffer.buffer).getBigUint64(0, true);
  }

  /** Memory as it was before the scene. */
  unload(): void {
    this.#buffer.fill(0);
    const zero = new Uint8Array(at.PAGE);
    for (const page of this.dirty) this.memory.copyIn(page, zero, 0, at.PAGE);
    for (const [address, value] of at.DATA_WORDS) {
      if (this.dirty.has(at.pageOf(address))) writeWord(this.memory, address, value);
    }
  }

  #command(scene: at.Scene): void {
    this.unit.write32(vtd.GCMD_REG, at.dropCommand(scene));
    this.#cache.clear();
  }

  #invalidate(words: readonly number[]): void {
    this.memory.writeWords(at.QUEUE + this.#tail, words);
    this.#tail = (this.#tail + 4 * words.length) % at.PAGE;
    this.unit.write32(vtd.IQT_REG, this.#tail);
  }

  #iotlbCommand({ address, high }: at.Command): void {
    const base = this.unit.capabilities.IRO * 16;
    this.unit.write64(base + vtd.IVA_REG, Number(address >> 32n), Number(address & 0xffff_ffffn));
    this.unit.write64(base + vtd.IOTLB_REG, (high | vtd.IOTLB_IVT_HIGH) >>> 0, 0);
  }

  #clearFaults(): void {
    this.unit.write32(this.#frcd + 12, vtd.FRCD_F >>> 0);
  }

  /** An access is a request for each page it touches; only the first of their faults is recorded. */
  #access(scene: at.Scene, step: at.Access): { stored: Map<number, bigint>; record: FaultRecord } {
    const stored = new Map<number, bigint>();
    let record = NO_RECORD;
    for (let done = 0; done < at.ACCESS_BYTES;) {
      const address = BigInt.asUintN(64, step.address + BigInt(done));
      const length = Math.min(at.ACCESS_BYTES - done, at.PAGE - Number(address & 0xfffn));
      const { outcome, fault } = this.#request(scene, address, step.write);
      if (record === NO_RECORD) record = fault;
      const host = outcome.reason === 0 ? outcome.host : -1;
      if (step.write) this.#store(host, done, length, stored);
      else this.#load(host, done, length);
      done += length;
    }
    return { stored, record };
  }

  #request(scene: at.Scene, address: bigint, write: boolean): { outcome: Outcome; fault: FaultRecord } {
    const { memory, quirks } = this;
    const stage = stageOf(memory, scene.mode, scene.root);
    const met = pathOf(memory, stage, address);
    for (const entry of met) this.dirty.add(at.pageOf(entry.at));
    const result = this.#translate(address, write);
    const ours: Outcome = result < 0 ? { reason: -result, host: 0 } : { reason: 0, host: result };
    const path = ours.reason !== 0 || leadsTo(met, address, ours.host) ? met : [];
    const rootHalf = otherRootHalf(memory, scene.root);
    const request: Request = { mode: scene.mode, address, write, stage, path, otherRootHalf: rootHalf };
    if (this.#cache.drops(request, ours)) {
      this.#clearFaults();
      return { outcome: { reason: -1, host: 0 }, fault: NO_RECORD };
    }
    const outcome = asQemu(request, ours, quirks);
    const marks = this.#cache.marks(request, ours, memory) ?? marksOfQemu(request, ours, outcome, quirks);
    if (outcome.reason === 0) this.#cache.insert(request, (other) => this.#translate(other, write), scene);
    for (const [word, value] of marks) writeWord(memory, word, value);
    return { outcome, fault: this.#recordOf(request, ours, outcome) };
  }

  #translate(address: bigint, write: boolean): number {
    const high = Number(address >> 32n);
    const low = Number(address & 0xffff_ffffn);
    return this.unit.translate(at.RID, NO_PASID, high, low, write ? ACCESS_WRITE : 0);
  }

  /** What our unit has recorded, with the reason QEMU gives; or what only one of the two records. */
  #recordOf(request: Request, ours: Outcome, outcome: Outcome): FaultRecord {
    if (outcome.reason === 0) return NO_RECORD;
    const recorded = this.#readRecord();
    if (recorded !== NO_RECORD) return withReason(recorded, outcome.reason);
    const { memory, quirks } = this;
    if (!isQualified(outcome.reason)) return buildRecord(request, outcome.reason);
    const silent =
      ours.reason === 0 ? hasFpd(memory, request) : isSilent(memory, request.mode, outcome.reason, quirks);
    return silent ? NO_RECORD : buildRecord(request, outcome.reason);
  }

  #readRecord(): FaultRecord {
    const words = [0, 4, 8, 12].map((offset) => BigInt(this.unit.read32(this.#frcd + offset)));
    const record = { low: words[0]! | (words[1]! << 32n), high: words[2]! | (words[3]! << 32n) };
    return (record.high & (1n << 63n)) === 0n ? NO_RECORD : record;
  }

  /** The buffer's bytes to memory; nothing where there is none. */
  #store(host: number, from: number, length: number, stored: Map<number, bigint>): void {
    if (host < 0 || readWord(this.memory, host - (host % 8)) === undefined) return;
    this.memory.copyIn(host, this.#buffer, from, length);
    for (let word = host - (host % 8); word < host + length; word += 8) {
      this.dirty.add(at.pageOf(word));
      stored.set(word, readWord(this.memory, word)!);
    }
  }

  /** Memory to the buffer; zeros where there is none. */
  #load(host: number, from: number, length: number): void {
    this.#buffer.fill(0, from, from + length);
    if (host >= 0 && host < at.RAM_BYTES) this.memory.copyOut(host, this.#buffer, from, length);
  }
}
