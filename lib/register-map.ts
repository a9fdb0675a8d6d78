/**
 * Registers of a device, declared once: the driver reads and writes them by name, and a simulated device answers by the
 * same declaration. This file knows neither of the two: it has the layout, and the bits in it.
 */

/** Bits of a register: one, or [highest, lowest] as specifications write "15:0". */
export type FieldBits = number | readonly [high: number, low: number];

/**
 * 'rw'; 'ro': writes are refused; 'wo': reads are; 'w1c': writing a one clears the bit, so that a read-modify-write would
 * clear what it should keep, and update() is refused.
 */
export type RegisterAccess = 'rw' | 'ro' | 'wo' | 'w1c';

/** One register, or an array of equal ones. */
export interface RegisterDefinition {
  /** Bytes from the start of the map; a multiple of the width. */
  readonly offset: number;
  /** Bits: every access is one access of exactly this width. */
  readonly width: 8 | 16 | 32 | 64;
  /** Default 'rw'. */
  readonly access?: RegisterAccess;
  /** Value after a reset of the device. Default 0. */
  readonly reset?: number | bigint;
  /** Without fields, the register is one number. */
  readonly fields?: Readonly<Record<string, FieldBits>>;
  /** An array of so many registers. */
  readonly count?: number;
  /** Of an array: bytes from one to the next, a multiple of the width. Default: the width. */
  readonly stride?: number;
}

export type RegisterDefinitions = Readonly<Record<string, RegisterDefinition>>;

/** A tuple of N elements: what stands for arithmetic in types. */
type Tuple<N extends number, T extends unknown[] = []> = T['length'] extends N
  ? T
  : Tuple<N, [...T, unknown]>;

/** bigint for a field of more than 32 bits, number for any other. */
type FieldValue<F> = F extends readonly [infer High extends number, infer Low extends number]
  ? number extends High | Low
    ? number | bigint
    : Tuple<High> extends [...Tuple<Low>, ...Tuple<32>, ...unknown[]]
      ? bigint
      : number
  : number;

type Fields<R> = R extends { readonly fields: infer F extends object } ? F : never;

/** What a whole register is as one number: bigint where it has 64 bits. */
export type RawValue<R> = R extends { readonly width: 64 } ? bigint : number;

/** The value of each field; or the one number, where there are no fields. */
export type RegisterValue<R> = R extends { readonly fields: object }
  ? { -readonly [Name in keyof Fields<R>]: FieldValue<Fields<R>[Name]> }
  : RawValue<R>;

/** Some fields. A bigint field takes a number too. */
export type FieldValues<R> = R extends { readonly fields: object }
  ? {
      readonly [Name in keyof Fields<R>]?: FieldValue<Fields<R>[Name]> extends number
        ? number
        : number | bigint;
    }
  : never;

/** Some fields, the others 0; or the whole register as one number. */
export type RegisterInput<R> = FieldValues<R> | (R extends { readonly width: 64 } ? number | bigint : number);

/** @internal A field, ready to be taken out. */
export interface FieldLayout {
  readonly name: string;
  readonly low: number;
  readonly bits: number;
  /** `bits` ones; of up to 32 bits. */
  readonly mask: number;
  /** One more than the largest value. */
  readonly limit: number;
}

/** @internal A register, checked and complete. */
export interface RegisterLayout {
  readonly name: string;
  readonly offset: number;
  /** Bytes. */
  readonly bytes: 1 | 2 | 4 | 8;
  readonly access: RegisterAccess;
  readonly reset: bigint;
  readonly fields: ReadonlyMap<string, FieldLayout> | undefined;
  /** Undefined: a single register. */
  readonly count: number | undefined;
  readonly stride: number;
}

/** Where registers are: a Region of a device, or the inside of a simulated one. Accesses are little-endian. */
export interface RegisterSpace {
  /** Bytes. */
  readonly size: number;
  read8(offset: number): number;
  read16(offset: number): number;
  read32(offset: number): number;
  read64(offset: number): bigint;
  write8(offset: number, value: number): void;
  write16(offset: number, value: number): void;
  write32(offset: number, value: number): void;
  write64(offset: number, value: number | bigint): void;
}

/** Registers by name. */
export class RegisterMap<D extends RegisterDefinitions = RegisterDefinitions> {
  readonly definitions: D;
  /** @internal In the order of the declaration. */
  readonly layouts: ReadonlyMap<string, RegisterLayout>;
  /** Bytes, from offset 0 to the end of the last register. */
  readonly size: number;
  /** Bytes of the widest register: what the map may be placed at multiples of. */
  readonly alignment: number;

  /** @internal Use `defineRegisters()`. */
  constructor(definitions: D) {
    const layouts = Object.entries(definitions).map(([name, each]) => layOut(name, each));
    checkOverlaps(layouts);
    this.definitions = definitions;
    this.layouts = new Map(layouts.map((layout) => [layout.name, layout]));
    this.size = Math.max(0, ...layouts.map(endOf));
    this.alignment = Math.max(1, ...layouts.map(({ bytes }) => bytes));
  }
}

