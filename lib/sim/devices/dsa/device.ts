/**
 * A data streaming accelerator with the layout of Intel DSA's: work queues that take 64-byte descriptors through portals,
 * engines in groups that move, fill and compare memory, completion records. With ATS, PRI and PASID: a page that is missing
 * ends an operation with a partial completion, or is asked for and waited for.
 */
import { endpoint } from '../endpoint';
import { PciDevice } from '../pci-device';
import * as pci from '../pci-registers';
import type { Process } from '../process';
import { execute, type Administered } from './commands';
import type { GroupConfig } from './configuration';
import {
  type Descriptor,
  decodeDescriptor,
  DESCRIPTOR_BYTES,
  type Outcome,
  STATUS,
  submitterOf,
} from './descriptor';
import { Dispatcher } from './dispatcher';
import * as reg from './registers';
import { type Job, WorkQueue } from './work-queue';

const REGISTERS_BAR = 0;
const PORTAL_BAR = 2;
const COMMAND_NANOSECONDS = 1000;

export class Dsa extends PciDevice {
  readonly #queues = Array.from({ length: reg.WORK_QUEUES }, (_, index) => new WorkQueue(index));
  readonly #registers = this.registers(REGISTERS_BAR, reg.DSA_REGISTERS, {
    CMD: { written: ({ COMMAND, OPERAND, INTERRUPT }) => this.#command(COMMAND, OPERAND, INTERRUPT === 1) },
  });
  readonly #groups = Array.from({ length: reg.GROUPS }, (_, index) => this.#makeGroup(index));
  readonly #permissions = this.registers(REGISTERS_BAR, reg.VECTOR_PERMISSION, {}, reg.PERMISSION_TABLE)
    .PERMISSION;
  readonly #dispatcher = new Dispatcher({
    dma: this.dma,
    start: (process) => this.start(process),
    delay: (nanoseconds) => this.delay(nanoseconds),
    groups: () => this.#membership(),
    permissions: (job) => ({ interrupt: this.#mayInterrupt(job), privileged: this.#privileged }),
    raise: (vector) => void this.raiseMsi(vector),
    report: (job, outcome) => this.#report(job.queue, job.descriptor, outcome, job),
  });

  constructor() {
    super(
      endpoint({
        ...{ vendorId: reg.DSA_VENDOR_ID, deviceId: reg.DSA_DEVICE_ID, classCode: 0x088000 },
        bars: { [REGISTERS_BAR]: 0x10000, [PORTAL_BAR]: reg.WORK_QUEUES * reg.PORTALS * reg.PORTAL_BYTES },
        ...{ msix: reg.VECTORS, ats: true, pri: 512, pasid: 20 },
      }),
    );
    for (const queue of this.#queues)
      queue.config = this.registers(
        REGISTERS_BAR,
        reg.WORK_QUEUE_CONFIG,
        queue.handlers(() => this.#state === reg.STATE.DISABLED),
        reg.WORK_QUEUE_TABLE + queue.index * reg.WORK_QUEUE_BYTES,
      );
  }

  // ---- Portals

  override get portalBar(): number {
    return PORTAL_BAR;
  }

  /** A posted write of 64 bytes: descriptors for dedicated queues come so. Nobody hears of one that is not taken, but SWERR. */
  override writeBarBlock(bar: number, offset: number, bytes: Uint8Array): void {
    if (bar !== PORTAL_BAR) return super.writeBarBlock(bar, offset, bytes);
    if (!this.config.memoryEnabled) return;
    const { queue, handles } = this.#portal(offset);
    const descriptor = decodeDescriptor(bytes);
    if (handles && queue.dedicated && queue.submit(descriptor, queue.entries)) this.#dispatcher.dispatch();
    else this.#report(queue, descriptor, { status: STATUS.NOT_ACCEPTED });
  }

  /** A deferrable write: descriptors for shared queues come so, with the PASID of whoever writes. */
  override enqueue(bar: number, offset: number, bytes: Uint8Array): boolean | undefined {
    if (bar !== PORTAL_BAR || !this.config.memoryEnabled || bytes.length !== DESCRIPTOR_BYTES)
      return undefined;
    const { queue, handles, limited } = this.#portal(offset);
    if (!handles || queue.dedicated) return false;
    const descriptor = decodeDescriptor(bytes);
    const limit = limited ? queue.config.THRESHOLD.field('ENTRIES') : queue.entries;
    if (!queue.submit(descriptor, limit, submitterOf(descriptor))) return false;
    this.#dispatcher.dispatch();
    return true;
  }

  /** `handles`: it is one of those for MSI-X vectors; there is no interrupt message storage. */
  #portal(offset: number): { queue: WorkQueue; handles: boolean; limited: boolean } {
    const page = Math.floor(offset / reg.PORTAL_BYTES);
    const portal = page % reg.PORTALS;
    return {
      queue: this.#queues[Math.floor(page / reg.PORTALS)],
      handles: portal < 2,
      limited: portal === 1,
    };
  }

  // ---- Commands

  #command(command: number, operand: number, interrupt: boolean): void {
    if (this.#registers.CMDSTS.field('ACTIVE')) return;
    this.#registers.CMDSTS.write({ ACTIVE: 1 });
    this.start(this.#run(command, operand, interrupt));
  }

  *#run(command: number, operand: number, interrupt: boolean): Process {
    yield* this.delay(COMMAND_NANOSECONDS);
    const error = yield* execute(this.#administered, command, operand);
    this.#registers.CMDSTS.write({ ERROR: error });
    if (!interrupt) return;
    this.#cause(reg.CAUSE.COMMAND);
    this.raiseMsi(0);
  }

  readonly #administered: Administered = this.#makeAdministered();

  /** Bits of the PASID capability's control register. */
  get #pasidControl(): number {
    return this.config.read(
      this.config.extendedCapability(pci.EXTENDED_CAPABILITY_PASID) + pci.PASID_CONTROL,
      2,
    );
  }

  get #privileged(): boolean {
    return (this.#pasidControl & pci.PASID_PRIVILEGED) !== 0;
  }

  #makeAdministered(): Administered {
    const pasids = () => (this.#pasidControl & pci.PASID_CONTROL_ENABLE) !== 0;
    const state = {
      get: () => this.#state,
      set: (value: number) => this.#registers.GENSTS.update({ STATE: value }),
    };
    const busMaster = () => this.config.busMasterEnabled;
    return {
      queues: this.#queues,
      groups: this.#groups,
      get state() {
        return state.get();
      },
      set state(value) {
        state.set(value);
      },
      get busMaster() {
        return busMaster();
      },
      get pasidsEnabled() {
        return pasids();
      },
      clearConfig: () => this.#clearConfig(),
    };
  }

  get #state(): number {
    return this.#registers.GENSTS.field('STATE');
  }

  #clearConfig(): void {
    for (const { WQS, ENGINES, FLAGS } of this.#groups) {
      for (let i = 0; i < WQS.length; i++) WQS.at(i).write(0n);
      ENGINES.write(0n);
      FLAGS.write(0n);
    }
    for (const queue of this.#queues) {
      queue.clearConfig();
      queue.config.SIZE.write(0);
    }
    for (let vector = 0; vector < reg.VECTORS; vector++) this.#permissions.at(vector).write(0);
    this.#registers.GENCFG.write(0);
    this.#registers.GENCTRL.write(0);
    this.#registers.GENSTS.write(0);
  }

  protected override afterReset(): void {
    for (const queue of this.#queues) queue.reset();
    this.#registers.GENSTS.write({ RESET_TYPE: reg.RESET_BY_FUNCTION });
  }

  // ---- Groups

  #makeGroup(index: number): GroupConfig {
    // What is in a group cannot change while the device is on.
    const fixed = {
      written: (_value: bigint, previous: bigint, i: number) => this.#keep(index, i, previous),
    };
    const group: GroupConfig = this.registers(
      REGISTERS_BAR,
      reg.GROUP_CONFIG,
      { WQS: fixed, ENGINES: { written: (_value, previous) => this.#keep(index, undefined, previous) } },
      reg.GROUP_TABLE + index * reg.GROUP_BYTES,
    );
    return group;
  }

  #keep(index: number, word: number | undefined, previous: bigint): void {
    if (this.#state === reg.STATE.DISABLED) return;
    const { WQS, ENGINES } = this.#groups[index];
    if (word === undefined) ENGINES.write(previous);
    else WQS.at(word).write(previous);
  }

  #membership() {
    return this.#groups.map(({ WQS, ENGINES }) => {
      const members = Number(WQS.at(0).read());
      const engines = Number(ENGINES.read());
      const bits = Array.from({ length: reg.ENGINES }, (_, bit) => (engines >>> bit) & 1);
      return {
        queues: this.#queues.filter(({ index }) => members & (1 << index)),
        engines: bits.reduce((sum, bit) => sum + bit, 0),
      };
    });
  }

  // ---- Interrupts and errors

  /** A vector is for the PASID that its permission says, and for descriptors without one if it says none. */
  #mayInterrupt({ descriptor, pasid }: Job): boolean {
    if (descriptor.interrupt >= reg.VECTORS) return false;
    const { IGNORE, PASID_ENABLE, PASID } = this.#permissions.at(descriptor.interrupt).read();
    return !IGNORE && pasid === (PASID_ENABLE ? PASID : undefined);
  }

  #cause(bit: number): void {
    const { INTCAUSE } = this.#registers;
    INTCAUSE.write((INTCAUSE.read() | bit) >>> 0);
  }

  /** The first error stays until software has cleared it. */
  #report(queue: WorkQueue, { opcode }: Descriptor, outcome: Outcome, job?: Job): void {
    const { SWERR, SWERR_MORE, SWERR_ADDRESS } = this.#registers;
    if (SWERR.field('VALID')) {
      SWERR.update({ OVERFLOW: 1 });
    } else {
      SWERR.write({
        ...{ VALID: 1, DESCRIPTOR_VALID: 1, WQ_VALID: 1, WQ: queue.index, OPERATION: opcode },
        BATCH: job?.batchIndex === undefined ? 0 : 1,
        WRITE: outcome.write ? 1 : 0,
        PRIVILEGED: job?.privileged ? 1 : 0,
        ERROR: outcome.status,
        PASID: job?.pasid ?? 0,
      });
      SWERR_MORE.write({ BATCH_INDEX: job?.batchIndex ?? 0, INVALID_FLAGS: outcome.invalidFlags ?? 0 });
      SWERR_ADDRESS.write(outcome.faultAddress ?? 0n);
    }
    this.#cause(reg.CAUSE.ERROR);
    if (this.#registers.GENCTRL.field('ERROR_INTERRUPT')) this.raiseMsi(0);
  }
}
