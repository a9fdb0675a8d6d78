/**
 * The language in which kernel structs are declared: C's layout rules over bytes, and nothing else.
 *
 * A declaration is data: offsets and sizes follow from it as a C compiler computes them for x86-64 and
 * arm64 Linux (little-endian, naturally aligned; `__aligned_u64` is u64). Codecs are pure: bytes in, values
 * out. Values that C calls 64-bit are bigint; everything narrower is a number.
 */

/** How one type is laid out in memory and converted. `Out` is what reading gives, `In` what writing takes. */
export interface Type<Out, In = Out> {
  readonly size: number;
  readonly alignment: number;
  /** True where the field starts at the offset of the field before it (a member of an anonymous union). */
  readonly overlay: boolean;
  read(view: DataView, offset: number): Out;
  write(view: DataView, offset: number, value: In): void;
}

type Fields = Record<string, Type<unknown, never>>;
type Read<F> = F extends Type<infer Out, never> ? Out : never;
type Write<F> = F extends { write(view: DataView, offset: number, value: infer In): void } ? In : never;

/** What `Struct.read` returns. */
export type Values<F extends Fields> = { [K in keyof F]: Read<F[K]> };
/** What `Struct.encode` takes: fields left out are zero. */
export type Input<F extends Fields> = { [K in keyof F]?: Write<F[K]> };

/** A C struct: its layout, and the codec that follows from it. */
export interface Struct<F extends Fields = Fields> extends Type<Values<F>, Input<F>> {
  /** The struct's name in the kernel header. */
  readonly name: string;
  readonly fields: F;
  /** Byte offset of each field. */
  readonly offsets: { readonly [K in keyof F]: number };
  /** Fresh bytes holding `values`, zero elsewhere. */
  encode(values: Input<F>): Uint8Array<ArrayBuffer>;
  /** Reads the struct that starts at `offset` of `bytes`. Throws RangeError where bytes are too short. */
  decode(bytes: Uint8Array, offset?: number): Values<F>;
}

function integer(name: string, size: 1 | 2 | 4, signed: boolean): Type<number> {
  const least = signed ? -(2 ** (size * 8 - 1)) : 0;
  const most = 2 ** (size * 8 - (signed ? 1 : 0)) - 1;
  const get = `get${signed ? 'Int' : 'Uint'}${size * 8}` as 'getUint32';
  const set = `set${signed ? 'Int' : 'Uint'}${size * 8}` as 'setUint32';
  return {
    size,
    alignment: size,
    overlay: false,
    read: (view, offset) => view[get](offset, true),
    write(view, offset, value) {
      if (!Number.isInteger(value) || value < least || value > most)
        throw new RangeError(`${value} is not a ${name} (${least} to ${most})`);
      view[set](offset, value, true);
    },
  };
}

export const u8 = integer('u8', 1, false);
export const u16 = integer('u16', 2, false);
export const u32 = integer('u32', 4, false);
export const s32 = integer('s32', 4, true);

/** `__u64` and `__aligned_u64`: read as bigint; written from a bigint, or a number that is a safe integer. */
export const u64: Type<bigint, bigint | number> = {
  size: 8,
  alignment: 8,
  overlay: false,
  read: (view, offset) => view.getBigUint64(offset, true),
  write: (view, offset, value) => view.setBigUint64(offset, toU64(value), true),
};

const U64_MAX = 2n ** 64n - 1n;

/** Checks that `value` is an unsigned 64-bit integer and returns it as a bigint. Throws RangeError otherwise. */
export function toU64(value: bigint | number, what = 'value'): bigint {
  // Bigints are the rule, and compared they cost less than converted.
  if (typeof value === 'bigint' && value >= 0n && value <= U64_MAX) return value;
  if (typeof value === 'number' && !Number.isSafeInteger(value))
    throw new RangeError(`${what} ${value} is not a safe integer: pass 64-bit values as bigint`);
  if (typeof value !== 'number' && typeof value !== 'bigint')
    throw new TypeError(`${what} must be a bigint or an integer, not ${typeof value}`);
  if (typeof value === 'bigint' || value < 0)
    throw new RangeError(`${what} ${value} is outside 0 to 2^64 - 1`);
  return BigInt(value);
}

