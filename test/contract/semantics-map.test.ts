/** IOAS ioctls without a device: what the kernel accepts, in which order it complains, and where it puts things. */
import * as uapi from '../../lib/uapi';
import { Calls, FIXED, pages, READ, U64_MAX, UNMAPPED, WRITE } from './calls';

const calls = new Calls();
const { base } = calls;
const P = pages(1);
let ioas: number;

beforeEach(() => {
  calls.open();
  ioas = calls.ioas();
});
afterEach(() => calls.close());
afterAll(() => calls.free());

/** Struct fields that the kernel must find zero. */
const RESERVED: readonly [uapi.Ioctl, string, unknown][] = (
  [
    [uapi.IOMMU_IOAS_ALLOC, 'flags', 1],
    [uapi.IOMMU_IOAS_IOVA_RANGES, '__reserved', 1],
    [uapi.IOMMU_IOAS_ALLOW_IOVAS, '__reserved', 1],
    [uapi.IOMMU_IOAS_MAP, '__reserved', 1],
    [uapi.IOMMU_IOAS_MAP, 'flags', 8],
    [uapi.IOMMU_IOAS_COPY, 'flags', 8],
    [uapi.IOMMU_HWPT_ALLOC, '__reserved', 1],
    [uapi.IOMMU_HWPT_INVALIDATE, '__reserved', 1],
    [uapi.IOMMU_GET_HW_INFO, '__reserved', [0, 0, 1]],
    [uapi.IOMMU_GET_HW_INFO, 'flags', 2],
    [uapi.IOMMU_FAULT_QUEUE_ALLOC, 'flags', 1],
  ] as unknown as [uapi.Ioctl, string, unknown][]
).map(([row, field, value]) => [row, field, value]);

describe('dispatch', () => {
  test.each(RESERVED)('$name: reserved fields come first', (row, field, value) => {
    const all = Object.fromEntries(
      Object.entries(row.struct.fields)
        .filter(([name, type]) => name !== 'size' && type.size === 4)
        .map(([name]) => [name, 99]),
    );
    const wrong = { ...all, ...('flags' in row.struct.fields ? { flags: 0 } : {}), [field]: value };
    const zeroed = Object.fromEntries(
      Object.entries(wrong).map(([name, v]) => [name, name === '__reserved' && field !== name ? 0 : v]),
    );
    const { code: result } = calls.call(calls.fd, row, zeroed as never);
    expect(result).toBe('EOPNOTSUPP');
  });

  test.each(uapi.iommufdIoctls.map((row) => [row.name, row] as const))('%s: sizes', (name, row) => {
    // What the two backends do not both have yet.
    const later =
      /OPTION|VFIO_IOAS|MAP_FILE|DIRTY|VIOMMU|VDEVICE|CHANGE_PROCESS|VEVENTQ|HW_QUEUE|NOIOMMU/.test(name);
    const sized = (size: number, tail = 0) => {
      const bytes = new Uint8Array(Math.max(size, row.struct.size, 8192)).fill(tail, row.struct.size);
      new DataView(bytes.buffer).setUint32(0, size, true);
      return calls.kernel.ioctl(calls.fd, row.request, bytes);
    };
    if (later) {
      expect(sized(0)).toBeLessThan(0);
      return;
    }
    for (const size of [0, 4, row.minimumSize - 1]) expect(sized(size)).toBe(-uapi.errno.EINVAL);
    for (const size of [row.struct.size + 1, row.struct.size + 8, 8192])
      expect(sized(size, 1)).toBe(-uapi.errno.E2BIG);
    expect(sized(8192)).toBe(sized(row.struct.size));
    expect(sized(row.minimumSize)).toBe(sized(row.struct.size));
  });
});

