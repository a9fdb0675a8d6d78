/** The devices of a history: PCI functions that a test drives, and mediated devices that it programs through their registers. */
import type { Device, Iommu } from '../../lib';
import * as sim from '../../lib/sim';
import type { Reached } from './model';
import { NO_PASID, type Prober, type Route } from './prober';
import { GuestSpace, type TestSpace } from './spaces';

const REG = sim.dmaEngine;

export abstract class TestDevice {
  constructor(
    readonly name: string,
    /** The routing slots that it can fill. */
    readonly pasids: readonly (number | undefined)[],
  ) {}

  abstract bind(iommu: Iommu, cookie: bigint): Device;
  /** Whether it can be attached to such a space. */
  takes(_space: TestSpace): boolean {
    return true;
  }

  /** Closes what `bind` returned, and leaves things as they were before. */
  close(device: Device, _iommu: Iommu): void {
    device.close();
  }

  /** Reads into `bytes`, or writes them; returns how many bytes went through before the first page that was refused. */
  abstract transfer(
    write: boolean,
    address: number,
    bytes: Uint8Array,
    pasid: number | undefined,
    route: Route,
  ): number;
  /** Whether it would ask for a page that it reaches so. */
  abstract asksFor(reached: Reached | undefined): boolean;
  abstract ask(address: number, pasid: number | undefined, group: number): void;
}

export class FunctionDevice extends TestDevice {
  constructor(
    bdf: string,
    private readonly prober: Prober,
  ) {
    super(bdf, [undefined, 1, 2]);
  }

  override bind(iommu: Iommu, cookie: bigint): Device {
    const device = iommu.bind(this.name, { cookie });
    device.enableBusMaster();
    return device;
  }

  override transfer(
    write: boolean,
    address: number,
    bytes: Uint8Array,
    pasid: number | undefined,
    route: Route,
  ): number {
    return this.prober.transfer(write, address, bytes, pasid ?? NO_PASID, route);
  }

  override asksFor(): boolean {
    return true;
  }

  override ask(address: number, pasid: number | undefined, group: number): void {
    this.prober.ask(address, pasid ?? NO_PASID, group);
  }
}

/** Several have one parent: all their requests carry its requester ID. */
export class MediatedDevice extends TestDevice {
  #bound: Device | undefined;

  constructor(
    uuid: string,
    private readonly parent: string,
    private readonly type: string,
    private readonly machine: sim.Machine,
    /** A device that is all software neither caches translations nor asks for pages. */
    private readonly software: boolean,
    pasids: readonly (number | undefined)[],
  ) {
    super(uuid, pasids);
  }

  override bind(iommu: Iommu, cookie: bigint): Device {
    iommu.createMdev({ parent: this.parent, type: this.type, uuid: this.name });
    this.#bound = iommu.bind(this.name, { cookie });
    this.#bound.enableBusMaster();
    return this.#bound;
  }

  override close(device: Device, iommu: Iommu): void {
    device.close();
    this.#bound = undefined;
    iommu.removeMdev(this.name);
  }

  /** Without hardware there is nobody to walk a user's table, and nobody who asks for a page. */
  override takes(space: TestSpace): boolean {
    return !this.software || !(space.faults || space instanceof GuestSpace);
  }

  /** What it holds goes as its registers take it: in parts. */
  override transfer(
    write: boolean,
    address: number,
    bytes: Uint8Array,
    pasid: number | undefined,
    route: Route,
  ): number {
    const registers = this.#bound?.region('bar0');
    if (!registers) return 0;
    let done = 0;
    while (done < bytes.length) {
      const part = bytes.subarray(done, done + sim.DMA_ENGINE_BUFFER_SIZE);
      if (write) registers.write(REG.BUFFER, part);
      const flags = route === 'cached' && !this.software ? sim.CONTROL_ATS : 0;
      this.#start(
        write ? sim.OPERATION_WRITE : sim.OPERATION_READ,
        address + done,
        part.length,
        pasid,
        flags,
      );
      this.machine.idle();
      const moved = registers.read32(REG.COMPLETED);
      if (!write) registers.read(REG.BUFFER, part.subarray(0, moved));
      done += moved;
      if (moved < part.length) break;
    }
    return done;
  }

  /** It reads, and asks if it may not. */
  override asksFor(reached: Reached | undefined): boolean {
    return !reached?.read && !this.software;
  }

  override ask(address: number, pasid: number | undefined): void {
    if (this.software) return;
    this.#start(sim.OPERATION_READ, address, 1, pasid, sim.CONTROL_ATS | sim.CONTROL_PAGE_REQUESTS);
  }

  #start(operation: number, address: number, length: number, pasid: number | undefined, flags: number): void {
    const registers = this.#bound?.region('bar0');
    if (!registers) return;
    registers.write64(REG.SOURCE, BigInt(address));
    registers.write64(REG.DESTINATION, BigInt(address));
    registers.write32(REG.LENGTH, length);
    registers.write32(REG.PASID, pasid === undefined ? 0 : (sim.PASID_ENABLE | pasid) >>> 0);
    registers.write32(REG.CONTROL, operation | flags | sim.CONTROL_START);
  }
}
