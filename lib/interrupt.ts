import { EventEmitter } from 'node:events';
import { check, checkObject, failure, refusal } from './errors';
import { EventStream } from './event-stream';
import type { WaitOptions } from './wait';
import { runAll } from './handle';
import { attemptBytes, attemptRead, call } from './ioctl';
import { EFD_CLOEXEC, EFD_NONBLOCK, POLLIN, type Kernel, type Watch } from './kernel';
import * as uapi from './uapi';

/** How a PCI device interrupts. */
export type InterruptKind = 'intx' | 'msi' | 'msix';

const INDEX: Readonly<Record<InterruptKind, number>> = {
  intx: uapi.VFIO_PCI_INTX_IRQ_INDEX,
  msi: uapi.VFIO_PCI_MSI_IRQ_INDEX,
  msix: uapi.VFIO_PCI_MSIX_IRQ_INDEX,
};

/** One kind of interrupt of one device: its vectors are switched on and off through VFIO_DEVICE_SET_IRQS. */
export class InterruptLines {
  readonly kind: InterruptKind;
  /** How many vectors the device has. */
  readonly count: number;
  /** The kernel masks the interrupt at each delivery. */
  readonly automasked: boolean;
  /** The kernel can mask it: INTx, and no other. */
  readonly maskable: boolean;
  readonly kernel: Kernel;
  readonly #fd: number;
  readonly #fixed: boolean;
  /** Vectors in use. */
  readonly open = new Map<number, Interrupt>();

  constructor(kernel: Kernel, fd: number, kind: InterruptKind) {
    this.kernel = kernel;
    this.#fd = fd;
    this.kind = kind;
    const { count, flags } = call(kernel, fd, uapi.VFIO_DEVICE_GET_IRQ_INFO, { index: INDEX[kind] });
    this.count = count;
    this.automasked = (flags & uapi.VFIO_IRQ_INFO_AUTOMASKED) !== 0;
    this.maskable = (flags & uapi.VFIO_IRQ_INFO_MASKABLE) !== 0;
    this.#fixed = (flags & uapi.VFIO_IRQ_INFO_NORESIZE) !== 0;
  }

  /** Connects a vector to an eventfd. Throws IommuError. */
  enable(vector: number, eventfd: number): void {
    const first = this.open.size === 0;
    // Where the set of vectors cannot grow later (MSI), all are allocated at once, the others unconnected.
    if (!first || !this.#fixed) {
      this.#expect(this.#setIrqs(uapi.VFIO_IRQ_SET_ACTION_TRIGGER, vector, [eventfd]));
      return;
    }
    const connect = (count: number) =>
      this.#setIrqs(
        uapi.VFIO_IRQ_SET_ACTION_TRIGGER,
        0,
        Array.from({ length: count }, (_, i) => (i === vector ? eventfd : -1)),
      );
    // A positive result: the system has only so many vectors to give.
    const available = this.#expect(connect(this.count));
    if (available === 0) return;
    if (available <= vector || this.#expect(connect(available)) !== 0)
      throw refusal('ENOSPC', `the system has no ${this.kind} vector ${vector} to give`, {
        request: 'VFIO_DEVICE_SET_IRQS',
      });
  }

  /** Disconnects a vector; the last one switches the interrupt off. */
  disable(vector: number): void {
    const { VFIO_IRQ_SET_ACTION_TRIGGER: trigger } = uapi;
    this.#expect(this.open.size > 0 ? this.#setIrqs(trigger, vector, [-1]) : this.#setIrqs(trigger, 0, 0));
  }

  mask(vector: number): void {
    this.#expect(this.#setIrqs(uapi.VFIO_IRQ_SET_ACTION_MASK, vector, 1));
  }

  unmask(vector: number): void {
    this.#expect(this.#setIrqs(uapi.VFIO_IRQ_SET_ACTION_UNMASK, vector, 1));
  }

  trigger(vector: number): void {
    this.#expect(this.#setIrqs(uapi.VFIO_IRQ_SET_ACTION_TRIGGER, vector, 1));
  }

