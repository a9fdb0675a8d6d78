/** When a completion interrupts. NVM Express 1.4, 7.5; coalescing: 5.21.1.8, 5.21.1.9. */
import { FEATURE, type Features } from './features';
import type { CompletionQueue } from './queues';

/** The aggregation time counts in these. */
const COALESCING_NANOSECONDS = 100_000;

export interface InterruptPort {
  /** MSI-X, or MSI, is on. */
  messages(): boolean;
  raiseMessage(vector: number): void;
  setPin(level: boolean): void;
  schedule(nanoseconds: number, event: () => void): void;
}

export class Interrupts {
  /** Of each vector: completions that have not interrupted yet. */
  readonly #held = new Map<number, number>();
  /** Bits of INTMS: pin-based interrupts only. */
  #mask = 0;
  #pin = false;

  constructor(
    private readonly port: InterruptPort,
    private readonly features: Features,
    private readonly queues: ReadonlyMap<number, CompletionQueue>,
  ) {}

  get mask(): number {
    return this.#mask;
  }

  set mask(bits: number) {
    this.#mask = bits >>> 0;
    this.updatePin();
  }

  reset(): void {
    this.#held.clear();
    this.#mask = 0;
    this.updatePin();
  }

  /** An entry was written. */
  completed(queue: CompletionQueue): void {
    const { vector } = queue;
    if (vector === undefined) return;
    if (!this.port.messages()) return this.updatePin();
    const coalescing = this.features.value(FEATURE.INTERRUPT_COALESCING);
    const [threshold, time] = [coalescing & 0xff, coalescing >>> 8];
    // Admin completions are never held back; no time means no delay.
    if (queue.id === 0 || time === 0 || !this.features.coalesces(vector)) return this.#raise(vector);
    const held = (this.#held.get(vector) ?? 0) + 1;
    this.#held.set(vector, held);
    if (held > threshold) this.#raise(vector);
    else if (held === 1)
      this.port.schedule(time * COALESCING_NANOSECONDS, () => {
        if (this.#held.has(vector)) this.#raise(vector);
      });
  }

  /** The pin is up while a queue with interrupts has entries that software has not consumed, and is not masked. */
  updatePin(): void {
    const up =
      !this.port.messages() &&
      (this.#mask & 1) === 0 &&
      [...this.queues.values()].some(({ vector, empty }) => vector !== undefined && !empty);
    if (up === this.#pin) return;
    this.#pin = up;
    this.port.setPin(up);
  }

  #raise(vector: number): void {
    this.#held.delete(vector);
    this.port.raiseMessage(vector);
  }
}
