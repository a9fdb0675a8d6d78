/**
 * A driver of NVMe controllers: several queue pairs, interrupts or polling, many requests in flight, and a way back from what
 * a controller may do wrong. It does not know whether the controller is simulated.
 *
 *     const disk = await NvmeDriver.open(iommu, '0000:00:05.0');
 *     await disk.write(0, data);
 *     await disk.flush();
 *     const same = await disk.read(0, data.length / disk.blockSize);
 */
import type { AddressSpace, Device, DmaPool, Iommu } from 'iommufd';
import { commands, writeRange } from './commands';
import { Controller } from './controller';
import { Engine, type RunOptions } from './engine';
import { NvmeError } from './errors';
import { type Command, MOST_ENTRIES, MOST_PAGES, PAGE } from './queue';
import type { RequestOptions } from './request';

export interface NvmeOptions {
  /** I/O queue pairs, if the controller has so many. Default 4. */
  readonly queues?: number;
  /** Entries of each, if the controller has so many. Default 64. */
  readonly depth?: number;
  /** Look for completions all the time, instead of waiting for interrupts. Default false. */
  readonly polling?: boolean;
  /** Milliseconds for a request, unless it says otherwise. Default 10,000. */
  readonly timeout?: number;
  /** Bytes of memory for queues and for data in flight, at most: 2 MiB or more. Default 64 MiB. */
  readonly memory?: number;
  /** Default 1. */
  readonly namespace?: number;
}

/** Bytes of one command at most, whatever the controller takes. */
const LARGEST_TRANSFER = Math.min(2 ** 19, MOST_PAGES * PAGE);
/** Blocks of one command without data: 16 bits, less one. */
const MOST_BLOCKS = 2 ** 16;
/** Of one range to deallocate: 32 bits. */
const MOST_DEALLOCATED = 2 ** 32 - 1;
const RANGE_BYTES = 16;
const HEALTH_PAGE = 2;
const HEALTH_BYTES = 512;

export class NvmeDriver {
  readonly device: Device;
  readonly #engine: Engine;
  readonly #space: AddressSpace;
  readonly #pool: DmaPool;
  readonly #namespace: number;

  /** Switches the controller on. `device`: bound, or the address of one to bind. Throws RangeError, IommuError, NvmeError. */
  static async open(iommu: Iommu, device: Device | string, options: NvmeOptions = {}): Promise<NvmeDriver> {
    const complete = checkOptions(options);
    const bound = typeof device === 'string' ? iommu.bind(device, { cookie: 1n }) : device;
    let driver: NvmeDriver | undefined;
    try {
      driver = new NvmeDriver(iommu, bound, complete);
      await driver.#engine.start('it was opened');
      driver.#requireUsable();
      return driver;
    } catch (error) {
      await driver?.close();
      if (bound !== device) bound.close();
      throw error;
    }
  }

  private constructor(iommu: Iommu, device: Device, options: Required<NvmeOptions>) {
    const { queues, depth, polling, timeout, namespace, memory } = options;
    this.device = device;
    this.#namespace = namespace;
    this.#space = iommu.createAddressSpace();
    try {
      device.attach(this.#space);
      // VFIO hands devices over unable to do DMA or to send interrupts.
      device.enableBusMaster();
      this.#pool = this.#space.createPool({ chunk: 2 * LARGEST_TRANSFER, limit: memory });
      const vectors = polling ? 0 : Math.min(device.interruptVectors('msix'), queues + 1);
      const controller = new Controller(device, this.#pool, { pairs: queues, depth, vectors });
      this.#engine = new Engine(device, controller, this.#pool, { namespace, timeout, vectors });
    } catch (error) {
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
    return Math.min(this.#engine.identity.maxTransfer, LARGEST_TRANSFER);
  }

  /** What went wrong so far, and was put right. */
  get counters(): Readonly<Engine['counters']> {
    return this.#engine.counters;
  }

  // Each of these rejects with RangeError (no such blocks), NvmeError, or the signal's reason.

  /** Reads `count` blocks from block `lba` on. */
  async read(lba: number, count: number, options: RequestOptions = {}): Promise<Uint8Array> {
    this.#checkRange(lba, count);
    const bytes = new Uint8Array(count * this.blockSize);
    await this.#inParts(lba, count, this.maxTransfer / this.blockSize, async (first, blocks) => {
      const command = commands.read(this.#namespace, first, blocks);
      using data = await this.#pool.acquire(blocks * this.blockSize, options);
      await this.#run(`read of ${blocks} blocks at ${first}`, command, { ...options, data });
      bytes.set(data.bytes, (first - lba) * this.blockSize);
    });
    return bytes;
  }

  /** Writes whole blocks from block `lba` on. The disk may keep them in its cache: see flush(). */
  async write(lba: number, bytes: Uint8Array, options: RequestOptions = {}): Promise<void> {
    const count = bytes.length / this.blockSize;
    this.#checkRange(lba, count);
    await this.#inParts(lba, count, this.maxTransfer / this.blockSize, async (first, blocks) => {
      const command = commands.write(this.#namespace, first, blocks);
      using data = await this.#pool.acquire(blocks * this.blockSize, options);
      const at = (first - lba) * this.blockSize;
      data.bytes.set(bytes.subarray(at, at + data.length));
      await this.#run(`write of ${blocks} blocks at ${first}`, command, { ...options, data });
    });
  }

  /** What was written before, and is done, survives the loss of power. */
  async flush(options: RequestOptions = {}): Promise<void> {
    await this.#run('flush', commands.flush(this.#namespace), options);
  }

  /** Blocks of zeros, without moving any data. */
  async writeZeroes(lba: number, count: number, options: RequestOptions = {}): Promise<void> {
    this.#checkRange(lba, count);
    await this.#inParts(lba, count, MOST_BLOCKS, async (first, blocks) => {
      const command = commands.writeZeroes(this.#namespace, first, blocks);
      await this.#run(`zeroes for ${blocks} blocks at ${first}`, command, options);
    });
  }

  /** Tells the disk that nobody needs these blocks: what they read as afterwards is the disk's choice. */
  async trim(lba: number, count: number, options: RequestOptions = {}): Promise<void> {
    this.#checkRange(lba, count);
    await this.#inParts(lba, count, MOST_DEALLOCATED, async (first, blocks) => {
      using data = await this.#pool.acquire(RANGE_BYTES, options);
      writeRange(data.bytes, first, blocks);
      const command = commands.deallocate(this.#namespace);
      await this.#run(`trim of ${blocks} blocks at ${first}`, command, { ...options, data });
    });
  }

