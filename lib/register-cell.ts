/** Registers in a space: what is read and written is the bits of their declarations. */
import type {
  FieldLayout,
  FieldValues,
  RawValue,
  RegisterAccess,
  RegisterInput,
  RegisterLayout,
  RegisterMap,
  RegisterSpace,
  RegisterValue,
} from './register-map';

/** One register in a space: whole, or by its fields. */
export class RegisterCell<R> {
  readonly name: string;
  /** Bytes from the start of the space. */
  readonly offset: number;
  /** @internal */
  readonly layout: RegisterLayout;
  readonly #space: RegisterSpace;
  readonly #access: RegisterAccess;

  /** @internal `access`: what may be done here, whatever the declaration says. */
  constructor(
    space: RegisterSpace,
    layout: RegisterLayout,
    place: { readonly name: string; readonly offset: number; readonly access: RegisterAccess },
  ) {
    this.#space = space;
    this.layout = layout;
    this.name = place.name;
    this.offset = place.offset;
    this.#access = place.access;
  }

  /** The whole register as one number, in one access. */
  readRaw(): RawValue<R> {
    if (this.#access === 'wo') throw new TypeError(`${this.name} is write-only`);
    return this.#load() as RawValue<R>;
  }

  /** Every field, in one access; or the one number, where there are no fields. */
  read(): RegisterValue<R> {
    const raw = this.readRaw() as number | bigint;
    const { fields } = this.layout;
    if (!fields) return raw as RegisterValue<R>;
    return decodeFields(fields, raw) as RegisterValue<R>;
  }

  /** One field, in one access: for loops that wait, as no object is made. */
  field<Name extends keyof RegisterValue<R> & string>(name: Name): RegisterValue<R>[Name] {
    const layout = this.#fieldNamed(name);
    return extract(layout, this.readRaw() as number | bigint) as RegisterValue<R>[Name];
  }

  /** Writes the whole register, in one access: the fields that are named, the others 0; or one number. */
  write(value: RegisterInput<R>): void {
    if (this.#access === 'ro') throw new TypeError(`${this.name} is read-only`);
    this.#store(typeof value === 'object' ? this.encode(value as FieldValues<R>) : value);
  }

  /** Changes the fields that are named, and keeps the others: one read, one write. */
  update(values: FieldValues<R>): void {
    if (this.#access === 'ro') throw new TypeError(`${this.name} is read-only`);
    if (this.#access === 'w1c')
      throw new TypeError(
        `${this.name} has bits that are cleared by writing ones: update() would clear them; use write()`,
      );
    this.#store(this.encode(values, this.readRaw() as number | bigint));
  }

  /** @internal `base` with the named fields changed. */
  encode(values: FieldValues<R>, base: number | bigint = this.layout.bytes === 8 ? 0n : 0): number | bigint {
    if (values === null || typeof values !== 'object')
      throw new TypeError(`${this.name} takes its fields, as an object`);
    let raw = base;
    for (const name of Object.keys(values)) {
      const value = (values as Record<string, unknown>)[name];
      if (value !== undefined) raw = insert(this.name, this.#fieldNamed(name), raw, value);
    }
    return raw;
  }

  #fieldNamed(name: string): FieldLayout {
    const layout = this.layout.fields?.get(name);
    if (layout) return layout;
    const names = [...(this.layout.fields?.keys() ?? [])].join(', ') || 'none';
    throw new TypeError(`${this.name} has no field ${name}; it has ${names}`);
  }

  #load(): number | bigint {
    const { bytes } = this.layout;
    if (bytes === 4) return this.#space.read32(this.offset);
    if (bytes === 8) return this.#space.read64(this.offset);
    return bytes === 2 ? this.#space.read16(this.offset) : this.#space.read8(this.offset);
  }

  #store(value: unknown): void {
    const { bytes } = this.layout;
    if (bytes === 8) this.#space.write64(this.offset, value as number | bigint);
    else if (bytes === 4) this.#space.write32(this.offset, value as number);
    else if (bytes === 2) this.#space.write16(this.offset, value as number);
    else this.#space.write8(this.offset, value as number);
  }
}

/** An array of equal registers. */
export class RegisterArray<Each> {
  readonly name: string;
  readonly length: number;
  readonly #make: (index: number) => Each;
  readonly #made: Each[] = [];

  /** @internal */
  constructor(name: string, length: number, make: (index: number) => Each) {
    this.name = name;
    this.length = length;
    this.#make = make;
  }

  /** The register of this index: the same object each time. Throws RangeError. */
  at(index: number): Each {
    const known = this.#made[index];
    if (known !== undefined) return known;
    if (!Number.isInteger(index) || index < 0 || index >= this.length)
      throw new RangeError(`${this.name} has the indices 0 to ${this.length - 1}, not ${index}`);
    return (this.#made[index] = this.#make(index));
  }
}

/** @internal Registers by name, each made by `make` at its offset; an array makes its own when they are asked for. */
export function placeCells(
  map: RegisterMap,
  base: number,
  make: (layout: RegisterLayout, name: string, offset: number) => unknown,
): Record<string, unknown> {
  const placed = [...map.layouts.values()].map((layout) => {
    const { name, offset, stride, count } = layout;
    if (count === undefined) return [name, make(layout, name, base + offset)];
    const at = (index: number) => make(layout, `${name}[${index}]`, base + offset + index * stride);
    return [name, new RegisterArray(name, count, at)];
  });
  return Object.fromEntries(placed) as Record<string, unknown>;
}

/** @internal The value of each field. */
export function decodeFields(
  fields: NonNullable<RegisterLayout['fields']>,
  raw: number | bigint,
): Record<string, number | bigint> {
  const values: Record<string, number | bigint> = {};
  for (const [name, field] of fields) values[name] = extract(field, raw);
  return values;
}

function extract({ low, bits, mask }: FieldLayout, raw: number | bigint): number | bigint {
  if (typeof raw === 'number') return ((raw >>> low) & mask) >>> 0;
  const value = BigInt.asUintN(bits, raw >> BigInt(low));
  return bits > 32 ? value : Number(value);
}

function insert(
  register: string,
  { name, low, bits, mask, limit }: FieldLayout,
  raw: number | bigint,
  value: unknown,
): number | bigint {
  if (typeof value !== 'number' && (typeof value !== 'bigint' || bits <= 32))
    throw new TypeError(`${register}.${name} takes a number, not ${typeof value}`);
  if (!(value >= 0 && value < limit && (typeof value === 'bigint' || Number.isInteger(value))))
    throw new RangeError(`${register}.${name}: ${value} does not fit in ${bits} bits`);
  if (typeof raw === 'number') return ((raw & ~(mask << low)) | (Number(value) << low)) >>> 0;
  const shift = BigInt(low);
  const ones = ((1n << BigInt(bits)) - 1n) << shift;
  return (raw & ~ones) | (BigInt(value) << shift);
}
