/**
 * The registers and the memory in one BAR of a simulated device: what software may read and write of them follows from their
 * declaration, what happens then is the device's.
 */
import { placeCells, RegisterCell, type RegisterArray } from '../../register-cell';
import type { RegisterLayout, RegisterMap, RegisterSpace, RegisterValue } from '../../register-map';

/** What a device does when software uses one of its registers. */
export interface RegisterHandler<R> {
  /** Before software reads it: time to bring it up to date. */
  reading?(index: number): void;
  /**
   * After software wrote it. `value` is what was written: of a 'w1c' register the bits that are cleared now. `previous` is what
   * it was before: a device that takes no write at the moment puts that back. Software that writes half of a 64-bit register
   * has written all of it, the other half as it was.
   */
  written?(value: RegisterValue<R>, previous: RegisterValue<R>, index: number): void;
}

export type RegisterHandlers<M extends RegisterMap> = {
  readonly [Name in keyof M['definitions']]?: RegisterHandler<M['definitions'][Name]>;
};

/** Registers as the device itself has them: it reads and writes all of them, whatever software may. */
export type DeviceRegisters<M extends RegisterMap> = {
  readonly [Name in keyof M['definitions']]: M['definitions'][Name] extends { readonly count: number }
    ? RegisterArray<RegisterCell<M['definitions'][Name]>>
    : RegisterCell<M['definitions'][Name]>;
};

/** A register that software finds at an offset. */
interface Entry {
  readonly layout: RegisterLayout;
  readonly index: number;
  readonly cell: RegisterCell<unknown>;
  readonly handler: RegisterHandler<unknown> | undefined;
}

/** Plain memory behind a BAR. */
interface Area {
  readonly start: number;
  readonly bytes: Uint8Array;
  readonly view: DataView;
}

/** What the device stores, without what software may do with it. */
class Store implements RegisterSpace {
  readonly view: DataView;

  constructor(readonly size: number) {
    this.view = new DataView(new ArrayBuffer(size));
  }
  read8(offset: number): number {
    return this.view.getUint8(offset);
  }
  read16(offset: number): number {
    return this.view.getUint16(offset, true);
  }
  read32(offset: number): number {
    return this.view.getUint32(offset, true);
  }
  read64(offset: number): bigint {
    return this.view.getBigUint64(offset, true);
  }
  write8(offset: number, value: number): void {
    this.view.setUint8(offset, value);
  }
  write16(offset: number, value: number): void {
    this.view.setUint16(offset, value, true);
  }
  write32(offset: number, value: number): void {
    this.view.setUint32(offset, value, true);
  }
  write64(offset: number, value: number | bigint): void {
    this.view.setBigUint64(offset, BigInt(value), true);
  }
}

export class RegisterBank {
  readonly #size: number;
  /** By offset: what software reads there, and what it writes, which may be two registers. */
  readonly #readable = new Map<number, Entry>();
  readonly #writable = new Map<number, Entry>();
  readonly #areas: Area[] = [];

  /** `size`: bytes of the BAR. */
  constructor(size: number) {
    this.#size = size;
  }

  /** Puts declared registers at an offset. RangeError where they do not fit, or others are there. */
  add<M extends RegisterMap>(map: M, offset: number, handlers: RegisterHandlers<M>): DeviceRegisters<M> {
    this.#requireInside(offset, map.size, map.alignment);
    const store = new Store(map.size);
    // One that is only written may be where another is only read.
    const writeOnly = new Store(map.size);
    const make = (layout: RegisterLayout, name: string, at: number) =>
      new RegisterCell<unknown>(layout.access === 'wo' ? writeOnly : store, layout, {
        name,
        offset: at,
        access: 'rw',
      });
    for (const [name, layout] of map.layouts) {
      const handler = handlers[name as keyof M['definitions']] as RegisterHandler<unknown> | undefined;
      for (let index = 0; index < (layout.count ?? 1); index++) {
        const at = layout.offset + index * layout.stride;
        this.#enter(offset + at, { layout, index, cell: make(layout, name, at), handler });
      }
    }
    this.reset();
    return placeCells(map, 0, make) as DeviceRegisters<M>;
  }

  /** Puts memory at an offset, which software reads and writes with any width. */
  addMemory(offset: number, length: number): Uint8Array {
    this.#requireInside(offset, length, 8);
    if (length % 8 !== 0)
      throw new RangeError(`memory of ${length} bytes: the length must be a multiple of 8`);
    const bytes = new Uint8Array(length);
    this.#areas.push({ start: offset, bytes, view: new DataView(bytes.buffer) });
    return bytes;
  }