  /** Temperature in kelvins, and whether the disk warns of something (SMART). */
  async health(options: RequestOptions = {}): Promise<{ temperature: number; warning: number }> {
    if (this.#engine.ended !== undefined) throw this.#engine.ended;
    using data = await this.#pool.acquire(HEALTH_BYTES, options);
    const command = commands.getLogPage(HEALTH_PAGE, HEALTH_BYTES);
    await this.#run('SMART log', command, { ...options, data, admin: true });
    const [warning, low, high] = data.bytes;
    return { temperature: low | (high << 8), warning };
  }

  /** Resets the controller. Requests in flight are done again. */
  async reset(): Promise<void> {
    await this.#engine.reset('a reset was asked for');
    if (this.#engine.ended !== undefined) throw this.#engine.ended;
  }

  /** Switches the controller off. Requests in flight are rejected; the device stays bound. */
  async close(): Promise<void> {
    await this.#engine.close();
    this.#space.close();
  }

  #requireUsable(): void {
    const { blocks, metadata } = this.#engine.identity;
    const namespace = `namespace ${this.#namespace} of ${this.device.name}`;
    if (blocks === 0) throw new NvmeError('ENODEV', `there is no ${namespace}`);
    if (metadata > 0) throw new NvmeError('ENODEV', `the blocks of ${namespace} have metadata`);
  }

  async #run(what: string, command: Command, options: RunOptions): Promise<number> {
    return this.#engine.run(`${this.device.name}: ${what}`, command, options);
  }

  /** Does all parts at once, and waits for all of them, failed or not: their memory is the caller's again afterwards. */
  async #inParts(
    lba: number,
    count: number,
    most: number,
    each: (first: number, blocks: number) => Promise<void>,
  ): Promise<void> {
    const parts: Promise<void>[] = [];
    for (let done = 0; done < count; done += most) parts.push(each(lba + done, Math.min(most, count - done)));
    const failed = (await Promise.allSettled(parts)).find(({ status }) => status === 'rejected');
    // A pool that was closed is why nothing was left of it, and not the cause.
    if (failed) throw this.#engine.ended ?? (failed as PromiseRejectedResult).reason;
  }

  #checkRange(lba: number, count: number): void {
    if (this.#engine.ended !== undefined) throw this.#engine.ended;
    requireInteger('the first block', lba, 0, this.blocks - 1);
    requireInteger('the number of blocks', count, 1, this.blocks - lba);
  }
}

/** Complete, and each of them possible. Throws RangeError. */
function checkOptions(options: NvmeOptions): Required<NvmeOptions> {
  const { queues = 4, depth = 64, polling = false, timeout = 10_000, namespace = 1 } = options;
  const { memory = 64 * 2 ** 20 } = options;
  requireInteger('queues', queues, 1, 1023);
  requireInteger('depth', depth, 2, MOST_ENTRIES);
  requireInteger('timeout', timeout, 1, 2 ** 31 - 1);
  requireInteger('namespace', namespace, 1, 2 ** 32 - 2);
  requireInteger('memory', memory, 4 * LARGEST_TRANSFER, Number.MAX_SAFE_INTEGER);
  return { queues, depth, polling, timeout, namespace, memory };
}

function requireInteger(what: string, value: number, least: number, most: number): void {
  if (!Number.isInteger(value) || value < least || value > most)
    throw new RangeError(`${what} must be an integer from ${least} to ${most}, not ${value}`);
}
