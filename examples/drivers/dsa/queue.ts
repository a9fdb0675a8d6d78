/**
 * The work queue as software has it: who waits for which completion record, how many the device has, and how all of them
 * are taken back where something went wrong.
 */
import type { Device, DmaPool, DmaSlice } from 'iommufd';
import { COMPLETION_VECTOR, type Controller } from './controller';
import { type Completion, decode, RECORD_BYTES } from './completion';
import { encode, type Operation, repeatable } from './descriptor';
import { DsaError, flawed, statusError } from './errors';
import type { Limits } from './limits';

/** Milliseconds between looks at what no interrupt has told of. */
const PATIENCE = 20;
/** How often a request is given to the device that was interrupted. */
const SUBMISSIONS = 4;

export interface QueueOptions {
  readonly entries: number;
  readonly polling: boolean;
  /** The device waits for pages that are missing. */
  readonly block: boolean;
  /** Whose requests these are. */
  readonly limits: Limits;
  /** Called when the device has forgotten all descriptors. */
  readonly forgotten: () => void;
}

/** One descriptor, from the call that makes it to its completion. */
interface Request {
  readonly operation: Operation;
  /** Whether it can be done again if nobody knows how far it came. */
  readonly repeatable: boolean;
  /** Before each submission. */
  readonly prepare: () => void;
  readonly resolve: (completion: Completion) => void;
  readonly reject: (error: unknown) => void;
  submissions: number;
  /** Why nobody wants it any more: it ends when the device has forgotten it. */
  cancelled?: unknown;
}

export class SubmissionQueue {
  readonly #device: Device;
  readonly #controller: Controller;
  readonly #options: QueueOptions;
  readonly #records: DmaSlice;
  /** What the device has, by the number of its completion record. */
  readonly #slots: (Request | undefined)[];
  #waiting: Request[] = [];
  #recovery: Promise<void> | undefined;
  #failure: DsaError | undefined;
  #watch: NodeJS.Timeout | undefined;
  #looking = false;

  constructor(controller: Controller, pool: DmaPool, options: QueueOptions) {
    this.#device = controller.device;
    this.#controller = controller;
    this.#options = options;
    this.#records = pool.allocate(options.entries * RECORD_BYTES);
    this.#slots = Array.from({ length: options.entries }, () => undefined);
  }

  /** One descriptor. Rejects with the signal's reason when the device has forgotten it. */
  async submit(
    operation: Operation,
    signal: AbortSignal,
    how: Pick<Request, 'repeatable' | 'prepare'> = { repeatable: repeatable(operation), prepare: () => {} },
  ): Promise<Completion> {
    if (this.#failure) throw this.#failure;
    signal.throwIfAborted();
    let cancel = () => {};
    try {
      return await new Promise<Completion>((resolve, reject) => {
        const request: Request = { operation, ...how, resolve, reject, submissions: 0 };
        cancel = () => this.#cancel(request, signal.reason);
        signal.addEventListener('abort', cancel);
        this.#waiting.push(request);
        this.#pump();
      });
    } finally {
      signal.removeEventListener('abort', cancel);
    }
  }

  #cancel(request: Request, reason: unknown): void {
    if (this.#waiting.includes(request)) {
      this.#waiting = this.#waiting.filter((other) => other !== request);
      request.reject(reason);
      return;
    }
    request.cancelled = reason;
    void this.#recover();
  }

