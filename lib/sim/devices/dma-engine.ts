/**
 * A DMA engine with address translation services, page requests and PASIDs: it copies, fills, reads and writes memory
 * one page at a time, and asks for the pages it may not access. Its registers are in dma-engine-registers.
 *
 * Each page takes some events: a translation request (when the cache has none), the access, and between the two
 * an invalidation may come, after which it asks again. PCI Express Base Specification 6.0, chapter 10.
 */
import {
  ACCESS_EXECUTE,
  ACCESS_NO_SNOOP,
  ACCESS_PRIVILEGED,
  ACCESS_READ,
  ACCESS_TRANSLATED,
  ACCESS_WRITE,
  NO_PASID,
  PRG_FAILURE,
  PRG_SUCCESS,
} from '../bus';
import { PAGE_SIZE, pageHigh, pageLow, permits } from './atc';
import * as reg from './dma-engine-registers';
import { PRG_INDICES } from './page-requests';
import { PciFunction } from './pci-function';
import { accessNanoseconds, RESPONSE_NANOSECONDS, TRANSLATION_NANOSECONDS } from './timing';
import { TransferSide } from './transfer-side';

const REG = reg.dmaEngine;
/** One past the last page of 64-bit addresses. */
const PAGES = 2 ** 52;

/** Page requests for one page before the engine gives up: each success without a mapping costs one. */
const PAGE_REQUEST_LIMIT = 8;

/** Simulated time. */
const COMMAND_NANOSECONDS = 100;

/** The registers software may write while no command runs, and which of their bits. */
const WRITABLE = new Map<number, number>([
  [REG.SOURCE, 0xffffffff],
  [REG.SOURCE + 4, 0xffffffff],
  [REG.DESTINATION, 0xffffffff],
  [REG.DESTINATION + 4, 0xffffffff],
  [REG.LENGTH, 0xffffffff],
  [REG.PASID, reg.PASID_ENABLE | reg.PASID_VALUE],
  [REG.PREFETCH, 0xff],
  [REG.PATTERN, 0xffffffff],
]);
const CONTROL_FLAGS =
  reg.CONTROL_OPERATION |
  reg.CONTROL_ATS |
  reg.CONTROL_PAGE_REQUESTS |
  reg.CONTROL_PRIVILEGED |
  reg.CONTROL_EXECUTE |
  reg.CONTROL_REQUEST_WRITE |
  reg.CONTROL_NO_SNOOP;
const REGISTERS_SIZE = REG.INVALIDATIONS + 4;

export class DmaEngine extends PciFunction {
  /** Called when a command has ended, after its status is set. For a function that contains the engine. */
  onEnd: (() => void) | undefined;
  private readonly registers = new Uint32Array(REGISTERS_SIZE / 4);
  private readonly buffer = new DataView(new ArrayBuffer(reg.DMA_ENGINE_BUFFER_SIZE));
  private readonly bufferBytes = new Uint8Array(this.buffer.buffer);
  private readonly scratch = new Uint8Array(PAGE_SIZE);
  private readonly source = new TransferSide(false);
  private readonly destination = new TransferSide(true);
  private pasid = NO_PASID;
  private remaining = 0;
  private pageRequestsLeft = PAGE_REQUEST_LIMIT;
  /** Group whose response the command waits for, or -1; and the side that needs the pages. */
  private waitingFor = -1;
  private waitingSide = this.source;
  private lastGroup = -1;
  /** Counts commands, so that an event left over from an aborted one does nothing. */
  private command = 0;

  constructor() {
    super({
      vendorId: reg.DMA_ENGINE_VENDOR_ID,
      deviceId: reg.DMA_ENGINE_DEVICE_ID,
      revisionId: 1,
      classCode: 0x088000,
      bars: [
        { bar: 0, size: 4096, width: 64, prefetchable: false },
        { bar: 2, size: 4096, width: 64, prefetchable: false },
      ],
      capabilities: [
        { kind: 'power-management', noSoftReset: true },
        { kind: 'express', type: 'root-complex-endpoint', functionLevelReset: true },
        { kind: 'msix', vectors: 2, table: { bar: 2, offset: 0 }, pending: { bar: 2, offset: 0x800 } },
      ],
      extendedCapabilities: [
        { kind: 'ats', queueDepth: 32 },
        { kind: 'pri', capacity: 64 },
        { kind: 'pasid', width: 20, execute: true, privileged: true },
      ],
    });
    this.registers[REG.ID / 4] = reg.DMA_ENGINE_ID;
  }