  #expect(result: number): number {
    return check(result, { syscall: 'ioctl', request: 'VFIO_DEVICE_SET_IRQS' });
  }

  /** `what`: eventfds for consecutive vectors, or how many vectors to act on without data. */
  #setIrqs(action: number, start: number, what: readonly number[] | number): number {
    const fds = typeof what === 'number' ? [] : what;
    const header = uapi.vfio_irq_set.encode({
      argsz: uapi.vfio_irq_set.size + 4 * fds.length,
      flags:
        action | (typeof what === 'number' ? uapi.VFIO_IRQ_SET_DATA_NONE : uapi.VFIO_IRQ_SET_DATA_EVENTFD),
      index: INDEX[this.kind],
      start,
      count: typeof what === 'number' ? what : fds.length,
    });
    const bytes = new Uint8Array(header.length + 4 * fds.length);
    bytes.set(header);
    const view = new DataView(bytes.buffer, header.length);
    fds.forEach((fd, i) => view.setInt32(4 * i, fd, true));
    return attemptBytes(this.kernel, this.#fd, uapi.VFIO_DEVICE_SET_IRQS, bytes);
  }
}

/** What an Interrupt emits, and with what arguments. */
export interface InterruptEvents {
  interrupt: [count: number];
  error: [error: unknown];
  newListener: [event: string | symbol];
  removeListener: [event: string | symbol];
}

/**
 * One interrupt vector of a device. `on('interrupt', (count) => …)`, `for await (const count of interrupt)` or
 * next(): `count` is how often it fired since the last delivery. What fires while nobody listens is counted, and so is
 * what fires while it is masked.
 *
 * An INTx interrupt stays masked from its delivery until the listeners have returned, or the next one is asked
 * for: time to silence the device.
 */
