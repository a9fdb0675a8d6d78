/** The interrupt controller: messages (writes to 0xFEEx_xxxx) become calls of the handler that owns the vector. */

/** First vector that devices can have (Linux's FIRST_EXTERNAL_VECTOR), and the first one kept for the system. */
const FIRST_VECTOR = 0x20;
const FIRST_SYSTEM_VECTOR = 0xec;
/** Physical APIC ids that a message without interrupt remapping can address. */
const PROCESSORS = 256;

/** One allocated vector, in the form a device is programmed with (Intel SDM volume 3, section 12.11). */
export interface Vector {
  readonly addressHigh: number;
  readonly addressLow: number;
  readonly data: number;
  free(): void;
}

export class InterruptController {
  /** destination << 8 | vector → handler. */
  readonly #handlers = new Map<number, () => void>();
  /** Messages nobody had asked for. */
  spurious = 0;

  /** A vector of its own for `handler`, or undefined when all are taken. */
  allocate(handler: () => void): Vector | undefined {
    for (let destination = 0; destination < PROCESSORS; destination++)
      for (let vector = FIRST_VECTOR; vector < FIRST_SYSTEM_VECTOR; vector++) {
        const key = (destination << 8) | vector;
        if (this.#handlers.has(key)) continue;
        this.#handlers.set(key, handler);
        return {
          addressHigh: 0,
          addressLow: (0xfee00000 | (destination << 12)) >>> 0,
          data: vector,
          free: () => this.#handlers.delete(key),
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
