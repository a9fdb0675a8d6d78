import type { Context } from './context';
import { destroy } from './context';
import { checkObject, failure, refusal } from './errors';
import { EventStream, type WaitOptions } from './event-stream';
import { Handle, runAll } from './handle';
import type { IoAddressSpace } from './io-address-space';
import { attemptRead, attemptWrite, call } from './ioctl';
import { POLLIN, type Watch } from './kernel';
import * as uapi from './uapi';

/** The kernel's record of a fault (struct iommu_hwpt_pgfault). */
export type FaultRecord = ReturnType<typeof uapi.iommu_hwpt_pgfault.decode>;

const RECORD = uapi.iommu_hwpt_pgfault.size;
const READ = { syscall: 'read' } as const;
/** Room for this many records at first; it grows when a group has more. */
const FIRST_ROOM = 64;
/** The kernel has answered EINVAL to a buffer of this many records: something else is wrong. */
const LAST_ROOM = 1 << 20;

/**
 * Faults that get one response: the page requests of one group. The kernel names a group by a cookie, which it
 * uses again as soon as the group is answered; `current` tells a group from a later one of the same cookie.
 */
class FaultGroup {
  readonly cookie: number;
  /** Faults that have no response yet. */
  waiting = 0;
  invalid = false;
  current = true;

  constructor(cookie: number) {
    this.cookie = cookie;
  }
}

/** A page a device asked for and did not find. */
export class Fault {
  /** The I/O address space in which the page is missing. */
  readonly ioasid: number;
  /** The cookie of the device that asked. */
  readonly cookie: bigint;
  /** The PASID of its request, if it carried one. */
  readonly pasid: number | undefined;
  /** The address asked for. */
  readonly address: bigint;
  /** What the device wants to do there. */
  readonly permissions: {
    readonly read: boolean;
    readonly write: boolean;
    readonly execute: boolean;
    readonly privileged: boolean;
  };
  /** Bytes wanted beyond the one page, a hint; 0 where the hardware gives none. */
  readonly length: number;
  /** The page request group index. */
  readonly group: number;
  /** This is the last request of its group. */
  readonly last: boolean;
  /** The kernel's record. */
  readonly raw: FaultRecord;
  readonly #respond: (invalid: boolean) => boolean;
  #answered = false;

  /** @internal Faults come from a FaultQueue. */
  constructor(
    raw: FaultRecord,
    data: { cookie: bigint; ioasid: number },
    respond: (invalid: boolean) => boolean,
  ) {
    const has = (bit: number) => (raw.perm & bit) !== 0;
    this.ioasid = data.ioasid;
    this.cookie = data.cookie;
    this.pasid = raw.flags & uapi.IOMMU_PGFAULT_FLAGS_PASID_VALID ? raw.pasid : undefined;
    this.address = raw.addr;
    this.permissions = {
      read: has(uapi.IOMMU_PGFAULT_PERM_READ),
      write: has(uapi.IOMMU_PGFAULT_PERM_WRITE),
      execute: has(uapi.IOMMU_PGFAULT_PERM_EXEC),
      privileged: has(uapi.IOMMU_PGFAULT_PERM_PRIV),
    };
    this.length = raw.length;
    this.group = raw.grpid;
    this.last = (raw.flags & uapi.IOMMU_PGFAULT_FLAGS_LAST_PAGE) !== 0;
    this.raw = raw;
    this.#respond = respond;
  }

  /** Whether respond() was called. */
  get answered(): boolean {
    return this.#answered;
  }

  /**
   * Answers: 'success' (the page is there now, try again) or 'invalid' (it will not come). The device hears of
   * it when every fault of the group has its answer: 'invalid' if one of them was.
   *
   * Returns false if nobody waits for the answer any more: the device was detached, moved to another space or
   * unbound, and the kernel has answered 'invalid' itself. Throws IommuError EEXIST the second time.
   */
  respond(response: 'success' | 'invalid'): boolean {
    if (response !== 'success' && response !== 'invalid')
      throw new TypeError(`a response is 'success' or 'invalid', not ${String(response)}`);
    if (this.#answered)
      throw refusal('EEXIST', `the fault at 0x${this.address.toString(16)} has its response already`, {
        syscall: 'write',
      });
    this.#answered = true;
    return this.#respond(response === 'invalid');
  }
}

/**
 * Page faults of the devices attached to the address spaces that were made with this queue, in the order the
 * kernel delivers them. `for await (const fault of queue)`, next() or drain(). Leaving a loop leaves the queue open.
 */
export class FaultQueue extends Handle implements AsyncIterable<Fault> {
  /** The kernel's object ID. */
  readonly id: number;
  /** The queue's file descriptor, for raw calls. */
  readonly fd: number;
  /** @internal Open address spaces that report here. */
  readonly spaces = new Set<IoAddressSpace>();
  readonly #context: Context;
  readonly #groups = new Map<number, FaultGroup>();
  readonly #stream: EventStream<Fault>;
  #buffer = new Uint8Array(FIRST_ROOM * RECORD);
  #watch: Watch | undefined;

  /** @internal Use `iommu.createFaultQueue()`. */
  constructor(context: Context) {
    super();
    context.requireOpen({ request: 'IOMMU_FAULT_QUEUE_ALLOC' });
    this.#context = context;
    const out = call(context.kernel, context.fd, uapi.IOMMU_FAULT_QUEUE_ALLOC, {});
    this.id = out.out_fault_id;
    this.fd = out.out_fault_fd;
    this.#stream = new EventStream({ start: () => this.#startWatch(), stop: () => this.#stopWatch() });
    context.queues.add(this);
  }

