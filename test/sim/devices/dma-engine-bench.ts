/** A DMA engine on a fake port, enabled, with shorthands for its registers. */
import { NO_PASID } from '../../../lib/sim/bus';
import { DmaEngine } from '../../../lib/sim/devices/dma-engine';
import * as reg from '../../../lib/sim/devices/dma-engine-registers';
import * as pci from '../../../lib/sim/devices/pci-registers';
import { FakePort } from './fake-port';

const R = reg.dmaEngine;
export const PASID = 5;

export class Bench {
  readonly port = new FakePort();
  readonly device = new DmaEngine();

  constructor(allocation = 64) {
    this.device.connect(0x28, this.port);
    this.enable(allocation);
  }
  /** What the system does before it lets a driver use the device. */
  enable(allocation = 64): void {
    const { config } = this.device;
    config.write(pci.COMMAND, 2, pci.COMMAND_MEMORY_SPACE | pci.COMMAND_BUS_MASTER);
    const pasid = config.extendedCapability(pci.EXTENDED_CAPABILITY_PASID);
    config.write(pasid + pci.PASID_CONTROL, 2, 7);
    const pri = config.extendedCapability(pci.EXTENDED_CAPABILITY_PRI);
    config.write(pri + pci.PRI_ALLOCATION, 4, allocation);
    config.write(pri + pci.PRI_CONTROL, 2, pci.PRI_CONTROL_ENABLE);
    const ats = config.extendedCapability(pci.EXTENDED_CAPABILITY_ATS);
    config.write(ats + pci.ATS_CONTROL, 2, pci.ATS_CONTROL_ENABLE);
    for (const vector of [0, 1]) {
      this.device.writeBar(2, 16 * vector, 4, 0xfee00000);
      this.device.writeBar(2, 16 * vector + 8, 4, 0x50 + vector);
      this.device.writeBar(2, 16 * vector + 12, 4, 0);
    }
    config.write(config.capability(pci.CAPABILITY_MSIX) + 2, 2, pci.MSIX_CONTROL_ENABLE);
    this.write(R.INTERRUPT_ENABLE, 3);
  }
  read(offset: number): number {
    return this.device.readBar(0, offset, 4);
  }
  read64(offset: number): number {
    const halves = { high: 0, low: 0 };
    this.device.readBar64(0, offset, halves);
    return halves.high * 2 ** 32 + halves.low;
  }
  write(offset: number, value: number): void {
    this.device.writeBar(0, offset, 4, value);
  }
  start(control: number, source: number, destination: number, length: number, pasid = PASID): void {
    this.device.writeBar64(0, R.SOURCE, Math.floor(source / 2 ** 32), source % 2 ** 32);
    this.device.writeBar64(0, R.DESTINATION, Math.floor(destination / 2 ** 32), destination % 2 ** 32);
    this.write(R.LENGTH, length);
    this.write(R.PASID, pasid === NO_PASID ? 0 : reg.PASID_ENABLE | pasid);
    this.write(R.CONTROL, control | reg.CONTROL_START);
  }
  run(...parameters: Parameters<Bench['start']>): void {
    this.start(...parameters);
    this.port.clock.idle();
  }
  /** Flags and error code. */
  get status(): [number, number] {
    const status = this.read(R.STATUS);
    return [status & 0xff, status >>> 8];
  }
  get messages(): number[] {
    return this.port.messages.map(({ data }) => data);
  }
  respond(code: number): void {
    const request = this.port.pageRequests.at(-1);
    if (request === undefined) throw new Error('no page request to answer');
    this.device.pageGroupResponse(request.pasid, request.prgIndex, code);
    this.port.clock.idle();
  }
}

/** What `status` is after success, and after an error. */
export const DONE = [reg.STATUS_DONE, reg.ERROR_NONE];
export const ended = (error: number, write = false): number[] => [
  reg.STATUS_DONE | (write ? reg.STATUS_FAULT_WRITE : 0),
  error,
];
export const pattern = (length: number, from = 1): Uint8Array =>
  Uint8Array.from({ length }, (_, i) => (from + i * 7) & 0xff);
