/** Setting a DSA up: one group with all engines and one dedicated work queue. */
import type { Device, Region, Registers } from 'iommufd';
import { DsaError } from './errors';
import { COMMANDS, DSA, ENABLED, GROUP, TABLE_UNIT, VECTOR, VECTOR_BYTES, WORK_QUEUE } from './registers';

const QUEUE = 0;
/** Milliseconds for a command. */
const COMMAND_TIMEOUT = 500;
const GONE = 0xffff_ffff;
/** Interrupt vectors: of errors, and of completions. */
export const ERROR_VECTOR = 0;
export const COMPLETION_VECTOR = 1;

export interface QueueSetup {
  readonly entries: number;
  readonly pasid: number | undefined;
  readonly block: boolean;
}

export class Controller {
  readonly device: Device;
  /** Bytes of a transfer and descriptors of a batch, at most. */
  readonly maxTransfer: number;
  readonly maxBatch: number;
  /** A bit for each opcode that the device has. */
  readonly opcodes: bigint;
  readonly #setup: QueueSetup;
  readonly #bar: Region;
  readonly #registers: Registers<typeof DSA>;
  readonly #portals: Region;

  constructor(device: Device, setup: QueueSetup) {
    this.device = device;
    this.#setup = setup;
    this.#bar = device.region('bar0');
    this.#registers = this.#bar.registers(DSA);
    // Descriptors go to the work queue's first page; the others are for other kinds of interrupts and limits.
    this.#portals = device.region('bar2');
    if (this.#registers.VERSION.field('MAJOR') !== 1)
      throw new DsaError('ENODEV', `${device.name} is no DSA of version 1`);
    const { MAX_TRANSFER, MAX_BATCH } = this.#registers.GENCAP.read();
    this.maxTransfer = 2 ** MAX_TRANSFER;
    this.maxBatch = 2 ** MAX_BATCH;
    this.opcodes = this.#registers.OPCAP.read();
  }

  /** Registers of a device that was pulled out read as ones. */
  get gone(): boolean {
    return this.#registers.VERSION.readRaw() === GONE;
  }

  /** False: it was reset. */
  get enabled(): boolean {
    return this.#registers.GENSTS.field('STATE') === ENABLED;
  }

  /** From whatever state it is in to one that takes descriptors. */
  async start(): Promise<void> {
    await this.#command(COMMANDS.RESET_DEVICE);
    const { ENGCAP, GENCAP, TABLES, GENCTRL } = this.#registers;
    const tables = TABLES.read();
    const { entries, pasid, block } = this.#setup;
    const group = this.#bar.registers(GROUP, tables.GROUPS * TABLE_UNIT);
    group.WQS.write(1n << BigInt(QUEUE));
    group.ENGINES.write((1n << BigInt(ENGCAP.field('ENGINES'))) - 1n);
    const queue = this.#bar.registers(WORK_QUEUE, tables.WQS * TABLE_UNIT);
    queue.SIZE.write(entries);
    queue.MODE.write({
      ...{ DEDICATED: 1, PRIORITY: 10, BLOCK_ON_FAULT: block ? 1 : 0 },
      ...(pasid !== undefined && { PASID_ENABLE: 1, PASID: pasid }),
    });
    const { MAX_TRANSFER, MAX_BATCH } = GENCAP.read();
    queue.LIMITS.write({ MAX_TRANSFER, MAX_BATCH });
    const vector = this.#bar.registers(
      VECTOR,
      tables.VECTORS * TABLE_UNIT + COMPLETION_VECTOR * VECTOR_BYTES,
    );
    vector.PERMISSION.write(pasid === undefined ? 0 : { PASID_ENABLE: 1, PASID: pasid });
    GENCTRL.write({ ERROR_INTERRUPT: 1 });
    await this.#command(COMMANDS.ENABLE_DEVICE);
    await this.#command(COMMANDS.ENABLE_WQ, QUEUE);
  }

  /** The device forgets all descriptors: from then on it writes to no memory of theirs. */
  async abort(): Promise<void> {
    await this.#command(COMMANDS.ABORT_WQ, 1 << QUEUE);
  }

  /** One write of 64 bytes. Nobody says whether the queue was full: count. */
  submit(descriptor: Uint8Array): void {
    this.#portals.writeBlock(0, descriptor);
  }

  /** Takes the error that no completion record tells of. */
  takeError(): { status: number; address: bigint } | undefined {
    const { SWERR, SWERR_ADDRESS, INTCAUSE } = this.#registers;
    const { VALID, ERROR } = SWERR.read();
    if (!VALID || this.gone) return undefined;
    const address = SWERR_ADDRESS.read();
    INTCAUSE.write(INTCAUSE.read());
    SWERR.write({ VALID: 1, OVERFLOW: 1 });
    return { status: ERROR, address };
  }

  async #command(command: number, operand = 0): Promise<void> {
    const { CMD, CMDSTS } = this.#registers;
    if (this.gone) throw new DsaError('ENODEV', `${this.device.name} does not answer: it is gone`);
    CMD.write({ COMMAND: command, OPERAND: operand });
    const { ERROR } = await CMDSTS.waitFor({ ACTIVE: 0 }, { timeout: COMMAND_TIMEOUT });
    if (ERROR)
      throw new DsaError(
        'EIO',
        `${this.device.name} refuses command ${command}: error 0x${ERROR.toString(16)}`,
      );
  }
}
