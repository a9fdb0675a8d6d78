/** eventfd(2): a 64-bit counter that can be read, written and polled. */
import { POLLERR, POLLIN, POLLOUT } from '../../kernel';
import { errno } from '../../uapi/errno';
import { OpenFile } from './file';
import type { SimulatedProcess } from './process';

/** Largest value the counter can hold. */
const MOST = (1n << 64n) - 2n;

export class EventFile extends OpenFile {
  #count: bigint;

  constructor(initial: number) {
    super();
    this.#count = BigInt(initial);
  }

  /** The kernel's own increment (eventfd_signal): saturates, and never fails. */
  signal(): void {
    if (this.#count <= MOST) this.#count++;
    this.wake();
  }

  override read(_process: SimulatedProcess, bytes: Uint8Array): number {
    if (bytes.length < 8) return -errno.EINVAL;
    if (this.#count === 0n) return -errno.EAGAIN;
    new DataView(bytes.buffer, bytes.byteOffset).setBigUint64(0, this.#count, true);
    this.#count = 0n;
    this.wake();
    return 8;
  }

  override write(_process: SimulatedProcess, bytes: Uint8Array): number {
    if (bytes.length < 8) return -errno.EINVAL;
    const value = new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true);
    if (value > MOST) return -errno.EINVAL;
    if (this.#count + value > MOST) return -errno.EAGAIN;
    this.#count += value;
    this.wake();
    return 8;
  }

  override poll(): number {
    return (
      (this.#count > 0n ? POLLIN : 0) |
      (this.#count < MOST ? POLLOUT : 0) |
      (this.#count > MOST ? POLLERR : 0)
    );
  }
}
