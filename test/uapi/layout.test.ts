import fc from 'fast-check';
import { array, overlay, s32, struct, toU64, u16, u32, u64, u8 } from '../../lib/uapi/layout';

describe('struct', () => {
  const mixed = struct('mixed', {
    a: u8,
    b: u32,
    c: u16,
    d: u64,
    e: array(u8, 3),
    first: u32,
    second: overlay(u16),
    tail: s32,
  });

  test('follows C: natural alignment, unions at one offset, size a multiple of the alignment', () => {
    expect(mixed.offsets).toEqual({ a: 0, b: 4, c: 8, d: 16, e: 24, first: 28, second: 28, tail: 32 });
    expect(mixed.size).toBe(40);
    expect(mixed.alignment).toBe(8);
  });

  test('encodes little-endian and leaves what is not given zero', () => {
    const bytes = mixed.encode({ b: 0x01020304, tail: -2 });
    expect([...bytes.subarray(4, 8)]).toEqual([4, 3, 2, 1]);
    expect([...bytes.subarray(32, 36)]).toEqual([0xfe, 0xff, 0xff, 0xff]);
    expect(bytes.reduce((sum, byte) => sum + (byte === 0 ? 0 : 1), 0)).toBe(8);
  });

  test('what values have inherited is not of the struct', () => {
    const values = Object.assign(Object.create({ c: 1, unknown: 2 }) as object, { b: 3 });
    expect(mixed.decode(mixed.encode(values))).toMatchObject({ b: 3, c: 0 });
  });

  test('decodes what it encoded', () => {
    fc.assert(
      fc.property(
        fc.record({
          a: fc.integer({ min: 0, max: 255 }),
          b: fc.integer({ min: 0, max: 0xffffffff }),
          c: fc.integer({ min: 0, max: 0xffff }),
          d: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
          e: fc.array(fc.integer({ min: 0, max: 255 }), { minLength: 3, maxLength: 3 }),
          first: fc.integer({ min: 0, max: 0xffffffff }),
          tail: fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 }),
        }),
        (values) => {
          const { second, ...rest } = mixed.decode(mixed.encode(values));
          expect(rest).toEqual(values);
          expect(second).toBe(values.first & 0xffff);
        },
      ),
    );
  });

  test('reads at an offset, and says when bytes are too short', () => {
    const bytes = new Uint8Array(48);
    bytes.set(mixed.encode({ d: 5n }), 8);
    expect(mixed.decode(bytes, 8).d).toBe(5n);
    expect(() => mixed.decode(bytes.subarray(0, 20))).toThrow(RangeError);
  });

  test('refuses values a field cannot hold, and fields it does not have', () => {
    expect(() => mixed.encode({ a: 256 })).toThrow(RangeError);
    expect(() => mixed.encode({ b: -1 })).toThrow(RangeError);
    expect(() => mixed.encode({ b: 1.5 })).toThrow(RangeError);
    expect(() => mixed.encode({ d: 2n ** 64n })).toThrow(RangeError);
    expect(() => mixed.encode({ e: [1, 2, 3, 4] })).toThrow(RangeError);
    expect(() => mixed.encode({ unknown: 1 } as never)).toThrow(/struct mixed has no field unknown/);
  });
});

test('toU64 takes bigint and safe integers only', () => {
  expect(toU64(7)).toBe(7n);
  expect(toU64(2n ** 64n - 1n)).toBe(2n ** 64n - 1n);
  expect(() => toU64(2 ** 53)).toThrow(/bigint/);
  expect(() => toU64(-1)).toThrow(RangeError);
  expect(() => toU64('1' as never)).toThrow(TypeError);
});
