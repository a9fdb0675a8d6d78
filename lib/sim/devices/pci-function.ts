/**
 * A simulated PCI function: configuration space, BARs, interrupts, and requests upstream that are made only when
 * configuration space allows them. Devices extend it with their registers.
 */
import {
  ACCESS_READ,
  ACCESS_WRITE,
  type AtsEndpoint,
  type DmaPort,
  NO_PASID,
  type PageRequest,
  REFUSED,
  type TranslationCompletion,
} from '../bus';
import { TranslationCache } from './atc';
import type { MsiCapability, MsixCapability } from './capabilities';
import { ConfigSpace, type FunctionDescription } from './config-space';
import { Enables } from './enables';
import { Msi, Msix } from './msi';
import { PageRequestInterface } from './page-requests';
import * as pci from './pci-registers';

/** A 64-bit value as two unsigned 32-bit halves; the caller owns it, so that reads need no allocation. */
export interface Halves {
  high: number;
  low: number;
}

const ALL_ONES = 0xffffffff;

export abstract class PciFunction implements AtsEndpoint {
  readonly config: ConfigSpace;
  /** Called when the level of the INTx pin changes. Set by the machine. */
  onIntx: ((asserted: boolean) => void) | undefined;

  /** Asked before the pin goes up: true if nobody is to hear of it. Set by who injects faults. */
  losesIntx: (() => boolean) | undefined;

  /** The translation cache, if the function declares ATS; emptied whenever ATS is off. */
  protected readonly atc: TranslationCache | undefined;

  private readonly msi: Msi | undefined;
  private readonly msix: Msix | undefined;
  private readonly pageRequests: PageRequestInterface | undefined;
  private readonly enables: Enables;
  private readonly message = new DataView(new ArrayBuffer(4));
  private readonly messageBytes = new Uint8Array(this.message.buffer);
  private port: DmaPort | undefined;
  private rid = 0;
  /** Events scheduled before a reset or a disconnection must not run after it. */
  private generation = 0;
  private intxLevel = false;
  private intxOutput = false;
  private powerState = pci.POWER_STATE_D0;

  constructor(description: FunctionDescription, atcCapacity?: number) {
    this.config = new ConfigSpace(description, () => this.configurationWritten());
    this.enables = new Enables(this.config);
    const send = (high: number, low: number, data: number): boolean => this.sendMessage(high, low, data);
    const find = <K extends string>(kind: K) =>
      description.capabilities?.find((capability) => capability.kind === kind);
    const msi = find('msi') as MsiCapability | undefined;
    const msix = find('msix') as MsixCapability | undefined;
    if (msi) this.msi = new Msi(msi, this.config, this.config.capability(pci.CAPABILITY_MSI), send);
    if (msix) this.msix = new Msix(msix, this.config, this.config.capability(pci.CAPABILITY_MSIX), send);
    const pri = this.config.extendedCapability(pci.EXTENDED_CAPABILITY_PRI);
    if (pri !== 0) this.pageRequests = new PageRequestInterface(this.config, pri);
    if (this.config.extendedCapability(pci.EXTENDED_CAPABILITY_ATS) !== 0) {
      this.atc = new TranslationCache(atcCapacity);
    }
  }

  // ---- The device's part

  /** A read of `width` bytes (1, 2 or 4), aligned to them, inside the BAR. Returns an unsigned value. */
  protected abstract readRegister(bar: number, offset: number, width: number): number;
  /** A write, likewise. */
  protected abstract writeRegister(bar: number, offset: number, width: number, value: number): void;
  /** Puts the device back into its state after power-on. Its scheduled events are gone already. */
  protected abstract onReset(): void;

  /** An 8-byte read: two 4-byte reads, low half first, unless the device has it otherwise. */
  protected readRegister64(bar: number, offset: number, into: Halves): void {
    into.low = this.readRegister(bar, offset, 4) >>> 0;
    into.high = this.readRegister(bar, offset + 4, 4) >>> 0;
  }

  /** An 8-byte write: two 4-byte writes, low half first, unless the device has it otherwise. */
  protected writeRegister64(bar: number, offset: number, high: number, low: number): void {
    this.writeRegister(bar, offset, 4, low);
    this.writeRegister(bar, offset + 4, 4, high);
  }

