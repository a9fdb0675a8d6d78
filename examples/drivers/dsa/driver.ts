/**
 * A driver of Intel's Data Streaming Accelerator: memory moved, filled and compared by the device, many requests in flight,
 * in batches too; in an address space of the caller's making, whose missing pages it brings. It does not know whether the
 * device is simulated.
 *
 *     const dsa = await DsaDriver.open(iommu, { pasid: 5 });
 *     const [from, to] = [dsa.pool.allocate(1 << 20), dsa.pool.allocate(1 << 20)];
 *     await dsa.move(from.iova, to.iova, from.length);
 *     const difference = await dsa.compare(from.iova, to.iova, from.length); // undefined: none
 *     await dsa.move(from.iova, to.iova, from.length, { verify: true }); // and what is wrong is done again
 */
import type { AddressSpace, Device, DmaPool, Interrupt, Iommu } from 'iommufd';
import { COMPLETION_VECTOR, Controller, ERROR_VECTOR } from './controller';
import { type Completion, decode, RECORD_BYTES, resultOf } from './completion';
import { DESCRIPTOR_BYTES, encode, type Operation, operations, repeatable, rest, STATUS } from './descriptor';
import { DsaError, flawed, statusError } from './errors';
import { Limits, type WaitOptions } from './limits';
import { type PageIn, Pages } from './pages';
import { SubmissionQueue } from './queue';
import { DEVICE_ID, VENDOR_ID } from './registers';
import { verified } from './verify';

/** How often an access is tried that the device was refused. */
const TRIES = 4;

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
  /** Brings pages that are missing. */
  readonly pageIn?: PageIn;
  /** The device waits for pages, which it asks for. False: it stops there, and the driver resumes. Default true with pageIn. */
  readonly block?: boolean;
}

export interface RequestOptions extends WaitOptions {
  /**
   * The result is checked, and what is wrong is done again: memory is compared with what it should be, results are computed
   * twice. Costs about as much as the operation. EBADMSG if it does not come right. Default false.
   */
  readonly verify?: boolean;
}

export class DsaDriver {
  readonly device: Device;
  /** What the device reaches. */
  readonly space: AddressSpace;
  /** Memory in it. */
  readonly pool: DmaPool;
  readonly #controller: Controller;
  readonly #block: boolean;
  readonly #pages: Pages | undefined;
  readonly #interrupts: Interrupt[];
  readonly #queue: SubmissionQueue;
  readonly #limits: Limits;
  #closing: Promise<void> | undefined;

