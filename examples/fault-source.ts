/**
 * Devices that touch pages which are not mapped. The simulated machine has a DMA engine with ATS and PRI; no
 * device that QEMU offers has them, so on a real kernel a device of its mock IOMMU stands in.
 */
import type { BoundDevice, Device, DmaBuffer, Iommu, MockDevice, Region } from 'iommufd';
import * as reg from 'iommufd/sim';

const BYTES = 64;

export interface FaultSource {
  /** What faults, for people. */
  readonly description: string;
  readonly device: BoundDevice;
  /** Has the device write to `iova`, with `pasid`. */
  touch(iova: bigint, pasid: number): void;
  /** After the fault was answered: whether the write arrived in `buffer`, which is mapped at `iova` now. */
  recovered(iova: bigint, pasid: number, buffer: DmaBuffer): Promise<boolean>;
}

/** Binds a device that can fault. */
export function openFaultSource(iommu: Iommu, cookie: bigint): FaultSource {
  const engine = iommu
    .devices()
    .find((d) => d.vendorId === reg.DMA_ENGINE_VENDOR_ID && d.deviceId === reg.DMA_ENGINE_DEVICE_ID);
  if (engine) return new EngineSource(iommu.bind(engine, { cookie }));
  return new MockSource(iommu.createMockDevice({ cookie, pasid: true }));
}

/** The simulated DMA engine: it asks for the page, waits for the answer, and goes on by itself. */
class EngineSource implements FaultSource {
  readonly description: string;
  readonly #bar: Region;

  constructor(readonly device: Device) {
    this.description = `DMA engine ${device.bdf} (ATS, PRI, PASID)`;
    device.enableBusMaster();
    this.#bar = device.region('bar0');
  }

  touch(iova: bigint, pasid: number): void {
    const { DESTINATION, LENGTH, PASID, CONTROL, BUFFER } = reg.dmaEngine;
    for (let at = 0; at < BYTES; at += 4) this.#bar.write32(BUFFER + at, 0x5eed0000 | at);
    this.#bar.write64(DESTINATION, iova);
    this.#bar.write32(LENGTH, BYTES);
    this.#bar.write32(PASID, (reg.PASID_ENABLE | pasid) >>> 0);
    this.#bar.write32(
      CONTROL,
      reg.CONTROL_START | reg.OPERATION_WRITE | reg.CONTROL_ATS | reg.CONTROL_PAGE_REQUESTS,
    );
  }

  async recovered(_iova: bigint, _pasid: number, buffer: DmaBuffer): Promise<boolean> {
    const { STATUS, BUFFER } = reg.dmaEngine;
    while (this.#bar.read32(STATUS) & reg.STATUS_BUSY) await new Promise(setImmediate);
    if (this.#bar.read32(STATUS) >>> reg.STATUS_ERROR_SHIFT !== reg.ERROR_NONE) return false;
    const memory = new DataView(buffer.bytes.buffer);
    for (let at = 0; at < BYTES; at += 4)
      if (memory.getUint32(at, true) !== this.#bar.read32(BUFFER + at)) return false;
    return true;
  }
}

/** The kernel's mock device: it reports a fault on command, and its page table can be asked afterwards. */
class MockSource implements FaultSource {
  readonly description = "the kernel's mock device (IOMMU_TEST_CMD)";

  constructor(readonly device: MockDevice) {}

  touch(address: bigint, pasid: number): void {
    this.device.triggerFault({ address, pasid, permissions: { read: false, write: true } });
  }

  recovered(iova: bigint, pasid: number, buffer: DmaBuffer): Promise<boolean> {
    return Promise.resolve(this.device.translates(iova, buffer, { pasid }));
  }
}
