/**
 * Gives requests to the controller and takes what it completes; and brings it back where it fails. What may go wrong ends here:
 * an interrupt that does not come (the queues are looked at now and then), a command that does not end (it is aborted, and
 * where that does not help the controller is reset), a fatal status, a completion of nothing, a controller that is gone.
 */
import type { Device, DmaPool, DmaSlice, Interrupt } from 'iommufd';
import { commands, type ControllerIdentity, type NamespaceIdentity } from './commands';
import type { Controller } from './controller';
import { NvmeError } from './errors';
import { acquireMemory, closeMemory, type Memory, type MemoryRange } from './memory';
import { type Command, ProtocolError } from './queue';
import { Limits, PendingRequest, type RequestOptions, type RequestTerms } from './request';

/** Milliseconds between looks at what no interrupt has told of. */
const WATCH_INTERVAL = 20;
/** Milliseconds for an abort to end a command; then the controller is reset. */
const ABORT_PATIENCE = 500;
/** Milliseconds for a command of the admin queue. */
const ADMIN_TIMEOUT = 2000;
/** Resets in a row before the controller is given up. */
const STARTS = 5;

export interface EngineOptions {
  readonly namespace: number;
  /** Milliseconds for a request. */
  readonly timeout: number;
  /** Vectors that are on; 0: it polls. */
  readonly vectors: number;
}

/** Of a command: what it moves, which queue it is for, and what bounds the request that it belongs to, if not a usual time. */
export interface RunOptions extends RequestTerms {
  readonly limits?: Limits | undefined;
}

export class Engine {
  /** What the controller said of itself when it was started last. */
  identity!: ControllerIdentity & NamespaceIdentity;
  /**
   * What went wrong so far. `unannounced`: completions that were found before an interrupt told of them, if one did.
   * `mismatches`: data or tags that were not what they had to be.
   */
  readonly counters = { resets: 0, retries: 0, aborts: 0, unannounced: 0, mismatches: 0 };
  readonly #controller: Controller;
  readonly #memory: Memory;
  readonly #options: EngineOptions;
  readonly #interrupts: Interrupt[] = [];
  /** Not given to the controller yet. */
  #waiting: PendingRequest[] = [];
  /** What starts the controller: it waits for nothing else, and ends with that start. */
  readonly #starting = new Set<PendingRequest>();
  /** Requests that somebody waits for. */
  #active = 0;
  #state: 'starting' | 'live' | 'ended' = 'starting';
  /** Why it ended: what was the reason first. */
  #end: unknown;
  /** Nothing of it is open any more. */
  #over = false;
  /** A reset, and the way to the end, while they last: who asks for another waits for the same. */
  #resetting: Promise<void> | undefined;
  #closing: Promise<void> | undefined;
  #watch: NodeJS.Timeout | undefined;
  #poller: NodeJS.Immediate | undefined;

