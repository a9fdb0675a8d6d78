/** eventfd(2): a 64-bit counter that can be read, written and polled. */
import { POLLERR, POLLIN, POLLOUT } from '../../kernel';
import { errno } from '../../uapi/errno';
import { StreamFile } from './file';
import type { SimulatedProcess } from './process';

/** eventfd(2)'s flag for a counter that reads take one from. */
export const EFD_SEMAPHORE = 1;
/** Largest value that write(2) can make the counter hold. */
const MOST = (1n << 64n) - 2n;

/** Reads and writes that would wait are EAGAIN, with or without EFD_NONBLOCK: a waiting program could not be woken. */
export class EventFile extends StreamFile {
  #count: bigint;
  /** Drivers that act on the event, the latest first. */
  #handlers: readonly (() => void)[] = [];
  #signalling = false;

  constructor(
    initial: number,
    readonly semaphore = false,
  ) {
    super();
    this.#count = BigInt(initial);
  }

  /** The kernel's own increment (eventfd_signal): saturates, and never fails. */
  signal(): void {
    if (this.#count <= MOST) this.#count++;
    this.#raised();
  }

  /**
   * Calls `handler` for each event from now on; the event is taken from the counter. One that came before counts too, and
   * is left to be read. Returns the way to stop it, which takes what is in the counter, as Linux does
   * (eventfd_ctx_remove_wait_queue). (virqfd: drivers/vfio/virqfd.c's role.)
   */
  handle(handler: () => void): () => void {
    this.get();
    this.#handlers = [handler, ...this.#handlers];
    if (this.poll() & POLLIN) handler();
    return () => {
      this.#handlers = this.#handlers.filter((other) => other !== handler);
      this.consume();
      this.put();
    };
  }

  /** The kernel's own read. */
  consume(): bigint {
    const count = this.semaphore && this.#count > 0n ? 1n : this.#count;
    this.#count -= count;
    return count;
  }

  override read(_process: SimulatedProcess, bytes: Uint8Array): number {
    if (bytes.length < 8) return -errno.EINVAL;
    if (this.#count === 0n) return -errno.EAGAIN;
    new DataView(bytes.buffer, bytes.byteOffset).setBigUint64(0, this.consume(), true);
    this.wake();
    return 8;
  }

  override write(_process: SimulatedProcess, bytes: Uint8Array): number {
    if (bytes.length !== 8) return -errno.EINVAL;
    const value = new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true);
    if (value > MOST) return -errno.EINVAL;
    if (this.#count + value > MOST) return -errno.EAGAIN;
    this.#count += value;
    this.#raised();
    return 8;
  }

  override poll(): number {
    return (
      (this.#count > 0n ? POLLIN : 0) |
      (this.#count < MOST ? POLLOUT : 0) |
      (this.#count > MOST ? POLLERR : 0)
    );
  }

  /** What a handler does may raise the same event: it is counted, and not handled again from within. */
  #raised(): void {
    if (!this.#signalling) {
      this.#signalling = true;
      for (const handler of this.#handlers) {
        this.consume();
        handler();
      }
      this.#signalling = false;
    }
    this.wake();
  }
}