  /** Every register back to its declared value, memory to zeros. */
  reset(): void {
    for (const entries of [this.#readable, this.#writable])
      for (const { layout, cell } of entries.values())
        cell.write((layout.bytes === 8 ? layout.reset : Number(layout.reset)) as number);
    for (const { bytes } of this.#areas) bytes.fill(0);
  }

  /** A read by software of 1, 2 or 4 bytes; undefined where there is nothing of that width. */
  read(offset: number, width: number): number | undefined {
    const area = this.#areaAt(offset);
    if (area) return readView(area.view, offset - area.start, width);
    const entry = this.#readable.get(offset);
    if (entry?.layout.bytes === width) return Number(value(entry));
    const whole = width === 4 ? wide(this.#readable, offset) : undefined;
    if (!whole) return undefined;
    const both = BigInt(value(whole));
    return Number(BigInt.asUintN(32, offset % 8 === 0 ? both : both >> 32n));
  }

  /** A read of 8 bytes; undefined where there is no register of 64 bits. */
  read64(offset: number): bigint | undefined {
    const entry = wide(this.#readable, offset);
    return entry && BigInt(value(entry));
  }

  /** A write of 1, 2 or 4 bytes; false where there is nothing of that width. */
  write(offset: number, width: number, bits: number): boolean {
    const area = this.#areaAt(offset);
    if (area) {
      writeView(area.view, offset - area.start, width, bits);
      return true;
    }
    const entry = this.#writable.get(offset);
    if (entry?.layout.bytes === width) {
      write(entry, bits);
      return true;
    }
    const whole = width === 4 ? wide(this.#writable, offset) : undefined;
    if (whole) write(whole, withHalf(whole, offset, bits));
    return whole !== undefined;
  }

  /** A write of 8 bytes; false where there is no register of 64 bits. */
  write64(offset: number, bits: bigint): boolean {
    const entry = wide(this.#writable, offset);
    if (entry) write(entry, bits);
    return entry !== undefined;
  }

  #areaAt(offset: number): Area | undefined {
    return this.#areas.find(({ start, bytes }) => offset >= start && offset < start + bytes.length);
  }

  #enter(offset: number, entry: Entry): void {
    const { name, access } = entry.layout;
    const maps =
      access === 'ro'
        ? [this.#readable]
        : access === 'wo'
          ? [this.#writable]
          : [this.#readable, this.#writable];
    for (const entries of maps) {
      const there = entries.get(offset);
      if (there)
        throw new RangeError(`${name} is where ${there.layout.name} is, at 0x${offset.toString(16)}`);
      entries.set(offset, entry);
    }
  }

  #requireInside(offset: number, length: number, alignment: number): void {
    if (
      !Number.isSafeInteger(offset) ||
      offset < 0 ||
      offset % alignment !== 0 ||
      offset + length > this.#size
    )
      throw new RangeError(
        `${length} bytes at offset ${offset}, a multiple of ${alignment}, do not fit in a BAR of ${this.#size}`,
      );
  }
}

/** The 64-bit register that has these bytes. */
function wide(entries: ReadonlyMap<number, Entry>, offset: number): Entry | undefined {
  const entry = entries.get(offset - (offset % 8));
  return entry?.layout.bytes === 8 ? entry : undefined;
}

function value({ index, cell, handler }: Entry): number | bigint {
  handler?.reading?.(index);
  return cell.readRaw();
}

function write({ layout, index, cell, handler }: Entry, bits: number | bigint): void {
  if (layout.access !== 'w1c' && !handler?.written) return cell.write(bits as number);
  const old = cell.readRaw() as number | bigint;
  const previous = cell.read();
  cell.write(bits as number);
  const written = cell.read();
  if (layout.access === 'w1c') cell.write(cleared(old, bits) as number);
  handler?.written?.(written, previous, index);
}

/** A 64-bit register with one half replaced. The bits of a 'w1c' register that are not written are zeros. */
function withHalf({ layout, cell }: Entry, offset: number, bits: number): bigint {
  const old = layout.access === 'w1c' ? 0n : BigInt(cell.readRaw() as number | bigint);
  const shift = offset % 8 === 0 ? 0n : 32n;
  return (old & ~(0xffffffffn << shift)) | (BigInt(bits) << shift);
}

function cleared(old: number | bigint, ones: number | bigint): number | bigint {
  return typeof old === 'bigint' ? old & ~BigInt(ones) : (old & ~Number(ones)) >>> 0;
}

function readView(view: DataView, at: number, width: number): number {
  if (width === 4) return view.getUint32(at, true);
  return width === 2 ? view.getUint16(at, true) : view.getUint8(at);
}

function writeView(view: DataView, at: number, width: number, value: number): void {
  if (width === 4) view.setUint32(at, value, true);
  else if (width === 2) view.setUint16(at, value, true);
  else view.setUint8(at, value);
}
