import { destroy, type Context } from './context';
import { checkObject, failure } from './errors';
import { EventStream, type WaitOptions } from './event-stream';
import { Handle, runAll } from './handle';
import { attemptRead } from './ioctl';
import { POLLIN, type Watch } from './kernel';
import { errno } from './uapi';

const READ = { syscall: 'read' } as const;
/** Room for this many records at first; it grows when what comes first needs more. */
const FIRST_ROOM = 64;
/** The kernel has answered EINVAL to a buffer of this many records: something else is wrong. */
const LAST_ROOM = 1 << 20;

/**
 * What reading records from an iommufd object's own file has in common, for faults and for events of virtual IOMMUs.
 * `for await (const item of queue)`, next() or drain(). Leaving a loop leaves the queue open.
 */
export abstract class RecordQueue<T> extends Handle implements AsyncIterable<T> {
  /** The kernel's object ID. */
  readonly id: number;
  /** The queue's file descriptor, for raw calls. */
  readonly fd: number;
  /** @internal */
  protected readonly context: Context;
  readonly #stream: EventStream<T>;
  readonly #recordSize: number;
  #buffer: Uint8Array;
  #watch: Watch | undefined;
  /** The kernel has records that there is no room for. */
  #blocked = false;

  /** @internal Reads are of a multiple of `recordSize` bytes. */
  protected constructor(context: Context, id: number, fd: number, recordSize: number) {
    super();
    this.#recordSize = recordSize;
    this.#buffer = new Uint8Array(FIRST_ROOM * recordSize);
    this.context = context;
    this.id = id;
    this.fd = fd;
    this.#stream = new EventStream({ start: () => this.#startWatch(), stop: () => this.#stopWatch() });
  }

  /** What is there now, without waiting. Throws IommuError. */
  drain(): T[] {
    this.requireOpen(READ);
    this.#fill();
    return this.#stream.take();
  }

  /**
   * The next one; waits for it. A wait that ends without one takes none: it stays for whoever asks next.
   * Rejects with IommuError EBADF (the queue is closed, also meanwhile), ETIMEDOUT, or the signal's reason.
   */
  async next(options: WaitOptions = {}): Promise<T> {
    this.requireOpen(READ);
    this.#look();
    const { value, done } = await this.#stream.next(options);
    if (done) throw this.closedError(READ);
    return value;
  }

  /** Ends when the queue is closed. Leaving the loop, or `return()` of the iterator, ends its wait. */
  [Symbol.asyncIterator](): AsyncIterableIterator<T, undefined> {
    return this.#stream.iterate(() => this.#look());
  }

  /** What the kernel has is asked for before anybody waits. */
  #look(): void {
    if (!this.closed && this.#stream.empty) this.#fill();
  }

  /** Records that may be read now. */
  protected get room(): number {
    return Infinity;
  }

  /** Nothing that was read waits for anything: what comes first may be larger than the room. */
  protected get idle(): boolean {
    return true;
  }

  /** There is room again: whoever waits gets what the kernel has kept. */
  protected roomMade(): void {
    if (!this.#blocked || this.closed) return;
    this.#blocked = false;
    if (this.#stream.waiting) this.#fillForWaiters();
    if (this.#stream.waiting && !this.#watch) this.#startWatch();
  }

  #fillForWaiters(): void {
    try {
      this.#fill();
    } catch (error) {
      this.#stream.fail(error);
    }
  }

  #startWatch(): void {
    // Its descriptor is ready, and would be for as long as there is no room.
    if (this.#blocked) return;
    const watch = this.context.kernel.watch(this.fd, POLLIN, () => {
      this.#fillForWaiters();
      if (this.#blocked) this.#stopWatch();
    });
    this.#watch = checkObject(watch, { syscall: 'poll' });
  }

  #stopWatch(): void {
    this.#watch?.close();
    this.#watch = undefined;
  }

  /** Reads until the kernel has no more, or there is no room for what it has. */
  #fill(): void {
    let most = this.room;
    while (most > 0) {
      const bytes = this.#buffer.subarray(0, most * this.#recordSize);
      const length = attemptRead(this.context.kernel, this.fd, bytes);
      // A read of 0 bytes: empty. EINVAL: what comes first does not fit.
      if (length === 0) return;
      if (length > 0) {
        for (const item of this.decode(bytes.subarray(0, length))) this.#stream.push(item);
        most = this.room;
      } else if (length !== -errno.EINVAL) throw failure(length, READ);
      else if (bytes.length === this.#buffer.length) this.#grow();
      else most = this.idle ? Infinity : 0;
    }
    this.#blocked = true;
  }

  #grow(): void {
    if (this.#buffer.length >= LAST_ROOM * this.#recordSize) throw failure(-errno.EINVAL, READ);
    this.#buffer = new Uint8Array(this.#buffer.length * 2);
  }

  /** The records of one read, which are whole. `bytes` is used again afterwards. */
  protected abstract decode(bytes: Uint8Array): Iterable<T>;

  /** Ends iterations. The kernel refuses to destroy the object while its file is open. */
  protected override release(): void {
    this.#stream.end();
    runAll([() => void this.context.kernel.close(this.fd), () => destroy(this.context, this.id)]);
  }
}
