/** Pages that are missing: the program brings them, when the device asks or has stopped at one. */
import type { AddressSpace, Fault, FaultQueue } from 'iommufd';
import { unlessAborted } from './limits';

const PAGE = 4096n;

/**
 * Puts a page there that is missing: the address space may be used before it is filled. It may be asked for one that came
 * meanwhile. If it throws, requests for that page fail with EFAULT.
 */
export type PageIn = (address: bigint, space: AddressSpace) => void | Promise<void>;

export class Pages {
  readonly #space: AddressSpace;
  readonly #pageIn: PageIn;
  readonly #faults: FaultQueue;
  /** Pages that are being brought; whether they have come. */
  readonly #coming = new Map<bigint, Promise<boolean>>();

  /** `faults`: where the device's page requests for `space` come. */
  constructor(space: AddressSpace, pageIn: PageIn, faults: FaultQueue) {
    this.#space = space;
    this.#pageIn = pageIn;
    this.#faults = faults;
  }

  /** Answers page requests until the queue is closed. */
  async serve(): Promise<void> {
    try {
      for await (const fault of this.#faults) void this.#answer(fault);
    } catch (error) {
      // Closed between two faults.
      if (!this.#faults.closed) throw error;
    }
  }

  async #answer(fault: Fault): Promise<void> {
    if (!fault.answered) respond(fault, await this.#bring(fault.address));
  }

  /** False: it does not come. Rejects with the signal's reason; the page may come all the same. */
  async bring(address: bigint, signal: AbortSignal): Promise<boolean> {
    return unlessAborted(signal, this.#bring(address));
  }

  /** One that is on its way is not asked for again. Never rejects. */
  #bring(address: bigint): Promise<boolean> {
    const page = address - (address % PAGE);
    const known = this.#coming.get(page);
    if (known) return known;
    const coming = this.#ask(page);
    this.#coming.set(page, coming);
    void coming.finally(() => this.#coming.delete(page));
    return coming;
  }

  async #ask(page: bigint): Promise<boolean> {
    try {
      await this.#pageIn(page, this.#space);
      return true;
    } catch {
      return false;
    }
  }

  /** Answers requests that the device does not wait for any more, as it has forgotten all descriptors. */
  abandon(): void {
    if (this.#faults.closed) return;
    for (const fault of this.#faults.pending) respond(fault, false);
  }

  close(): void {
    this.abandon();
    this.#faults.close();
  }
}

/** Tells the device, unless it has gone, was detached or was told before. */
function respond(fault: Fault, come: boolean): void {
  if (fault.answered) return;
  try {
    fault.respond(come ? 'success' : 'invalid');
  } catch {
    // The queue was closed meanwhile, or its device is gone: nobody waits for an answer.
  }
}
