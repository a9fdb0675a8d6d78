/** A PCI function that does what a test tells it to: DMA, translation and page requests, interrupts. */
import { ACCESS_WRITE, NO_PASID, type TranslationCompletion } from '../../../lib/sim/bus';
import type { FunctionDescription } from '../../../lib/sim/devices/config-space';
import { PciFunction } from '../../../lib/sim/devices/pci-function';

export const PROBE: FunctionDescription = {
  vendorId: 0x1234,
  deviceId: 0x5678,
  revisionId: 1,
  classCode: 0xff0000,
  interruptPin: 1,
  bars: [
    { bar: 0, size: 0x1000, width: 32, prefetchable: false },
    { bar: 1, size: 0x2000, width: 32, prefetchable: false },
  ],
  capabilities: [
    { kind: 'power-management', noSoftReset: false },
    { kind: 'msi', vectors: 4, wide: true, maskable: true },
    { kind: 'express', type: 'endpoint', functionLevelReset: true },
    { kind: 'msix', vectors: 4, table: { bar: 1, offset: 0x40 }, pending: { bar: 1, offset: 0x1000 } },
  ],
  extendedCapabilities: [
    { kind: 'ats', queueDepth: 32 },
    { kind: 'pri', capacity: 16 },
    { kind: 'pasid', width: 16, execute: true, privileged: true },
  ],
};

/** Nothing but a BAR: no capability that would let it be reset. */
export const PLAIN: FunctionDescription = {
  ...PROBE,
  deviceId: 0x5679,
  capabilities: [],
  extendedCapabilities: [],
};

export class ProbeFunction extends PciFunction {
  register = 0;
  resets = 0;
  readonly responses: { pasid: number; group: number; code: number }[] = [];

  constructor(description: FunctionDescription = PROBE) {
    super(description);
  }

  protected override readRegister(): number {
    return this.register;
  }
  protected override writeRegister(_bar: number, _offset: number, _width: number, value: number): void {
    this.register = value;
  }
  protected override onReset(): void {
    this.resets++;
    this.register = 0;
  }
  protected override onPageGroupResponse(pasid: number, group: number, code: number): void {
    this.responses.push({ pasid, group, code });
  }

  /** The bytes at an I/O virtual address, or undefined where the read was refused. */
  read(iova: number, length: number, pasid = NO_PASID): number[] | undefined {
    const bytes = new Uint8Array(length);
    const high = Math.floor(iova / 2 ** 32);
    const done = this.dmaRead(pasid, high, iova >>> 0, bytes, 0, length);
    return done === length ? [...bytes] : undefined;
  }

  write(iova: number, bytes: readonly number[], pasid = NO_PASID): boolean {
    const high = Math.floor(iova / 2 ** 32);
    return (
      this.dmaWrite(pasid, high, iova >>> 0, Uint8Array.from(bytes), 0, bytes.length, ACCESS_WRITE) ===
      bytes.length
    );
  }

  ask(iova: number, pasid = NO_PASID): TranslationCompletion {
    return this.translate(pasid, Math.floor(iova / 2 ** 32), iova >>> 0, 0);
  }

  page(iova: number, group: number, pasid = NO_PASID, last = true): boolean {
    return this.requestPage({
      pasid,
      high: Math.floor(iova / 2 ** 32),
      low: iova >>> 0,
      read: true,
      write: false,
      execute: false,
      privileged: false,
      last,
      prgIndex: group,
    });
  }

  interrupt(vector: number): boolean {
    return this.raiseMsi(vector);
  }

  level(asserted: boolean): void {
    this.setIntx(asserted);
  }

  later(nanoseconds: number, event: () => void): void {
    this.schedule(nanoseconds, event);
  }
}