  /** The answer to a page request group of this function. */
  protected onPageGroupResponse(_pasid: number, _prgIndex: number, _code: number): void {}

  // ---- The machine's part

  /** Plugs the function in. `rid` is its requester ID: bus << 8 | device << 3 | function. */
  connect(rid: number, port: DmaPort): void {
    if (!Number.isInteger(rid) || rid < 0 || rid > 0xffff) throw new RangeError(`no requester ID ${rid}`);
    if (this.port !== undefined) throw new Error('the function is connected already');
    this.rid = rid;
    this.port = port;
  }

  /** Takes the function out: nothing more leaves it, and what it had scheduled does not happen. */
  disconnect(): void {
    this.port = undefined;
    this.losesIntx = undefined;
    this.generation++;
  }

  /** Puts a port between the function and the one it has, which this returns, as fault injection does. */
  interpose(port: DmaPort): DmaPort {
    if (this.port === undefined) throw new Error('the function is not connected');
    const inner = this.port;
    this.port = port;
    return inner;
  }

  get connected(): boolean {
    return this.port !== undefined;
  }

  get requesterId(): number {
    return this.rid;
  }

  /** Bytes of a BAR, 0 if the function has none of this number. */
  barSize(bar: number): number {
    return this.config.bar(bar)?.size ?? 0;
  }

  /**
   * A read by the processor: `width` 1, 2 or 4 bytes at a multiple of it. All ones while memory space is off or the
   * function sleeps. RangeError for an access that is not inside one BAR.
   */
  readBar(bar: number, offset: number, width: number): number {
    this.checkAccess(bar, offset, width === 1 || width === 2 || width === 4 ? width : NaN);
    const ones = width === 4 ? ALL_ONES : 2 ** (8 * width) - 1;
    if (!this.enables.memory) return ones;
    if (this.msix?.covers(bar, offset)) return this.msix.read(bar, offset, width);
    return (this.readRegister(bar, offset, width) & ones) >>> 0;
  }

  writeBar(bar: number, offset: number, width: number, value: number): void {
    this.checkAccess(bar, offset, width === 1 || width === 2 || width === 4 ? width : NaN);
    if (!this.enables.memory) return;
    const ones = width === 4 ? ALL_ONES : 2 ** (8 * width) - 1;
    if (this.msix?.covers(bar, offset)) this.msix.write(bar, offset, width, value);
    else this.writeRegister(bar, offset, width, (value & ones) >>> 0);
  }

  /** An 8-byte read, into `into`. */
  readBar64(bar: number, offset: number, into: Halves): void {
    this.checkAccess(bar, offset, 8);
    if (!this.enables.memory) {
      into.low = ALL_ONES;
      into.high = ALL_ONES;
    } else if (this.msix?.covers(bar, offset)) {
      into.low = this.msix.read(bar, offset, 4);
      into.high = this.msix.read(bar, offset + 4, 4);
    } else {
      this.readRegister64(bar, offset, into);
    }
  }

  writeBar64(bar: number, offset: number, high: number, low: number): void {
    this.checkAccess(bar, offset, 8);
    if (!this.enables.memory) return;
    if (this.msix?.covers(bar, offset)) {
      this.msix.write(bar, offset, 4, low);
      this.msix.write(bar, offset + 4, 4, high);
    } else {
      this.writeRegister64(bar, offset, high >>> 0, low >>> 0);
    }
  }

  /** 64 bytes in one write, as MOVDIR64B makes it: eight of 8, unless the device has it otherwise. */
  writeBarBlock(bar: number, offset: number, bytes: Uint8Array): void {
    const { buffer, byteOffset } = bytes;
    const view = new DataView(buffer, byteOffset, 64);
    for (let at = 0; at < 64; at += 8)
      this.writeBar64(bar, offset + at, view.getUint32(at + 4, true), view.getUint32(at, true));
  }

  /** The BAR that takes deferrable memory writes, if there is one. */
  get portalBar(): number | undefined {
    return undefined;
  }