/** A fixed-length C array. Writing fewer elements leaves the rest as they are. */
export function array<Out, In>(type: Type<Out, In>, length: number): Type<Out[], readonly In[]> {
  return {
    size: type.size * length,
    alignment: type.alignment,
    overlay: false,
    read: (view, offset) => Array.from({ length }, (_, i) => type.read(view, offset + i * type.size)),
    write(view, offset, values) {
      if (values.length > length) throw new RangeError(`${values.length} elements in an array of ${length}`);
      values.forEach((value, i) => type.write(view, offset + i * type.size, value));
    },
  };
}

/** A flexible array member: no bytes of its own; its elements follow the struct. */
export function flexible<Out, In>(type: Type<Out, In>): Type<undefined, undefined> {
  return { size: 0, alignment: type.alignment, overlay: false, read: () => undefined, write: () => {} };
}

/** Another member of the anonymous union that the field before it belongs to. */
export function overlay<T extends Type<unknown, never>>(type: T): T {
  return { ...type, overlay: true };
}

function align(offset: number, alignment: number): number {
  return Math.ceil(offset / alignment) * alignment;
}

/** Lays out a struct as C does. */
export function struct<F extends Fields>(name: string, fields: F): Struct<F> {
  const offsets: Record<string, number> = {};
  let alignment = 1;
  let start = 0;
  let end = 0;
  for (const [key, field] of Object.entries(fields)) {
    alignment = Math.max(alignment, field.alignment);
    start = field.overlay ? start : align(end, field.alignment);
    offsets[key] = start;
    end = Math.max(end, start + field.size);
  }
  const size = align(end, alignment);
  const entries = Object.entries(fields) as [string, Type<unknown>][];

  const read = (view: DataView, offset: number) => {
    const values: Record<string, unknown> = {};
    for (const [key, field] of entries) values[key] = field.read(view, offset + offsets[key]);
    return values as Values<F>;
  };
  const write = (view: DataView, offset: number, values: Input<F>) => {
    // Object.entries() would make an array of each field, and this is on the way of every ioctl.
    for (const key of Object.keys(values)) {
      const field = fields[key] as Type<unknown> | undefined;
      if (!field) throw new TypeError(`struct ${name} has no field ${key}`);
      const value = values[key] as unknown;
      if (value !== undefined) field.write(view, offset + offsets[key], value);
    }
  };
  return {
    name,
    fields,
    size,
    alignment,
    overlay: false,
    offsets: offsets as Struct<F>['offsets'],
    read,
    write,
    encode(values) {
      const bytes = new Uint8Array(size);
      write(new DataView(bytes.buffer), 0, values);
      return bytes;
    },
    decode: (bytes, offset = 0) =>
      read(new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength), offset),
  };
}

/** Names of a struct's fields. */
export type FieldName<S> = S extends Struct<infer F> ? keyof F & string : never;

/** One row of the uAPI: an ioctl, its struct, and what the kernel requires and returns. */
export interface Ioctl<S extends Struct = Struct> {
  /** The macro's name in the kernel header. */
  readonly name: string;
  /** The request number that ioctl(2) takes. */
  readonly request: number;
  readonly struct: S;
  /** Smallest `size` (or `argsz`) the kernel accepts, in bytes. */
  readonly minimumSize: number;
  /** Fields the kernel only writes. */
  readonly out: readonly FieldName<S>[];
  /** Fields the kernel reads and writes. Every other field is only read. */
  readonly inout: readonly FieldName<S>[];
}

/** Linux's _IO(type, nr): no size and no direction in the number. */
export function requestNumber(type: string, nr: number): number {
  return (type.charCodeAt(0) << 8) | nr;
}
