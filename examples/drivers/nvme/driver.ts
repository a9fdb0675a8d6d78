/**
 * A driver of NVMe controllers: several queue pairs, interrupts or polling, many requests in flight, and a way back from what
 * a controller may do wrong. It does not know whether the controller is simulated.
 *
 *     const disk = await NvmeDriver.open(iommu, '0000:00:05.0');
 *     await disk.write(0, data);
 *     await disk.flush();
 *     const same = await disk.read(0, data.length / disk.blockSize);
 */
import { type AddressSpace, type Device, type Iommu, IommuError } from 'iommufd';
import { ALL_NAMESPACES, commands, writeRange } from './commands';
import { Controller } from './controller';
import { Engine } from './engine';
import { NvmeError } from './errors';
import { makeMemory, type Memory } from './memory';
import { ProtectedBlocks } from './protected';
import { Protection, TUPLE } from './protection';
import { MOST_ENTRIES, MOST_PAGES, PAGE } from './queue';
import { Ranges } from './ranges';
import { checkTimeout, type Limits, type RequestOptions } from './request';

export interface NvmeOptions {
  /** I/O queue pairs, if the controller has so many. Default 4. */
  readonly queues?: number;
  /** Entries of each, if the controller has so many. Default 64. */
  readonly depth?: number;
  /** Look for completions all the time, instead of waiting for interrupts. Default false. */
  readonly polling?: boolean;
  /** Milliseconds for a request, all of it, unless it says otherwise: 0 to 2^31 - 1. Default 10,000. */
  readonly timeout?: number;
  /** Bytes of memory for queues and for data in flight, at most: 4 MiB or more. Default 64 MiB. */
  readonly memory?: number;
  /** Default 1. */
  readonly namespace?: number;
  /** Of a protected namespace: read what was written, before a write is done. Default true. */
  readonly verify?: boolean;
  /**
   * Of a protected namespace: the application tag of its blocks, 0 to 0xfffe. Default: one of the driver's own, so that blocks
   * that somebody else wrote are errors; 0 is what others are likely to use.
   */
  readonly applicationTag?: number | undefined;
}

type CompleteOptions = Required<NvmeOptions>;

/** Bytes of one command at most, whatever the controller takes. */
const LARGEST_TRANSFER = Math.min(2 ** 19, MOST_PAGES * PAGE);
/** Blocks of one command without data: 16 bits, less one. */
const MOST_BLOCKS = 2 ** 16;
/** Of one range to deallocate: 32 bits. */
const MOST_DEALLOCATED = 2 ** 32 - 1;
/** Mass storage, non-volatile memory, NVM Express (NVM Express 1.4, 2.1.5). */
const CLASS_CODE = '01:08:02';
const RANGE_BYTES = 16;
const HEALTH_PAGE = 2;
const HEALTH_BYTES = 512;
/** How often the health of a protected disk is asked for until two answers agree. */
const HEALTH_ATTEMPTS = 8;
/** Reference tags have 32 bits of a block's address: no command goes from one such range into the next. */
const REFERENCES = 2 ** 32;

export class NvmeDriver {
  readonly device: Device;
  readonly #engine: Engine;
  readonly #space: AddressSpace;
  readonly #memory: Memory;
  readonly #options: CompleteOptions;
  readonly #writing = new Ranges();
  /** Where the namespace is protected. */
  #protected: ProtectedBlocks | undefined;

  /**
   * Switches the controller on. `device`: bound, or the address of one to bind. The driver takes its MSI-X vectors and BAR 0,
   * which are closed when the driver is. Throws TypeError, RangeError, IommuError, NvmeError; then nothing stays open.
   */
  static async open(iommu: Iommu, device: Device | string, options: NvmeOptions = {}): Promise<NvmeDriver> {
    const complete = checkOptions(options);
    const bound = typeof device === 'string' ? iommu.bind(device, { cookie: 1n }) : device;
    let driver: NvmeDriver | undefined;
    try {
      requireNvme(bound);
      driver = new NvmeDriver(iommu, bound, complete);
      await driver.#engine.start('it was opened');
      driver.#requireUsable();
      driver.#requireMemory();
      driver.#protect();
      return driver;
    } catch (error) {
      await driver?.close();
      if (bound !== device) bound.close();
      throw error;
    }
  }