describe('MAP', () => {
  test('boundaries of a fixed mapping', () => {
    expect(calls.map(ioas, 0n, base, 1n)).toBe(0);
    expect(calls.map(ioas, U64_MAX, base, 1n)).toBe('EOVERFLOW');
    expect(calls.map(ioas, 0n, base, U64_MAX)).toBe('EOVERFLOW');
    expect(calls.map(ioas, U64_MAX - 1n, base, 1n)).toBe(0);
    expect(calls.map(ioas, U64_MAX - P, base, P)).toBe('EEXIST');
    expect(calls.map(ioas, U64_MAX - 2n * P, base, P)).toBe(0);
    expect(calls.map(ioas, U64_MAX - 1n, base, 3n)).toBe('EOVERFLOW');
    expect(calls.map(ioas, 0x5000n, base, 0n)).toBe('EINVAL');
    // The end of the range of addresses counts as an overflow even where the sum is exactly 2^64.
    expect(calls.map(ioas, 0x5000n, U64_MAX - 4095n, P)).toBe('EOVERFLOW');
    expect(calls.map(ioas, 0x5000n, U64_MAX - 4096n, P)).toBe(0);
    expect(calls.map(ioas, 0x5000n, 0n, U64_MAX - 1n)).toBe('EINVAL');
    expect(calls.map(ioas, 0x5000n, 0n, U64_MAX - 4095n)).toBe('EINVAL');
    expect(calls.map(ioas, 0x5000n, 0n, U64_MAX - 0x9000n)).toBe('EEXIST');
  });

  test('overlaps, byte by byte', () => {
    expect(calls.map(ioas, 0x1000n, base, P)).toBe(0);
    for (const [iova, length] of [
      [0x1000n, P],
      [0x800n, P],
      [0x1fffn, 1n],
      [0n, 0x1_0000n],
    ])
      expect(calls.map(ioas, iova, base, length)).toBe('EEXIST');
    expect(calls.map(ioas, 0x2000n, base, 1n)).toBe(0);
    expect(calls.map(ioas, 0xfffn, base, 1n)).toBe(0);
  });

  test('without a device a bad address maps', () => {
    expect(calls.map(ioas, 0x1000n, UNMAPPED, P)).toBe(0);
    expect(calls.map(ioas, 0x10_0000n, 0xffff_8880_0000_0000n, P)).toBe(0);
  });
});

describe('automatic IOVAs', () => {
  test.each([
    [0n, 1n, 0x1000n],
    [0n, P, 0x1000n],
    [1n, 1n, 0x1001n],
    [0xfffn, 2n, 0x1fffn],
    [0x2000n, 3n * P, 0x2000n],
    [0n, 3n << 20n, 0x20_0000n],
    [P, 2n << 20n, 0x1000n],
    [0x123n, 0x4567n, 0x1123n],
  ])('offset %p, length %p goes to %p', (offset, length, iova) => {
    expect(calls.mapAnywhere(ioas, base + offset, length)).toBe(iova);
  });

  test('of several, each goes to the first hole', () => {
    const at = (offset: bigint, length: bigint) => calls.mapAnywhere(ioas, base + offset, length);
    expect(at(0n, 1n)).toBe(0x1000n);
    expect(at(0n, P)).toBe(0x2000n);
    expect(at(1n, 1n)).toBe(0x1001n);
    expect(at(0x801n, 0x64n)).toBe(0x1801n);
    // Below page alignment the offset in the page is lost.
    expect(at(0x801n, 0x64n)).toBe(0x1865n);
    expect(at(0x800n, 0x800n)).toBe(0x3800n);
    expect(calls.mapAnywhere(ioas, 0n, P)).toBe(0x4000n);
  });

  test('too much is EOVERFLOW or ENOSPC', () => {
    expect(calls.mapAnywhere(ioas, 0n, (U64_MAX >> 1n) - 1n)).toBe(0x20_0000n);
    expect(calls.mapAnywhere(ioas, 0n, (U64_MAX >> 1n) - 1n)).toBe('ENOSPC');
    expect(calls.mapAnywhere(ioas, 0n, U64_MAX >> 1n)).toBe('EOVERFLOW');
    expect(calls.mapAnywhere(ioas, 0n, 1n << 63n)).toBe('EOVERFLOW');
  });

  test('go into the allowed ranges only, fixed ones anywhere', () => {
    expect(
      calls.allow(ioas, [
        [0x1_0000n, 0x1_2fffn],
        [0x3_0000n, 0x3_ffffn],
      ]),
    ).toBe(0);
    for (const iova of [0x1_0000n, 0x1_1000n, 0x1_2000n, 0x3_0000n])
      expect(calls.mapAnywhere(ioas, base, P)).toBe(iova);
    expect(calls.mapAnywhere(ioas, base, 0x1_0000n)).toBe('ENOSPC');
    expect(calls.map(ioas, 0x90_0000n, base, P)).toBe(0);
    expect(calls.allow(ioas, [])).toBe(0);
    expect(calls.mapAnywhere(ioas, base, P)).toBe(0x1000n);
  });

  test('neighbouring allowed ranges are one', () => {
    expect(
      calls.allow(ioas, [
        [0x1_2000n, 0x1_3fffn],
        [0x1_0000n, 0x1_1fffn],
      ]),
    ).toBe(0);
    expect(calls.mapAnywhere(ioas, base, 4n * P)).toBe(0x1_0000n);
  });

  test('never lie below the second page or in the last', () => {
    expect(calls.allow(ioas, [[0n, 0xfffn]])).toBe(0);
    expect(calls.mapAnywhere(ioas, base, 1n)).toBe('ENOSPC');
    expect(calls.allow(ioas, [[0n, 0x17ffn]])).toBe(0);
    expect(calls.mapAnywhere(ioas, base, 0x800n)).toBe(0x1000n);
    expect(calls.allow(ioas, [[U64_MAX - 0x3000n, U64_MAX]])).toBe(0);
    expect(calls.mapAnywhere(ioas, base, P)).toBe(U64_MAX - 0x2fffn);
    expect(calls.mapAnywhere(ioas, base, P)).toBe(U64_MAX - 0x1fffn);
    expect(calls.mapAnywhere(ioas, base, P)).toBe('ENOSPC');
  });
});

