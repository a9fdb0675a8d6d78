/** The driver of the checksum device. It does not know whether the device is simulated. */
import { IommuError, type Device, type Interrupt, type Iommu, type Registers } from 'iommufd';
import { CHECKSUM, DEVICE_ID, VENDOR_ID } from './registers';

/** How long the interrupt may take, in milliseconds, before the driver looks for itself. */
const PATIENCE = 100;

export class ChecksumDriver {
  readonly device: Device;
  readonly #registers: Registers<typeof CHECKSUM>;
  readonly #interrupt: Interrupt;

  constructor(device: Device) {
    this.device = device;
    this.#registers = device.region('bar0').registers(CHECKSUM);
    const version = this.#registers.VERSION.read();
    if (version !== 1)
      throw new Error(`${device.name} is no checksum device of version 1: 0x${version.toString(16)}`);
    // VFIO hands devices over unable to do DMA or to send interrupts.
    device.enableBusMaster();
    this.#interrupt = device.interrupt('msix', 0);
  }

  static open(iommu: Iommu, cookie: bigint): ChecksumDriver {
    const found = iommu.devices().find((d) => d.vendorId === VENDOR_ID && d.deviceId === DEVICE_ID);
    if (!found) throw new Error('this machine has no checksum device');
    const device = iommu.bind(found, { cookie });
    try {
      return new ChecksumDriver(device);
    } catch (error) {
      device.close();
      throw error;
    }
  }

  /** The CRC-32 of memory that the device reaches at `iova`, with a PASID or without. One at a time. */
  async crc32(iova: bigint, length: number, { pasid }: { pasid?: number } = {}): Promise<number> {
    const { SOURCE, LENGTH, CONTROL, CAUSE, RESULT, FAULT_ADDRESS } = this.#registers;
    SOURCE.write(iova);
    LENGTH.write(length);
    CONTROL.write({ START: 1, PASID_ENABLE: pasid === undefined ? 0 : 1, PASID: pasid ?? 0 });
    await this.#finished();
    const cause = CAUSE.read();
    CAUSE.write(cause);
    if (cause.DONE === cause.FAILED)
      throw new Error(`${this.device.name} is gone, or broken: it does not say how it ended`);
    if (cause.FAILED) throw new Error(`no access to memory at 0x${FAULT_ADDRESS.read().toString(16)}`);
    return RESULT.read();
  }

  /** Waits for the interrupt; where none comes, or a late one of before, the status register tells. */
  async #finished(): Promise<void> {
    while (this.#registers.STATUS.field('BUSY') === 1) {
      try {
        await this.#interrupt.next({ timeout: PATIENCE });
      } catch (error) {
        if (!(error instanceof IommuError && error.code === 'ETIMEDOUT')) throw error;
        // Of a device that was pulled out, registers read as ones.
        if (this.#registers.VERSION.read() !== 1)
          throw new Error(`${this.device.name} does not answer`, { cause: error });
      }
    }
  }

  close(): void {
    this.device.close();
  }
}
