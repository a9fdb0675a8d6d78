/** What moves records from a kernel's file into a ring, and responses from the ring into the file. */

/** The consumer's side of it. */
export interface Link {
  /**
   * Moves what can be moved now, without waiting: responses, then records. 0: the kernel has no more; 1: it may have, which
   * waits for room or for answers; or the negative errno for which the pump has ended. Where the pump is in another thread
   * or process it does as `flush`.
   */
  pass(): number;
  /** Moves responses; where the pump is elsewhere, sees to it that they are. 0, or as `pass` a negative errno. */
  flush(): number;
  /** There is room again for what the pump held back. */
  kick(): void;
  /**
   * From now on records come by themselves; `wake` is called when the consumer's doorbell rings. `keep`: that keeps the
   * process alive, unless it is said otherwise.
   */
  start(wake: () => void, keep?: boolean): number;
  /** Nobody waits any more: it keeps nothing alive. `wake` is still called when the pump ends. */
  stop(): void;
  /** The group waits for its response, as far as can be told here. */
  isCurrent(groupCookie: number, generation: number): boolean;
  /** The owner has taken the consumer's side back: nothing of the ring may be touched here. */
  readonly takenBack?: boolean;
  /** Ends it, for a consumer in another thread or process with EBADF. A pump is closed before its file. */
  close(): void;
}

export interface Pump extends Link {
  /**
   * Between these nothing is read or written: while an attach changes, a record that is read must not be taken for one of
   * the attach before it, nor a response be written to a group that got a dead group's cookie.
   */
  pause(): void;
  resume(): void;
  /** Attach data: whose faults these are, of requests with this PASID (0: without). */
  fillSlot(device: number, pasid: number, ioasid: number, cookie: bigint): void;
  /** The attach has ended. The kernel has answered its faults; responses to them go nowhere. */
  emptySlot(device: number, pasid: number): void;
  /** Has it work for a consumer in another thread or process; undefined where there are no such descriptors. */
  lend(): RingDescriptors | number | undefined;
}

/** The descriptors by which another thread or process takes the consumer's side. All are the pump's. */
export interface RingDescriptors {
  /** An eventfd that rings for the consumer: poll it, and read its 8 bytes. */
  readonly doorbell: number;
  /** An eventfd that rings for the pump: write 8 bytes to it. */
  readonly kick: number;
}

/** How a pump is to behave. */
export interface PumpOptions {
  /** Records that may be read and not answered: those beyond stay in the kernel. Infinity for what is not answered. */
  readonly limit: number;
}
