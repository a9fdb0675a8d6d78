import type { AttachData } from './attach-data';
import type { AttachTarget } from './attach-target';
import type { Context } from './context';
import { failure, refusal } from './errors';
import { runAll } from './handle';
import { attemptWrite, call } from './ioctl';
import { RecordQueue } from './record-queue';
import * as uapi from './uapi';

/** The kernel's record of a fault (struct iommu_hwpt_pgfault). */
export type FaultRecord = ReturnType<typeof uapi.iommu_hwpt_pgfault.decode>;

const RECORD = uapi.iommu_hwpt_pgfault.size;

/**
 * Faults that get one response: the page requests of one group. The kernel names a group by a cookie, which it
 * uses again as soon as the group is answered; `current` tells a group from a later one of the same cookie.
 */
class FaultGroup {
  readonly cookie: number;
  /** The attach by which the kernel chose this queue. */
  readonly data: AttachData | undefined;
  /** With the kernel's records, until the group is answered. */
  readonly faults: Fault[] = [];
  invalid = false;
  current = true;

  constructor(cookie: number, data: AttachData | undefined) {
    this.cookie = cookie;
    this.data = data;
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
  constructor(raw: FaultRecord, data: AttachData, respond: (invalid: boolean) => boolean) {
    const has = (bit: number) => (raw.perm & bit) !== 0;
    this.ioasid = data.ioasid;
    this.cookie = data.device.cookie;
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

/** Options of `iommu.createFaultQueue`. */
export interface FaultQueueOptions {
  /**
   * How many faults may be read and not answered, at least 1. Those beyond stay with the kernel until others are answered:
   * none is lost, and a program that never answers holds no more than these. Default 4096.
   */
  limit?: number | undefined;
}

const DEFAULT_LIMIT = 4096;

/**
 * Page faults of the devices attached to the address spaces and page tables that were made with this queue, in the order
 * the kernel delivers them.
 */
export class FaultQueue extends RecordQueue<Fault> {
  /** @internal Open address spaces and page tables that report here. */
  readonly users = new Set<AttachTarget>();
  /** How many faults may be read and not answered. */
  readonly limit: number;
  readonly #groups = new Map<number, FaultGroup>();
  #held = 0;

  /** @internal Use `iommu.createFaultQueue()`. */
  constructor(context: Context, { limit = DEFAULT_LIMIT }: FaultQueueOptions = {}) {
    context.requireOpen({ request: 'IOMMU_FAULT_QUEUE_ALLOC' });
    if (!Number.isSafeInteger(limit) || limit < 1)
      throw new RangeError(`limit ${String(limit)} is not a number of faults`);
    const out = call(context.kernel, context.fd, uapi.IOMMU_FAULT_QUEUE_ALLOC, {});
    super(context, out.out_fault_id, out.out_fault_fd, RECORD);
    this.limit = limit;
    context.queues.add(this);
  }

  /** The faults that were read and wait for their answers, those included that nobody has taken yet. */
  get pending(): readonly Fault[] {
    return [...this.#groups.values()].flatMap(({ faults }) => faults).filter(({ answered }) => !answered);
  }

  protected override get room(): number {
    return Math.max(0, this.limit - this.#held);
  }

  protected override get idle(): boolean {
    return this.#held === 0;
  }

  /** @internal */
  override get label(): string {
    return `fault queue ${this.id}`;
  }

  /** Records of whole groups, those of a group side by side. */
  protected override *decode(bytes: Uint8Array): Iterable<Fault> {
    for (let at = 0; at < bytes.length;) {
      const records: FaultRecord[] = [];
      do {
        records.push(uapi.iommu_hwpt_pgfault.decode(bytes, at));
        at += RECORD;
      } while (at < bytes.length && cookieAt(bytes, at) === records[0].cookie);
      yield* this.#receive(records);
    }
  }

  #receive(records: readonly FaultRecord[]): readonly Fault[] {
    const { cookie } = records[0];
    const old = this.#groups.get(cookie);
    // The kernel has given the cookie to somebody else: it answered the old group itself.
    if (old) this.#drop(old);
    const { attachData } = this.context;
    // The kernel chose the queue by the last request; the others of a group may carry other PASIDs.
    const { dev_id: device, pasid } = records[records.length - 1];
    const fallback = attachData.find(device, pasid);
    const group = new FaultGroup(cookie, fallback);
    for (const record of records) {
      const data = attachData.find(device, record.pasid) ?? fallback;
      if (data) group.faults.push(new Fault(record, data, (invalid) => this.#respond(group, invalid)));
    }
    this.#groups.set(cookie, group);
    this.#held += group.faults.length;
    if (group.faults.length === 0) this.#answer(group, true);
    return group.faults;
  }

  #respond(group: FaultGroup, invalid: boolean): boolean {
    if (!group.current) return false;
    group.invalid ||= invalid;
    if (group.faults.some(({ answered }) => !answered)) return true;
    const answered = this.#answer(group, group.invalid);
    this.roomMade();
    return answered;
  }

  #answer(group: FaultGroup, invalid: boolean): boolean {
    this.#drop(group);
    const code = invalid ? uapi.IOMMUFD_PAGE_RESP_INVALID : uapi.IOMMUFD_PAGE_RESP_SUCCESS;
    const response = uapi.iommu_hwpt_page_response.encode({ cookie: group.cookie, code });
    const result = attemptWrite(this.context.kernel, this.fd, response);
    if (result === -uapi.errno.EINVAL) return false;
    if (result < 0) throw failure(result, { syscall: 'write' });
    return true;
  }

  /** Nothing is kept of the group any more. */
  #drop(group: FaultGroup): void {
    if (!group.current) return;
    group.current = false;
    this.#groups.delete(group.cookie);
    this.#held -= group.faults.length;
  }

  /** @internal An attach has ended: the kernel has answered its faults 'invalid'. */
  abandon(data: AttachData): void {
    for (const group of this.#groups.values()) if (group.data === data) this.#drop(group);
    this.roomMade();
  }

  protected override beforeClose(): void {
    if (this.users.size === 0) return;
    const users = [...this.users].map(({ label }) => label).join(', ');
    throw refusal('EBUSY', `${this.label} is used by ${users}`, {
      request: 'IOMMU_DESTROY',
      hint: 'close those first',
    });
  }

  /** Whatever was unanswered, the kernel answers 'invalid' when its device is detached. */
  protected override release(): void {
    for (const group of this.#groups.values()) this.#drop(group);
    runAll([() => super.release(), () => this.context.queues.delete(this)]);
  }
}

function cookieAt(bytes: Uint8Array, record: number): number {
  const at = record + uapi.iommu_hwpt_pgfault.offsets.cookie;
  return (bytes[at] | (bytes[at + 1] << 8) | (bytes[at + 2] << 16) | (bytes[at + 3] << 24)) >>> 0;
}
