/** Switching an NVMe controller on and off, and making its queues. NVM Express 1.4, 7.6. */
import type { Device, DmaSlice, Region, Registers } from 'iommufd';
import {
  commands,
  IDENTIFY_BYTES,
  parseController,
  parseNamespace,
  type ControllerIdentity,
  type NamespaceIdentity,
} from './commands';
import { NvmeError } from './errors';
import type { Memory, MemoryRange } from './memory';
import { type Command, QueuePair } from './queue';
import { DOORBELLS, doorbells, NVME } from './registers';

const ADMIN_DEPTH = 32;
const IDENTIFY_ATTEMPTS = 4;
/** Entries of 64 and of 16 bytes, as powers of two. */
const ENTRY_SIZES = { IOSQES: 6, IOCQES: 4 };
const SHUTDOWN_NORMAL = 1;
const SHUTDOWN_COMPLETE = 2;
/** Milliseconds for a shutdown. */
const SHUTDOWN_TIMEOUT = 10_000;
const ALL_ONES = 0xffff_ffff;

/** CSTS. */
interface Status {
  readonly RDY: number;
  readonly CFS: number;
  readonly SHST: number;
}

/** Runs a command of the admin queue: its dword 0. */
export type RunAdmin = (command: Command, data?: MemoryRange) => Promise<number>;

export class Controller {
  readonly device: Device;
  readonly admin: QueuePair;
  /** The I/O queues: the same objects over all resets. */
  readonly io: QueuePair[] = [];
  readonly #bar: Region;
  readonly #registers: Registers<typeof NVME>;
  readonly #doorbells: Registers<ReturnType<typeof doorbells>>;
  readonly #memory: Memory;
  /** What Identify returns: never given back, as a controller that fails may still write to it. */
  readonly #identity: DmaSlice;
  /** Milliseconds that CSTS.RDY may take. */
  readonly #readyTimeout: number;
  /** Vectors; 0: completions do not interrupt. */
  readonly #vectors: number;