describe('ALLOW_IOVAS and IOVA_RANGES', () => {
  test('wrong ranges', () => {
    expect(calls.allow(ioas, [[5n, 5n]])).toBe('EINVAL');
    expect(calls.allow(ioas, [[6n, 5n]])).toBe('EINVAL');
    expect(
      calls.allow(ioas, [
        [0x1000n, 0x2000n],
        [0x2000n, 0x3000n],
      ]),
    ).toBe('EINVAL');
    expect(calls.allow(99, [[6n, 5n]])).toBe('ENOENT');
    const bad = { ioas_id: ioas, num_iovas: 1, allowed_iovas: UNMAPPED };
    expect(calls.call(calls.fd, uapi.IOMMU_IOAS_ALLOW_IOVAS, bad).code).toBe('EFAULT');
  });

  test('everything is usable, whatever is mapped or allowed', () => {
    expect(calls.map(ioas, 0x1000n, base, P)).toBe(0);
    expect(calls.allow(ioas, [[0x1_0000n, 0x1_ffffn]])).toBe(0);
    expect(calls.ranges(ioas)).toEqual({ code: 0, count: 1, alignment: 1n, found: [[0n, U64_MAX]] });
    expect(calls.ranges(ioas, 0)).toMatchObject({ code: 'EMSGSIZE', count: 1, alignment: 1n });
    const bad = { ioas_id: ioas, num_iovas: 1, allowed_iovas: UNMAPPED };
    expect(calls.call(calls.fd, uapi.IOMMU_IOAS_IOVA_RANGES, bad).code).toBe('EFAULT');
  });
});

describe('UNMAP', () => {
  const few = () => {
    for (const page of [1, 2, 3, 5, 7]) calls.map(ioas, pages(page), base + pages(page), P);
  };

  test('of nothing', () => {
    expect(calls.unmap(ioas, 0n, U64_MAX)).toBe(0n);
    expect(calls.unmap(ioas, 0n, P)).toBe('ENOENT');
    expect(calls.unmap(ioas, 0n, 0n)).toBe('EINVAL');
    expect(calls.unmap(ioas, 1n, U64_MAX)).toBe('EOVERFLOW');
    expect(calls.unmap(ioas, U64_MAX, 1n)).toBe('EOVERFLOW');
    expect(calls.unmap(ioas, 3n, U64_MAX - 1n)).toBe('EOVERFLOW');
    expect(calls.unmap(ioas, 2n, U64_MAX - 1n)).toBe('ENOENT');
    expect(calls.unmap(99, 0n, 0n)).toBe('ENOENT');
  });

  test('over holes says how much there was', () => {
    few();
    expect(calls.unmap(ioas, P, 2n * P)).toBe(2n * P);
    expect(calls.unmap(ioas, P, 16n * P)).toBe(3n * P);
  });

  test.each([
    ['the first', P + 1n, 2n * P, 5n],
    ['one inside', P + 1n, 1n, 5n],
    ['one after two that go', P, 2n * P + 1n, 3n],
    ['the last', 0n, 7n * P + 1n, 1n],
  ])('cutting %s is ENOENT, and what came before is gone', (_name, iova, length, left) => {
    few();
    expect(calls.unmap(ioas, iova, length)).toBe('ENOENT');
    expect(calls.unmap(ioas, 0n, U64_MAX)).toBe(left * P);
  });
});

