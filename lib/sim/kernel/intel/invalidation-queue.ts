/**
 * The kernel's end of the invalidation queue (VT-d specification, section 6.5.2): descriptors in memory, the
 * tail register, and a wait descriptor whose status write says that everything before it is done.
 */
import type { PhysicalMemory } from '../../memory';
import { encodeInvalidationWait } from '../../vtd/invalidation-descriptors';
import * as regs from '../../vtd/registers';
import type { VtdUnit } from '../../vtd/unit';

/** Bytes of a descriptor in the 256-bit format that scalable mode needs. */
const DESCRIPTOR_BYTES = 32;
const QUEUE_BYTES = 4096;
const DONE = 2;

export class InvalidationQueue {
  readonly #queue: number;
  /** Where wait descriptors write their status. */
  readonly #status: number;
  readonly #wait: Int32Array;
  #tail = 0;

  constructor(
    readonly memory: PhysicalMemory,
    readonly unit: VtdUnit,
  ) {
    this.#queue = memory.allocatePage();
    this.#status = memory.allocatePage();
    if (this.#queue < 0 || this.#status < 0) throw new RangeError('no memory for the invalidation queue');
    this.#wait = encodeInvalidationWait({ SW: 1, FN: 1, STATUS_DATA: DONE, STATUS_ADDRESS: this.#status });
    unit.write64(regs.IQT_REG, 0, 0);
    unit.write64(regs.IQA_REG, Math.floor(this.#queue / 2 ** 32), (this.#queue % 2 ** 32) | regs.IQA_DW);
  }

  /**
   * Submits descriptors and waits until the hardware has carried them out. An invalidation of a device that was
   * pulled out times out: its cached translations went with it, and everything else was done.
   */
  submit(...descriptors: readonly Int32Array[]): void {
    this.memory.write32(this.#status, 0);
    for (const descriptor of descriptors) this.#put(descriptor);
    this.#put(this.#wait);
    if (this.memory.read32(this.#status) === DONE) return;
    const status = this.unit.read32(regs.FSTS_REG);
    if (!(status & regs.FSTS_ITE))
      throw new Error(
        `invalidation queue error: FSTS ${status.toString(16)}, ` +
          `IQERCD ${this.unit.read32(regs.IQERCD_REG).toString(16)}`,
      );
    this.unit.write32(regs.FSTS_REG, regs.FSTS_ITE);
  }

  #put(descriptor: Int32Array): void {
    this.memory.writeWords(this.#queue + this.#tail, descriptor);
    this.#tail = (this.#tail + DESCRIPTOR_BYTES) % QUEUE_BYTES;
    // The model works the queue off when its tail moves: one at a time never fills it.
    this.unit.write64(regs.IQT_REG, 0, this.#tail);
  }
}
