import fc from 'fast-check';
import { defineRegisters, type RegisterDefinition, type RegisterSpace } from '../lib';
import { placeRegisters } from '../lib/registers';
import { errorOf } from './contract/support';

/** Plain memory, and the accesses that were made to it. */
class Memory implements RegisterSpace {
  readonly label = 'memory';
  readonly view: DataView;
  readonly log: string[] = [];
  constructor(readonly size: number) {
    this.view = new DataView(new ArrayBuffer(size));
  }
  #note<T>(what: string, offset: number, value: T): T {
    this.log.push(`${what} ${offset}`);
    return value;
  }
  read8 = (offset: number) => this.#note('read8', offset, this.view.getUint8(offset));
  read16 = (offset: number) => this.#note('read16', offset, this.view.getUint16(offset, true));
  read32 = (offset: number) => this.#note('read32', offset, this.view.getUint32(offset, true));
  read64 = (offset: number) => this.#note('read64', offset, this.view.getBigUint64(offset, true));
  write8 = (offset: number, value: number) => this.#note('write8', offset, this.view.setUint8(offset, value));
  write16 = (offset: number, value: number) =>
    this.#note('write16', offset, this.view.setUint16(offset, value, true));
  write32 = (offset: number, value: number) =>
    this.#note('write32', offset, this.view.setUint32(offset, value, true));
  write64 = (offset: number, value: number | bigint) =>
    this.#note('write64', offset, this.view.setBigUint64(offset, BigInt(value), true));
}

const MAP = defineRegisters({
  CAP: { offset: 0x00, width: 64, access: 'ro', fields: { MQES: [15, 0], CQR: 16, BASE: [63, 20] } },
  CC: { offset: 0x14, width: 32, fields: { EN: 0, CSS: [6, 4], ALL: [31, 8] } },
  STATUS: { offset: 0x18, width: 16, access: 'w1c', fields: { ERROR: 0, DONE: 1 } },
  MODE: { offset: 0x1a, width: 8 },
  ADDRESS: { offset: 0x20, width: 64 },
  // As a UART has them: what is read is not what is written.
  RECEIVE: { offset: 0x1b, width: 8, access: 'ro' },
  TRANSMIT: { offset: 0x1b, width: 8, access: 'wo' },
  TAIL: { offset: 0x40, width: 32, access: 'wo', count: 4, stride: 8 },
  HEAD: { offset: 0x44, width: 32, count: 4, stride: 8, fields: { INDEX: [15, 0] } },
});

function placed(base = 0) {
  const memory = new Memory(0x100);
  return { memory, registers: placeRegisters(memory, MAP, base) };
}

test("fields are decoded from one access of the register's width", () => {
  const { memory, registers } = placed();
  memory.view.setBigUint64(0, 0xfedc_ba98_7651_1234n, true);
  const cap = registers.CAP.read();
  expect(cap).toEqual({ MQES: 0x1234, CQR: 1, BASE: 0xfedc_ba98_765n });
  expect(registers.CAP.readRaw()).toBe(0xfedc_ba98_7651_1234n);
  expect(registers.CAP.field('MQES')).toBe(0x1234);
  expect(memory.log).toEqual(['read64 0', 'read64 0', 'read64 0']);
  // What the types say: a field of up to 32 bits is a number, a wider one a bigint.
  const typed: [number, bigint, bigint, number] = [
    cap.MQES,
    cap.BASE,
    registers.ADDRESS.read(),
    registers.MODE.read(),
  ];
  expect(typed.map((each) => typeof each)).toEqual(['number', 'bigint', 'bigint', 'number']);
});

