/** The interrupt controller: messages (writes to 0xFEEx_xxxx) become calls of the handler that owns the vector. */

/** First vector that devices can have (Linux's FIRST_EXTERNAL_VECTOR), and the first one kept for the system. */
const FIRST_VECTOR = 0x20;
const FIRST_SYSTEM_VECTOR = 0xec;
/** Physical APIC ids that a message without interrupt remapping can address. */
const PROCESSORS = 256;

/** One allocated vector, or the first of a block, in the form a device is programmed with (Intel SDM volume 3, section 12.11). */
export interface Vector {
  readonly addressHigh: number;
  readonly addressLow: number;
  readonly data: number;
  free(): void;
}

/** Where the kernel gets messages for a device to send. */
export interface MessageSource {
  /**
   * `count` messages for one MSI capability, which tells them apart by the low bits of the data: a power of two.
   * `handler` is told which of them it was, from 0. Undefined when all are taken.
   */
  allocateBlock(count: number, handler: (index: number) => void): Vector | undefined;
}

export class InterruptController implements MessageSource {
  /** destination << 8 | vector → handler. */
  readonly #handlers = new Map<number, () => void>();
  /** Messages nobody had asked for. */
  spurious = 0;

  /** A vector of its own for `handler`, or undefined when all are taken. */
  allocate(handler: () => void): Vector | undefined {
    return this.allocateBlock(1, handler);
  }

  /** Vectors of a block lie one after the other, aligned to their number. */
  allocateBlock(count: number, handler: (index: number) => void): Vector | undefined {
    for (let destination = 0; destination < PROCESSORS; destination++)
      for (let vector = FIRST_VECTOR; vector + count <= FIRST_SYSTEM_VECTOR; vector += count) {
        const first = (destination << 8) | vector;
        const keys = Array.from({ length: count }, (_, i) => first + i);
        if (keys.some((key) => this.#handlers.has(key))) continue;
        for (const [index, key] of keys.entries()) this.#handlers.set(key, () => handler(index));
        return {
          addressHigh: 0,
          addressLow: (0xfee00000 | (destination << 12)) >>> 0,
          data: vector,
          free: () => keys.forEach((key) => this.#handlers.delete(key)),
        };
      }
    return undefined;
  }

  /** A message arrives: a 4-byte write of `data` to 0xFEEx_xxxx. */
  deliver(addressLow: number, data: number): void {
    const handler = this.#handlers.get((((addressLow >>> 12) & 0xff) << 8) | (data & 0xff));
    if (handler) handler();
    else this.spurious++;
  }
}