  /** Gives the device what it has room for. */
  #pump(): void {
    while (!this.#recovery && !this.#failure && this.#waiting.length > 0) {
      const slot = this.#slots.indexOf(undefined);
      if (slot < 0) break;
      const request = this.#waiting.shift() as Request;
      try {
        this.#give(request, slot);
      } catch (error) {
        this.#slots[slot] = undefined;
        request.reject(error);
      }
    }
    this.#lookAfter();
  }

  #give(request: Request, slot: number): void {
    const at = slot * RECORD_BYTES;
    this.#records.bytes.fill(0, at, at + RECORD_BYTES);
    request.prepare();
    request.submissions++;
    this.#slots[slot] = request;
    const vector = this.#options.polling ? undefined : COMPLETION_VECTOR;
    const record = this.#records.iova + BigInt(at);
    this.#controller.submit(encode(request.operation, { record, vector, block: this.#options.block }));
  }

  get #busy(): boolean {
    return this.#slots.some((request) => request !== undefined);
  }

  /** Takes what the device has completed. */
  reap(): void {
    for (const [slot, request] of this.#slots.entries()) {
      if (!request || this.#records.freed) continue;
      const completion = decode(request.operation, this.#records.bytes.subarray(slot * RECORD_BYTES));
      if (!completion) continue;
      this.#slots[slot] = undefined;
      if (completion.flaw === undefined) request.resolve(completion);
      else this.#again(request, flawed(this.#device.name, completion.flaw));
    }
    this.#pump();
  }

  /** While there are requests: looks now and then, or all the time while the device has one. */
  #lookAfter(): void {
    const { polling, limits } = this.#options;
    if (this.#failure || !(this.#busy || limits.any)) {
      clearInterval(this.#watch);
      this.#watch = undefined;
      return;
    }
    this.#watch ??= setInterval(() => this.check(), PATIENCE);
    if (!polling || !this.#busy || this.#looking) return;
    this.#looking = true;
    setImmediate(() => {
      this.#looking = false;
      this.reap();
    });
  }

  /** The device forgets all descriptors, and requests that are not done reject. */
  async close(failure: DsaError): Promise<void> {
    this.#failure ??= failure;
    // Commands that are under way end first: the device takes one at a time.
    await this.#recovery;
    if (this.#busy && !this.#controller.gone) await this.#forget().catch(() => this.#disconnect());
    this.#fail(this.#failure);
  }

  // ---- What may go wrong

  /** Whether the device is there, on, and has no complaint. */
  check(): void {
    this.reap();
    if (this.#recovery || this.#failure) return;
    if (this.#controller.gone) return this.#fail(new DsaError('ENODEV', `${this.#device.name} is gone`));
    if (!this.#busy) return;
    const error = this.#controller.takeError();
    if (error) void this.#recover(statusError(this.#device.name, error.status, error.address));
    else if (!this.#controller.enabled) void this.#recover();
  }

  /** Takes all descriptors back, with force if need be, and gives those again that can be. Never rejects. */
  async #recover(why = new DsaError('ECANCELED', `${this.#device.name} was interrupted`)): Promise<void> {
    if (this.#recovery) return;
    this.#recovery = this.#takeBack(why).finally(() => (this.#recovery = undefined));
    await this.#recovery;
    this.#pump();
  }

  async #takeBack(why: DsaError): Promise<void> {
    try {
      if (this.#controller.gone) throw why;
      await this.#forget();
      this.reap();
      for (const [slot, request] of this.#slots.entries()) {
        this.#slots[slot] = undefined;
        if (request) this.#again(request, why);
      }
    } catch (cause) {
      this.#disconnect();
      this.#fail(
        new DsaError('ENODEV', `${this.#device.name} is gone, or does not come back: ${String(cause)}`),
      );
    }
  }

  /** The device forgets all descriptors, and is on. */
  async #forget(): Promise<void> {
    const { enabled } = this.#controller;
    await (enabled ? this.#controller.abort() : this.#controller.start()).catch(async () => {
      this.#device.reset();
      await this.#controller.start();
    });
    this.#options.forgotten();
  }

  /** The last resort: a device that does not obey reaches no memory. */
  #disconnect(): void {
    try {
      this.#device.enableBusMaster(false);
    } catch {
      // It is gone.
    }
  }

  #again(request: Request, why: DsaError): void {
    if ('cancelled' in request) request.reject(request.cancelled);
    else if (request.submissions >= SUBMISSIONS || !request.repeatable) request.reject(why);
    else this.#waiting.unshift(request);
  }

  #fail(failure: DsaError): void {
    this.#failure = failure;
    const all = [...this.#slots, ...this.#waiting.splice(0)];
    this.#slots.fill(undefined);
    for (const request of all) request?.reject(failure);
    // Those that have nothing with the device, but wait for a page, end too.
    void this.#options.limits.fail(failure);
    this.#lookAfter();
  }
}
