import { MessageChannel, type MessagePort } from 'node:worker_threads';
import type { AttachData } from './attach-data';
import type { AttachTarget } from './attach-target';
import { destroy, type Context } from './context';
import { failure, refusal } from './errors';
import { FaultConsumer } from './fault-consumer';
import { runAll } from './handle';
import { call } from './ioctl';
import type { Memory } from './kernel';
import { openOrClose, openRing, ringCapacity } from './open-ring';
import { FAULT_SOURCE_BYTES, RING_FAULTS } from './rings/layout';
import type { RingShare } from './ring-share';
import type { Pump } from './rings/pump';
import * as uapi from './uapi';

/** Options of `iommu.createFaultQueue`. */
export interface FaultQueueOptions {
  /**
   * How many faults may be read and not answered, at least 1. Those beyond stay with the kernel until others are answered:
   * none is lost, and a program that never answers holds no more than these. Default 4096.
   */
  limit?: number | undefined;
}

const DEFAULT_LIMIT = 4096;
/** Slots of the ring: as many as the limit, within these. */
const [LEAST_SLOTS, MOST_SLOTS] = [256, 65_536];

/**
 * Page faults of the devices attached to the address spaces and page tables that were made with this queue, in the order
 * the kernel delivers them.
 */
export class FaultQueue extends FaultConsumer {
  /** @internal Open address spaces and page tables that report here. */
  readonly users = new Set<AttachTarget>();
  /** How many faults may be read and not answered. */
  readonly limit: number;
  /** The kernel's object ID. */
  readonly id: number;
  /** The queue's file descriptor, for raw calls. */
  readonly fd: number;
  readonly #context: Context;
  readonly #pump: Pump;
  readonly #memory: Memory | undefined;
  /** Ends what share() has begun. */
  #lent: (() => void) | undefined;

  /** @internal Use `iommu.createFaultQueue()`. */
  constructor(context: Context, { limit = DEFAULT_LIMIT }: FaultQueueOptions = {}) {
    context.requireOpen({ request: 'IOMMU_FAULT_QUEUE_ALLOC' });
    if (!Number.isSafeInteger(limit) || limit < 1)
      throw new RangeError(`limit ${String(limit)} is not a number of faults`);
    const { out_fault_id: id, out_fault_fd: fd } = call(
      context.kernel,
      context.fd,
      uapi.IOMMU_FAULT_QUEUE_ALLOC,
      {},
    );
    const slots = ringCapacity(limit, LEAST_SLOTS, MOST_SLOTS);
    const shape = {
      kind: RING_FAULTS,
      sourceBytes: FAULT_SOURCE_BYTES,
      records: slots,
      responses: slots,
    } as const;
    const { ring, pump, memory } = openOrClose(context, id, fd, () =>
      openRing(context.kernel, fd, shape, limit),
    );
    super(ring, pump);
    this.id = id;
    this.fd = fd;
    this.limit = limit;
    this.#context = context;
    this.#pump = pump;
    this.#memory = memory;
    context.attachData.follow(this);
    context.queues.add(this);
  }

  /** @internal */
  override get label(): string {
    return `fault queue ${this.id}`;
  }

  /** @internal Between these, an attach changes: see Pump. */
  pause(): void {
    this.#pump.pause();
  }
  /** @internal */
  resume(): void {
    this.#pump.resume();
  }

  /** @internal */
  slotFilled({ device, pasid, ioasid }: AttachData): void {
    this.#pump.fillSlot(device.rid, pasid, ioasid, device.cookie);
  }

  /** @internal An attach has ended: the kernel has answered its faults 'invalid'. */
  slotEmptied({ device, pasid }: AttachData): void {
    this.#pump.emptySlot(device.rid, pasid);
    this.forgetAbandoned();
  }

  protected override get lentTo(): string | undefined {
    return this.#lent ? 'another thread or process' : undefined;
  }

  /**
   * Hands the consumer's side to a worker: `new Worker(file, { workerData: { ring }, transferList })`, and there
   * `FaultConsumer.open(workerData.ring)`. This queue still follows what is attached; what comes is the worker's until
   * unshare(), its end, or close(). Another process takes it too, where `ring.kind` is 'memfd' (Linux): its descriptors
   * are inherited, and native/ring.h is the layout.
   *
   * Throws IommuError EBUSY while something waits here, or for an answer: one consumer at a time.
   */
  share(): { readonly ring: RingShare; readonly transferList: MessagePort[] } {
    this.requireOpen({ syscall: 'read' });
    if (this.#lent || this.inUse || this.isAwaited)
      throw refusal('EBUSY', `${this.label} is in use`, {
        syscall: 'read',
        hint: 'answer its faults, end iterations and waits, and share it once',
      });
    this.rest();
    const descriptors = this.#pump.lend();
    if (typeof descriptors === 'number') throw failure(descriptors, { syscall: 'poll' });
    const port = this.#lend(descriptors === undefined);
    if (descriptors && this.#memory) {
      const { fd: memfd, length } = this.#memory;
      const { doorbell, kick } = descriptors;
      const { identity } = this.ring;
      return { ring: { kind: 'memfd', memfd, length, identity, doorbell, kick, port }, transferList: [port] };
    }
    const buffer = this.ring.words.buffer as SharedArrayBuffer;
    return { ring: { kind: 'memory', buffer, port }, transferList: [port] };
  }

  /** The other thread's end of a channel: its closing ends the loan. `doorbells`: it carries these, too. */
  #lend(doorbells: boolean): MessagePort {
    const { port1, port2 } = new MessageChannel();
    const loan = () => {
      if (doorbells) this.#pump.stop();
      port1.close();
    };
    // Another loan may have begun when it is heard.
    port1.on('close', () => this.#lent === loan && this.unshare());
    if (doorbells) this.#lendDoorbells(port1);
    port1.unref();
    this.#lent = loan;
    return port2;
  }

  #lendDoorbells(port: MessagePort): void {
    port.on('message', () => this.#pump.pass());
    const result = this.#pump.start(() => port.postMessage(null), false);
    if (result < 0) throw failure(result, { syscall: 'poll' });
    // From here on the pump says when it sleeps.
    this.#pump.pass();
  }

  /**
   * Takes the consumer's side back; close the other consumer first. What it has taken and not answered waits until its
   * device is detached; a group of which it has taken a part is answered 'invalid' when the rest has its answers.
   */
  unshare(): void {
    const end = this.#lent;
    this.#lent = undefined;
    end?.();
    if (!end || this.closed) return;
    // What it has answered, and its message of that may not have come.
    this.#pump.flush();
    this.takenBack();
  }

  protected override beforeClose(): void {
    if (this.users.size === 0) return;
    const users = [...this.users].map(({ label }) => label).join(', ');
    throw refusal('EBUSY', `${this.label} is used by ${users}`, {
      request: 'IOMMU_DESTROY',
      hint: 'close those first',
    });
  }

  /** The kernel refuses to destroy the object while its file is open. */
  protected override release(): void {
    const context = this.#context;
    context.attachData.unfollow(this);
    runAll([
      // The pump tells another consumer of its end, which goes through what unshare() closes.
      () => super.release(),
      () => this.unshare(),
      () => void context.kernel.close(this.fd),
      () => destroy(context, this.id),
      () => this.#memory?.free(),
      () => void context.queues.delete(this),
    ]);
  }
}
