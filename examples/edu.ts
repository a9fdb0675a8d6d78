/**
 * A driver for QEMU's educational device, `edu` (QEMU, docs/specs/edu.rst): enough to move memory with it. It
 * does not know whether the device is QEMU's, behind VFIO, or simulated.
 */
import { defineRegisters, type Device, type Interrupt, type Iommu, type Registers } from 'iommufd';

const VENDOR_ID = 0x1234;
const DEVICE_ID = 0x11e8;

/** Registers in BAR 0. Those below 0x80 take accesses of 4 bytes only. */
const EDU = defineRegisters({
  IDENTIFICATION: {
    offset: 0x00,
    width: 32,
    access: 'ro',
    fields: { MAJOR: [31, 24], MINOR: [23, 16], MAGIC: [7, 0] },
  },
  INTERRUPT_STATUS: { offset: 0x24, width: 32, access: 'ro' },
  INTERRUPT_ACKNOWLEDGE: { offset: 0x64, width: 32, access: 'wo' },
  DMA_SOURCE: { offset: 0x80, width: 64 },
  DMA_DESTINATION: { offset: 0x88, width: 64 },
  DMA_COUNT: { offset: 0x90, width: 64 },
  DMA_COMMAND: { offset: 0x98, width: 64, fields: { START: 0, TO_MEMORY: 1, INTERRUPT: 2 } },
});

/** Where the device's own buffer of 4096 bytes is. */
const BUFFER = 0x40000n;
/** Most bytes of one transfer: QEMU before 8.0 takes a transfer of the whole buffer for one beyond it, and dies. */
export const EDU_TRANSFER_MAXIMUM = 4095;

export class EduDriver {
  readonly device: Device;
  readonly #registers: Registers<typeof EDU>;
  readonly #interrupt: Interrupt;

  private constructor(device: Device) {
    this.device = device;
    // VFIO hands devices over unable to do DMA or to send interrupts.
    device.enableBusMaster();
    this.#registers = device.region('bar0').registers(EDU);
    this.#interrupt = device.interrupt('msi');
    const { MAGIC } = this.#registers.IDENTIFICATION.read();
    if (MAGIC !== 0xed)
      throw new Error(`${device.name} is no edu device: its ID ends with 0x${MAGIC.toString(16)}`);
  }

  /** Binds the machine's edu device; `which`, where it has several: 0 is the first. */
  static open(iommu: Iommu, cookie: bigint, which = 0): EduDriver {
    const found = iommu.devices().filter((d) => d.vendorId === VENDOR_ID && d.deviceId === DEVICE_ID)[which];
    if (!found) throw new Error(`this machine has no edu device${which > 0 ? ` ${which}` : ''}`);
    return new EduDriver(iommu.bind(found, { cookie }));
  }

  /** Has the device copy `length` bytes of memory at `iova` into its buffer. */
  fetch(iova: bigint, length: number): Promise<void> {
    return this.#transfer(iova, BUFFER, length, 0);
  }

  /** Has the device copy its buffer to memory at `iova`. */
  store(iova: bigint, length: number): Promise<void> {
    return this.#transfer(BUFFER, iova, length, 1);
  }

  async #transfer(source: bigint, destination: bigint, length: number, toMemory: 0 | 1): Promise<void> {
    const registers = this.#registers;
    registers.DMA_SOURCE.write(source);
    registers.DMA_DESTINATION.write(destination);
    registers.DMA_COUNT.write(length);
    registers.DMA_COMMAND.write({ START: 1, TO_MEMORY: toMemory, INTERRUPT: 1 });
    for await (const _ of this.#interrupt) break;
    registers.INTERRUPT_ACKNOWLEDGE.write(registers.INTERRUPT_STATUS.read());
  }

  close(): void {
    this.device.close();
  }
}
