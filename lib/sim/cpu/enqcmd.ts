/** Where the processor's enqueue stores go: device memory that is mapped, and may be a portal. */

/**
 * What became of a deferrable memory write of 64 bytes: the device took it; or it did not (its queue is full, or nothing
 * there takes such writes), which the instruction reports alike; or there is no memory to write to any more.
 */
export type Enqueued = 'accepted' | 'retry' | 'fault';

/** What a portal has to know of a virtual machine: whether its processors translate the PASIDs of ENQCMD. */
export interface EnqueueingVm {
  readonly translatesPasids: boolean;
}

export interface EnqueueTarget {
  enqueue(offset: number, bytes: Uint8Array): Enqueued;
  /** Whether a virtual machine (by its file) may have it in its memory; absent where any may. */
  belongsTo?(vm: EnqueueingVm): boolean;
}

/** Whether a mapping of device memory takes enqueue stores. */
export function isEnqueueTarget(mapping: object): mapping is EnqueueTarget {
  return 'enqueue' in mapping && typeof mapping.enqueue === 'function';
}
