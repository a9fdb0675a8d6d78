/** Takes descriptors out of the work queues, and brings each to its end: an operation, its record, its interrupt. */
import { DmaError, type DeviceDma } from '../device-dma';
import type { Process } from '../process';
import { check, type Permissions } from './checks';
import {
  decodeDescriptor,
  type Descriptor,
  DESCRIPTOR_BYTES,
  encodeRecord,
  FLAG,
  OPCODE,
  type Outcome,
  STATUS,
  SUCCESS,
} from './descriptor';
import { failed, operate, toPageEnd } from './operations';
import { allOver, Job, type WorkQueue } from './work-queue';

/** Descriptors that an engine works on at a time: one that waits for a page does not stop the others. */
const PER_ENGINE = 4;
const DISPATCH_NANOSECONDS = 50;

/** What it needs of the device. */
export interface Services {
  readonly dma: DeviceDma;
  start(process: Process): void;
  delay(nanoseconds: number): Process;
  /** The work queues and the number of engines of each group. */
  groups(): readonly { readonly queues: readonly WorkQueue[]; readonly engines: number }[];
  permissions(job: Job): Permissions;
  raise(vector: number): void;
  /** An error that no completion record tells of. */
  report(job: Job, outcome: Outcome): void;
}

export class Dispatcher {
  readonly #services: Services;
  /** Queues that were served, the last one first. */
  #served: WorkQueue[] = [];

  constructor(services: Services) {
    this.#services = services;
  }

  /** Gives engines that have time what waits. */
  dispatch(): void {
    for (const { queues, engines } of this.#services.groups()) {
      const busy = () =>
        queues.reduce(
          (sum, { running }) => sum + [...running].filter((job) => job.batchIndex === undefined).length,
          0,
        );
      while (busy() < engines * PER_ENGINE) {
        const job = this.#next(queues)?.waiting.shift();
        if (!job) break;
        this.#begin(job);
      }
    }
  }

  /** The queue of the highest priority that has work; of equal ones that which waits the longest. */
  #next(queues: readonly WorkQueue[]): WorkQueue | undefined {
    const priority = ({ config }: WorkQueue) => config.MODE.field('PRIORITY');
    const [first] = queues
      .filter(({ waiting }) => waiting.length > 0)
      .sort((one, other) => priority(other) - priority(one) || this.#turn(other) - this.#turn(one));
    if (first) this.#served = [first, ...this.#served.filter((queue) => queue !== first)];
    return first;
  }

  #turn(queue: WorkQueue): number {
    const turn = this.#served.indexOf(queue);
    return turn < 0 ? this.#served.length : turn;
  }

  #begin(job: Job): void {
    job.queue.running.add(job);
    job.process = this.#work(job);
    this.#services.start(job.process);
  }

  *#work(job: Job): Process {
    try {
      yield* this.#services.delay(DISPATCH_NANOSECONDS);
      const wrong = check(job, this.#services.permissions(job));
      const outcome = wrong ?? (yield* this.#execute(job));
      job.outcome = outcome;
      yield* this.#complete(job, outcome);
    } finally {
      // Also where it is aborted.
      job.queue.running.delete(job);
      job.end();
      if (job.batchIndex === undefined) this.dispatch();
    }
  }

  *#execute(job: Job): Process<Outcome> {
    switch (job.descriptor.opcode) {
      case OPCODE.BATCH:
        return yield* this.#batch(job);
      case OPCODE.DRAIN:
        // Those before it have left the queue already.
        yield* allOver(before(job));
        return SUCCESS;
      default:
        return yield* operate(this.#services.dma, job);
    }
  }

  /** All at once, but for those behind a fence. Where a page of the list is missing, those before it are done. */
  *#batch(batch: Job): Process<Outcome> {
    const { size } = batch.descriptor;
    const begun: Job[] = [];
    let missing: Outcome | undefined;
    while (begun.length < size) {
      const list = yield* this.#list(batch, begun.length);
      if ('status' in list) missing = list;
      if ('status' in list || !(yield* this.#beginAll(batch, list, begun))) break;
    }
    yield* allOver(begun);
    const failed = !begun.every(succeeded);
    const status = failed ? STATUS.BATCH_FAILED : STATUS.SUCCESS;
    return { ...(missing ?? { status }), completed: begun.length, result: failed ? 1 : 0 };
  }

  /** Descriptors from `first` on, up to the end of a page; or why there are none. */
  *#list(
    { descriptor: { source, size }, ownAccess }: Job,
    first: number,
  ): Process<readonly Descriptor[] | Outcome> {
    const address = source + BigInt(first * DESCRIPTOR_BYTES);
    const inPage = toPageEnd(address) / DESCRIPTOR_BYTES;
    const bytes = new Uint8Array(Math.min(size - first, inPage) * DESCRIPTOR_BYTES);
    try {
      yield* this.#services.dma.readInto(address, bytes, ownAccess);
    } catch (error) {
      const outcome = failed(error, 0);
      const missing = outcome.status === STATUS.PAGE_FAULT || outcome.status === STATUS.PAGE_FAULT_REFUSED;
      return missing ? { ...outcome, status: STATUS.BATCH_PAGE_FAULT } : outcome;
    }
    return Array.from({ length: bytes.length / DESCRIPTOR_BYTES }, (_, i) =>
      decodeDescriptor(bytes.subarray(i * DESCRIPTOR_BYTES)),
    );
  }

  /** False: a fence stops the batch, as something before it has not succeeded. */
  *#beginAll(batch: Job, list: readonly Descriptor[], begun: Job[]): Process<boolean> {
    for (const descriptor of list) {
      const job = new Job(batch.queue, descriptor, batch.pasid, batch.privileged, begun.length);
      if (job.has(FLAG.FENCE)) {
        yield* allOver(begun);
        if (!begun.every(succeeded)) return false;
      }
      begun.push(job);
      this.#begin(job);
    }
    return true;
  }

  /** Tells of the end, in memory and by an interrupt. */
  *#complete(job: Job, outcome: Outcome): Process {
    const { record, interrupt } = job.descriptor;
    // The record's page belongs to a mode that the function may not use, where that is what is wrong.
    const reachable = outcome.status !== STATUS.PRIVILEGE;
    const writable = reachable && job.has(FLAG.RECORD_ADDRESS_VALID) && record % 32n === 0n;
    if (outcome.status !== STATUS.SUCCESS && !writable) {
      this.#services.report(job, outcome);
    } else if (outcome.status !== STATUS.SUCCESS || job.has(FLAG.REQUEST_RECORD)) {
      try {
        yield* this.#services.dma.write(record, encodeRecord(outcome), job.ownAccess);
      } catch (error) {
        job.outcome = unwritable(error);
        this.#services.report(job, job.outcome);
        return;
      }
    }
    if (job.has(FLAG.REQUEST_INTERRUPT) && this.#services.permissions(job).interrupt)
      this.#services.raise(interrupt);
  }
}

function unwritable(error: unknown): Outcome {
  const outcome = failed(error, 0);
  const missing = error instanceof DmaError && outcome.status < STATUS.BAD_OPCODE;
  return missing ? { ...outcome, status: STATUS.RECORD_PAGE_FAULT } : outcome;
}

function succeeded({ outcome }: Job): boolean {
  return outcome?.status === STATUS.SUCCESS;
}

/** What the same submitter had dispatched before a job. */
function before(job: Job): Job[] {
  const running = [...job.queue.running];
  return running.slice(0, running.indexOf(job)).filter(({ pasid }) => pasid === job.pasid);
}