  private constructor(iommu: Iommu, device: Device, options: CompleteOptions) {
    const { queues, depth, polling, timeout, namespace, memory } = options;
    this.device = device;
    this.#options = options;
    this.#space = iommu.createAddressSpace();
    let controller: Controller | undefined;
    try {
      device.attach(this.#space);
      // VFIO hands devices over unable to do DMA or to send interrupts.
      device.enableBusMaster();
      this.#memory = makeMemory(this.#space, { chunk: 2 * LARGEST_TRANSFER, limit: memory });
      const vectors = polling ? 0 : Math.min(device.interruptVectors('msix'), queues + 1);
      controller = new Controller(device, this.#memory, { pairs: queues, depth, vectors });
      this.#engine = new Engine(device, controller, this.#memory, { namespace, timeout, vectors });
    } catch (error) {
      controller?.close();
      this.#space.close();
      throw error;
    }
  }

  /** Bytes of a logical block. */
  get blockSize(): number {
    return this.#engine.identity.blockSize;
  }

  /** How many there are. */
  get blocks(): number {
    return this.#engine.identity.blocks;
  }

  get model(): string {
    return this.#engine.identity.model;
  }

  get serial(): string {
    return this.#engine.identity.serial;
  }

  /** Bytes that one command moves. A request may be larger: it becomes several, which are in flight together. */
  get maxTransfer(): number {
    const bytes = this.#transferMemory;
    return this.#protected ? ProtectedBlocks.blocksOf(bytes, this.blockSize) * this.blockSize : bytes;
  }

  /** Bytes of memory that one command needs at most, with what protects its data. */
  get #transferMemory(): number {
    return Math.min(this.#engine.identity.maxTransfer, LARGEST_TRANSFER);
  }

  /** Type of end-to-end data protection of the namespace, 1 to 3; 0: it has none. */
  get protection(): number {
    return this.#engine.identity.protection;
  }

  /** What went wrong so far, and was put right. */
  get counters(): Readonly<Engine['counters']> {
    return this.#engine.counters;
  }

  // Each of these rejects with TypeError or RangeError (no such blocks, no such time limit), NvmeError, the signal's reason, or
  // IommuError where the kernel gives no memory.

  /** Reads `count` blocks from block `lba` on. */
  async read(lba: number, count: number, options: RequestOptions = {}): Promise<Uint8Array> {
    this.#checkRange(lba, count);
    using limits = this.#engine.limits(options);
    const bytes = new Uint8Array(count * this.blockSize);
    await this.#inParts(lba, count, this.maxTransfer / this.blockSize, async (first, blocks) => {
      const part = bytes.subarray((first - lba) * this.blockSize, (first - lba + blocks) * this.blockSize);
      if (this.#protected) return this.#protected.read(first, part, limits);
      const what = this.#name(`read of ${blocks} blocks at ${first}`);
      using data = await this.#engine.acquire(what, this.#memory.fromDevice, part.length, limits);
      await this.#engine.run(what, commands.read(this.#options.namespace, first, blocks), { limits, data });
      part.set(data.bytes);
    });
    return bytes;
  }

  /** Writes whole blocks from block `lba` on. The disk may keep them in its cache: see flush(). */
  async write(lba: number, bytes: Uint8Array, options: RequestOptions = {}): Promise<void> {
    this.#checkRange(lba, bytes.length / this.blockSize);
    using limits = this.#engine.limits(options);
    await this.#write(lba, bytes, limits);
  }

  async #write(lba: number, bytes: Uint8Array, limits: Limits): Promise<void> {
    const count = bytes.length / this.blockSize;
    // A write that another one overtakes would not find its data when it reads them back.
    const whole = this.#name(`write of ${count} blocks at ${lba}`);
    using _ = this.#protected && (await this.#writing.hold(whole, lba, count, limits));
    await this.#inParts(lba, count, this.maxTransfer / this.blockSize, async (first, blocks) => {
      const part = bytes.subarray((first - lba) * this.blockSize, (first - lba + blocks) * this.blockSize);
      if (this.#protected) return this.#protected.write(first, part, limits);
      const what = this.#name(`write of ${blocks} blocks at ${first}`);
      using data = await this.#engine.acquire(what, this.#memory.toDevice, part.length, limits);
      data.bytes.set(part);
      await this.#engine.run(what, commands.write(this.#options.namespace, first, blocks), { limits, data });
    });
  }

  /** What was written before, and is done, survives the loss of power. */
  async flush(options: RequestOptions = {}): Promise<void> {
    using limits = this.#engine.limits(options);
    // Of all namespaces, if it can: no bit that is flipped makes a command of that which succeeds and is none of the kind.
    const all = this.#protected && this.#engine.identity.flushAll;
    const command = commands.flush(all ? ALL_NAMESPACES : this.#options.namespace);
    await this.#engine.run(this.#name('flush'), command, { limits, insist: this.#protected !== undefined });
  }

  /** Blocks of zeros, without moving any data; but to a protected namespace: a command without data has nothing to check. */
  async writeZeroes(lba: number, count: number, options: RequestOptions = {}): Promise<void> {
    this.#checkRange(lba, count);
    using limits = this.#engine.limits(options);
    if (this.#protected) return await this.#writeZeros(lba, count, limits);
    await this.#inParts(lba, count, MOST_BLOCKS, async (first, blocks) => {
      const command = commands.writeZeroes(this.#options.namespace, first, blocks);
      await this.#engine.run(this.#name(`zeroes for ${blocks} blocks at ${first}`), command, { limits });
    });
  }

  /**
   * Tells the disk that nobody needs these blocks: what they read as afterwards is the disk's choice. A protected namespace is
   * not told: where a bit of the range is flipped, the disk would throw away other blocks, and nothing would notice.
   */
  async trim(lba: number, count: number, options: RequestOptions = {}): Promise<void> {
    this.#checkRange(lba, count);
    using limits = this.#engine.limits(options);
    if (this.#protected) return;
    await this.#inParts(lba, count, MOST_DEALLOCATED, async (first, blocks) => {
      const what = this.#name(`trim of ${blocks} blocks at ${first}`);
      using data = await this.#engine.acquire(what, this.#memory.toDevice, RANGE_BYTES, limits);
      writeRange(data.bytes, first, blocks);
      await this.#engine.run(what, commands.deallocate(this.#options.namespace), { limits, data });
    });
  }

  /** Temperature in kelvins, and whether the disk warns of something (SMART). */
  async health(options: RequestOptions = {}): Promise<{ temperature: number; warning: number }> {
    using limits = this.#engine.limits(options);
    let before = await this.#healthOnce(limits);
    if (!this.#protected) return before;
    for (let attempt = 1; attempt < HEALTH_ATTEMPTS; attempt++) {
      const now = await this.#healthOnce(limits);
      if (now.temperature === before.temperature && now.warning === before.warning) return now;
      this.#engine.counters.mismatches++;
      before = now;
    }
    throw new NvmeError('EILSEQ', this.#name('the SMART log is different each time'));
  }

  async #healthOnce(limits: Limits): Promise<{ temperature: number; warning: number }> {
    const what = this.#name('SMART log');
    using data = await this.#engine.acquire(what, this.#memory.fromDevice, HEALTH_BYTES, limits);
    await this.#engine.run(what, commands.getLogPage(HEALTH_PAGE, HEALTH_BYTES), {
      limits,
      data,
      admin: true,
    });
    // Closed at the same moment.
    if (data.freed) throw this.#engine.ended;
    const [warning, low, high] = data.bytes;
    return { temperature: low | (high << 8), warning };
  }

  async #writeZeros(lba: number, count: number, limits: Limits): Promise<void> {
    const most = this.maxTransfer / this.blockSize;
    const zeros = new Uint8Array(Math.min(most, count) * this.blockSize);
    for (let done = 0; done < count; done += most)
      await this.#write(lba + done, zeros.subarray(0, Math.min(most, count - done) * this.blockSize), limits);
  }

  /** Resets the controller. Requests in flight are done again. */
  async reset(): Promise<void> {
    await this.#engine.reset('a reset was asked for');
    if (this.#engine.ended !== undefined) throw this.#engine.ended;
  }

  /** Switches the controller off. Requests in flight are rejected; the device stays bound, its BAR 0 is closed. */
  async close(): Promise<void> {
    await this.#engine.close();
    this.#space.close();
  }

  #requireUsable(): void {
    const { blocks, metadata, extended, protection } = this.#engine.identity;
    const namespace = `namespace ${this.#options.namespace} of ${this.device.name}`;
    if (blocks === 0) throw new NvmeError('ENODEV', `there is no ${namespace}`);
    const usable = metadata === 0 || (metadata === TUPLE && protection > 0 && !extended);
    if (!usable)
      throw new NvmeError('ENODEV', `the blocks of ${namespace} have metadata, ${metadata} bytes of each`);
  }

  #protect(): void {
    const { identity } = this.#engine;
    if (identity.metadata === 0) return;
    const { namespace, verify, applicationTag } = this.#options;
    const protection = new Protection(identity, namespace, applicationTag);
    const options = { name: this.device.name, namespace, verify };
    this.#protected = new ProtectedBlocks(this.#engine, this.#memory, protection, options);
  }

  /** With less memory than that, the first large request would wait for ever. */
  #requireMemory(): void {
    for (const pool of [this.#memory.toDevice, this.#memory.fromDevice]) {
      try {
        pool.allocate(this.#transferMemory).free();
      } catch (error) {
        if (!(error instanceof IommuError && error.code === 'ENOSPC')) throw error;
        throw new RangeError(
          `memory must be more than ${this.#options.memory} bytes: ` +
            `beside the queues there is no room for a transfer of ${this.#transferMemory} bytes`,
          { cause: error },
        );
      }
    }
  }

  #name(what: string): string {
    return `${this.device.name}: ${what}`;
  }

  /** Does all parts at once, and waits for all of them, failed or not: their memory is the caller's again afterwards. */
  async #inParts(
    lba: number,
    count: number,
    most: number,
    each: (first: number, blocks: number) => Promise<void>,
  ): Promise<void> {
    const parts: Promise<void>[] = [];
    for (let done = 0; done < count;) {
      const blocks = Math.min(most, count - done, REFERENCES - ((lba + done) % REFERENCES));
      parts.push(each(lba + done, blocks));
      done += blocks;
    }
    const failed = (await Promise.allSettled(parts)).find(({ status }) => status === 'rejected');
    if (failed) throw this.#engine.ended ?? (failed as PromiseRejectedResult).reason;
  }

  #checkRange(lba: number, count: number): void {
    if (this.#engine.ended !== undefined) throw this.#engine.ended;
    requireInteger('the first block', lba, 0, this.blocks - 1);
    requireInteger('the number of blocks', count, 1, this.blocks - lba);
  }
}