  override invalidateTranslations(
    pasid: number,
    high: number,
    low: number,
    length: number,
    global: boolean,
  ): void {
    this.registers[REG.INVALIDATIONS / 4]++;
    super.invalidateTranslations(pasid, high, low, length, global);
  }

  protected override readRegister(bar: number, offset: number, width: number): number {
    if (bar !== 0) return 0;
    if (offset >= REG.BUFFER) {
      const at = offset - REG.BUFFER;
      if (width === 4) return this.buffer.getUint32(at, true);
      return width === 2 ? this.buffer.getUint16(at, true) : this.buffer.getUint8(at);
    }
    return width === 4 && offset < REGISTERS_SIZE ? this.registers[offset / 4] : 0;
  }

  protected override writeRegister(bar: number, offset: number, width: number, value: number): void {
    if (bar !== 0) return;
    if (offset >= REG.BUFFER) {
      const at = offset - REG.BUFFER;
      if (width === 4) this.buffer.setUint32(at, value, true);
      else if (width === 2) this.buffer.setUint16(at, value, true);
      else this.buffer.setUint8(at, value);
    } else if (width === 4) {
      this.writeControl(offset, value);
    }
  }

  protected override onReset(): void {
    this.registers.fill(0);
    this.registers[REG.ID / 4] = reg.DMA_ENGINE_ID;
    this.bufferBytes.fill(0);
    this.waitingFor = -1;
    this.lastGroup = -1;
    this.command++;
  }

  protected override onPageGroupResponse(_pasid: number, prgIndex: number, code: number): void {
    if (prgIndex !== this.waitingFor) return;
    this.waitingFor = -1;
    this.setStatus(reg.STATUS_WAITING, false);
    const side = this.waitingSide;
    const error = code === PRG_FAILURE ? reg.ERROR_PAGE_FAILURE : reg.ERROR_PAGE_INVALID;
    this.later(RESPONSE_NANOSECONDS, () => (code === PRG_SUCCESS ? this.step() : this.fail(error, side)));
  }

  private get busy(): boolean {
    return (this.registers[REG.STATUS / 4] & reg.STATUS_BUSY) !== 0;
  }

  private setStatus(bits: number, on: boolean): void {
    const status = this.registers[REG.STATUS / 4];
    this.registers[REG.STATUS / 4] = on ? status | bits : status & ~bits;
  }

  private writeControl(offset: number, value: number): void {
    switch (offset) {
      case REG.STATUS:
        this.setStatus(value & reg.STATUS_DONE, false);
        return;
      case REG.INTERRUPT_ENABLE:
        this.registers[offset / 4] = value & (reg.INTERRUPT_SUCCESS | reg.INTERRUPT_ERROR);
        return;
      case REG.CONTROL:
        if (this.busy) {
          if ((value & reg.CONTROL_ABORT) !== 0) this.finish(reg.ERROR_ABORTED);
          return;
        }
        this.registers[offset / 4] = value & CONTROL_FLAGS;
        if ((value & reg.CONTROL_START) !== 0) this.start();
        return;
      default:
        if (!this.busy) {
          const bits = WRITABLE.get(offset);
          if (bits !== undefined) this.registers[offset / 4] = value & bits;
        }
    }
  }

  /** Runs `action` unless the command has ended by then. */
  private later(nanoseconds: number, action: () => void): void {
    const command = this.command;
    this.schedule(nanoseconds, () => {
      if (command === this.command) action();
    });
  }

  // ---- A command