  private constructor(device: Device, space: AddressSpace, options: DsaOptions, pages?: Pages) {
    const { entries = 32, pasid, polling = false, block = pages !== undefined, timeout = 10_000 } = options;
    this.device = device;
    this.space = space;
    this.pool = space.createPool();
    this.#block = block;
    this.#pages = pages;
    this.#controller = new Controller(device, { entries, pasid, block });
    this.#limits = new Limits(device.name, timeout);
    this.#queue = new SubmissionQueue(this.#controller, this.pool, {
      ...{ entries, polling, block, limits: this.#limits },
      forgotten: () => pages?.abandon(),
    });
    this.#interrupts = [ERROR_VECTOR, COMPLETION_VECTOR].map((vector) => device.interrupt('msix', vector));
  }

  static async open(iommu: Iommu, options: DsaOptions = {}): Promise<DsaDriver> {
    const { bdf, cookie = 1n } = options;
    const found = iommu
      .devices()
      .find((d) => (bdf ? d.bdf === bdf : d.vendorId === VENDOR_ID && d.deviceId === DEVICE_ID));
    if (!found) throw new DsaError('ENODEV', `there is no DSA ${bdf ? `at ${bdf}` : 'in this machine'}`);
    const device = iommu.bind(found, { cookie });
    const made: Closable[] = [device];
    try {
      const driver = DsaDriver.#make(iommu, device, options, made);
      await driver.#start();
      return driver;
    } catch (error) {
      closeAll(made);
      throw error;
    }
  }

  /** Adds what it makes to `made`, in the order in which it is closed. */
  static #make(iommu: Iommu, device: Device, options: DsaOptions, made: Closable[]): DsaDriver {
    const { pasid, pageIn } = options;
    const faults = pageIn && iommu.createFaultQueue();
    if (faults) made.push(faults);
    const space = iommu.createAddressSpace({ pasid: pasid !== undefined, ...(faults && { faults }) });
    made.splice(1, 0, space);
    device.attach(space);
    if (pasid !== undefined) device.attach(space, { pasid });
    // VFIO hands devices over unable to do DMA or to send interrupts.
    device.enableBusMaster();
    return new DsaDriver(device, space, options, pageIn && faults && new Pages(space, pageIn, faults));
  }

  async #start(): Promise<void> {
    await this.#controller.start();
    const [errors, completions] = this.#interrupts;
    errors.on('interrupt', () => this.#queue.check());
    completions.on('interrupt', () => this.#queue.reap());
    void this.#pages?.serve();
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

  /** As compare(), with 8 bytes again and again. */
  async comparePattern(
    address: bigint,
    length: number,
    pattern: bigint,
    options?: RequestOptions,
  ): Promise<number | undefined> {
    return this.run(operations.comparePattern(address, length, pattern), options);
  }

  /** The CRC-32C of memory, as iSCSI has it (RFC 3720). */
  async crc(address: bigint, length: number, options?: RequestOptions): Promise<number> {
    return (await this.run(operations.crc(address, length), options)) as number;
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
    return this.#limits.run(options, (signal) => this.#runAs(operation, options, signal));
  }

  /**
   * Many operations with one descriptor, in no order: their results. Rejects as run(), with the first error; some of the others
   * are done then. With `verify` each has a descriptor of its own: those of a batch are read from memory, and nothing says
   * whether they arrived as they were.
   */
  async batch(list: readonly Operation[], options: RequestOptions = {}): Promise<(number | undefined)[]> {
    const { maxBatch } = this.#controller;
    return this.#limits.run(options, async (signal) => {
      if (options.verify) return allOf(list.map((operation) => this.#runAs(operation, options, signal)));
      const results: (number | undefined)[] = [];
      for (let at = 0; at < list.length; at += maxBatch)
        results.push(...(await this.#batch(list.slice(at, at + maxBatch), signal)));
      return results;
    });
  }

  /** Gives the device back. Requests that are not done reject with ECANCELED. */
  async close(): Promise<void> {
    return (this.#closing ??= this.#close());
  }

  async #close(): Promise<void> {
    const failure = new DsaError('ECANCELED', `${this.device.name} is closed`);
    // The device has forgotten all descriptors before anybody's memory is theirs again.
    await this.#queue.close(failure);
    await this.#limits.fail(failure);
    this.#pages?.abandon();
    closeAll([this.device, this.space, ...(this.#pages ? [this.#pages] : [])]);
  }

  // ---- Requests

  async #runAs(operation: Operation, { verify }: RequestOptions, signal: AbortSignal) {
    const run = (each: Operation) => this.#run(each, signal);
    return verify ? verified(this.device.name, operation, run) : run(operation);
  }

  async #run(operation: Operation, signal: AbortSignal): Promise<number | undefined> {
    this.#check(operation);
    let left = operation;
    for (let tries = 1; ;) {
      const completion = await this.#queue.submit(left, signal);
      const { status, address, completed } = completion;
      if (isDone(completion)) return resultOf(left, completion);
      if (completed > 0) tries = 1;
      if (tries++ >= TRIES || !(await this.#helps(completion, signal)))
        throw statusError(this.device.name, status, address);
      left = rest(left, completion);
    }
  }

  /** Whether it is worth to go on: after a page has come; or as an access may be refused for once. */
  async #helps({ status, address }: Completion, signal: AbortSignal): Promise<boolean> {
    if (status !== STATUS.PAGE_FAULT) return status === STATUS.HARDWARE || status === STATUS.TRANSLATION;
    return (await this.#pages?.bring(address, signal)) ?? false;
  }

  // ---- Batches

  async #batch(list: readonly Operation[], signal: AbortSignal): Promise<(number | undefined)[]> {
    for (const operation of list) this.#check(operation);
    if (list.length < 2) return Promise.all(list.map((operation) => this.#run(operation, signal)));
    const recordsAt = list.length * DESCRIPTOR_BYTES;
    using memory = this.pool.allocate(recordsAt + list.length * RECORD_BYTES);
    const recordOf = (i: number) => recordsAt + i * RECORD_BYTES;
    list.forEach((operation, i) => {
      const record = memory.iova + BigInt(recordOf(i));
      memory.bytes.set(encode(operation, { record, block: this.#block }), i * DESCRIPTOR_BYTES);
    });
    const whole = operations.batch(memory.iova, list.length);
    const { completed: begun } = await this.#queue.submit(whole, signal, {
      repeatable: list.every(repeatable),
      prepare: () => memory.bytes.fill(0, recordsAt),
    });
    const results: (number | undefined)[] = [];
    for (const [i, operation] of list.entries()) {
      const completion = decode(operation, memory.bytes.subarray(recordOf(i)));
      if (completion && isDone(completion)) results.push(resultOf(operation, completion));
      else results.push(await this.#finish(operation, completion, i < begun, signal));
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
    if (completion?.flaw !== undefined && !repeatable(operation)) throw flawed(name, completion.flaw);
    if (!completion || completion.flaw !== undefined) return this.#run(operation, signal);
    if (!(await this.#helps(completion, signal)))
      throw statusError(name, completion.status, completion.address);
    return this.#run(rest(operation, completion), signal);
  }

  #check({ opcode, size }: Operation): void {
    const { maxTransfer, opcodes } = this.#controller;
    if (((opcodes >> BigInt(opcode)) & 1n) === 0n)
      throw new DsaError('EIO', `${this.device.name} has no operation 0x${opcode.toString(16)}`);
    if (!Number.isInteger(size) || size < 0 || size > maxTransfer)
      throw new RangeError(`a transfer has up to ${maxTransfer} bytes, not ${size}`);
  }
}

/** A comparison that was not to differ, and does, is done too. */
function isDone({ status, flaw }: Completion): boolean {
  return flaw === undefined && (status === STATUS.SUCCESS || status === STATUS.FALSE_PREDICATE);
}

/** All results, or the first error, when all have ended. */
async function allOf<T>(all: readonly Promise<T>[]): Promise<T[]> {
  await Promise.allSettled(all);
  return Promise.all(all);
}

interface Closable {
  close(): void;
}

/** Closes all, whatever one of them says; throws the first error. */
function closeAll(all: readonly Closable[]): void {
  const errors: unknown[] = [];
  for (const each of all) {
    try {
      each.close();
    } catch (error) {
      errors.push(error);
    }
  }
  if (errors.length > 0) throw errors[0];
}