test('write sets what is named and clears the rest; update keeps the rest', () => {
  const { memory, registers } = placed();
  registers.CC.write({ EN: 1, ALL: 0xabcdef });
  expect(registers.CC.readRaw()).toBe(0xabcdef01);
  registers.CC.update({ CSS: 7, EN: 0 });
  expect(registers.CC.read()).toEqual({ EN: 0, CSS: 7, ALL: 0xabcdef });
  registers.CC.write(3);
  expect(registers.CC.readRaw()).toBe(3);
  registers.ADDRESS.write(2n ** 63n);
  registers.ADDRESS.write(5);
  expect(registers.ADDRESS.read()).toBe(5n);
  registers.STATUS.write({ DONE: 1 });
  registers.MODE.write(0xff);
  expect(memory.log).toEqual([
    'write32 20',
    'read32 20',
    'read32 20',
    'write32 20',
    'read32 20',
    'write32 20',
    'read32 20',
    'write64 32',
    'write64 32',
    'read64 32',
    'write16 24',
    'write8 26',
  ]);
});

test('arrays by index, with their stride; a map placed at an offset', () => {
  const { memory, registers } = placed(0x80);
  registers.TAIL.at(3).write(7);
  expect(memory.view.getUint32(0x80 + 0x40 + 24, true)).toBe(7);
  expect(registers.TAIL.at(3)).toBe(registers.TAIL.at(3));
  expect([registers.TAIL.length, registers.TAIL.at(3).name, registers.TAIL.at(3).offset]).toEqual([
    4,
    'TAIL[3]',
    0xd8,
  ]);
  registers.HEAD.at(0).update({ INDEX: 2 });
  expect(memory.view.getUint32(0xc4, true)).toBe(2);
  for (const index of [-1, 4, 1.5]) expect(() => registers.TAIL.at(index)).toThrow(RangeError);
  expect([MAP.size, MAP.alignment]).toEqual([0x60, 8]);
  expect(() => placed(0xa8)).toThrow(
    '96 bytes of registers at offset 168 do not fit in memory, which has 256',
  );
  expect(() => placed(0x84)).toThrow('offset 132 is not a multiple of 8');
  expect(() => placed(-8)).toThrow(RangeError);
});

test('what a register is not for has no method, and throws', () => {
  const { memory, registers } = placed();
  // @ts-expect-error: read-only
  expect(() => registers.CAP.write({ CQR: 1 })).toThrow('CAP is read-only');
  // @ts-expect-error: read-only
  expect(() => registers.CAP.update({ CQR: 1 })).toThrow('CAP is read-only');
  // @ts-expect-error: write-only
  expect(() => registers.TAIL.at(0).read()).toThrow('TAIL[0] is write-only');
  // @ts-expect-error: a read-modify-write would clear ERROR too
  expect(() => registers.STATUS.update({ DONE: 1 })).toThrow('cleared by writing ones');
  expect(memory.log).toEqual([]);
});

test('fields and values that there are not change nothing', () => {
  const { memory, registers } = placed();
  // @ts-expect-error: no such field
  expect(() => registers.CC.write({ ENABLE: 1 })).toThrow('CC has no field ENABLE; it has EN, CSS, ALL');
  // @ts-expect-error: no such field
  expect(() => registers.CAP.field('NONE')).toThrow(TypeError);
  expect(() => registers.CC.update({ CSS: 8 })).toThrow('CC.CSS: 8 does not fit in 3 bits');
  expect(() => registers.CC.write({ CSS: -1 })).toThrow(RangeError);
  expect(() => registers.CC.write({ CSS: 0.5 })).toThrow(RangeError);
  // @ts-expect-error: a number
  expect(() => registers.CC.write({ CSS: 1n })).toThrow('CC.CSS takes a number, not bigint');
  // @ts-expect-error: nothing
  expect(() => registers.CC.write(null)).toThrow(TypeError);
  // @ts-expect-error: it has no fields
  expect(() => registers.MODE.write({ EN: 1 })).toThrow('MODE has no field EN; it has none');
  expect(memory.log.filter((line) => line.startsWith('write'))).toEqual([]);
});