  private start(): void {
    const { registers, source, destination } = this;
    const control = registers[REG.CONTROL / 4];
    const operation = control & reg.CONTROL_OPERATION;
    const pasid = registers[REG.PASID / 4];
    this.command++;
    registers[REG.STATUS / 4] = reg.STATUS_BUSY;
    registers[REG.COMPLETED / 4] = 0;
    registers[REG.FAULT_ADDRESS / 4] = 0;
    registers[REG.FAULT_ADDRESS / 4 + 1] = 0;
    this.pasid = pasid >= reg.PASID_ENABLE ? pasid & reg.PASID_VALUE : NO_PASID;
    this.remaining = registers[REG.LENGTH / 4];
    this.pageRequestsLeft = PAGE_REQUEST_LIMIT;

    source.used = operation === reg.OPERATION_COPY || operation === reg.OPERATION_READ;
    destination.used = operation !== reg.OPERATION_READ;
    source.place(registers[REG.SOURCE / 4 + 1], registers[REG.SOURCE / 4]);
    destination.place(registers[REG.DESTINATION / 4 + 1], registers[REG.DESTINATION / 4]);
    const privileged = (control & reg.CONTROL_PRIVILEGED) !== 0 ? ACCESS_PRIVILEGED : 0;
    const execute = (control & reg.CONTROL_EXECUTE) !== 0 ? ACCESS_EXECUTE : 0;
    const intention = (control & reg.CONTROL_REQUEST_WRITE) !== 0 ? ACCESS_WRITE : 0;
    source.access = ACCESS_READ | privileged | execute;
    source.wanted = source.access | intention;
    destination.access = ACCESS_WRITE | privileged;
    destination.wanted = destination.access;
    const possible = this.possible(operation, (privileged | execute) !== 0);
    this.later(COMMAND_NANOSECONDS, () => (possible ? this.step() : this.finish(reg.ERROR_COMMAND)));
  }

  private possible(operation: number, needsPasid: boolean): boolean {
    const buffered = operation === reg.OPERATION_READ || operation === reg.OPERATION_WRITE;
    const most = buffered ? reg.DMA_ENGINE_BUFFER_SIZE : reg.DMA_ENGINE_MAXIMUM_LENGTH;
    if (this.remaining < 1 || this.remaining > most) return false;
    if (needsPasid && this.pasid === NO_PASID) return false;
    return [this.source, this.destination].every(
      (side) => !side.used || side.page + side.pages(this.remaining) <= PAGES,
    );
  }

  /** Does as much as one page on either side allows: a translation, a page request, or the access. */
  private step(): void {
    const { source, destination } = this;
    let length = this.remaining;
    if (source.used) {
      if (!this.resolve(source)) return;
      length = Math.min(length, PAGE_SIZE - source.offset);
    }
    if (destination.used) {
      if (!this.resolve(destination)) return;
      length = Math.min(length, PAGE_SIZE - destination.offset);
    }
    if (!this.move(length)) return;
    this.pageRequestsLeft = PAGE_REQUEST_LIMIT;
    this.later(accessNanoseconds(length), () =>
      this.remaining === 0 ? this.finish(reg.ERROR_NONE) : this.step(),
    );
  }

  /** Moves `length` bytes between the resolved pages. False if a request was refused, which ends the command. */
  private move(length: number): boolean {
    const { source, destination, registers } = this;
    const done = registers[REG.COMPLETED / 4];
    const operation = registers[REG.CONTROL / 4] & reg.CONTROL_OPERATION;
    const buffered = operation === reg.OPERATION_READ || operation === reg.OPERATION_WRITE;
    const bytes = buffered ? this.bufferBytes : this.scratch;
    const at = buffered ? done : 0;
    if (operation === reg.OPERATION_FILL) {
      const pattern = registers[REG.PATTERN / 4];
      for (let i = 0; i < length; i++) bytes[i] = pattern >>> (8 * ((done + i) & 3));
    }
    const got = source.used ? this.request(source, bytes, at, length) : length;
    const put = destination.used ? this.request(destination, bytes, at, got) : got;
    source.advance(put);
    destination.advance(put);
    registers[REG.COMPLETED / 4] += put;
    this.remaining -= put;
    if (put === length) return true;
    this.fail(reg.ERROR_REFUSED, put < got ? destination : source);
    return false;
  }

  /** One read or write at a side's target. Returns the bytes that went. */
  private request(side: TransferSide, bytes: Uint8Array, at: number, length: number): number {
    if (length === 0) return 0;
    const high = pageHigh(side.target);
    const low = pageLow(side.target) + side.offset;
    // A translated request has no PASID prefix, and what the prefix says was checked with the translation.
    const pasid = side.translated ? NO_PASID : this.pasid;
    const noSnoop = (this.registers[REG.CONTROL / 4] & reg.CONTROL_NO_SNOOP) !== 0 && !side.snooped;
    const asked = side.translated ? (side.access & ACCESS_WRITE) | ACCESS_TRANSLATED : side.access;
    const access = noSnoop ? asked | ACCESS_NO_SNOOP : asked;
    return side.write
      ? this.dmaWrite(pasid, high, low, bytes, at, length, access)
      : this.dmaRead(pasid, high, low, bytes, at, length, access);
  }

