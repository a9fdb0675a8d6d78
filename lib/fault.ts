import type { FaultConsumer } from './fault-consumer';
import { refusal } from './errors';
import type { FaultView } from './fault-view';
import * as uapi from './uapi';

/** The kernel's record of a fault (struct iommu_hwpt_pgfault). */
export type FaultRecord = ReturnType<typeof uapi.iommu_hwpt_pgfault.decode>;

/** 'success': the page is there now, try again. 'invalid': it will not come. */
export type FaultResponse = 'success' | 'invalid';

/** Faults that get one response: the page requests of one group, those of them that are objects. */
export class FaultGroup {
  readonly faults: Fault[] = [];
  unanswered = 0;
  invalid = false;
  /** All its faults are known. */
  complete = false;

  constructor(
    readonly cookie: number,
    /** Tells it from others of the same cookie, which the kernel uses again as soon as the group is answered. */
    readonly generation: number,
  ) {}
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
  /** When it was read from the kernel: nanoseconds of CLOCK_MONOTONIC. */
  readonly timestamp: bigint;
  readonly #group: FaultGroup;
  readonly #consumer: FaultConsumer;
  readonly #words: Int32Array<ArrayBuffer>;
  #answered = false;

  /** @internal Faults come from a FaultQueue. `words`: the record that `view` shows, in memory of its own. */
  constructor(view: FaultView, words: Int32Array<ArrayBuffer>, group: FaultGroup, consumer: FaultConsumer) {
    this.ioasid = view.ioasid;
    this.cookie = view.cookie;
    this.pasid = view.pasid;
    this.address = view.address;
    const { read, write, execute, privileged } = view;
    this.permissions = { read, write, execute, privileged };
    this.length = view.length;
    this.group = view.group;
    this.last = view.last;
    this.timestamp = view.timestamp;
    this.#words = words;
    this.#group = group;
    this.#consumer = consumer;
  }

  /** The kernel's record. */
  get raw(): FaultRecord {
    return uapi.iommu_hwpt_pgfault.decode(new Uint8Array(this.#words.buffer));
  }

  /** @internal Its record in the ring, a copy. */
  get words(): Int32Array<ArrayBuffer> {
    return this.#words;
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
   * unbound, and the kernel has answered 'invalid' itself. (During drain(callback), and in a worker, responses are
   * written together a little later, and true means that one is on its way.) Throws IommuError EEXIST the second time.
   */
  respond(response: FaultResponse): boolean {
    const invalid = isInvalid(response);
    if (this.#answered) throw answeredAlready(this.address);
    this.#answered = true;
    return this.#consumer.settle(this.#group, invalid);
  }
}

/** Throws TypeError for what is no response. */
export function isInvalid(response: FaultResponse): boolean {
  if (response === 'success') return false;
  if (response === 'invalid') return true;
  throw new TypeError(`a response is 'success' or 'invalid', not ${String(response)}`);
}

export function answeredAlready(address: bigint): Error {
  return refusal('EEXIST', `the fault at 0x${address.toString(16)} has its response already`, {
    syscall: 'write',
  });
}
