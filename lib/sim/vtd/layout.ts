/**
 * Bit layouts of in-memory structures and registers, declared once as the specification's bit ranges.
 *
 * A structure is an array of 32-bit words, lowest first. One declaration gives the encoder, the decoder and the
 * mask of the bits no field covers. For queues and registers: the table walkers use masks of their own.
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
  const codecs = (Object.keys(fields) as Name[]).map((name) => codecOf(name, fields[name]));
  const reserved = new Int32Array(wordCount).fill(-1);
  for (const { parts } of codecs)
    for (const { word, shift, mask } of parts) reserved[word]! &= ~(mask << shift);
  return {
    wordCount,
    fields,
    reserved,
    encode(values) {
      const words = new Int32Array(wordCount);
      for (const codec of codecs) {
        const value = values[codec.name];
        if (value !== undefined) encodeField(words, codec, value);
      }
      return words;
    },
    decode(words, at = 0) {
      const values = {} as Record<Name, number>;
      for (const { name, parts } of codecs) values[name] = decodeField(words, at, parts);
      return values;
    },
  };
}

/** Field at [63:low] or so that holds an address aligned to 2^(low % 64). */
export const address = (high: number, low: number): AddressField => ({ address: [high, low] });

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

/** What a field has in one word. */
interface Part {
  readonly word: number;
  readonly shift: number;
  readonly mask: number;
  /** What its lowest bit counts in the field's value. */
  readonly scale: number;
}

/** A field, with all that can be known of it before there is a value. */
interface Codec<Name extends string> {
  readonly name: Name;
  readonly range: BitRange;
  readonly parts: readonly Part[];
  /** Values are multiples of it, below the limit. */
  readonly unit: number;
  readonly limit: number;
}

function codecOf<Name extends string>(name: Name, field: Field): Codec<Name> {
  const range = rangeOf(field);
  const unit = 'address' in field ? 2 ** (range[1] % 64) : 1;
  return { name, range, parts: partsOf(range, unit), unit, limit: unit * 2 ** (range[0] - range[1] + 1) };
}

function partsOf([high, low]: BitRange, unit: number): Part[] {
  const parts: Part[] = [];
  for (let bit = low, count; bit <= high; bit += count) {
    const shift = bit & 31;
    count = Math.min(32 - shift, high - bit + 1);
    parts.push({ word: bit >> 5, shift, mask: lowMask(count), scale: unit * 2 ** (bit - low) });
  }
  return parts;
}

function lowMask(count: number): number {
  return count === 32 ? -1 : (1 << count) - 1;
}

function encodeField(
  words: Int32Array,
  { name, range, parts, unit, limit }: Codec<string>,
  value: number,
): void {
  if (!(value >= 0 && value < limit) || value % unit !== 0)
    throw new RangeError(`${name}: 0x${value.toString(16)} does not fit bits ${range[0]}:${range[1]}`);
  // What lies above a part is beyond 32 bits of the quotient, or masked; what lies below is its fraction.
  for (const { word, shift, mask, scale } of parts) words[word]! |= ((value / scale) & mask) << shift;
}

function decodeField(words: ArrayLike<number>, at: number, parts: readonly Part[]): number {
  let value = 0;
  for (const { word, shift, mask, scale } of parts)
    value += (((words[at + word]! >>> shift) & mask) >>> 0) * scale;
  return value;
}

/** Halves of an address below 2^53, as signed 32-bit words. */
export const highHalf = (pa: number): number => Math.floor(pa / 2 ** 32) | 0;
export const lowHalf = (pa: number): number => pa | 0;
/** The address with these halves; exact below 2^53. */
export const joinHalves = (high: number, low: number): number => (high >>> 0) * 2 ** 32 + (low >>> 0);
