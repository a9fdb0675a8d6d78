/**
 * What stands between a user and the registers of a mediated device. Each access of the user ends here; what it may do is
 * done to the channel's registers. Where the user names a vPASID, the hardware gets the pPASID that stands for it.
 */
import { NO_PASID, REFUSED, type DmaPort } from '../../bus';
import { DmaEngine } from '../../devices/dma-engine';
import * as reg from '../../devices/dma-engine-registers';
import * as pci from '../../devices/pci-registers';
import type { Access } from '../iommufd/access';
import type { MdevDevice } from './device';

const REG = reg.dmaEngine;
const REGISTER_BAR = 0;

/** Bytes of a device's register page. */
export const REGISTERS_SIZE = 4096;

/** The registers of one user: accesses of 1, 2 or 4 bytes, at a multiple of them. */
export interface Registers {
  read(offset: number, width: number): number;
  write(offset: number, width: number, value: number): void;
  reset(): void;
}

/** Of a device that has a channel of the hardware for itself. */
export class ChannelRegisters implements Registers {
  /** The PASID register as the user wrote it. */
  #pasid = 0;
  readonly #base: number;

  /** `mayStart`: the user has set Bus Master Enable. */
  constructor(
    readonly mdev: MdevDevice,
    readonly mayStart: () => boolean,
  ) {
    this.#base = mdev.channel * REGISTERS_SIZE;
  }

  read(offset: number, width: number): number {
    if (offset - (offset % 4) !== REG.PASID) return this.#hardware(offset, width);
    return width === 4 ? this.#pasid : 0;
  }

  write(offset: number, width: number, value: number): void {
    if (offset - (offset % 4) === REG.PASID) {
      const writable = width === 4 && this.mdev.type.pasids && !this.#busy;
      if (writable) this.#pasid = (value & (reg.PASID_ENABLE | reg.PASID_VALUE)) >>> 0;
      return;
    }
    // What a vPASID stands for may change until the command starts.
    if (offset === REG.CONTROL && width === 4 && value & reg.CONTROL_START && !this.#busy)
      this.#forward(REG.PASID, 4, this.#hardwarePasid());
    this.#forward(offset, width, value);
  }

  reset(): void {
    this.#pasid = 0;
    this.mdev.reset();
  }

  get #busy(): boolean {
    return (this.#hardware(REG.STATUS, 4) & reg.STATUS_BUSY) !== 0;
  }

  /**
   * The value for the hardware's register. Where there is no pPASID, because the vPASID is not attached or the device may
   * do no DMA, it is one that never is attached to anything: the DMA faults.
   */
  #hardwarePasid(): number {
    const named = this.#pasid >= reg.PASID_ENABLE;
    if (!named && this.mayStart()) return 0;
    const vpasid = this.#pasid & reg.PASID_VALUE;
    const { nobody } = this.mdev.parent;
    const pasid = this.mayStart() ? (this.mdev.pasidOf(vpasid) ?? nobody) : nobody;
    return (reg.PASID_ENABLE | pasid) >>> 0;
  }

  #hardware(offset: number, width: number): number {
    return this.mdev.parent.engine.readBar(REGISTER_BAR, this.#base + offset, width);
  }

  #forward(offset: number, width: number, value: number): void {
    this.mdev.parent.engine.writeBar(REGISTER_BAR, this.#base + offset, width, value);
  }
}

/**
 * Of a device that exists in software only: the driver does what an engine would do, and reaches memory by IOVA through
 * iommufd's access object. No hardware is told, and no IOMMU asked.
 */
export class SoftwareRegisters implements Registers {
  readonly #engine = new DmaEngine();
  readonly #events: (() => void)[] = [];

  constructor(access: Access, mayStart: () => boolean) {
    const copy = (high: number, low: number, bytes: Uint8Array, write: boolean): number => {
      if (!mayStart()) return 0;
      const iova = (BigInt(high >>> 0) << 32n) | BigInt(low >>> 0);
      return access.copy(iova, bytes, write, undefined) ? 0 : bytes.length;
    };
    const port: DmaPort = {
      read: (pasid, high, low, into, at, length) =>
        pasid === NO_PASID ? copy(high, low, into.subarray(at, at + length), false) : 0,
      write: (pasid, high, low, from, at, length) =>
        pasid === NO_PASID ? copy(high, low, from.subarray(at, at + length), true) : 0,
      translate: () => REFUSED,
      requestPage: () => false,
      schedule: (_nanoseconds, event) => this.#events.push(event),
    };
    this.#engine.connect(0, port);
    this.#enable();
  }

  read(offset: number, width: number): number {
    return this.#engine.readBar(REGISTER_BAR, offset, width);
  }

  /** The command is done when the write returns: the driver did it. */
  write(offset: number, width: number, value: number): void {
    this.#engine.writeBar(REGISTER_BAR, offset, width, value);
    for (let event = this.#events.shift(); event; event = this.#events.shift()) event();
  }

  reset(): void {
    this.#engine.reset();
    this.#enable();
  }

  #enable(): void {
    this.#engine.config.write(pci.COMMAND, 2, pci.COMMAND_MEMORY_SPACE | pci.COMMAND_BUS_MASTER);
  }
}
