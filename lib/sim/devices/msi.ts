/**
 * Message signalled interrupts: MSI and MSI-X. PCI Express Base Specification 6.0, sections 6.1.4 (behaviour), 7.7.1
 * (MSI capability) and 7.7.2 (MSI-X capability and table). A message is a memory write of four bytes.
 */
import type { MsiCapability, MsixCapability } from './capabilities';
import type { BarDescription, ConfigSpace } from './config-space';
import * as pci from './pci-registers';

/** Performs the memory write. False: the function may not write memory now, and the message is lost. */
export type SendMessage = (high: number, low: number, data: number) => boolean;

function checkVector(vector: number, vectors: number): void {
  if (!Number.isInteger(vector) || vector < 0 || vector >= vectors) {
    throw new RangeError(`no vector ${vector}: the function has ${vectors}`);
  }
}

/** Multiple Message Enable, bits 6:4 of the control register. */
const multipleMessageEnable = (control: number): number => (control >>> 4) & 7;

export class Msi {
  private readonly data: number;
  private readonly mask: number;

  constructor(
    private readonly capability: MsiCapability,
    private readonly config: ConfigSpace,
    private readonly at: number,
    private readonly send: SendMessage,
  ) {
    this.data = at + pci.MSI_UPPER_ADDRESS + (capability.wide ? 4 : 0);
    this.mask = this.data + 4;
  }

  get enabled(): boolean {
    return (this.config.read(this.at + pci.MSI_CONTROL, 2) & pci.MSI_CONTROL_ENABLE) !== 0;
  }

  /** Sends vector's message; a masked one becomes pending. True if the message left. */
  raise(vector: number): boolean {
    checkVector(vector, this.capability.vectors);
    if (!this.enabled) return false;
    const control = this.config.read(this.at + pci.MSI_CONTROL, 2);
    // Software may allocate fewer vectors than the function asked for; the rest fold onto those.
    const allocated = 2 ** Math.min(multipleMessageEnable(control), Math.log2(this.capability.vectors));
    const index = vector % allocated;
    if (this.capability.maskable && (this.config.read(this.mask, 4) & (1 << index)) !== 0) {
      this.config.set(this.mask + 4, 4, (this.config.read(this.mask + 4, 4) | (1 << index)) >>> 0);
      return false;
    }
    return this.message(index, allocated);
  }

  /** Sends pending messages that are no longer masked: for after a write to the capability. */
  flush(): void {
    if (!this.capability.maskable || !this.enabled) return;
    const ready = this.config.read(this.mask + 4, 4) & ~this.config.read(this.mask, 4);
    if (ready === 0) return;
    const control = this.config.read(this.at + pci.MSI_CONTROL, 2);
    const allocated = 2 ** Math.min(multipleMessageEnable(control), Math.log2(this.capability.vectors));
    this.config.set(this.mask + 4, 4, (this.config.read(this.mask + 4, 4) & ~ready) >>> 0);
    for (let index = 0; index < allocated; index++) {
      if ((ready & (1 << index)) !== 0) this.message(index, allocated);
    }
  }

  private message(index: number, allocated: number): boolean {
    const low = this.config.read(this.at + pci.MSI_ADDRESS, 4);
    const high = this.capability.wide ? this.config.read(this.at + pci.MSI_UPPER_ADDRESS, 4) : 0;
    // The function puts the vector into the low bits of the data.
    const data = (this.config.read(this.data, 2) & ~(allocated - 1)) | index;
    return this.send(high, low, data);
  }
}

/** Bit 0 of vector control. */
const VECTOR_MASKED = 1;

export class Msix {
  private readonly table: DataView;
  private readonly pending: DataView;

  constructor(
    private readonly capability: MsixCapability,
    private readonly config: ConfigSpace,
    private readonly at: number,
    private readonly send: SendMessage,
  ) {
    this.table = new DataView(new ArrayBuffer(capability.vectors * pci.MSIX_ENTRY_SIZE));
    this.pending = new DataView(new ArrayBuffer(Math.ceil(capability.vectors / 64) * 8));
    this.checkPlace('table', capability.table, this.table.byteLength);
    this.checkPlace('pending bit array', capability.pending, this.pending.byteLength);
    this.reset();
  }

  get enabled(): boolean {
    return (this.control & pci.MSIX_CONTROL_ENABLE) !== 0;
  }

