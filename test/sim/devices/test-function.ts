/** A function with one of everything, and its protected parts opened for tests. */
import type { PageRequest, TranslationCompletion } from '../../../lib/sim/bus';
import type { FunctionDescription } from '../../../lib/sim/devices/config-space';
import { type Halves, PciFunction } from '../../../lib/sim/devices/pci-function';
import * as pci from '../../../lib/sim/devices/pci-registers';
import { FakePort } from './fake-port';

export const EVERYTHING: FunctionDescription = {
  vendorId: 0x1234,
  deviceId: 0x0001,
  revisionId: 0,
  classCode: 0,
  interruptPin: 1,
  bars: [
    { bar: 0, size: 0x4000, width: 64, prefetchable: false },
    { bar: 2, size: 0x1000, width: 32, prefetchable: false },
  ],
  capabilities: [
    { kind: 'power-management', noSoftReset: false },
    { kind: 'msi', vectors: 4, wide: true, maskable: true },
    { kind: 'express', type: 'endpoint', functionLevelReset: true },
    { kind: 'msix', vectors: 70, table: { bar: 2, offset: 0 }, pending: { bar: 2, offset: 0x800 } },
  ],
  extendedCapabilities: [
    { kind: 'ats', queueDepth: 32 },
    { kind: 'pri', capacity: 16 },
    { kind: 'pasid', width: 8, execute: true, privileged: true },
  ],
};

export class TestFunction extends PciFunction {
  readonly log: string[] = [];
  readonly responses: [number, number, number][] = [];
  readonly upstream = new FakePort();
  resets = 0;

  constructor(description: FunctionDescription = EVERYTHING) {
    super(description);
    this.connect(0x20, this.upstream);
    this.config.write(pci.COMMAND, 2, pci.COMMAND_MEMORY_SPACE | pci.COMMAND_BUS_MASTER);
  }

  protected override readRegister(bar: number, offset: number, width: number): number {
    this.log.push(`read ${bar} ${offset} ${width}`);
    return offset === 0x20 ? -1 : offset;
  }
  protected override writeRegister(bar: number, offset: number, width: number, value: number): void {
    this.log.push(`write ${bar} ${offset} ${width} ${value.toString(16)}`);
  }
  protected override onReset(): void {
    this.resets++;
  }
  protected override onPageGroupResponse(pasid: number, prgIndex: number, code: number): void {
    this.responses.push([pasid, prgIndex, code]);
  }

  raise(vector: number): boolean {
    return this.raiseMsi(vector);
  }
  level(level: boolean): void {
    this.setIntx(level);
  }
  dma(
    kind: 'read' | 'write',
    pasid: number,
    low: number,
    bytes: Uint8Array,
    access = kind === 'read' ? 0 : 1,
  ): number {
    return kind === 'read'
      ? this.dmaRead(pasid, 0, low, bytes, 0, bytes.length, access)
      : this.dmaWrite(pasid, 0, low, bytes, 0, bytes.length, access);
  }
  ask(pasid: number, low: number, access: number): TranslationCompletion {
    return this.translate(pasid, 0, low, access);
  }
  page(pasid: number, prgIndex: number, last = true): boolean {
    const request: PageRequest = {
      pasid,
      high: 0,
      low: 0x1000,
      read: true,
      write: false,
      execute: false,
      privileged: false,
      last,
      prgIndex,
    };
    return this.requestPage(request);
  }
  get credits(): number {
    return this.pageRequestCredits;
  }
  get cached(): number {
    return this.atc?.size ?? -1;
  }
  cache(low: number): void {
    this.atc?.insert(1, low / 4096, this.upstream.translate(1, 0, low, 0));
  }
  after(nanoseconds: number, event: () => void): void {
    this.schedule(nanoseconds, event);
  }
  read64(bar: number, offset: number): string {
    const halves: Halves = { high: 0, low: 0 };
    this.readBar64(bar, offset, halves);
    return `${halves.high.toString(16)}_${halves.low.toString(16)}`;
  }
  /** Writes a register of a capability. */
  set(capability: number, offset: number, width: number, value: number): void {
    this.config.write(this.config.capability(capability) + offset, width, value);
  }
  setExtended(capability: number, offset: number, width: number, value: number): void {
    this.config.write(this.config.extendedCapability(capability) + offset, width, value);
  }
  getExtended(capability: number, offset: number): number {
    return this.config.read(this.config.extendedCapability(capability) + offset, 2);
  }
}