  // ---- Translation

  /** Finds where a side's page is. False: not now; a later event goes on, or the command has ended. */
  private resolve(side: TransferSide): boolean {
    const ats = (this.registers[REG.CONTROL / 4] & reg.CONTROL_ATS) !== 0;
    side.target = side.page;
    side.translated = false;
    side.snooped = false;
    if (!ats) return true;
    const entry = this.atc?.find(this.pasid, side.page, side.wanted) ?? -1;
    if (this.atc === undefined || entry < 0) {
      this.askTranslation(side);
      return false;
    }
    this.registers[REG.CACHE_HITS / 4]++;
    side.snooped = this.atc.snooped(entry);
    if (this.atc.untranslatedOnly(entry)) return true;
    side.target = this.atc.translate(entry, side.page);
    side.translated = true;
    return true;
  }

  private askTranslation(side: TransferSide): void {
    this.registers[REG.TRANSLATIONS / 4]++;
    const completion = this.translate(this.pasid, pageHigh(side.page), pageLow(side.page), side.wanted);
    if (!completion.success) this.fail(reg.ERROR_TRANSLATION, side);
    else if (permits(completion, side.wanted)) {
      this.atc?.insert(this.pasid, side.page, completion);
      this.later(TRANSLATION_NANOSECONDS, () => this.step());
    } else if ((this.registers[REG.CONTROL / 4] & reg.CONTROL_PAGE_REQUESTS) === 0) {
      this.fail(reg.ERROR_NO_ACCESS, side);
    } else this.later(TRANSLATION_NANOSECONDS, () => this.askPages(side));
  }

  /** Sends one page request group: the page, and those after it that PREFETCH allows. */
  private askPages(side: TransferSide): void {
    if (this.pageRequestsLeft-- === 0) return this.fail(reg.ERROR_NO_ACCESS, side);
    const wish = Math.max(1, this.registers[REG.PREFETCH / 4]);
    const count = Math.min(wish, side.pages(this.remaining), this.pageRequestCredits);
    const prgIndex = this.freeGroup();
    if (count === 0 || prgIndex < 0) return this.fail(reg.ERROR_PAGE_REQUEST, side);
    this.waitingFor = prgIndex;
    this.waitingSide = side;
    this.setStatus(reg.STATUS_WAITING, true);
    // The root may answer at once, which ends the group.
    for (let i = 0; i < count && this.waitingFor === prgIndex; i++) {
      const sent = this.requestPage({
        pasid: this.pasid,
        high: pageHigh(side.page + i),
        low: pageLow(side.page + i),
        read: !side.write,
        write: (side.wanted & ACCESS_WRITE) !== 0,
        execute: (side.wanted & ACCESS_EXECUTE) !== 0,
        privileged: (side.wanted & ACCESS_PRIVILEGED) !== 0,
        last: i === count - 1,
        prgIndex,
      });
      if (!sent) {
        this.forgetGroup(prgIndex);
        return this.fail(reg.ERROR_PAGE_REQUEST, side);
      }
      this.registers[REG.PAGE_REQUESTS / 4]++;
    }
  }

  /** The next index no request in flight uses. An aborted command may have left a group behind. */
  private freeGroup(): number {
    for (let i = 1; i <= PRG_INDICES; i++) {
      const prgIndex = (this.lastGroup + i) % PRG_INDICES;
      if (!this.isGroupFree(prgIndex)) continue;
      this.lastGroup = prgIndex;
      return prgIndex;
    }
    return -1;
  }

  // ---- The end

  private fail(error: number, side: TransferSide): void {
    this.registers[REG.FAULT_ADDRESS / 4] = pageLow(side.page) + side.offset;
    this.registers[REG.FAULT_ADDRESS / 4 + 1] = pageHigh(side.page);
    if (side.write) this.setStatus(reg.STATUS_FAULT_WRITE, true);
    this.finish(error);
  }

  private finish(error: number): void {
    this.command++;
    this.waitingFor = -1;
    this.setStatus(reg.STATUS_BUSY | reg.STATUS_WAITING, false);
    this.setStatus(reg.STATUS_DONE | (error << reg.STATUS_ERROR_SHIFT), true);
    const vector = error === reg.ERROR_NONE ? 0 : 1;
    if ((this.registers[REG.INTERRUPT_ENABLE / 4] & (1 << vector)) !== 0) this.raiseMsi(vector);
    this.onEnd?.();
  }
}