  constructor(device: Device, controller: Controller, memory: Memory, options: EngineOptions) {
    this.#controller = controller;
    this.#memory = memory;
    this.#options = options;
    try {
      for (let vector = 0; vector < options.vectors; vector++) {
        const interrupt = device.interrupt('msix', vector);
        this.#interrupts.push(interrupt);
        interrupt.on('interrupt', () => this.#take((id) => controller.vectorOf(id) === vector));
      }
    } catch (error) {
      for (const interrupt of this.#interrupts) interrupt.close();
      throw error;
    }
  }

  /** The end of the driver, if it has come: why. */
  get ended(): unknown {
    this.#checkOpen();
    return this.#state === 'ended' ? this.#end : undefined;
  }

  /** Resets the controller and starts it, again and again where it fails. Requests without an answer wait for it. */
  async start(why: string): Promise<void> {
    this.#requireOpen();
    this.#state = 'starting';
    this.#keepWatch();
    let refusal: string | undefined;
    for (let attempt = 1; ; attempt++) {
      try {
        await this.#startOnce(why);
        break;
      } catch (error) {
        this.#requireOpen();
        if (attempt === STARTS || this.#controller.gone) throw error;
        // A command that it refused, it would refuse again: unless a bit of it was flipped on the way.
        const refused = error instanceof NvmeError && error.status !== undefined ? error.message : undefined;
        if (refused !== undefined && refused === refusal) throw error;
        refusal = refused;
      }
    }
    this.#state = 'live';
    this.#safely(() => this.#pump());
    this.#requireOpen();
  }

  /** The end may come at each step, and the next ones are not taken then. */
  async #startOnce(why: string): Promise<void> {
    const run = (command: Command, data?: MemoryRange) => this.#runNow(command, data);
    await this.#controller.stop();
    this.#requireOpen();
    this.#collect(why);
    await this.#controller.start();
    this.#requireOpen();
    await this.#controller.createQueues(run);
    this.identity = await this.#controller.identify(run, this.#options.namespace);
    this.#requireOpen();
  }

  /** What bounds a request with these options. Throws TypeError, RangeError, the signal's reason. */
  limits(options: RequestOptions): Limits {
    return new Limits(options, this.#options.timeout);
  }

  /** Memory for a request, as acquireMemory() gives it. */
  async acquire(what: string, pool: DmaPool, length: number, limits: Limits): Promise<DmaSlice> {
    this.#requireOpen();
    try {
      return await acquireMemory(what, pool, length, limits);
    } catch (error) {
      // A pool that was closed is why there is nothing left of it, and not the cause.
      this.#requireOpen();
      throw error;
    }
  }

  /** A command, and dword 0 of its completion. Rejects with NvmeError, or the signal's reason. */
  async run(what: string, command: Command, options: RunOptions = {}): Promise<number> {
    const { limits = this.limits({}) } = options;
    limits.throwIfAborted();
    this.#requireOpen();
    const request = this.#request(what, command, limits.deadline, options);
    using _ = limits.onAbort((reason) => this.#safely(() => this.#abandon(request, reason)));
    this.#waiting.push(request);
    this.#active++;
    this.#keepWatch();
    this.#safely(() => this.#pump());
    try {
      return await request.promise;
    } finally {
      this.#active--;
    }
  }

  /** Resets the controller. What is in flight is done again. Does not reject: see `ended`. */
  async reset(why: string): Promise<void> {
    if (this.#resetting) return this.#resetting;
    if (this.#state !== 'live') return;
    this.#resetting = this.#reset(why);
    await this.#resetting;
  }

  async #reset(why: string): Promise<void> {
    this.counters.resets++;
    try {
      await this.start(why);
    } catch (error) {
      const text = error instanceof Error ? error.message : String(error);
      // Where it has ended meanwhile, that is why.
      if (this.#state !== 'ended')
        this.end(
          new NvmeError('ENODEV', `${why}; a reset did not help: ${text}`, undefined, { cause: error }),
        );
    } finally {
      this.#resetting = undefined;
    }
  }

  /** Switches the controller off, in order; what is in flight then is rejected. Gives its registers back. */
  async close(): Promise<void> {
    await (this.#closing ??= this.#close());
  }

  async #close(): Promise<void> {
    if (this.#state !== 'ended') {
      this.#state = 'ended';
      this.#end = new NvmeError('ECANCELED', 'the driver is closed');
      for (const request of this.#starting) request.reject(this.#end);
      // It takes no further step; but what it waits for has to be there before the controller may be told anything else.
      await this.#resetting;
      try {
        await this.#controller.shutDown();
      } catch {
        // It does not listen. The end takes its memory from it.
      }
      this.end(this.#end);
    }
    await this.#resetting;
    this.#controller.close();
  }

  /** The end: first the device loses its memory, then everybody is told. */
  end(error: unknown): void {
    this.#state = 'ended';
    this.#end ??= error;
    if (this.#over) return;
    this.#over = true;
    clearInterval(this.#watch);
    clearImmediate(this.#poller);
    const closings = [() => closeMemory(this.#memory), ...this.#interrupts.map((each) => () => each.close())];
    for (const close of closings) {
      try {
        close();
      } catch {
        // Everybody has to be told. What is left goes with the address space, or with the device.
      }
    }
    const inFlight = this.#controller.queues.flatMap((queue) => queue.pending as PendingRequest[]);
    for (const request of [...inFlight, ...this.#starting, ...this.#waiting.splice(0)])
      request.reject(this.#end);
  }

  /** Timers, interrupts and signals have nobody to throw to: what goes wrong there is the end, and everybody hears of it. */
  #safely(act: () => void): void {
    try {
      act();
    } catch (error) {
      this.#checkOpen();
      const text = error instanceof Error ? error.message : String(error);
      const { name } = this.#controller.device;
      this.end(
        new NvmeError('ENODEV', `${name} cannot be used any more: ${text}`, undefined, { cause: error }),
      );
    }
  }

  /** `deadline`: in milliseconds of performance.now(). */
  #request(what: string, command: Command, deadline: number, terms: RequestTerms): PendingRequest {
    const again = (request: PendingRequest) => {
      this.counters.retries++;
      this.#waiting.unshift(request);
    };
    return new PendingRequest(what, command, deadline, again, terms);
  }

  /** A command that starts the controller: ahead of all others, and once. */
  async #runNow(command: Command, data?: MemoryRange): Promise<number> {
    this.#requireOpen();
    const what = `admin command 0x${command.opcode.toString(16)}`;
    const again = () => request.reject(new NvmeError('EIO', `${what} failed`));
    const deadline = performance.now() + ADMIN_TIMEOUT;
    const request = new PendingRequest(what, command, deadline, again, { data, admin: true });
    this.#starting.add(request);
    request.submitTo(this.#controller.admin);
    try {
      return await request.promise;
    } finally {
      this.#starting.delete(request);
    }
  }

  /** After a reset: what the controller completed before it, and what it did not. */
  #collect(why: string): void {
    for (const queue of this.#controller.queues) {
      try {
        queue.poll();
      } catch (error) {
        if (!(error instanceof ProtocolError)) throw error;
      }
      // The latest first, as each goes to the front.
      for (const request of queue.reset().reverse()) (request as PendingRequest).lost(why);
    }
  }

  /** Gives what waits to the queues that have least to do. */
  #pump(): void {
    while (this.#state === 'live' && this.#waiting.length > 0) {
      const [request] = this.#waiting;
      const { admin, io } = this.#controller;
      const queue = request.admin ? admin : io.reduce((best, each) => (each.busy < best.busy ? each : best));
      if (queue.full) return;
      request.submitTo(queue);
      this.#waiting.shift();
    }
  }

  /** Whoever closes the address space, the device or all of the IOMMU takes away what this works with: that is the end, too. */
  #checkOpen(): void {
    if (this.#state === 'ended') return;
    const { toDevice, fromDevice } = this.#memory;
    const { device, closed } = this.#controller;
    if (toDevice.closed || fromDevice.closed)
      this.end(new NvmeError('ECANCELED', 'the address space was closed'));
    else if (device.closed) this.end(new NvmeError('ECANCELED', `${device.name} was closed`));
    else if (closed) this.end(new NvmeError('ECANCELED', `BAR 0 of ${device.name} was closed`));
  }

  /** Throws what ended it. */
  #requireOpen(): void {
    this.#checkOpen();
    if (this.#end !== undefined) throw this.#end;
  }

  /** Takes completions. */
  #take(which: (id: number) => boolean): number {
    let count = 0;
    this.#safely(() => {
      this.#checkOpen();
      if (this.#state === 'ended') return;
      try {
        for (const queue of this.#controller.queues) if (which(queue.id)) count += queue.poll();
      } catch (error) {
        if (!(error instanceof ProtocolError)) throw error;
        this.#broken(error.message);
      }
      this.#pump();
    });
    return count;
  }

  #keepWatch(): void {
    this.#watch ??= setInterval(() => this.#safely(() => this.#look()), WATCH_INTERVAL);
    if (this.#options.vectors === 0) this.#poller ??= setImmediate(() => this.#poll());
  }

  #poll(): void {
    this.#poller = undefined;
    this.#take(() => true);
    if (this.#busy && !this.#over) this.#poller = setImmediate(() => this.#poll());
  }

  get #busy(): boolean {
    return this.#active > 0 || this.#state === 'starting';
  }

  /** What nobody tells: a lost interrupt, a fatal status, a device that is gone, a command that takes too long. */
  #look(): void {
    const { device } = this.#controller;
    const found = this.#take(() => true);
    if (this.#state === 'ended') return;
    if (this.#options.vectors > 0) this.counters.unannounced += found;
    if (!this.#busy) {
      clearInterval(this.#watch);
      this.#watch = undefined;
    } else if (this.#controller.gone) this.#broken(`${device.name} does not answer`);
    else if (this.#controller.failed) this.#broken(`${device.name} has failed (CSTS.CFS)`);
    else this.#checkDeadlines();
  }

  #checkDeadlines(): void {
    const now = performance.now();
    for (const request of this.#starting)
      if (request.deadline < now) request.reject(new NvmeError('ETIMEDOUT', `${request.what} does not end`));
    const late = this.#waiting.filter(({ deadline }) => deadline < now);
    for (const request of late) this.#abandon(request, timedOut(request));
    if (this.#state !== 'live') return;
    for (const each of this.#controller.queues.flatMap((queue) => queue.pending)) {
      const request = each as PendingRequest;
      if (request.deadline >= now) continue;
      if (request.admin || request.unwanted) return this.#broken(`${request.what} does not end`);
      this.#abandon(request, timedOut(request));
    }
  }

  /** Rejects a request with `reason`, once the controller is done with it. */
  #abandon(request: PendingRequest, reason: unknown): void {
    if (request.unwanted) return;
    request.unwanted = { reason };
    const { place } = request;
    if (!place) {
      this.#waiting = this.#waiting.filter((other) => other !== request);
      request.reject(reason);
      return;
    }
    request.deadline = performance.now() + ABORT_PATIENCE;
    const { admin } = this.#controller;
    if (this.#state !== 'live' || admin.full) return;
    this.counters.aborts++;
    const what = `abort of ${request.what}`;
    const abort = commands.abort(place.queue.id, place.id);
    const aborting = this.#request(what, abort, performance.now() + ADMIN_TIMEOUT, { admin: true });
    aborting.promise.catch(() => {
      // Whatever became of the abort: the request itself has a deadline.
    });
    aborting.submitTo(admin);
  }

  #broken(why: string): void {
    if (this.#state === 'live') void this.reset(why);
    else for (const request of this.#starting) request.reject(new NvmeError('EIO', why));
  }
}

function timedOut({ what }: PendingRequest): NvmeError {
  return new NvmeError('ETIMEDOUT', `${what}: the controller did not complete it in time`);
}
