/** Work queues, and what is in them. */
import type { RegisterHandlers } from '../register-bank';
import type { DmaOptions } from '../device-dma';
import type { Process } from '../process';
import { type Descriptor, FLAG, type Outcome } from './descriptor';
import { STATE, WORK_QUEUE_CONFIG } from './registers';
import type { DeviceRegisters } from '../register-bank';

export type QueueConfig = DeviceRegisters<typeof WORK_QUEUE_CONFIG>;

/** A descriptor on its way. */
export class Job {
  /** What runs it; not yet, while it waits in its queue. */
  process: Process | undefined;
  outcome: Outcome | undefined;
  #ended = false;
  readonly #listeners: (() => void)[] = [];

  constructor(
    readonly queue: WorkQueue,
    readonly descriptor: Descriptor,
    /** Who submitted it. Without a PASID its requests carry none. */
    readonly pasid: number | undefined,
    readonly privileged: boolean,
    /** Its place in a batch. */
    readonly batchIndex?: number,
  ) {}

  get ended(): boolean {
    return this.#ended;
  }

  has(flag: number): boolean {
    return (this.descriptor.flags & flag) !== 0;
  }

  /** What its accesses to operands are like. */
  get access(): DmaOptions {
    return this.#access(this.has(FLAG.BLOCK_ON_FAULT));
  }

  /** To the completion record and a batch's list: a page that is missing is asked for, unless the queue has that off. */
  get ownAccess(): DmaOptions {
    return this.#access(true);
  }

  #access(block: boolean): DmaOptions {
    const { ATS_DISABLE, PRS_DISABLE } = this.queue.config.MODE.read();
    const { pasid, privileged } = this;
    return { pasid, privileged, ats: !ATS_DISABLE, pageRequests: block && !PRS_DISABLE };
  }

  end(): void {
    this.#ended = true;
    for (const listener of this.#listeners.splice(0)) listener();
  }

  /** Within a process: waits until it has ended. */
  *over(): Process {
    while (!this.#ended) yield (resume) => this.#listeners.push(resume);
  }
}

/** Within a process: waits until all have ended. */
export function* allOver(jobs: Iterable<Job>): Process {
  for (const job of [...jobs]) yield* job.over();
}

export class WorkQueue {
  /** STATE, but for HALT. */
  state: number = STATE.DISABLED;
  config!: QueueConfig;
  /** Oldest first. */
  waiting: Job[] = [];
  /** Dispatched, those of batches included. */
  readonly running = new Set<Job>();

  constructor(readonly index: number) {}

  /** `sized`: whether sizes may be changed now, which needs a disabled device. */
  handlers(sized: () => boolean): RegisterHandlers<typeof WORK_QUEUE_CONFIG> {
    const open = () => this.state === STATE.DISABLED;
    const keep = (name: 'THRESHOLD' | 'MODE' | 'LIMITS') => ({
      written: (_value: unknown, previous: object) => {
        if (!open()) this.config[name].write(previous as never);
      },
    });
    return {
      SIZE: {
        written: (_value, previous) => {
          if (!sized() || !open()) this.config.SIZE.write(previous);
        },
      },
      THRESHOLD: keep('THRESHOLD'),
      MODE: keep('MODE'),
      LIMITS: keep('LIMITS'),
      STATUS: {
        reading: () =>
          this.config.STATUS.write({ OCCUPANCY: this.waiting.length, MODE_SUPPORT: 1, STATE: this.state }),
      },
    };
  }

  get entries(): number {
    return this.config.SIZE.field('ENTRIES');
  }

  get dedicated(): boolean {
    return this.config.MODE.field('DEDICATED') === 1;
  }

  /** All that has not ended. */
  get jobs(): Job[] {
    return [...this.running, ...this.waiting];
  }

  /** Takes a descriptor if fewer than `limit` wait. A dedicated queue has one owner, whose PASID it is set up with. */
  submit(descriptor: Descriptor, limit: number, submitter?: { pasid: number; privileged: boolean }): boolean {
    if (this.state !== STATE.ENABLED || this.waiting.length >= limit) return false;
    const { PASID_ENABLE, PASID, PRIVILEGED } = this.config.MODE.read();
    const owner = submitter ?? { pasid: PASID, privileged: PRIVILEGED === 1 };
    const pasid = PASID_ENABLE ? owner.pasid : undefined;
    this.waiting.push(new Job(this, descriptor, pasid, pasid !== undefined && owner.privileged));
    return true;
  }

  /** Gives up what `which` says, at once: no record is written of it. */
  abort(which: (job: Job) => boolean): void {
    const dropped = this.waiting.filter(which);
    this.waiting = this.waiting.filter((job) => !which(job));
    for (const job of dropped) job.end();
    for (const job of [...this.running]) if (which(job)) job.process?.return();
  }

  /** After a reset of the function, which has ended all processes. */
  reset(): void {
    this.state = STATE.DISABLED;
    this.waiting = [];
    this.running.clear();
  }

  /** As after a reset, but for the size. */
  clearConfig(): void {
    for (const register of [this.config.THRESHOLD, this.config.MODE, this.config.LIMITS]) register.write(0);
  }
}
