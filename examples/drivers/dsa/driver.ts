/**
 * A driver of Intel's Data Streaming Accelerator: memory moved, filled and compared by the device, many requests in flight,
 * in batches too; in an address space of the caller's making, whose missing pages it brings. It does not know whether the
 * device is simulated.
 *
 *     const dsa = await DsaDriver.open(iommu, { pasid: 5 });
 *     const [from, to] = [dsa.pool.allocate(1 << 20), dsa.pool.allocate(1 << 20)];
 *     await dsa.move(from.iova, to.iova, from.length);
 *     const difference = await dsa.compare(from.iova, to.iova, from.length); // undefined: none
 */
import type { AddressSpace, Device, DmaPool, Fault, FaultQueue, Interrupt, Iommu } from 'iommufd';
import { COMPLETION_VECTOR, Controller, ERROR_VECTOR } from './controller';
import {
  type Completion,
  decode,
  DESCRIPTOR_BYTES,
  encode,
  type Operation,
  operations,
  RECORD_BYTES,
  repeatable,
  rest,
  resultOf,
  STATUS,
} from './descriptor';
import { DsaError, statusError } from './errors';
import { SubmissionQueue } from './queue';
import { DEVICE_ID, VENDOR_ID } from './registers';

/** How often an access is tried that the device was refused. */
const TRIES = 4;
const PAGE = 4096n;

export interface DsaOptions {
  /** Address such as '0000:6a:01.0'; default the first DSA there is. */
  readonly bdf?: string;
  /** Default 1. */
  readonly cookie?: bigint;
  /** The device's requests carry this PASID. Default none. */
  readonly pasid?: number;
  /** Descriptors that the device holds at a time. Default 32. */
  readonly entries?: number;
  /** Look for completions all the time, instead of waiting for interrupts. Default false. */
  readonly polling?: boolean;
  /** Milliseconds for a request, unless it says otherwise. Default 10,000. */
  readonly timeout?: number;
  /**
   * Puts a page there that is missing: the address space may be used before it is filled. It may be asked for one that came
   * meanwhile. If it throws, requests for that page fail with EFAULT.
   */
  readonly pageIn?: (address: bigint, space: AddressSpace) => void | Promise<void>;
  /** The device waits for pages, which it asks for. False: it stops there, and the driver resumes. Default true with pageIn. */
  readonly block?: boolean;
}

export interface RequestOptions {
  /** Milliseconds. */
  readonly timeout?: number;
  readonly signal?: AbortSignal;
}

export class DsaDriver {
  readonly device: Device;
  /** What the device reaches. */
  readonly space: AddressSpace;
  /** Memory in it. */
  readonly pool: DmaPool;
  readonly #controller: Controller;
  readonly #options: DsaOptions;
  readonly #block: boolean;
  readonly #faults: FaultQueue | undefined;
  readonly #interrupts: Interrupt[];
  readonly #queue: SubmissionQueue;
  /** Pages that are being brought. */
  readonly #coming = new Map<bigint, Promise<void>>();

  private constructor(device: Device, space: AddressSpace, options: DsaOptions, faults?: FaultQueue) {
    const { entries = 32, pasid, polling = false, pageIn, block = pageIn !== undefined } = options;
    this.device = device;
    this.space = space;
    this.pool = space.createPool();
    this.#options = options;
    this.#block = block;
    this.#faults = faults;
    this.#controller = new Controller(device, { entries, pasid, block });
    this.#queue = new SubmissionQueue(this.#controller, this.pool, { entries, polling, block });
    this.#interrupts = [ERROR_VECTOR, COMPLETION_VECTOR].map((vector) => device.interrupt('msix', vector));
  }

  static async open(iommu: Iommu, options: DsaOptions = {}): Promise<DsaDriver> {
    const { bdf, cookie = 1n, pasid, pageIn } = options;
    const found = iommu
      .devices()
      .find((d) => (bdf ? d.bdf === bdf : d.vendorId === VENDOR_ID && d.deviceId === DEVICE_ID));
    if (!found) throw new DsaError('ENODEV', `there is no DSA ${bdf ? `at ${bdf}` : 'in this machine'}`);
    const device = iommu.bind(found, { cookie });
    try {
      const faults = pageIn && iommu.createFaultQueue();
      const space = iommu.createAddressSpace({ pasid: pasid !== undefined, ...(faults && { faults }) });
      device.attach(space);
      if (pasid !== undefined) device.attach(space, { pasid });
      // VFIO hands devices over unable to do DMA or to send interrupts.
      device.enableBusMaster();
      const driver = new DsaDriver(device, space, options, faults);
      await driver.#start();
      return driver;
    } catch (error) {
      device.close();
      throw error;
    }
  }