  /** Sends vector's message; a masked one becomes pending. True if the message left. */
  raise(vector: number): boolean {
    checkVector(vector, this.capability.vectors);
    if (!this.enabled) return false;
    if (this.masked(vector)) {
      this.setPending(vector, true);
      return false;
    }
    return this.message(vector);
  }

  /** Sends pending messages that are no longer masked: for after a write to the capability or the table. */
  flush(): void {
    if (!this.enabled) return;
    for (let vector = 0; vector < this.capability.vectors; vector++) {
      if (!this.isPending(vector) || this.masked(vector)) continue;
      this.setPending(vector, false);
      this.message(vector);
    }
  }

  /** Whether an access at this offset of a BAR is to the table or the pending bits. */
  covers(bar: number, offset: number): boolean {
    return this.within(bar, offset) !== undefined;
  }

  read(bar: number, offset: number, width: number): number {
    const view = this.within(bar, offset);
    if (view === undefined) throw new RangeError(`no MSI-X structure at ${offset} of BAR ${bar}`);
    const at = offset - (view === this.table ? this.capability.table : this.capability.pending).offset;
    if (width === 4) return view.getUint32(at, true);
    return width === 2 ? view.getUint16(at, true) : view.getUint8(at);
  }

  /** Pending bits are read-only. Of vector control, only the mask bit is kept. */
  write(bar: number, offset: number, width: number, value: number): void {
    if (this.within(bar, offset) !== this.table) return;
    const at = offset - this.capability.table.offset;
    if (width === 4) this.table.setUint32(at, value, true);
    else if (width === 2) this.table.setUint16(at, value, true);
    else this.table.setUint8(at, value);
    const entry = at - (at % pci.MSIX_ENTRY_SIZE);
    this.table.setUint32(entry, this.table.getUint32(entry, true) & ~3, true);
    this.table.setUint32(entry + 12, this.table.getUint32(entry + 12, true) & VECTOR_MASKED, true);
    this.flush();
  }

  /** Every vector masked, nothing pending. */
  reset(): void {
    for (let at = 0; at < this.table.byteLength; at += pci.MSIX_ENTRY_SIZE) {
      for (let field = 0; field < 12; field += 4) this.table.setUint32(at + field, 0, true);
      this.table.setUint32(at + 12, VECTOR_MASKED, true);
    }
    for (let at = 0; at < this.pending.byteLength; at++) this.pending.setUint8(at, 0);
  }

  private get control(): number {
    return this.config.read(this.at + pci.MSIX_CONTROL, 2);
  }

  private masked(vector: number): boolean {
    if ((this.control & pci.MSIX_CONTROL_FUNCTION_MASK) !== 0) return true;
    return (this.table.getUint32(vector * pci.MSIX_ENTRY_SIZE + 12, true) & VECTOR_MASKED) !== 0;
  }

  private isPending(vector: number): boolean {
    return (this.pending.getUint8(vector >>> 3) & (1 << (vector & 7))) !== 0;
  }

  private setPending(vector: number, on: boolean): void {
    const bit = 1 << (vector & 7);
    const byte = this.pending.getUint8(vector >>> 3);
    this.pending.setUint8(vector >>> 3, on ? byte | bit : byte & ~bit);
  }

  private message(vector: number): boolean {
    const at = vector * pci.MSIX_ENTRY_SIZE;
    const low = this.table.getUint32(at, true);
    const high = this.table.getUint32(at + 4, true);
    return this.send(high, low, this.table.getUint32(at + 8, true));
  }

  private within(bar: number, offset: number): DataView | undefined {
    const { table, pending } = this.capability;
    if (bar === table.bar && offset >= table.offset && offset < table.offset + this.table.byteLength) {
      return this.table;
    }
    if (
      bar === pending.bar &&
      offset >= pending.offset &&
      offset < pending.offset + this.pending.byteLength
    ) {
      return this.pending;
    }
    return undefined;
  }

  private checkPlace(name: string, place: { bar: number; offset: number }, length: number): void {
    const bar: BarDescription | undefined = this.config.bar(place.bar);
    if (bar === undefined || place.offset % 8 !== 0 || place.offset + length > bar.size) {
      throw new RangeError(`the MSI-X ${name} does not fit at ${place.offset} of BAR ${place.bar}`);
    }
  }
}