export class Interrupt extends EventEmitter<InterruptEvents> {
  readonly kind: InterruptKind;
  readonly vector: number;
  readonly #lines: InterruptLines;
  readonly #eventfd: number;
  readonly #counter = new BigUint64Array(1);
  readonly #stream: EventStream<number>;
  #watch: Watch | undefined;
  #unmaskNext = false;
  #masked = false;
  #total = 0;
  #closed = false;
  readonly #onListener = (event: string | symbol) => {
    if (event !== 'interrupt') return;
    this.#listen();
    this.#unmaskDelivered();
  };
  readonly #offListener = () => this.#rest();

  /** @internal Use `device.interrupt()`. */
  constructor(lines: InterruptLines, vector: number) {
    super();
    this.kind = lines.kind;
    this.vector = vector;
    this.#lines = lines;
    if (lines.open.has(vector))
      throw refusal('EBUSY', `${lines.kind} vector ${vector} is open already`, {
        request: 'VFIO_DEVICE_SET_IRQS',
      });
    const { kernel } = lines;
    this.#eventfd = check(kernel.eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC), { syscall: 'eventfd' });
    try {
      lines.enable(vector, this.#eventfd);
    } catch (error) {
      kernel.close(this.#eventfd);
      throw error;
    }
    lines.open.set(vector, this);
    this.#stream = new EventStream({ start: () => this.#listen(), stop: () => this.#rest() });
    this.#followListeners();
  }

  get closed(): boolean {
    return this.#closed;
  }

  /** How often it fired, as far as it was delivered: the sum of all counts. */
  get total(): number {
    return this.#total;
  }

  get masked(): boolean {
    return this.#masked;
  }

  /**
   * Delivers nothing until unmask(): what fires meanwhile is counted, and none is lost. The kernel masks INTx itself; an
   * MSI or MSI-X vector, which VFIO cannot mask, goes on counting. Throws IommuError EBADF.
   */
  mask(): void {
    if (this.#closed) throw this.#closedError('ioctl', 'VFIO_DEVICE_SET_IRQS');
    if (this.#masked) return;
    if (this.#lines.maskable) this.#lines.mask(this.vector);
    this.#masked = true;
    this.#stopWatching();
  }

  /** Delivers again, and first what was counted. Throws IommuError EBADF. */
  unmask(): void {
    if (this.#closed) throw this.#closedError('ioctl', 'VFIO_DEVICE_SET_IRQS');
    if (!this.#masked) return;
    this.#masked = false;
    this.#unmaskNext = false;
    if (this.#lines.maskable) this.#lines.unmask(this.vector);
    if (this.#stream.waiting || this.listenerCount('interrupt') > 0) this.#listen();
  }

  /**
   * Takes what has fired since the last delivery without waiting, masked or not: 0 if nothing has. For drivers that poll.
   * Throws IommuError EBADF.
   */
  take(): number {
    if (this.#closed) throw this.#closedError('read');
    this.#unmaskDelivered();
    const result = this.#readCount();
    if (result < 0) throw failure(result, { syscall: 'read' });
    if (result === 0) return 0;
    this.#unmaskNext = this.#lines.automasked;
    this.#unmaskForOthers();
    return result;
  }

  /** Makes the kernel deliver the interrupt as if the device had raised it (a loopback test). */
  trigger(): void {
    if (this.#closed) throw this.#closedError('ioctl', 'VFIO_DEVICE_SET_IRQS');
    this.#lines.trigger(this.vector);
  }

  /**
   * Waits for the next delivery: how often the interrupt fired since the last one. A wait that ends without one
   * takes none: what fires is counted for whoever asks next. Rejects with IommuError EBADF (the interrupt is
   * closed, also meanwhile), ETIMEDOUT, or the signal's reason.
   */
  async next(options: WaitOptions = {}): Promise<number> {
    if (this.#closed) throw this.#closedError('read');
    this.#unmaskDelivered();
    const { value, done } = await this.#stream.next(options);
    if (done) throw this.#closedError('read');
    return value;
  }

  /** Ends when the interrupt is closed. Leaving the loop, or `return()` of the iterator, ends its wait. */
  [Symbol.asyncIterator](): AsyncIterableIterator<number, undefined> {
    const unmask = () => this.#unmaskDelivered();
    return this.#stream.iterate(unmask, unmask);
  }

  /**
   * As the iteration, with an end: the signal, or a timeout for each wait, which throw in the loop as next() rejects. Ends
   * when the interrupt is closed.
   */
  async *deliveries(options: WaitOptions): AsyncGenerator<number, undefined> {
    try {
      while (!this.#closed) {
        this.#unmaskDelivered();
        const { value, done } = await this.#stream.next(options);
        if (done) break;
        yield value;
      }
      return undefined;
    } finally {
      this.#unmaskDelivered();
    }
  }

  /** As EventEmitter's, but what makes the interrupt watch for its listeners stays. */
  override removeAllListeners(event?: keyof InterruptEvents): this {
    for (const name of event === undefined ? this.eventNames() : [event]) super.removeAllListeners(name);
    this.#followListeners();
    this.#rest();
    return this;
  }

  /** Hears of listeners that come and go, to watch while there are some. */
  #followListeners(): void {
    if (!this.listeners('newListener').includes(this.#onListener)) this.on('newListener', this.#onListener);
    if (!this.listeners('removeListener').includes(this.#offListener))
      this.on('removeListener', this.#offListener);
  }

  /** Switches the vector off and ends iterations. Idempotent. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#stream.end();
    this.removeAllListeners();
    this.#stopWatching();
    this.#lines.open.delete(this.vector);
    runAll([() => this.#lines.disable(this.vector), () => this.#lines.kernel.close(this.#eventfd)]);
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #closedError(syscall: string, request?: string): Error {
    return refusal('EBADF', `${this.kind} interrupt ${this.vector} is closed`, { syscall, request });
  }

  #listen(): void {
    if (this.#closed) throw this.#closedError('poll');
    if (this.#masked) return;
    this.#watch ??= checkObject(
      this.#lines.kernel.watch(this.#eventfd, POLLIN, () => this.#deliver()),
      { syscall: 'poll' },
    );
  }

  #rest(): void {
    if (!this.#stream.waiting && this.listenerCount('interrupt') === 0) this.#stopWatching();
  }

  #stopWatching(): void {
    this.#watch?.close();
    this.#watch = undefined;
  }

  /** How often it fired since it was read last, or a negative errno. */
  #readCount(): number {
    const result = attemptRead(this.#lines.kernel, this.#eventfd, new Uint8Array(this.#counter.buffer));
    if (result === -uapi.errno.EAGAIN) return 0;
    if (result < 0) return result;
    const count = Number(this.#counter[0]);
    this.#total += count;
    return count;
  }

  #deliver(): void {
    const count = this.#readCount();
    if (count === 0) return;
    if (count < 0) {
      const error = failure(count, { syscall: 'read' });
      this.#stream.fail(error);
      if (this.listenerCount('error') > 0) this.emit('error', error);
      this.#stopWatching();
      return;
    }
    this.#unmaskNext = this.#lines.automasked;
    const waited = this.#stream.waiting;
    if (waited) this.#stream.push(count);
    // Who waits alone unmasks it by asking for the next.
    if (waited && this.listenerCount('interrupt') === 0) return this.#unmaskForOthers();
    try {
      this.emit('interrupt', count);
    } finally {
      this.#unmaskDelivered();
    }
  }

  /** Listeners, and who waits already, ask for nothing: theirs may come once who was served has silenced the device. */
  #unmaskForOthers(): void {
    if (this.#unmaskNext && (this.#stream.waiting || this.listenerCount('interrupt') > 0))
      setImmediate(() => this.#unmaskDelivered());
  }

  #unmaskDelivered(): void {
    if (!this.#unmaskNext || this.#masked || this.#closed) return;
    this.#unmaskNext = false;
    this.#lines.unmask(this.vector);
  }
}