describe('COPY', () => {
  let other: number;
  beforeEach(() => {
    other = calls.ioas();
    calls.map(ioas, 0x1000n, base, P);
    calls.map(ioas, 0x2000n, base + 5n * P, 2n * P);
    calls.map(ioas, 0x8000n, base + 9n * P, P, READ);
  });

  test('of one area, several, and parts', () => {
    expect(calls.copy(other, 0x1000n, ioas, 0x1000n, P)).toBe(0x1000n);
    expect(calls.copy(other, 0x1_0000n, ioas, 0x1000n, 3n * P)).toBe(0x1_0000n);
    expect(calls.copy(other, 0x2_0000n, ioas, 0x1400n, 0x800n)).toBe(0x2_0000n);
    expect(calls.copy(other, 0x3_0001n, ioas, 0x1801n, P)).toBe(0x3_0001n);
    // Several areas stay several.
    expect(calls.unmap(other, 0x1_0000n, P)).toBe(P);
    expect(calls.unmap(other, 0x3_0001n, 0x7ffn)).toBe(0x7ffn);
  });

  test('where something is missing or not allowed', () => {
    expect(calls.copy(other, 0n, ioas, 0x3000n, 2n * P)).toBe('ENOENT');
    expect(calls.copy(other, 0n, ioas, 0x8000n, P)).toBe('EPERM');
    expect(calls.copy(other, 0n, ioas, 0x8000n, P, WRITE | FIXED)).toBe('EPERM');
    expect(calls.copy(other, 0n, ioas, 0x8000n, P, READ | FIXED)).toBe(0n);
    expect(calls.copy(other, 0n, ioas, 0x1000n, 0n)).toBe('EINVAL');
    expect(calls.copy(other, 0n, ioas, 0x1000n, U64_MAX)).toBe('EOVERFLOW');
    expect(calls.copy(other, 0n, ioas, 0x1000n, U64_MAX - 1n)).toBe('EOVERFLOW');
    expect(calls.copy(other, 0n, ioas, 0x1000n, 1n, FIXED)).toBe('EINVAL');
  });

  test('looks for the source first', () => {
    expect(calls.copy(99, 0n, 98, 0x1000n, 0n)).toBe('ENOENT');
    expect(calls.copy(99, 0n, ioas, 0x1000n, 0n)).toBe('EINVAL');
    expect(calls.copy(99, 0n, ioas, 0x5000n, P)).toBe('ENOENT');
    expect(calls.copy(99, 0n, ioas, 0x1000n, P)).toBe('ENOENT');
  });

  test('of a copy, after the first is gone', () => {
    expect(calls.copy(ioas, 0x10_0000n, ioas, 0x1000n, 3n * P)).toBe(0x10_0000n);
    expect(calls.unmap(ioas, 0n, 0x1_0000n)).toBe(4n * P);
    expect(calls.copy(ioas, 0n, ioas, 0x10_0800n, 2n * P, READ)).toBe(0x1800n);
  });
});

describe('objects', () => {
  test('DESTROY', () => {
    const second = calls.ioas();
    expect(calls.destroy(0)).toBe('ENOENT');
    expect(calls.destroy(U32_MAX)).toBe('ENOENT');
    calls.map(second, 0n, base, P);
    expect(calls.destroy(second)).toBe(0);
    expect(calls.destroy(second)).toBe('ENOENT');
    expect(calls.ioas()).toBe(second);
  });
});

const U32_MAX = 2 ** 32 - 1;
