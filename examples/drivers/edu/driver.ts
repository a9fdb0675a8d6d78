/**
 * A driver for QEMU's educational device, `edu`: it computes factorials, and copies between memory and a buffer of its own.
 * The driver does not know whether the device is QEMU's, behind VFIO, or simulated.
 */
import { IommuError, type Device, type Interrupt, type Iommu, type Registers } from 'iommufd';
import { BUFFER, BUFFER_SIZE, DEVICE_ID, EDU, MAGIC, VENDOR_ID } from './registers';

/** Milliseconds that an interrupt may take before the driver looks for itself: one may be lost. */
const PATIENCE = 200;
/** Milliseconds that the device may take. QEMU's needs 100 for a DMA. */
const TIMEOUT = 5000;

/** Most bytes of one transfer: QEMU before 8.0 takes a transfer of the whole buffer for one beyond it, and dies. */
export const EDU_TRANSFER_MAXIMUM = BUFFER_SIZE - 1;

/** The device did not do what was asked of it. */
export class EduError extends Error {
  override readonly name = 'EduError';

  /**
   * `code`: ENODEV (it is not there, or not an edu), ETIMEDOUT (it has not ended: it may still move the memory that it was
   * told to, until it is closed).
   */
  constructor(
    readonly code: 'ENODEV' | 'ETIMEDOUT',
    message: string,
  ) {
    super(message);
  }
}

export interface EduOptions {
  /** Gives up before the device was asked. Once it was, the promise ends when the device is done with the memory. */
  readonly signal?: AbortSignal | undefined;
}

export class EduDriver {
  readonly device: Device;
  readonly #registers: Registers<typeof EDU>;
  readonly #interrupt: Interrupt;
  /** The device does one thing at a time: the end of what was asked last. */
  #last: Promise<unknown> = Promise.resolve();

  constructor(device: Device) {
    this.device = device;
    this.#registers = device.region('bar0').registers(EDU);
    this.#check();
    // VFIO hands devices over unable to do DMA or to send interrupts.
    device.enableBusMaster();
    this.#interrupt = device.interrupt('msi');
  }

  /** Binds the machine's edu device; `which`, where it has several: 0 is the first. */
  static open(iommu: Iommu, cookie: bigint, which = 0): EduDriver {
    const found = iommu.devices().filter((d) => d.vendorId === VENDOR_ID && d.deviceId === DEVICE_ID)[which];
    if (!found) throw new EduError('ENODEV', `this machine has no edu device${which > 0 ? ` ${which}` : ''}`);
    const device = iommu.bind(found, { cookie });
    try {
      return new EduDriver(device);
    } catch (error) {
      device.close();
      throw error;
    }
  }

  /** Whether it answers: it inverts what it is given. */
  alive(): boolean {
    this.#registers.LIVENESS.write(0x5aa5_0ff0);
    return this.#registers.LIVENESS.read() === 0xa55a_f00f;
  }

  /** n!, modulo 2^32; n is 0 to 2^32 - 1 (QEMU's computes for minutes then). */
  factorial(n: number, options: EduOptions = {}): Promise<number> {
    return this.#inTurn(options, async () => {
      const { FACTORIAL, STATUS } = this.#registers;
      await this.#idle();
      STATUS.write({ INTERRUPT: 1 });
      FACTORIAL.write(n);
      await this.#ended(() => STATUS.field('COMPUTING') === 0);
      return FACTORIAL.read();
    });
  }

  /**
   * Has the device copy `length` bytes of memory at `iova` into its buffer, to byte `at` of it. The device does not say
   * whether it could: what it could not read arrives as zeros.
   */
  fetch(
    iova: bigint,
    length: number,
    { at = 0, ...options }: EduOptions & { at?: number } = {},
  ): Promise<void> {
    checkTransfer(at, length);
    return this.#inTurn(options, () => this.#transfer(iova, BigInt(BUFFER + at), length, 0));
  }

  /** Has the device copy its buffer, from byte `at` of it, to memory at `iova`. What it could not write is lost. */
  store(
    iova: bigint,
    length: number,
    { at = 0, ...options }: EduOptions & { at?: number } = {},
  ): Promise<void> {
    checkTransfer(at, length);
    return this.#inTurn(options, () => this.#transfer(BigInt(BUFFER + at), iova, length, 1));
  }

  async #transfer(source: bigint, destination: bigint, length: number, toMemory: 0 | 1): Promise<void> {
    const { DMA_SOURCE, DMA_DESTINATION, DMA_COUNT, DMA_COMMAND } = this.#registers;
    await this.#idle();
    DMA_SOURCE.write(source);
    DMA_DESTINATION.write(destination);
    DMA_COUNT.write(length);
    DMA_COMMAND.write({ START: 1, TO_MEMORY: toMemory, INTERRUPT: 1 });
    await this.#ended(() => DMA_COMMAND.field('START') === 0);
  }

  #inTurn<T>({ signal }: EduOptions, work: () => Promise<T>): Promise<T> {
    const turn = this.#last.then(async () => {
      signal?.throwIfAborted();
      const result = await work();
      signal?.throwIfAborted();
      return result;
    });
    this.#last = turn.catch(() => {});
    return turn;
  }

  /** What was given up goes on in the device, which ignores what it is told meanwhile. */
  #idle(): Promise<void> {
    const { STATUS, DMA_COMMAND } = this.#registers;
    return this.#ended(() => STATUS.field('COMPUTING') === 0 && DMA_COMMAND.field('START') === 0);
  }

  /** The interrupt says when to look; a register says what is so. */
  async #ended(look: () => boolean): Promise<void> {
    const { INTERRUPT_STATUS, INTERRUPT_ACKNOWLEDGE } = this.#registers;
    const start = performance.now();
    while (!look()) {
      this.#check();
      if (performance.now() - start > TIMEOUT)
        throw new EduError('ETIMEDOUT', `${this.device.name} has not ended after ${TIMEOUT} ms`);
      try {
        await this.#interrupt.next({ timeout: PATIENCE });
      } catch (error) {
        if (!(error instanceof IommuError && error.code === 'ETIMEDOUT')) throw error;
      }
    }
    this.#check();
    INTERRUPT_ACKNOWLEDGE.write(INTERRUPT_STATUS.readRaw());
  }

  /** Of a device that was pulled out, registers read as ones. */
  #check(): void {
    const found = this.#registers.IDENTIFICATION.read();
    if (found.MAGIC !== MAGIC)
      throw new EduError(
        'ENODEV',
        found.MAGIC === 0xff
          ? `${this.device.name} does not answer`
          : `${this.device.name} is no edu device: its identification ends with 0x${found.MAGIC.toString(16)}`,
      );
  }

  /** Gives the device back. What it was asked for and has not done is rejected. */
  close(): void {
    this.device.close();
  }
}

function checkTransfer(at: number, length: number): void {
  if (!Number.isInteger(length) || length < 1 || length > EDU_TRANSFER_MAXIMUM)
    throw new RangeError(`the device moves 1 to ${EDU_TRANSFER_MAXIMUM} bytes at a time, not ${length}`);
  if (!Number.isInteger(at) || at < 0 || at + length > BUFFER_SIZE)
    throw new RangeError(`${length} bytes at ${at} are not in the device's buffer of ${BUFFER_SIZE}`);
}
