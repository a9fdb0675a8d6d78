/**
 * The kernel's end of interrupt remapping (drivers/iommu/intel/irq_remapping.c's role; VT-d specification, section 5.1):
 * an entry of the table for each message of a device, which only that device may send.
 */
import type { PhysicalMemory } from '../../memory';
import { encodeInterruptEntryCacheInvalidate } from '../../vtd/invalidation-descriptors';
import { remappableAddress } from '../../vtd/interrupt-remapper';
import { encodeRemappedIrte, IRTE_BYTES, REMAPPED_IRTE, SVT_BUS, SVT_SID } from '../../vtd/interrupt-table';
import * as regs from '../../vtd/registers';
import type { VtdUnit } from '../../vtd/unit';
import type { InterruptController, MessageSource, Vector } from '../interrupts';
import type { KernelPciDevice } from '../iommu/core';
import type { InvalidationQueue } from './invalidation-queue';

/** IRTA_REG.S for the largest table: 2^16 entries, 1 MiB. */
const SIZE = 15;
const ENTRIES = 2 ** (SIZE + 1);
/** Destinations of 8 bits are in bits 15:8 of DST. */
const DESTINATION_SHIFT = 8;

/** Whose messages an entry takes. */
interface Sender {
  readonly SVT: number;
  readonly SID: number;
}

/**
 * As Linux has it (set_msi_sid): behind a bridge that puts its bus on requests, only the bus can be told; behind one that
 * puts itself, that bridge. A quirk's alias is for DMA only; where it is all on one bus, the bus is taken.
 */
function senderOf({ rid, dmaAliases }: KernelPciDevice): Sender {
  const own = rid >> 8;
  const last = dmaAliases[dmaAliases.length - 1];
  const buses = (first: number) => ({ SVT: SVT_BUS, SID: (first << 8) | own });
  if (last.rid >> 8 !== last.bus) return buses(last.rid >> 8);
  if (dmaAliases.length > 1 && dmaAliases.every((alias) => alias.rid >> 8 === own)) return buses(own);
  return { SVT: SVT_SID, SID: last.bus === own ? rid : last.rid };
}

export class InterruptRemapping {
  readonly #table: number;
  readonly #used = new Uint8Array(ENTRIES);

  /** Sets the table up and turns remapping on. `command` writes GCMD_REG with what else is on. */
  constructor(
    readonly memory: PhysicalMemory,
    readonly unit: VtdUnit,
    readonly queue: InvalidationQueue,
    readonly controller: InterruptController,
    command: (bits: number) => void,
  ) {
    this.#table = memory.allocatePages((ENTRIES * IRTE_BYTES) / 4096);
    if (this.#table < 0) throw new RangeError('no memory for the interrupt remapping table');
    unit.write64(regs.IRTA_REG, Math.floor(this.#table / 2 ** 32), (this.#table % 2 ** 32) | SIZE);
    command(regs.GCMD_SIRTP);
    if (!unit.capabilities.ESIRTPS) queue.submit(encodeInterruptEntryCacheInvalidate({}));
    // CFI stays 0: messages in compatibility format are blocked.
    command(regs.GCMD_IRE);
  }

  /** Messages for a device to send. */
  messagesOf(device: KernelPciDevice): MessageSource {
    const sender = senderOf(device);
    return { allocateBlock: (count, handler) => this.#allocate(sender, count, handler) };
  }

  #allocate(sender: Sender, count: number, handler: (index: number) => void): Vector | undefined {
    const order = Math.log2(count);
    const first = order <= this.unit.capabilities.MHMV ? this.#findFree(count) : -1;
    if (first < 0) return undefined;
    const vectors: Vector[] = [];
    for (let i = 0; i < count; i++) {
      const vector = this.controller.allocateBlock(1, () => handler(i));
      if (!vector) {
        for (const vector of vectors) vector.free();
        return undefined;
      }
      vectors.push(vector);
    }
    this.#used.fill(1, first, first + count);
    for (const [i, vector] of vectors.entries()) this.#write(first + i, sender, vector);
    return {
      addressHigh: 0,
      addressLow: remappableAddress(first),
      // The subhandle, to which a device with several messages adds their number.
      data: 0,
      free: () => {
        this.#clear(first, order);
        for (const vector of vectors) vector.free();
      },
    };
  }

  /** The first of `count` free entries, a power of two, aligned to it; or -1. */
  #findFree(count: number): number {
    for (let first = 0; first + count <= ENTRIES; first += count)
      if (!this.#used.subarray(first, first + count).includes(1)) return first;
    return -1;
  }

  #write(index: number, sender: Sender, vector: Vector): void {
    const entry = encodeRemappedIrte({
      P: 1,
      RH: 1,
      V: vector.data,
      DST: ((vector.addressLow >>> 12) & 0xff) << DESTINATION_SHIFT,
      ...sender,
    });
    this.memory.writeWords(this.#table + index * IRTE_BYTES, entry);
    this.queue.submit(encodeInterruptEntryCacheInvalidate({ G: 1, IIDX: index }));
  }

  #clear(first: number, order: number): void {
    const count = 2 ** order;
    this.memory.writeWords(this.#table + first * IRTE_BYTES, new Int32Array(count * REMAPPED_IRTE.wordCount));
    this.queue.submit(encodeInterruptEntryCacheInvalidate({ G: 1, IIDX: first, IM: order }));
    this.#used.fill(0, first, first + count);
  }
}
