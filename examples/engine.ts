/** A driver for the simulated DMA engine: memory in and out, with a PASID or without, waiting for pages that are missing. */
import type { Device, Iommu, Region } from 'iommufd';
import * as reg from 'iommufd/sim';

const R = reg.dmaEngine;

export interface EngineOptions {
  /** The PASID that its requests carry. */
  readonly pasid?: number | undefined;
  /** Ask for pages that are missing, and wait for the answer. */
  readonly askForPages?: boolean | undefined;
}

export class EngineDriver {
  readonly #bar: Region;

  constructor(readonly device: Device) {
    device.enableBusMaster();
    this.#bar = device.region('bar0');
  }

  /** Binds one of the machine's DMA engines: 0 is the first. */
  static open(iommu: Iommu, cookie: bigint, which = 0): EngineDriver {
    const engines = iommu
      .devices()
      .filter((d) => d.vendorId === reg.DMA_ENGINE_VENDOR_ID && d.deviceId === reg.DMA_ENGINE_DEVICE_ID);
    if (!engines[which]) throw new Error('this machine has no DMA engine: only simulated ones have');
    return new EngineDriver(iommu.bind(engines[which], { cookie }));
  }

  /** The bytes at an address, up to 2048; undefined where the device may not read them. */
  async read(address: bigint, length: number, options: EngineOptions = {}): Promise<Uint8Array | undefined> {
    this.#bar.write64(R.SOURCE, address);
    if (!(await this.#run(reg.OPERATION_READ, length, options))) return undefined;
    return Uint8Array.from({ length }, (_, i) => this.#bar.read8(R.BUFFER + i));
  }

  /** Writes up to 2048 bytes; false where the device may not. */
  write(address: bigint, bytes: Uint8Array, options: EngineOptions = {}): Promise<boolean> {
    bytes.forEach((byte, i) => this.#bar.write8(R.BUFFER + i, byte));
    this.#bar.write64(R.DESTINATION, address);
    return this.#run(reg.OPERATION_WRITE, bytes.length, options);
  }

  async #run(operation: number, length: number, { pasid, askForPages }: EngineOptions): Promise<boolean> {
    this.#bar.write32(R.LENGTH, length);
    this.#bar.write32(R.PASID, pasid === undefined ? 0 : (reg.PASID_ENABLE | pasid) >>> 0);
    const route = askForPages ? reg.CONTROL_ATS | reg.CONTROL_PAGE_REQUESTS : 0;
    this.#bar.write32(R.CONTROL, reg.CONTROL_START | operation | route);
    while (this.#bar.read32(R.STATUS) & reg.STATUS_BUSY) await new Promise(setImmediate);
    return this.#bar.read32(R.STATUS) >>> reg.STATUS_ERROR_SHIFT === reg.ERROR_NONE;
  }
}
