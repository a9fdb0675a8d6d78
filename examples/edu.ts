/**
 * A driver for QEMU's educational device, `edu` (QEMU, docs/specs/edu.rst): enough to move memory with it. It
 * does not know whether the device is QEMU's, behind VFIO, or simulated.
 */
import type { Device, Interrupt, Iommu, Region } from 'iommufd';

const VENDOR_ID = 0x1234;
const DEVICE_ID = 0x11e8;

// Registers in BAR 0.
const IDENTIFICATION = 0x00;
const INTERRUPT_STATUS = 0x24;
const INTERRUPT_ACKNOWLEDGE = 0x64;
const DMA_SOURCE = 0x80;
const DMA_DESTINATION = 0x88;
const DMA_COUNT = 0x90;
const DMA_COMMAND = 0x98;

const DMA_START = 1n;
const DMA_TO_MEMORY = 2n;
const DMA_INTERRUPT = 4n;

/** Where the device's own buffer of 4096 bytes is. */
const BUFFER = 0x40000n;
/** Most bytes of one transfer: QEMU before 8.0 takes a transfer of the whole buffer for one beyond it, and dies. */
export const EDU_TRANSFER_MAXIMUM = 4095;

export class EduDriver {
  readonly device: Device;
  readonly #bar: Region;
  readonly #interrupt: Interrupt;

  private constructor(device: Device) {
    this.device = device;
    // VFIO hands devices over unable to do DMA or to send interrupts.
    device.enableBusMaster();
    this.#bar = device.region('bar0');
    this.#interrupt = device.interrupt('msi');
    const id = this.#bar.read32(IDENTIFICATION);
    if ((id & 0xff) !== 0xed) throw new Error(`this is no edu device: its ID is 0x${id.toString(16)}`);
  }

  /** Binds the machine's edu device; `which`, where it has several: 0 is the first. */
  static open(iommu: Iommu, cookie: bigint, which = 0): EduDriver {
    const found = iommu.devices().filter((d) => d.vendorId === VENDOR_ID && d.deviceId === DEVICE_ID)[which];
    if (!found) throw new Error(`this machine has no edu device${which > 0 ? ` ${which}` : ''}`);
    return new EduDriver(iommu.bind(found, { cookie }));
  }

  /** Has the device copy `length` bytes of memory at `iova` into its buffer. */
  fetch(iova: bigint, length: number): Promise<void> {
    return this.#transfer(iova, BUFFER, length, 0n);
  }

  /** Has the device copy its buffer to memory at `iova`. */
  store(iova: bigint, length: number): Promise<void> {
    return this.#transfer(BUFFER, iova, length, DMA_TO_MEMORY);
  }

  async #transfer(source: bigint, destination: bigint, length: number, direction: bigint): Promise<void> {
    this.#bar.write64(DMA_SOURCE, source);
    this.#bar.write64(DMA_DESTINATION, destination);
    this.#bar.write64(DMA_COUNT, length);
    this.#bar.write64(DMA_COMMAND, DMA_START | DMA_INTERRUPT | direction);
    for await (const _ of this.#interrupt) break;
    this.#bar.write32(INTERRUPT_ACKNOWLEDGE, this.#bar.read32(INTERRUPT_STATUS));
  }

  close(): void {
    this.device.close();
  }
}
