/**
 * A controller with nothing of the example driver: commands are made byte by byte, as the specification has them, so that
 * what no driver would do can be done.
 */
import { Iommu, type DmaPool, type DmaSlice, type Interrupt, type Region } from '../../../lib';
import { Machine, MemoryStorage, NvmeController, type NvmeOptions } from '../../../lib/sim';

export const BDF = '0000:00:05.0';
const CC = 0x14;
const CSTS = 0x1c;
const AQA = 0x24;
const ASQ = 0x28;
const ACQ = 0x30;
const DOORBELLS = 0x1000;
/** EN, entries of 64 and 16 bytes. */
export const ENABLE = (6 << 16) | (4 << 20) | 1;
export const DEPTH = 16;

const opened: Iommu[] = [];
afterEach(() => {
  for (const iommu of opened.splice(0)) iommu.close();
});

/** A command: byte 0, namespace, metadata pointer, data pointer, dwords 10 on. */
export interface Words {
  readonly opcode: number;
  readonly flags?: number;
  readonly namespace?: number;
  readonly metadata?: bigint;
  readonly prp1?: bigint;
  readonly prp2?: bigint;
  readonly dwords?: readonly number[];
}

export interface Entry {
  readonly id: number;
  readonly status: number;
  readonly doNotRetry: boolean;
  readonly result: number;
  readonly head: number;
  readonly queue: number;
  readonly phase: number;
}

/** A queue pair as software keeps it. */
export class Ring {
  tail = 0;
  head = 0;
  phase = 1;
  nextId = 0x100;

  constructor(
    readonly id: number,
    readonly depth: number,
    readonly sq: DmaSlice,
    readonly cq: DmaSlice,
  ) {}
}

export class Bench {
  readonly machine: Machine;
  readonly controller: NvmeController;
  readonly storage: MemoryStorage;
  readonly bar: Region;
  readonly pool: DmaPool;
  readonly admin: Ring;
  readonly interrupts: Interrupt[];
  readonly #stride: number;

  /** Time passes in step() and idle() only. */
  constructor(options: NvmeOptions = {}, { enable = ENABLE, vectors = 3 } = {}) {
    this.storage = new MemoryStorage(1 << 20);
    this.controller = new NvmeController({
      ...{ namespaces: [{ storage: this.storage }], ioQueues: 4, entries: 64 },
      ...options,
    });
    this.#stride = 4 << (options.stride ?? 0);
    this.machine = new Machine({ devices: { [BDF]: this.controller }, manual: true });
    const iommu = Iommu.open({ backend: this.machine });
    opened.push(iommu);
    const device = iommu.bind(BDF, { cookie: 1n });
    const space = iommu.createAddressSpace();
    device.attach(space);
    device.enableBusMaster();
    this.pool = space.createPool();
    this.bar = device.region('bar0');
    this.admin = this.ring(0);
    this.interrupts = Array.from({ length: vectors }, (_, vector) => device.interrupt('msix', vector));
    if (enable !== 0) this.enable(enable);
  }

  ring(id: number, depth = DEPTH): Ring {
    return new Ring(id, depth, this.pool.allocate(Math.max(4096, depth * 64)), this.pool.allocate(4096));
  }

  get status(): number {
    return this.bar.read32(CSTS);
  }

  enable(value = ENABLE): void {
    const { admin, bar } = this;
    bar.write32(AQA, ((admin.depth - 1) << 16) | (admin.depth - 1));
    bar.write64(ASQ, admin.sq.iova);
    bar.write64(ACQ, admin.cq.iova);
    admin.cq.bytes.fill(0);
    Object.assign(admin, { tail: 0, head: 0, phase: 1 });
    bar.write32(CC, value);
    this.machine.idle();
  }

  disable(): void {
    this.bar.write32(CC, ENABLE & ~1);
    this.machine.idle();
  }

  /** Writes a command into the ring without telling the controller. Returns its identifier. */
  place(ring: Ring, words: Words, id = ring.nextId++): number {
    const at = ring.tail * 64;
    ring.sq.bytes.fill(0, at, at + 64);
    const view = new DataView(ring.sq.bytes.buffer, ring.sq.bytes.byteOffset + at, 64);
    view.setUint8(0, words.opcode);
    view.setUint8(1, words.flags ?? 0);
    view.setUint16(2, id, true);
    view.setUint32(4, words.namespace ?? 0, true);
    view.setBigUint64(16, words.metadata ?? 0n, true);
    view.setBigUint64(24, words.prp1 ?? 0n, true);
    view.setBigUint64(32, words.prp2 ?? 0n, true);
    words.dwords?.forEach((word, i) => view.setUint32(40 + 4 * i, word >>> 0, true));
    ring.tail = (ring.tail + 1) % ring.depth;
    return id;
  }

  doorbell(queue: number, which: 'tail' | 'head', value: number): void {
    this.bar.write32(DOORBELLS + (2 * queue + (which === 'tail' ? 0 : 1)) * this.#stride, value);
  }

  /** Takes one completion; undefined if there is none. `consume`: tell the controller. */
  take(ring: Ring, consume = true): Entry | undefined {
    const view = new DataView(ring.cq.bytes.buffer, ring.cq.bytes.byteOffset + ring.head * 16, 16);
    const field = view.getUint16(14, true);
    if ((field & 1) !== ring.phase) return undefined;
    const entry = {
      id: view.getUint16(12, true),
      status: (field >>> 1) & 0x7ff,
      doNotRetry: (field & 0x8000) !== 0,
      result: view.getUint32(0, true),
      head: view.getUint16(8, true),
      queue: view.getUint16(10, true),
      phase: field & 1,
    };
    ring.head = (ring.head + 1) % ring.depth;
    if (ring.head === 0) ring.phase ^= 1;
    if (consume) this.doorbell(ring.id, 'head', ring.head);
    return entry;
  }

  /** Gives the controller a command, and waits for its completion. */
  run(ring: Ring, words: Words): Entry {
    const id = this.place(ring, words);
    this.doorbell(ring.id, 'tail', ring.tail);
    this.machine.idle();
    const entry = this.take(ring);
    if (entry?.id !== id) throw new Error(`no completion of command ${id}`);
    return entry;
  }

  outcome(ring: Ring, words: Words): number {
    return this.run(ring, words).status;
  }

  /** Makes I/O queues, whose completions interrupt on `vector`; without one they do not. */
  createQueues(id: number, { depth = DEPTH, vector }: { depth?: number; vector?: number } = {}): Ring {
    const ring = this.ring(id, depth);
    const size = ((depth - 1) << 16) | id;
    const flags = vector === undefined ? 1 : (vector << 16) | 3;
    const made = [
      this.outcome(this.admin, { opcode: 0x05, prp1: ring.cq.iova, dwords: [size, flags] }),
      this.outcome(this.admin, { opcode: 0x01, prp1: ring.sq.iova, dwords: [size, (id << 16) | 1] }),
    ];
    if (made.some((status) => status !== 0)) throw new Error(`no queues ${id}: ${made.join(', ')}`);
    return ring;
  }
}

/** A read or write of namespace 1. */
export function transfer(opcode: 1 | 2, lba: number, blocks: number, prp1: bigint, prp2 = 0n): Words {
  return { opcode, namespace: 1, prp1, prp2, dwords: [lba, 0, blocks - 1] };
}

/** Bytes that differ from one another. */
export function pattern(length: number, seed = 1): Uint8Array {
  return Uint8Array.from({ length }, (_, i) => i * 7 + (i >> 8) * 13 + seed);
}