const wrong: [string, unknown, string][] = [
  ['width', { A: { offset: 0, width: 24 } }, 'A: a register has 8, 16, 32 or 64 bits, not 24'],
  ['misaligned', { A: { offset: 2, width: 32 } }, 'A: offset 0x2 is not a multiple of its 4 bytes'],
  ['negative', { A: { offset: -4, width: 32 } }, 'A: offset must be an integer from 0'],
  ['no offset', { A: { width: 32 } }, 'A: offset must be a number, not undefined'],
  ['access', { A: { offset: 0, width: 32, access: 'r' } }, "A: access is 'rw', 'ro', 'wo' or 'w1c', not r"],
  ['overlap', { A: { offset: 0, width: 64 }, B: { offset: 4, width: 32 } }, 'B overlaps A at offset 0x4'],
  [
    'overlap with an array',
    { A: { offset: 0, width: 32, count: 3, stride: 8 }, B: { offset: 16, width: 8 } },
    'overlaps',
  ],
  [
    'two that are read',
    { A: { offset: 0, width: 8, access: 'ro' }, B: { offset: 0, width: 8 } },
    'B overlaps A at offset 0x0',
  ],
  ['count', { A: { offset: 0, width: 8, count: 0 } }, 'A: count must be an integer from 1'],
  ['stride', { A: { offset: 0, width: 32, count: 2, stride: 6 } }, 'A: stride 6 is not a multiple'],
  ['small stride', { A: { offset: 0, width: 32, count: 2, stride: 2 } }, 'A: stride must be'],
  ['stride alone', { A: { offset: 0, width: 32, stride: 8 } }, 'A: a stride needs a count'],
  ['bits', { A: { offset: 0, width: 8, fields: { F: [8, 0] } } }, 'A.F: the highest bit must be'],
  ['order of bits', { A: { offset: 0, width: 8, fields: { F: [0, 1] } } }, 'A.F: the lowest bit must be'],
  ['fields', { A: { offset: 0, width: 8, fields: { F: [4, 0], G: 4 } } }, 'A.G overlaps another field'],
  ['reset', { A: { offset: 0, width: 8, reset: 256 } }, 'A: the reset value 256 does not fit in 8 bits'],
];

test.each(wrong)('a declaration that cannot be: %s', (_name, definitions, message) => {
  const error = errorOf(() => defineRegisters(definitions as Record<string, RegisterDefinition>));
  expect(error).toMatchObject({ message: expect.stringContaining(message) });
});

/** A register with fields anywhere in it, and a value for each. */
const random = fc
  .record({
    width: fc.constantFrom(8, 16, 32, 64),
    cuts: fc.array(fc.nat(63)),
    raw: fc.bigInt(0n, 2n ** 64n - 1n),
  })
  .map(({ width, cuts, raw }) => {
    const edges = [...new Set([0, width, ...cuts.filter((cut) => cut < width)])].sort((a, b) => a - b);
    const fields = edges.slice(1).map((end, i) => [`F${i}`, [end - 1, edges[i]] as const] as const);
    return { width: width as 8, fields: Object.fromEntries(fields), raw: BigInt.asUintN(width, raw) };
  });

test('random fields: what BigInt says', () => {
  fc.assert(
    fc.property(random, fc.bigInt(0n, 2n ** 64n - 1n), ({ width, fields, raw }, other) => {
      const map = defineRegisters({ A: { offset: 0, width, fields } });
      const registers = placeRegisters(new Memory(8), map, 0);
      registers.A.write((width === (64 as number) ? raw : Number(raw)) as number);
      const values = registers.A.read();
      for (const [name, [high, low]] of Object.entries(fields)) {
        expect(BigInt(values[name])).toBe(BigInt.asUintN(high - low + 1, raw >> BigInt(low)));
        expect(typeof values[name]).toBe(high - low + 1 > 32 ? 'bigint' : 'number');
        const change = BigInt.asUintN(high - low + 1, other);
        const value = high - low + 1 > 32 ? change : Number(change);
        registers.A.update({ [name]: value as number });
        expect(registers.A.read()).toEqual({ ...values, [name]: value });
        registers.A.write(values);
        expect(BigInt(registers.A.readRaw())).toBe(raw);
      }
    }),
  );
});
