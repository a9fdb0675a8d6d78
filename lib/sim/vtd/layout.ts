/**
 * Bit layouts of in-memory structures and registers, declared once as the specification's bit ranges.
 *
 * A structure is an array of 32-bit words, lowest first. One declaration gives the encoder, the decoder and the
 * mask of the bits no field covers. Cold paths only: the table walkers use masks of their own.
 */

/** [highest bit, lowest bit], as the specification writes "63:12". */
export type BitRange = readonly [high: number, low: number];

/** A field whose value is a byte address: bits `low` and up of the structure hold bits `low % 64` and up of it. */
export interface AddressField {
  readonly address: BitRange;
}

export type Field = BitRange | AddressField;

export interface Layout<Name extends string> {
  /** Size in 32-bit words. */
  readonly wordCount: number;
  readonly fields: Readonly<Record<Name, Field>>;
  /** Bits that belong to no field, per word. */
  readonly reserved: Int32Array;
  /** Absent fields are 0. RangeError for a value that does not fit its field. */
  readonly encode: (values: Partial<Record<Name, number>>) => Int32Array;
  /** Field values of the structure at word `at`. */
  readonly decode: (words: ArrayLike<number>, at?: number) => Record<Name, number>;
}

export function layout<Name extends string>(bits: number, fields: Record<Name, Field>): Layout<Name> {
  const wordCount = bits / 32;
  const names = Object.keys(fields) as Name[];
  const reserved = new Int32Array(wordCount).fill(-1);
  for (const name of names) {
    const [high, low] = rangeOf(fields[name]);
    for (let bit = low; bit <= high; bit++) reserved[bit >> 5]! &= ~(1 << (bit & 31));
  }
  return {
    wordCount,
    fields,
    reserved,
    encode(values) {
      const words = new Int32Array(wordCount);
      for (const name of names) {
        const value = values[name];
        if (value !== undefined) encodeField(words, name, fields[name], value);
      }
      return words;
    },
    decode(words, at = 0) {
      const values = {} as Record<Name, number>;
      for (const name of names) values[name] = decodeField(words, at, fields[name]);
      return values;
    },
  };
}

/** Field at [63:low] or so that holds an address aligned to 2^(low % 64). */
export const address = (high: number, low: number): AddressField => ({ address: [high, low] });

/** The unsigned value of bits high:low of the structure at word `at`; exact up to 53 bits. */
export function extractBits(words: ArrayLike<number>, at: number, [high, low]: BitRange): number {
  let value = 0;
  let scale = 1;
  for (let bit = low; bit <= high;) {
    const shift = bit & 31;
    const count = Math.min(32 - shift, high - bit + 1);
    const part = ((words[at + (bit >> 5)]! >>> shift) & lowMask(count)) >>> 0;
    value += part * scale;
    scale *= 2 ** count;
    bit += count;
  }
  return value;
}

/** ORs `value` into bits high:low. */
export function insertBits(words: Int32Array, [high, low]: BitRange, value: number): void {
  for (let bit = low; bit <= high;) {
    const shift = bit & 31;
    const count = Math.min(32 - shift, high - bit + 1);
    words[bit >> 5]! |= (value % 2 ** count) << shift;
    value = Math.floor(value / 2 ** count);
    bit += count;
  }
}

/** True if a bit of `words` is set where `mask` has one. */
export function anyBits(words: ArrayLike<number>, mask: Int32Array): boolean {
  for (let i = 0; i < mask.length; i++) if ((words[i]! & mask[i]!) !== 0) return true;
  return false;
}

/** A copy of `layout`'s reserved bits plus those of the named fields and of every address bit from `width` up. */
export function reservedBits<Name extends string>(
  of: Layout<Name>,
  names: readonly Name[],
  width = 64,
): Int32Array {
  const mask = Int32Array.from(of.reserved);
  for (const name of names) setRange(mask, rangeOf(of.fields[name]));
  for (const field of Object.values<Field>(of.fields)) {
    if (!('address' in field)) continue;
    const [high, low] = field.address;
    const first = low - (low % 64) + width;
    if (first <= high) setRange(mask, [high, first]);
  }
  return mask;
}

function setRange(mask: Int32Array, [high, low]: BitRange): void {
  for (let bit = low; bit <= high; bit++) mask[bit >> 5]! |= 1 << (bit & 31);
}

function rangeOf(field: Field): BitRange {
  return 'address' in field ? field.address : field;
}

function lowMask(count: number): number {
  return count === 32 ? -1 : (1 << count) - 1;
}

function encodeField(words: Int32Array, name: string, field: Field, value: number): void {
  const range = rangeOf(field);
  const unit = 'address' in field ? 2 ** (range[1] % 64) : 1;
  const scaled = value / unit;
  if (!Number.isInteger(scaled) || scaled < 0 || scaled >= 2 ** (range[0] - range[1] + 1)) {
    throw new RangeError(`${name}: 0x${value.toString(16)} does not fit bits ${range[0]}:${range[1]}`);
  }
  insertBits(words, range, scaled);
}

function decodeField(words: ArrayLike<number>, at: number, field: Field): number {
  const range = rangeOf(field);
  const value = extractBits(words, at, range);
  return 'address' in field ? value * 2 ** (range[1] % 64) : value;
}

/** Halves of an address below 2^53, as signed 32-bit words. */
export const highHalf = (pa: number): number => Math.floor(pa / 2 ** 32) | 0;
export const lowHalf = (pa: number): number => pa | 0;
/** The address with these halves; exact below 2^53. */
export const joinHalves = (high: number, low: number): number => (high >>> 0) * 2 ** 32 + (low >>> 0);
