/**
 * What simulated devices are written with: registers by their declaration, DMA as calls, and activity that takes simulated
 * time as functions. A device is a class:
 *
 *     class Copier extends PciDevice {
 *       readonly #registers = this.registers(0, COPIER, { GO: { written: () => this.start(this.#copy()) } });
 *       constructor() { super(endpoint({ vendorId: 0x1234, deviceId: 0xc0de, classCode: 0x088000, bars: { 0: 4096 }, msix: 1 })); }
 *       *#copy(): Process { … }
 *     }
 */
import type { RegisterMap } from '../../register-map';
import type { FunctionDescription } from './config-space';
import { DeviceDma, type Requester } from './device-dma';
import { type Halves, PciFunction } from './pci-function';
import { type Process, run } from './process';
import { type DeviceRegisters, RegisterBank, type RegisterHandlers } from './register-bank';

export abstract class PciDevice extends PciFunction {
  /** Reads and writes memory. */
  protected readonly dma: DeviceDma;
  private readonly banks = new Map<number, RegisterBank>();

  /** `description`: by hand, or what endpoint() makes. */
  constructor(description: FunctionDescription) {
    super(description);
    this.dma = new DeviceDma(this.requester());
  }

  // ---- For the device

  /**
   * Puts declared registers into a BAR, at `offset`. What software may do with them follows from the declaration; `handlers`
   * hear of reads and writes. The device itself reads and writes all of them. After a reset they have their declared values.
   */
  protected registers<M extends RegisterMap>(
    bar: number,
    map: M,
    handlers: RegisterHandlers<M> = {},
    offset = 0,
  ): DeviceRegisters<M> {
    return this.bank(bar).add(map, offset, handlers);
  }

  /** Puts memory into a BAR, which software reads and writes with any width. A reset fills it with zeros. */
  protected memory(bar: number, offset: number, length: number): Uint8Array {
    return this.bank(bar).addMemory(offset, length);
  }

  /** Runs a process from now on. A reset, or pulling the device out, ends it where it waits. */
  protected start(process: Process): void {
    run(process);
  }

  /** Within a process: lets simulated time pass. */
  protected *delay(nanoseconds: number): Process {
    yield (resume) => this.schedule(nanoseconds, resume);
  }

  /** After a reset: registers have their declared values, and no process runs. */
  protected afterReset(): void {}

  /** What software reads where there is no register of the width it asks for: 1, 2 or 4 bytes. */
  protected readNothing(_bar: number, _offset: number, _width: number): number {
    return 0;
  }

  // ---- For PciFunction

  protected override readRegister(bar: number, offset: number, width: number): number {
    return this.banks.get(bar)?.read(offset, width) ?? this.readNothing(bar, offset, width);
  }

  protected override writeRegister(bar: number, offset: number, width: number, value: number): void {
    this.banks.get(bar)?.write(offset, width, value);
  }

  protected override readRegister64(bar: number, offset: number, into: Halves): void {
    const value = this.banks.get(bar)?.read64(offset);
    if (value === undefined) return super.readRegister64(bar, offset, into);
    into.high = Number(value >> 32n);
    into.low = Number(value & 0xffffffffn);
  }

  protected override writeRegister64(bar: number, offset: number, high: number, low: number): void {
    const value = (BigInt(high) << 32n) | BigInt(low);
    if (!this.banks.get(bar)?.write64(offset, value)) super.writeRegister64(bar, offset, high, low);
  }

  protected override onReset(): void {
    for (const bank of this.banks.values()) bank.reset();
    this.dma.reset();
    this.afterReset();
  }

  protected override onPageGroupResponse(_pasid: number, prgIndex: number, code: number): void {
    this.dma.respond(prgIndex, code);
  }

  // ---- Within

  private bank(bar: number): RegisterBank {
    let bank = this.banks.get(bar);
    if (bank) return bank;
    const size = this.barSize(bar);
    if (size === 0) throw new RangeError(`the function has no BAR ${bar}`);
    bank = new RegisterBank(size);
    this.banks.set(bar, bank);
    return bank;
  }

  private requester(): Requester {
    return {
      cache: this.atc,
      atsEnabled: () => this.atsEnabled,
      pageRequestCredits: () => this.pageRequestCredits,
      read: this.dmaRead.bind(this),
      write: this.dmaWrite.bind(this),
      translate: this.translate.bind(this),
      requestPage: this.requestPage.bind(this),
      isGroupFree: this.isGroupFree.bind(this),
      schedule: this.schedule.bind(this),
    };
  }
}