  async #start(): Promise<void> {
    await this.#controller.start();
    const [errors, completions] = this.#interrupts;
    errors.on('interrupt', () => this.#queue.check());
    completions.on('interrupt', () => this.#queue.reap());
    if (this.#faults) void this.#serve(this.#faults);
  }

  // ---- What it is for

  /** Copies memory; the two may overlap. */
  async move(source: bigint, destination: bigint, length: number, options?: RequestOptions): Promise<void> {
    await this.run(operations.move(source, destination, length), options);
  }

  /** Fills memory with 8 bytes again and again, the lowest first. */
  async fill(destination: bigint, length: number, pattern: bigint, options?: RequestOptions): Promise<void> {
    await this.run(operations.fill(destination, length, pattern), options);
  }

  /** The offset of the first byte that differs; undefined if none does. */
  async compare(
    one: bigint,
    other: bigint,
    length: number,
    options?: RequestOptions,
  ): Promise<number | undefined> {
    return this.run(operations.compare(one, other, length), options);
  }

  /** Ends after all that the device had before. */
  async drain(options?: RequestOptions): Promise<void> {
    await this.run(operations.drain(), options);
  }

  /**
   * One operation, whole: what the device does only in part is resumed. Rejects with DsaError, or the signal's reason, when the
   * device has nothing to do with it any more.
   */
  async run(operation: Operation, options: RequestOptions = {}): Promise<number | undefined> {
    return this.#limited(options, (signal) => this.#run(operation, signal));
  }

  /**
   * Many operations with one descriptor, in no order: their results. Rejects as run(), with the first error; some of the others
   * are done then.
   */
  async batch(list: readonly Operation[], options: RequestOptions = {}): Promise<(number | undefined)[]> {
    const { maxBatch } = this.#controller;
    return this.#limited(options, async (signal) => {
      const results: (number | undefined)[] = [];
      for (let at = 0; at < list.length; at += maxBatch)
        results.push(...(await this.#batch(list.slice(at, at + maxBatch), signal)));
      return results;
    });
  }

  /** Gives the device back. Requests that are not done reject. */
  async close(): Promise<void> {
    await this.#queue.close();
    this.device.close();
    this.space.close();
    this.#faults?.close();
  }

  // ---- Requests

  async #limited<T>(options: RequestOptions, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
    const { timeout = this.#options.timeout ?? 10_000, signal } = options;
    signal?.throwIfAborted();
    const end = new AbortController();
    const abort = () => end.abort(signal?.reason);
    signal?.addEventListener('abort', abort);
    const late = () => new DsaError('ETIMEDOUT', `${this.device.name} has not finished within ${timeout} ms`);
    const timer = setTimeout(() => end.abort(late()), timeout);
    try {
      return await work(end.signal);
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener('abort', abort);
    }
  }

  async #run(operation: Operation, signal: AbortSignal): Promise<number | undefined> {
    this.#checkSize(operation);
    let left = operation;
    for (let tries = 1; ;) {
      const completion = await this.#queue.submit(left, signal);
      const { status, address, completed } = completion;
      if (status === STATUS.SUCCESS) return resultOf(left, completion);
      if (completed > 0) tries = 1;
      if (tries++ >= TRIES || !(await this.#helps(completion)))
        throw statusError(this.device.name, status, address);
      signal.throwIfAborted();
      left = rest(left, completion);
    }
  }

  /** Whether it is worth to go on: after a page has come; or as an access may be refused for once. */
  async #helps({ status, address }: Completion): Promise<boolean> {
    if (status !== STATUS.PAGE_FAULT) return status === STATUS.HARDWARE || status === STATUS.TRANSLATION;
    return this.#bring(address);
  }

  async #batch(list: readonly Operation[], signal: AbortSignal): Promise<(number | undefined)[]> {
    for (const operation of list) this.#checkSize(operation);
    if (list.length < 2) return Promise.all(list.map((operation) => this.#run(operation, signal)));
    const recordsAt = list.length * DESCRIPTOR_BYTES;
    using memory = this.pool.allocate(recordsAt + list.length * RECORD_BYTES);
    const recordOf = (i: number) => recordsAt + i * RECORD_BYTES;
    list.forEach((operation, i) => {
      const record = memory.iova + BigInt(recordOf(i));
      memory.bytes.set(encode(operation, { record, block: this.#block }), i * DESCRIPTOR_BYTES);
    });
    const whole = operations.batch(memory.iova, list.length);
    const { status } = await this.#queue.submit(whole, signal, {
      repeatable: list.every(repeatable),
      prepare: () => memory.bytes.fill(0, recordsAt),
    });
    const begun = status === STATUS.SUCCESS || status === STATUS.BATCH_FAILED;
    const results: (number | undefined)[] = [];
    for (const [i, operation] of list.entries()) {
      const completion = decode(memory.bytes.subarray(recordOf(i)));
      if (completion?.status === STATUS.SUCCESS) results.push(resultOf(operation, completion));
      else results.push(await this.#finish(operation, completion, begun, signal));
    }
    return results;
  }

  /** Does by itself what a batch has not done, or not all of. */
  async #finish(
    operation: Operation,
    completion: Completion | undefined,
    begun: boolean,
    signal: AbortSignal,
  ) {
    const { name } = this.device;
    if (!completion && begun && !repeatable(operation))
      throw new DsaError('ECANCELED', `${name} does not say how far a copy came that overlaps`);
    if (!completion) return this.#run(operation, signal);
    if (!(await this.#helps(completion))) throw statusError(name, completion.status, completion.address);
    return this.#run(rest(operation, completion), signal);
  }

  #checkSize({ size }: Operation): void {
    const { maxTransfer } = this.#controller;
    if (!Number.isInteger(size) || size < 0 || size > maxTransfer)
      throw new RangeError(`a transfer has up to ${maxTransfer} bytes, not ${size}`);
  }

  // ---- Pages that are missing

  async #serve(faults: FaultQueue): Promise<void> {
    for await (const fault of faults) void this.#answer(fault);
  }

  async #answer(fault: Fault): Promise<void> {
    fault.respond((await this.#bring(fault.address)) ? 'success' : 'invalid');
  }

  /** False: it does not come. One that is on its way is not asked for again. */
  async #bring(address: bigint): Promise<boolean> {
    const { pageIn } = this.#options;
    if (!pageIn) return false;
    const page = address - (address % PAGE);
    let coming = this.#coming.get(page);
    if (!coming) {
      coming = (async () => pageIn(page, this.space))();
      this.#coming.set(page, coming);
    }
    try {
      await coming;
      return true;
    } catch {
      return false;
    } finally {
      this.#coming.delete(page);
    }
  }
}