  /**
   * A deferrable memory write, as ENQCMD makes it, at an offset of a BAR: true if it was taken, false if the function asks
   * to try again. Undefined: nothing here takes such writes.
   */
  enqueue(_bar: number, _offset: number, _bytes: Uint8Array): boolean | undefined {
    return undefined;
  }

  /** Level of the INTx pin: down while Interrupt Disable is set, or MSI or MSI-X is on. */
  get intxAsserted(): boolean {
    return this.intxOutput;
  }

  /**
   * Whether software can reset this function alone: by FLR, or through D3hot where that does not keep its state.
   */
  get resettable(): boolean {
    const express = this.config.capability(pci.CAPABILITY_EXPRESS);
    if (express !== 0) {
      const capabilities = this.config.read(express + pci.EXPRESS_DEVICE_CAPABILITIES, 4);
      if ((capabilities & pci.EXPRESS_FUNCTION_LEVEL_RESET) !== 0) return true;
    }
    const pm = this.config.capability(pci.CAPABILITY_POWER_MANAGEMENT);
    return pm !== 0 && (this.config.read(pm + pci.PM_CONTROL_STATUS, 2) & pci.PM_NO_SOFT_RESET) === 0;
  }

  /** Function reset (FLR, or a reset of its bus): configuration space, interrupts and the device start afresh. */
  reset(): void {
    this.generation++;
    this.config.reset();
    this.msix?.reset();
    this.pageRequests?.reset();
    this.atc?.clear();
    this.powerState = pci.POWER_STATE_D0;
    this.intxLevel = false;
    this.onReset();
    this.configurationWritten();
  }

  // ---- Messages from the root

  invalidateTranslations(pasid: number, high: number, low: number, length: number, global: boolean): void {
    this.atc?.invalidate(pasid, high, low, length, global);
  }

  pageGroupResponse(pasid: number, prgIndex: number, code: number): void {
    if (this.pageRequests?.respond(pasid, prgIndex, code)) this.onPageGroupResponse(pasid, prgIndex, code);
  }

  // ---- For the device

  /**
   * Signals a vector by MSI-X or MSI, whichever is enabled: a memory write, so it needs Bus Master Enable. A masked
   * vector becomes pending and is sent when it is unmasked. True if the message left now.
   */
  protected raiseMsi(vector: number): boolean {
    if (this.msix?.enabled) return this.msix.raise(vector);
    return this.msi?.raise(vector) ?? false;
  }

  /** Whether MSI or MSI-X is enabled: then a function must not use INTx (PCIe 6.0, 6.1.4.3). */
  protected get msiEnabled(): boolean {
    return (this.msix?.enabled ?? false) || (this.msi?.enabled ?? false);
  }

  /** Sets the function's interrupt level. The pin follows unless Interrupt Disable is set, or MSI or MSI-X is on. */
  protected setIntx(level: boolean): void {
    if (this.config.read(pci.INTERRUPT_PIN, 1) === 0) throw new Error('the function has no interrupt pin');
    this.intxLevel = level;
    this.updateIntx();
  }

  /**
   * Reads memory: `length` bytes at an address into `into` at `at`. Returns the bytes read before the first page that
   * was refused: 0 without Bus Master Enable, or with a PASID, mode or translated address that is not enabled. No Snoop is
   * left out where it is not enabled.
   */
  protected dmaRead(
    pasid: number,
    high: number,
    low: number,
    into: Uint8Array,
    at: number,
    length: number,
    access = ACCESS_READ,
  ): number {
    if (this.port === undefined || !this.enables.allowsRequest(pasid, access)) return 0;
    return this.port.read(pasid, high, low, into, at, length, this.enables.sent(access));
  }

  /** Writes memory, likewise. */
  protected dmaWrite(
    pasid: number,
    high: number,
    low: number,
    from: Uint8Array,
    at: number,
    length: number,
    access = ACCESS_WRITE,
  ): number {
    if (this.port === undefined || !this.enables.allowsRequest(pasid, access)) return 0;
    return this.port.write(pasid, high, low, from, at, length, this.enables.sent(access));
  }

  /** ATS is declared and enabled. */
  protected get atsEnabled(): boolean {
    return this.enables.ats;
  }