  /** `pairs`: I/O queues of each kind, at most. Throws NvmeError ENODEV, IommuError; then nothing is open. */
  constructor(device: Device, memory: Memory, options: { pairs: number; depth: number; vectors: number }) {
    this.device = device;
    this.#memory = memory;
    this.#vectors = options.vectors;
    this.#bar = device.region('bar0');
    try {
      if (this.#bar.size <= DOORBELLS) throw this.#tooSmall();
      this.#registers = this.#bar.registers(NVME);
      if (this.gone) throw new NvmeError('ENODEV', `${device.name} does not answer`);
      const { MQES, TO, DSTRD, MPSMIN } = this.#registers.CAP.read();
      if (MPSMIN !== 0) throw new NvmeError('ENODEV', `${device.name} has no pages of 4096 bytes`);
      this.#readyTimeout = Math.max(TO, 1) * 500;
      // A BAR ends after the doorbells of as many queues as the controller has.
      const most = Math.floor((this.#bar.size - DOORBELLS) / (8 << DSTRD)) - 1;
      if (most < 1) throw this.#tooSmall();
      const pairs = Math.min(options.pairs, most);
      this.#doorbells = this.#bar.registers(doorbells(DSTRD, pairs + 1));
      this.#identity = memory.fromDevice.allocate(IDENTIFY_BYTES);
      this.admin = this.#makeQueue(0, ADMIN_DEPTH);
      const depth = Math.min(options.depth, MQES + 1);
      for (let id = 1; id <= pairs; id++) this.io.push(this.#makeQueue(id, depth));
    } catch (error) {
      this.#bar.close();
      throw error;
    }
  }

  /** Gives its registers back: a device with a BAR that is mapped cannot be put to sleep. */
  close(): void {
    this.#bar.close();
  }

  /** Its registers are gone. */
  get closed(): boolean {
    return this.#bar.closed;
  }

  get queues(): QueuePair[] {
    return [this.admin, ...this.io];
  }

  /** It does not answer any more: registers of what is not there read as ones. */
  get gone(): boolean {
    return this.#registers.CSTS.readRaw() === ALL_ONES;
  }

  /** CSTS.CFS: it needs a reset. */
  get failed(): boolean {
    return this.#registers.CSTS.field('CFS') === 1;
  }

  get version(): string {
    const { MAJOR, MINOR, TERTIARY } = this.#registers.VS.read();
    return `${MAJOR}.${MINOR}.${TERTIARY}`;
  }

  /** The vector of a queue: its own, where there are enough. */
  vectorOf(id: number): number | undefined {
    return this.#vectors === 0 ? undefined : id % this.#vectors;
  }

  /** Controller reset (7.3.2). Afterwards it touches no memory. Where it does not end, the function is reset. */
  async stop(): Promise<void> {
    if (this.gone) throw new NvmeError('ENODEV', `${this.device.name} does not answer`);
    this.#registers.CC.update({ EN: 0, SHN: 0 });
    try {
      await this.#status(({ RDY }) => RDY === 0);
    } catch (error) {
      if (this.gone) throw error;
      this.device.reset();
      await this.#status(({ RDY }) => RDY === 0);
    }
  }

  /** Switches it on with empty admin queues. */
  async start(): Promise<void> {
    const { CC, AQA, ASQ, ACQ } = this.#registers;
    const { admin } = this;
    AQA.write({ ASQS: admin.depth - 1, ACQS: admin.depth - 1 });
    ASQ.write(admin.sqMemory.iova);
    ACQ.write(admin.cqMemory.iova);
    CC.write({ EN: 1, ...ENTRY_SIZES });
    await this.#status(({ RDY, CFS }) => RDY === 1 || CFS === 1);
    if (this.failed) throw new NvmeError('EIO', `${this.device.name} failed when it was enabled (CSTS.CFS)`);
  }

  /** Makes the I/O queues, as many as it grants; the others are dropped. */
  async createQueues(run: RunAdmin): Promise<void> {
    const granted = await run(commands.setQueues(this.io.length));
    const pairs = Math.min((granted & 0xffff) + 1, (granted >>> 16) + 1);
    this.io.splice(pairs);
    for (const { id, depth, cqMemory, sqMemory } of this.io) {
      await run(commands.createCompletionQueue(id, depth, this.vectorOf(id)), cqMemory);
      await run(commands.createSubmissionQueue(id, depth), sqMemory);
    }
  }

  async identify(run: RunAdmin, namespace: number): Promise<ControllerIdentity & NamespaceIdentity> {
    const controller = await this.#identifyTwice(run, commands.identifyController(), parseController);
    const inNamespace = commands.identifyNamespace(namespace);
    return { ...controller, ...(await this.#identifyTwice(run, inNamespace, parseNamespace)) };
  }

  /**
   * Nothing protects what Identify returns, and everything depends on it: it is believed where two answers agree. The memory
   * has other bytes before each, so that an answer which did not arrive is none.
   */
  async #identifyTwice<Identity extends object>(
    run: RunAdmin,
    command: Command,
    parse: (bytes: Uint8Array) => Identity,
  ): Promise<Identity> {
    const ask = async (before: number) => {
      this.#identity.bytes.fill(before);
      await run(command, this.#identity);
      return parse(this.#identity.bytes.slice());
    };
    for (let attempt = 1; attempt <= IDENTIFY_ATTEMPTS; attempt++) {
      const [first, second] = [await ask(0), await ask(0xff)];
      if (JSON.stringify(first) === JSON.stringify(second)) return first;
    }
    throw new NvmeError('EIO', `${this.device.name} answers Identify differently each time`);
  }

  /** Tells it that power may go: its caches are written (7.6.2). */
  async shutDown(): Promise<void> {
    const { RDY, CFS } = this.#registers.CSTS.read();
    if (RDY === 1 && CFS === 0) {
      this.#registers.CC.update({ SHN: SHUTDOWN_NORMAL });
      await this.#status(({ SHST }) => SHST === SHUTDOWN_COMPLETE, SHUTDOWN_TIMEOUT);
    }
    await this.stop();
  }

  /** Waits for a status, or finds that there is nobody to have one. */
  async #status(condition: (status: Status) => boolean, timeout = this.#readyTimeout): Promise<void> {
    await this.#registers.CSTS.waitFor((status) => condition(status) || this.gone, { timeout });
    if (this.gone) throw new NvmeError('ENODEV', `${this.device.name} does not answer`);
  }

  #tooSmall(): NvmeError {
    const { name } = this.device;
    return new NvmeError(
      'ENODEV',
      `${name} is no NVMe controller: BAR 0 has ${this.#bar.size} bytes, no room for doorbells`,
    );
  }

  #makeQueue(id: number, depth: number): QueuePair {
    const tail = this.#doorbells.SQ_TAIL.at(id);
    const head = this.#doorbells.CQ_HEAD.at(id);
    return new QueuePair(id, depth, this.#memory, { tail, head });
  }
}
