/**
 * An NVMe controller: NVM Express 1.4 over PCI Express, one function with its registers in BAR 0 and MSI-X. Queues anywhere in
 * memory, many commands at once, which end in any order.
 */
import { DmaError } from '../device-dma';
import { endpoint } from '../endpoint';
import { PciDevice } from '../pci-device';
import type { Process } from '../process';
import type { DeviceRegisters } from '../register-bank';
import { ADMIN_COMMANDS } from './admin-commands';
import { Command, COMPLETION_ENTRY, Running, SUBMISSION_ENTRY } from './command';
import { configure, flushNamespace, type NvmeConfig, type NvmeOptions } from './config';
import { type Core, requireWanted } from './core';
import { AsyncEvents, ERROR_EVENT, EVENT_TYPE, HEALTH_EVENT } from './events';
import { FEATURE, Features } from './features';
import { Interrupts } from './interrupts';
import { IO_COMMANDS } from './io-commands';
import { ErrorLog, Health } from './log-pages';
import { CompletionQueue, SubmissionQueue } from './queues';
import { controllerRegisters, DOORBELLS, SHUTDOWN, SHUTDOWN_STATUS } from './registers';
import { CommandError, statusField, STATUS } from './status';

const VENDOR_ID = 0x1234;
const DEVICE_ID = 0x4e56;
/** Mass storage, non-volatile memory, NVM Express (NVMe over PCIe). */
const CLASS_CODE = 0x01_08_02;

const ENABLE_NANOSECONDS = 100_000;
const DISABLE_NANOSECONDS = 50_000;
const SHUTDOWN_NANOSECONDS = 100_000;
/** Commands fetched at a time. */
const FETCH = 16;
const LEAST_PAGE = 4096;

type NvmeRegisters = DeviceRegisters<ReturnType<typeof controllerRegisters>>;

export class NvmeController extends PciDevice {
  readonly #core: Core & { pageSize: number };
  readonly #registers: NvmeRegisters;
  readonly #interrupts: Interrupts;
  /** What one life of the controller has begun does not go on in the next. */
  #life = 0;
  /** Enabled, and neither failed nor shut down. */
  #live = false;
  /** Commands that it is going to lose. */
  #losses = 0;
  #deaf = false;

  /** Throws RangeError. */
  constructor(options: NvmeOptions = {}) {
    const config = configure(options);
    const queues = config.ioQueues + 1;
    const size = 2 ** Math.ceil(Math.log2(DOORBELLS + 2 * queues * (4 << config.stride)));
    super(
      endpoint({
        ...{ vendorId: VENDOR_ID, deviceId: DEVICE_ID, classCode: CLASS_CODE, revisionId: 1 },
        ...{ bars: { 0: size }, msix: config.vectors, intx: true },
      }),
    );
    this.#core = this.#makeCore(config);
    this.#interrupts = this.#makeInterrupts();
    this.#registers = this.registers(0, controllerRegisters(config.entries, config.stride, queues), {
      INTMS: { written: (bits) => this.#mask(this.#interrupts.mask | bits) },
      INTMC: { written: (bits) => this.#mask(this.#interrupts.mask & ~bits) },
      CC: { written: (now, before) => this.#configured(now, before) },
      DOORBELL: { written: (value, _before, index) => this.#rung(index, value) },
    });
  }

  /** Kelvin: the composite temperature. One beyond its threshold is an asynchronous event where those are enabled. */
  get temperature(): number {
    return this.#core.health.temperature;
  }

  set temperature(kelvin: number) {
    if (!Number.isInteger(kelvin) || kelvin < 0 || kelvin > 0xffff)
      throw new RangeError(`a temperature is 0 to 65535 kelvins, not ${kelvin}`);
    this.#core.health.temperature = kelvin;
    this.#core.temperatureChanged();
  }

  /**
   * Takes the next `count` I/O commands and does not answer: until they are aborted; with `deaf`, aborts find nothing either,
   * and only a controller reset helps.
   */
  loseCommands(count: number, { deaf = false }: { readonly deaf?: boolean } = {}): void {
    this.#losses = count;
    this.#deaf = deaf;
  }

  /** A fatal error: CSTS.CFS, and nothing is done any more until software resets the controller (9.5). */
  fail(): void {
    this.#life++;
    this.#live = false;
    this.#registers.CSTS.update({ CFS: 1 });
  }

  /** A function reset: nothing of the controller is left. */
  protected override afterReset(): void {
    this.#stop();
  }

  #makeCore(config: NvmeConfig): Core & { pageSize: number } {
    const registers = () => this.#registers;
    return {
      config,
      features: new Features(config.ioQueues, config.vectors),
      health: new Health(),
      errors: new ErrorLog(),
      events: new AsyncEvents(),
      submissionQueues: new Map(),
      completionQueues: new Map(),
      dma: this.dma,
      ids: { vendor: VENDOR_ID, subsystem: 0 },
      pageSize: LEAST_PAGE,
      get entrySizes() {
        const { CC } = registers();
        return { submission: CC.field('IOSQES'), completion: CC.field('IOCQES') };
      },
      delay: (nanoseconds) => this.delay(nanoseconds),
      temperatureChanged: () => this.#checkTemperature(),
    };
  }

  #makeInterrupts(): Interrupts {
    const port = {
      messages: () => this.msiEnabled,
      raiseMessage: (vector: number) => void this.raiseMsi(vector),
      setPin: (level: boolean) => this.setIntx(level),
      schedule: (nanoseconds: number, event: () => void) => {
        const life = this.#life;
        this.schedule(nanoseconds, () => {
          if (life === this.#life) event();
        });
      },
    };
    return new Interrupts(port, this.#core.features, this.#core.completionQueues);
  }

  // ---- Registers

  #mask(bits: number): void {
    this.#interrupts.mask = bits;
    this.#registers.INTMS.write(this.#interrupts.mask);
    this.#registers.INTMC.write(this.#interrupts.mask);
  }

  /** CC (3.1.5): enabling, controller reset (7.3.2), shutdown (7.6.2). */
  #configured(now: { EN: number; SHN: number }, before: { EN: number; SHN: number }): void {
    if (now.EN && !before.EN) this.#run(this.#enable());
    if (!now.EN && before.EN) {
      this.#stop();
      this.#run(this.#disable());
    }
    const shutdown = now.SHN === SHUTDOWN.NORMAL || now.SHN === SHUTDOWN.ABRUPT;
    if (shutdown && now.SHN !== before.SHN) this.#run(this.#shutDown());
  }