/**
 * Declares registers: names, offsets, widths and fields become types. `region.registers(map)` is where a driver uses them.
 *
 *     const NVME = defineRegisters({
 *       CAP: { offset: 0x00, width: 64, access: 'ro', fields: { MQES: [15, 0], CQR: 16, DSTRD: [35, 32] } },
 *       SQTDBL: { offset: 0x1000, width: 32, access: 'wo', count: 16, stride: 8 },
 *     });
 *
 * A field of up to 32 bits is a number, a wider one a bigint; a register without fields is a bigint if it has 64 bits.
 * Throws RangeError for what is misaligned, overlaps or does not fit, and says which register. Two registers may share an
 * offset where one is 'ro' and the other 'wo'.
 */
export function defineRegisters<const D extends RegisterDefinitions>(definitions: D): RegisterMap<D> {
  return new RegisterMap(definitions);
}

function requireInteger(what: string, value: unknown, least: number, most: number): void {
  if (typeof value !== 'number') throw new TypeError(`${what} must be a number, not ${typeof value}`);
  if (!Number.isInteger(value) || value < least || value > most)
    throw new RangeError(`${what} must be an integer from ${least} to ${most}, not ${value}`);
}

const ACCESSES: readonly unknown[] = ['rw', 'ro', 'wo', 'w1c'];
/** Far above any BAR's size that a program can use, and offsets stay exact. */
const MOST_BYTES = 2 ** 48;
const MOST_REGISTERS = 2 ** 20;

function layOut(name: string, definition: RegisterDefinition): RegisterLayout {
  const { offset, width, access = 'rw', reset = 0, fields, count } = definition;
  if (![8, 16, 32, 64].includes(width))
    throw new RangeError(`${name}: a register has 8, 16, 32 or 64 bits, not ${String(width)}`);
  if (!ACCESSES.includes(access))
    throw new TypeError(`${name}: access is 'rw', 'ro', 'wo' or 'w1c', not ${String(access)}`);
  const bytes = (width / 8) as RegisterLayout['bytes'];
  const { stride = bytes } = definition;
  requireInteger(`${name}: offset`, offset, 0, MOST_BYTES);
  if (offset % bytes !== 0)
    throw new RangeError(`${name}: offset 0x${offset.toString(16)} is not a multiple of its ${bytes} bytes`);
  if (count === undefined) {
    if (definition.stride !== undefined) throw new TypeError(`${name}: a stride needs a count`);
  } else requireInteger(`${name}: count`, count, 1, MOST_REGISTERS);
  requireInteger(`${name}: stride`, stride, bytes, MOST_BYTES);
  if (stride % bytes !== 0)
    throw new RangeError(`${name}: stride ${stride} is not a multiple of its ${bytes} bytes`);
  const wide = BigInt(reset);
  if (wide < 0n || wide >= 1n << BigInt(width))
    throw new RangeError(`${name}: the reset value ${wide} does not fit in ${width} bits`);
  const parts = fields && new Map(layOutFields(name, fields, width).map((field) => [field.name, field]));
  return { name, offset, bytes, access, reset: wide, fields: parts, count, stride };
}

function layOutFields(name: string, fields: NonNullable<RegisterDefinition['fields']>, width: number) {
  let taken = 0n;
  return Object.entries(fields).map(([field, at]): FieldLayout => {
    const [high, low] = typeof at === 'number' ? [at, at] : at;
    requireInteger(`${name}.${field}: the highest bit`, high, 0, width - 1);
    requireInteger(`${name}.${field}: the lowest bit`, low, 0, high);
    const bits = high - low + 1;
    const mask = ((1n << BigInt(bits)) - 1n) << BigInt(low);
    if ((taken & mask) !== 0n) throw new RangeError(`${name}.${field} overlaps another field`);
    taken |= mask;
    return { name: field, low, bits, mask: bits >= 32 ? 0xffffffff : 2 ** bits - 1, limit: 2 ** bits };
  });
}

function endOf({ offset, bytes, count = 1, stride }: RegisterLayout): number {
  return offset + (count - 1) * stride + bytes;
}

/** The stretches of bytes that a register is, or the registers of an array are. Arrays may be interleaved, as doorbells are. */
function stretches({ name, offset, bytes, count = 1, stride }: RegisterLayout) {
  const dense = stride === bytes;
  return Array.from({ length: dense ? 1 : count }, (_, i) => {
    const start = offset + i * stride;
    return { name, start, end: start + (dense ? count : 1) * bytes };
  });
}

function checkOverlaps(layouts: readonly RegisterLayout[]): void {
  for (const unlike of ['wo', 'ro']) {
    const taken = layouts.filter(({ access }) => access !== unlike).flatMap(stretches);
    taken.sort((one, other) => one.start - other.start);
    for (let i = 1; i < taken.length; i++)
      if (taken[i].start < taken[i - 1].end)
        throw new RangeError(
          `${taken[i].name} overlaps ${taken[i - 1].name} at offset 0x${taken[i].start.toString(16)}`,
        );
  }
}