/** Throws NvmeError ENODEV. */
function requireNvme(device: Device): void {
  const { BASE_CLASS, SUBCLASS, PROGRAMMING_INTERFACE } = device.config.header;
  const found = [BASE_CLASS, SUBCLASS, PROGRAMMING_INTERFACE]
    .map((each) => each.read().toString(16).padStart(2, '0'))
    .join(':');
  if (found !== CLASS_CODE)
    throw new NvmeError(
      'ENODEV',
      `${device.name} is no NVMe controller: its class code is ${found}, not ${CLASS_CODE}`,
    );
}

/** Complete, and each of them possible. Throws TypeError, RangeError. */
function checkOptions(options: NvmeOptions): CompleteOptions {
  const { queues = 4, depth = 64, polling = false, timeout = 10_000, namespace = 1 } = options;
  const { memory = 64 * 2 ** 20, verify = true, applicationTag } = options;
  requireInteger('queues', queues, 1, 1023);
  requireInteger('depth', depth, 2, MOST_ENTRIES);
  checkTimeout(timeout);
  requireInteger('namespace', namespace, 1, 2 ** 32 - 2);
  requireInteger('memory', memory, 8 * LARGEST_TRANSFER, Number.MAX_SAFE_INTEGER);
  if (applicationTag !== undefined) requireInteger('applicationTag', applicationTag, 0, 0xfffe);
  return { queues, depth, polling, timeout, namespace, memory, verify, applicationTag };
}

function requireInteger(what: string, value: number, least: number, most: number): void {
  if (!Number.isInteger(value) || value < least || value > most)
    throw new RangeError(`${what} must be an integer from ${least} to ${most}, not ${value}`);
}
