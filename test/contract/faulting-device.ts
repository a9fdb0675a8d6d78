/**
 * A device whose page faults can be had at will: the simulated DMA engine, which has ATS, PRI and PASID; on Linux,
 * where no virtual hardware has PRI, a device of the kernel's mock IOMMU.
 */
import type { BoundDevice, Device, DmaBuffer, Iommu, MockDevice, Region } from '../../lib';
import * as reg from '../../lib/sim/devices/dma-engine-registers';
import { backend, until } from './support';

export interface Access {
  pasid?: number;
  write?: boolean;
}

export interface FaultingDevice {
  readonly device: BoundDevice;
  /** Starts an access to the page at `iova`; if the page is missing, a fault is reported. */
  access(iova: bigint, options?: Access): Promise<void>;
  /** After the fault was answered: whether the device's read got through to `buffer` at `iova`. */
  reached(iova: bigint, buffer: DmaBuffer, options?: Access): Promise<boolean>;
}

export function faultingDevice(iommu: Iommu, cookie: bigint | number): FaultingDevice {
  return backend === 'linux'
    ? new MockFaults(iommu.createMockDevice({ cookie, pasid: true }))
    : new EngineFaults(iommu.bind('0000:00:05.0', { cookie }));
}

class MockFaults implements FaultingDevice {
  constructor(readonly device: MockDevice) {}

  access(iova: bigint, { pasid, write = false }: Access = {}): Promise<void> {
    this.device.triggerFault({ pasid, address: iova, group: 3, permissions: { read: !write, write } });
    return Promise.resolve();
  }

  reached(iova: bigint, buffer: DmaBuffer, { pasid }: Access = {}): Promise<boolean> {
    return Promise.resolve(this.device.translates(iova, buffer, pasid === undefined ? {} : { pasid }));
  }
}

const LENGTH = 64;
const REG = reg.dmaEngine;

class EngineFaults implements FaultingDevice {
  readonly #bar: Region;

  constructor(readonly device: Device) {
    device.enableBusMaster();
    this.#bar = device.region('bar0');
  }

  async #idle(): Promise<void> {
    await until(() => (this.#bar.read32(REG.STATUS) & reg.STATUS_BUSY) === 0);
  }

  async access(iova: bigint, { pasid, write = false }: Access = {}): Promise<void> {
    await this.#idle();
    const bar = this.#bar;
    for (let at = 0; at < LENGTH; at += 4) bar.write32(REG.BUFFER + at, 0);
    bar.write64(write ? REG.DESTINATION : REG.SOURCE, iova);
    bar.write32(REG.LENGTH, LENGTH);
    bar.write32(REG.PASID, pasid === undefined ? 0 : (reg.PASID_ENABLE | pasid) >>> 0);
    const operation = write ? reg.OPERATION_WRITE : reg.OPERATION_READ;
    bar.write32(REG.CONTROL, reg.CONTROL_START | operation | reg.CONTROL_ATS | reg.CONTROL_PAGE_REQUESTS);
  }

  async reached(_iova: bigint, buffer: DmaBuffer): Promise<boolean> {
    await this.#idle();
    if (this.#bar.read32(REG.STATUS) >>> reg.STATUS_ERROR_SHIFT !== reg.ERROR_NONE) return false;
    for (let at = 0; at < LENGTH; at++)
      if (this.#bar.read8(REG.BUFFER + at) !== buffer.bytes[at]) return false;
    return true;
  }
}
