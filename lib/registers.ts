/** A driver's view of declared registers: what may not be done with one has no method, and throws. */
import { placeCells, RegisterCell, type RegisterArray } from './register-cell';
import type { FieldValues, RegisterLayout, RegisterMap, RegisterSpace, RegisterValue } from './register-map';
import { poll, type PollOptions, type WaitOptions } from './wait';

/** What a register is waited for to be: the fields named have these values; or whatever a function says. */
export type RegisterCondition<R> = FieldValues<R> | ((value: RegisterValue<R>) => boolean);

/** One register of a device, read and written by name. */
export class Register<R> extends RegisterCell<R> {
  /**
   * Reads the register again and again until the condition holds, and resolves to the value that it held for.
   *
   *     await registers.CSTS.waitFor({ RDY: 1 }, { timeout: 500 });
   *
   * Without a timeout or a signal it waits for ever. Rejects with IommuError ETIMEDOUT, which tells the last value, with
   * the signal's reason, or with what reading throws.
   */
  async waitFor(condition: RegisterCondition<R>, options: PollOptions = {}): Promise<RegisterValue<R>> {
    const holds = typeof condition === 'function' ? condition : this.#comparison(condition);
    let last: RegisterValue<R>;
    const look = () => {
      last = this.read();
      return holds(last) ? { value: last } : undefined;
    };
    const found = await poll(look, options, () => this.#explain(last, condition, options));
    return found.value;
  }

  /** Throws TypeError and RangeError for fields and values that there are not. */
  #comparison(fields: FieldValues<R>): (value: RegisterValue<R>) => boolean {
    this.encode(fields);
    const wanted = Object.entries(fields as Record<string, number | bigint | undefined>).filter(
      ([, value]) => value !== undefined,
    );
    return (value) => {
      const values = value as Record<string, number | bigint>;
      // A bigint field may be waited for with a number: the two are equal by ==, and by === never.
      return wanted.every(([name, each]) => BigInt(values[name]) === BigInt(each as number | bigint));
    };
  }

  #explain(last: RegisterValue<R>, condition: RegisterCondition<R>, { timeout }: WaitOptions): string {
    const wanted = typeof condition === 'function' ? 'what was waited for' : show(condition);
    const gone = allOnes(this.layout, last) ? ', all ones, as of a device that is gone' : '';
    return `${this.name} has not become ${wanted} within ${timeout} ms: it is ${show(last)}${gone}`;
  }
}

function show(value: unknown): string {
  if (typeof value === 'number' || typeof value === 'bigint') return `0x${value.toString(16)}`;
  return `{ ${Object.entries(value as object)
    .map(([name, each]) => `${name}: ${String(each)}`)
    .join(', ')} }`;
}

function allOnes({ bytes, fields }: RegisterLayout, value: unknown): boolean {
  const ones = (bits: number, each: unknown) => BigInt(each as number) === (1n << BigInt(bits)) - 1n;
  if (!fields) return ones(8 * bytes, value);
  const values = value as Record<string, number | bigint>;
  return [...fields].every(([name, { bits }]) => ones(bits, values[name]));
}

type Read = 'read' | 'readRaw' | 'field' | 'waitFor';
type Named = 'name' | 'offset';

/** What can be done with a register. */
export type RegisterOf<R> = R extends { readonly access: 'ro' }
  ? Pick<Register<R>, Named | Read>
  : R extends { readonly access: 'wo' }
    ? Pick<Register<R>, Named | 'write'>
    : R extends { readonly access: 'w1c' }
      ? Pick<Register<R>, Named | Read | 'write'>
      : Pick<Register<R>, Named | Read | 'write' | 'update'>;

/** A map's registers by name; where one has a `count`, an array. `Registers<typeof MAP>` names the type. */
export type Registers<M extends RegisterMap> = {
  readonly [Name in keyof M['definitions']]: M['definitions'][Name] extends { readonly count: number }
    ? RegisterArray<RegisterOf<M['definitions'][Name]>>
    : RegisterOf<M['definitions'][Name]>;
};

/** Finds a map's registers in a space, from `base` on. Throws RangeError where they do not fit. */
export function placeRegisters<M extends RegisterMap>(
  space: RegisterSpace & { readonly label: string },
  map: M,
  base: number,
): Registers<M> {
  if (!Number.isSafeInteger(base) || base < 0 || base + map.size > space.size)
    throw new RangeError(
      `${map.size} bytes of registers at offset ${base} do not fit in ${space.label}, which has ${space.size}`,
    );
  if (base % map.alignment !== 0)
    throw new RangeError(`offset ${base} is not a multiple of ${map.alignment}, the widest of the registers`);
  const make = (layout: RegisterLayout, name: string, offset: number) =>
    new Register<unknown>(space, layout, { name, offset, access: layout.access });
  return placeCells(map, base, make) as Registers<M>;
}