  /** Asks for the translation of a page. Unsuccessful if ATS is off. */
  protected translate(pasid: number, high: number, low: number, access: number): TranslationCompletion {
    if (this.port === undefined || !this.enables.ats || !this.enables.allowsRequest(pasid, access))
      return REFUSED;
    return this.port.translate(pasid, high, low, access);
  }

  /** Page requests that may be sent now: 0 if the page request interface is off. */
  protected get pageRequestCredits(): number {
    return this.pageRequests?.credits ?? 0;
  }

  /** Whether no request of this group index is in flight. */
  protected isGroupFree(prgIndex: number): boolean {
    return this.pageRequests?.isFree(prgIndex) ?? true;
  }

  /** Sends a page request. False: off, no credit left, or refused by the root; no response will come. */
  protected requestPage(request: PageRequest): boolean {
    if (this.port === undefined || this.pageRequests === undefined) return false;
    if (!this.enables.allowsPasid(request.pasid)) return false;
    return this.pageRequests.send(this.port, request);
  }

  /** Gives up a group that the root refused in the middle. */
  protected forgetGroup(prgIndex: number): void {
    this.pageRequests?.forget(prgIndex);
  }

  /** Runs `event` after simulated time, unless the function is reset or taken out before. */
  protected schedule(nanoseconds: number, event: () => void): void {
    const generation = this.generation;
    this.port?.schedule(nanoseconds, () => {
      if (generation === this.generation) event();
    });
  }

  // ---- Within

  private sendMessage(high: number, low: number, data: number): boolean {
    this.message.setUint32(0, data, true);
    return this.dmaWrite(NO_PASID, high, low, this.messageBytes, 0, 4) === 4;
  }

  private checkAccess(bar: number, offset: number, width: number): void {
    const size = this.barSize(bar);
    if (!Number.isInteger(offset) || offset < 0 || !(offset % width === 0) || offset + width > size) {
      throw new RangeError(`no such access: ${width} bytes at ${offset} of BAR ${bar} (${size} bytes)`);
    }
  }

  /** Acts on what software wrote to configuration space. */
  private configurationWritten(): void {
    if (this.actOnReset()) return;
    this.enables.update(this.powerState === pci.POWER_STATE_D0);
    if (!this.enables.ats) this.atc?.clear();
    this.pageRequests?.configurationWritten();
    this.msi?.flush();
    this.msix?.flush();
    this.updateIntx();
  }

  /** FLR and power state changes. True if the function was reset, and with it all that was written. */
  private actOnReset(): boolean {
    const express = this.config.capability(pci.CAPABILITY_EXPRESS);
    if (express !== 0) {
      const control = this.config.read(express + pci.EXPRESS_DEVICE_CONTROL, 2);
      if ((control & pci.EXPRESS_INITIATE_FLR) !== 0) {
        this.reset();
        return true;
      }
    }
    const pm = this.config.capability(pci.CAPABILITY_POWER_MANAGEMENT);
    if (pm === 0) return false;
    const status = this.config.read(pm + pci.PM_CONTROL_STATUS, 2);
    const state = status & pci.PM_POWER_STATE;
    if (state !== pci.POWER_STATE_D0 && state !== pci.POWER_STATE_D3HOT) {
      // D1 and D2 are not supported: the write is discarded.
      this.config.set(pm + pci.PM_CONTROL_STATUS, 2, (status & ~pci.PM_POWER_STATE) | this.powerState);
      return false;
    }
    const wakes = this.powerState === pci.POWER_STATE_D3HOT && state === pci.POWER_STATE_D0;
    this.powerState = state;
    if (!wakes || (status & pci.PM_NO_SOFT_RESET) !== 0) return false;
    this.reset();
    return true;
  }

  private updateIntx(): void {
    this.config.setBits(pci.STATUS, pci.STATUS_INTERRUPT, this.intxLevel);
    const output = this.intxLevel && !this.config.intxDisabled && !this.msiEnabled;
    if (output === this.intxOutput) return;
    this.intxOutput = output;
    if (!output || !this.losesIntx?.()) this.onIntx?.(output);
  }
}