  protected override get label(): string {
    return `fault queue ${this.id}`;
  }

  /** The faults that are there now, without waiting. Throws IommuError. */
  drain(): Fault[] {
    this.requireOpen(READ);
    this.#fill();
    return this.#stream.take();
  }

  /**
   * The next fault; waits for one. A wait that ends without a fault takes none: it stays for whoever asks next.
   * Rejects with IommuError EBADF (the queue is closed, also meanwhile), ETIMEDOUT, or the signal's reason.
   */
  async next(options: WaitOptions = {}): Promise<Fault> {
    this.requireOpen(READ);
    this.#look();
    const { value, done } = await this.#stream.next(options);
    if (done) throw this.closedError(READ);
    return value;
  }

  /** Ends when the queue is closed. Leaving the loop, or `return()` of the iterator, ends its wait. */
  [Symbol.asyncIterator](): AsyncIterableIterator<Fault, undefined> {
    return this.#stream.iterate(() => this.#look());
  }

  /** What the kernel has is asked for before anybody waits. */
  #look(): void {
    if (!this.closed && this.#stream.empty) this.#fill();
  }

  #startWatch(): void {
    const watch = this.#context.kernel.watch(this.fd, POLLIN, () => {
      try {
        this.#fill();
      } catch (error) {
        this.#stream.fail(error);
      }
    });
    this.#watch = checkObject(watch, { syscall: 'poll' });
  }

  #stopWatch(): void {
    this.#watch?.close();
    this.#watch = undefined;
  }

  /** Reads until the kernel has no more. */
  #fill(): void {
    for (;;) {
      const length = attemptRead(this.#context.kernel, this.fd, this.#buffer);
      // A read of 0 bytes: empty. EINVAL: the first group does not fit.
      if (length === 0) return;
      if (length === -uapi.errno.EINVAL && this.#buffer.length < LAST_ROOM * RECORD)
        this.#buffer = new Uint8Array(this.#buffer.length * 2);
      else if (length < 0) throw failure(length, { syscall: 'read' });
      else this.#receive(length);
    }
  }

  /** Records of whole groups, those of a group side by side. */
  #receive(length: number): void {
    for (let at = 0; at < length;) {
      const records: FaultRecord[] = [];
      do {
        records.push(uapi.iommu_hwpt_pgfault.decode(this.#buffer, at));
        at += RECORD;
      } while (at < length && cookieAt(this.#buffer, at) === records[0].cookie);
      this.#deliver(records);
    }
  }

  #deliver(records: readonly FaultRecord[]): void {
    const { cookie } = records[0];
    const old = this.#groups.get(cookie);
    // The kernel has given the cookie to somebody else: it answered the old group itself.
    if (old) old.current = false;
    const group = new FaultGroup(cookie);
    this.#groups.set(cookie, group);
    const { attachData } = this.#context;
    // The kernel chose the queue by the last request; the others of a group may carry other PASIDs.
    const { dev_id: device, pasid } = records[records.length - 1];
    const fallback = attachData.find(device, pasid);
    const faults = [];
    for (const record of records) {
      const data = attachData.find(device, record.pasid) ?? fallback;
      if (data) faults.push(new Fault(record, data, (invalid) => this.#respond(group, invalid)));
    }
    group.waiting = faults.length;
    if (faults.length === 0) this.#answer(group, true);
    for (const fault of faults) this.#stream.push(fault);
  }

  #respond(group: FaultGroup, invalid: boolean): boolean {
    if (!group.current) return false;
    group.invalid ||= invalid;
    if (--group.waiting > 0) return true;
    return this.#answer(group, group.invalid);
  }

  #answer(group: FaultGroup, invalid: boolean): boolean {
    group.current = false;
    this.#groups.delete(group.cookie);
    const code = invalid ? uapi.IOMMUFD_PAGE_RESP_INVALID : uapi.IOMMUFD_PAGE_RESP_SUCCESS;
    const response = uapi.iommu_hwpt_page_response.encode({ cookie: group.cookie, code });
    const result = attemptWrite(this.#context.kernel, this.fd, response);
    if (result === -uapi.errno.EINVAL) return false;
    if (result < 0) throw failure(result, { syscall: 'write' });
    return true;
  }

  protected override beforeClose(): void {
    if (this.spaces.size === 0) return;
    const users = [...this.spaces].map((space) => space.ioasid).join(', ');
    throw refusal('EBUSY', `${this.label} is used by address space ${users}`, {
      request: 'IOMMU_DESTROY',
      hint: 'close those first',
    });
  }

  /** Ends iterations. Whatever was unanswered, the kernel answers 'invalid' when its device is detached. */
  protected override release(): void {
    this.#stream.end();
    for (const group of this.#groups.values()) group.current = false;
    this.#groups.clear();
    const { kernel } = this.#context;
    // The kernel refuses to destroy the object while its file is open.
    runAll([
      () => void kernel.close(this.fd),
      () => destroy(this.#context, this.id),
      () => this.#context.queues.delete(this),
    ]);
  }
}

function cookieAt(bytes: Uint8Array, record: number): number {
  const at = record + uapi.iommu_hwpt_pgfault.offsets.cookie;
  return (bytes[at] | (bytes[at + 1] << 8) | (bytes[at + 2] << 16) | (bytes[at + 3] << 24)) >>> 0;
}