  *#enable(): Process {
    yield* this.delay(ENABLE_NANOSECONDS);
    const { CC, CSTS, AQA, ASQ, ACQ, CAP } = this.#registers;
    const { MPS, CSS, AMS } = CC.read();
    const { ASQS, ACQS } = AQA.read();
    const pageSize = LEAST_PAGE << MPS;
    const aligned = (base: bigint) => base % BigInt(pageSize) === 0n;
    const supported = MPS <= CAP.field('MPSMAX') && CSS === 0 && AMS === 0;
    if (!supported || ASQS === 0 || ACQS === 0 || !aligned(ASQ.read()) || !aligned(ACQ.read()))
      return this.fail();
    this.#core.pageSize = pageSize;
    const completions = new CompletionQueue(0, ACQ.read(), ACQS + 1, 0);
    this.#core.completionQueues.set(0, completions);
    this.#core.submissionQueues.set(0, new SubmissionQueue(0, ASQ.read(), ASQS + 1, completions));
    this.#live = true;
    CSTS.update({ RDY: 1 });
  }

  *#disable(): Process {
    yield* this.delay(DISABLE_NANOSECONDS);
    this.#registers.CSTS.write({});
  }

  *#shutDown(): Process {
    const { CSTS } = this.#registers;
    CSTS.update({ SHST: SHUTDOWN_STATUS.OCCURRING });
    yield* this.delay(SHUTDOWN_NANOSECONDS);
    for (const namespace of this.#core.config.namespaces) {
      try {
        flushNamespace(namespace);
      } catch {
        this.#core.health.mediaErrors++;
      }
    }
    this.#live = false;
    CSTS.update({ SHST: SHUTDOWN_STATUS.COMPLETE });
  }

  /** Queues, features and commands are gone; the admin queue's registers stay (7.3.2). */
  #stop(): void {
    this.#life++;
    this.#live = false;
    this.#core.submissionQueues.clear();
    this.#core.completionQueues.clear();
    this.#core.features.reset();
    this.#core.events.reset();
    this.#interrupts.reset();
    this.#mask(0);
  }

  /** A doorbell (3.1.16, 3.1.17): of queue `index` / 2, the tail where it is even, the head where it is odd. */
  #rung(index: number, value: number): void {
    if (!this.#live) return;
    const id = index >>> 1;
    if (index % 2 === 0) {
      const queue = this.#core.submissionQueues.get(id);
      if (!queue || queue.deleted) return this.#badDoorbell(id, ERROR_EVENT.INVALID_DOORBELL_REGISTER);
      if (queue.moveTail(value) !== 'ok') return this.#badDoorbell(id, ERROR_EVENT.INVALID_DOORBELL_VALUE);
      if (!queue.fetching) this.#run(this.#fetch(queue));
      return;
    }
    const queue = this.#core.completionQueues.get(id);
    if (!queue) return this.#badDoorbell(id, ERROR_EVENT.INVALID_DOORBELL_REGISTER);
    if (queue.moveHead(value) !== 'ok') return this.#badDoorbell(id, ERROR_EVENT.INVALID_DOORBELL_VALUE);
    for (const resume of queue.waiting.splice(0)) this.schedule(0, resume);
    this.#interrupts.updatePin();
  }

  #badDoorbell(queue: number, information: number): void {
    this.#core.errors.add({ queue, command: 0xffff, status: 0, namespace: 0, lba: 0n });
    this.#core.events.report(EVENT_TYPE.ERROR, information);
  }

  #checkTemperature(): void {
    const { health, features, events } = this.#core;
    const enabled = (features.value(FEATURE.ASYNC_EVENTS) & (1 << HEALTH_EVENT.TEMPERATURE)) !== 0;
    if (enabled && health.criticalWarning(features.temperatures) !== 0)
      events.report(EVENT_TYPE.HEALTH, HEALTH_EVENT.TEMPERATURE);
  }

  // ---- Commands

  #run(process: Process): void {
    this.start(this.#during(this.#life, process));
  }

  /** A process that ends where it waits when this life of the controller does. */
  *#during(life: number, process: Process): Process {
    for (let next = process.next(); !next.done; next = process.next()) {
      yield next.value;
      if (life !== this.#life) return;
    }
  }

  /** Takes what is in a submission queue, and starts it: commands run at once, in any order. */
  *#fetch(queue: SubmissionQueue): Process {
    queue.fetching = true;
    while (!queue.empty && !queue.deleted) {
      const { address, entries } = queue.next(FETCH);
      let bytes: Uint8Array;
      try {
        bytes = yield* this.dma.read(address, entries * SUBMISSION_ENTRY);
      } catch (error) {
        return this.#failedDma(error);
      }
      for (let i = 0; i < entries; i++) {
        queue.advance();
        const entry = bytes.subarray(i * SUBMISSION_ENTRY, (i + 1) * SUBMISSION_ENTRY);
        this.#run(this.#execute(queue, new Running(new Command(entry))));
      }
    }
    queue.fetching = false;
  }

  *#execute(queue: SubmissionQueue, running: Running): Process {
    const { command } = running;
    const conflict = queue.running.has(command.id);
    if (!conflict) queue.running.set(command.id, running);
    let [status, result]: [number, number] = [STATUS.SUCCESS, 0];
    try {
      if (conflict) throw new CommandError(STATUS.COMMAND_ID_CONFLICT);
      if (queue.id !== 0 && this.#losses > 0) yield* this.#lose(running);
      if (running.lost) return;
      const performed = this.#perform(queue, running);
      result = typeof performed === 'number' ? performed : yield* performed;
    } catch (error) {
      status = statusOf(error);
      this.#log(queue, command, status);
    }
    yield* this.#complete(queue, running, { status, result, conflict });
  }

  #perform(queue: SubmissionQueue, running: Running): Process<number> | number {
    const { command } = running;
    const handler = (queue.id === 0 ? ADMIN_COMMANDS : IO_COMMANDS).get(command.opcode);
    if (!handler) throw new CommandError(STATUS.INVALID_OPCODE);
    // No fused operations; over PCI Express, admin commands have PRPs (4.4).
    if (command.fused !== 0 || (queue.id === 0 && command.dataPointerKind !== 0))
      throw new CommandError(STATUS.INVALID_FIELD);
    return handler(this.#core, running);
  }

  *#lose(running: Running): Process {
    this.#losses--;
    running.lost = this.#deaf;
    if (running.lost) return;
    yield (resume) => (running.wake = resume);
    requireWanted(running);
  }

  #log(queue: SubmissionQueue, command: Command, status: number): void {
    const lba = queue.id === 0 ? 0n : command.quad(10);
    const { id, namespace } = command;
    this.#core.errors.add({ queue: queue.id, command: id, status: statusField(status), namespace, lba });
  }

  /** Writes the completion, once there is room, and interrupts (4.6). */
  *#complete(
    queue: SubmissionQueue,
    { command }: Running,
    { status, result, conflict }: { status: number; result: number; conflict: boolean },
  ): Process {
    const { completions } = queue;
    while (completions.full) yield (resume) => completions.waiting.push(resume);
    // From here on software may use the identifier again.
    if (!conflict) queue.running.delete(command.id);
    const { address, phase } = completions.take();
    const entry = new DataView(new ArrayBuffer(COMPLETION_ENTRY));
    entry.setUint32(0, result, true);
    entry.setUint16(8, queue.head, true);
    entry.setUint16(10, queue.id, true);
    entry.setUint16(12, command.id, true);
    entry.setUint16(14, statusField(status) | phase, true);
    try {
      yield* this.dma.write(address, new Uint8Array(entry.buffer));
    } catch (error) {
      return this.#failedDma(error);
    }
    this.#interrupts.completed(completions);
  }

  /** Without its queues there is nobody to tell. */
  #failedDma(error: unknown): void {
    if (!(error instanceof DmaError)) throw error;
    this.fail();
  }
}

function statusOf(error: unknown): number {
  if (error instanceof CommandError) return error.status;
  if (error instanceof DmaError) return STATUS.DATA_TRANSFER_ERROR;
  throw error;
}
