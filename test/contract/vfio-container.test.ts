/** What programs older than iommufd get from /dev/iommu: IOMMU_VFIO_IOAS and the ioctls of VFIO containers. */
import * as uapi from '../../lib/uapi';
import { Calls, code, pages, U64_MAX, UNMAPPED } from './calls';
import { PAGE } from './support';

const { IOMMU_VFIO_IOAS_CLEAR: CLEAR, IOMMU_VFIO_IOAS_GET: GET, IOMMU_VFIO_IOAS_SET: SET } = uapi;
const { VFIO_TYPE1_IOMMU: TYPE1, VFIO_TYPE1v2_IOMMU: TYPE1_V2, VFIO_DMA_UNMAP_FLAG_ALL: ALL } = uapi;
const P = pages(1);
/** Where mappings of these tests are. */
const IOVA = 0x1_0000n;

const calls = new Calls();
const { base, kernel } = calls;

beforeEach(() => calls.open());
afterEach(() => calls.close());
afterAll(() => calls.free());

/** The id for GET, or what the call gave. */
function vfioIoas(op: number, ioas_id = 0): number | string {
  const { code: result, out } = calls.call(calls.fd, uapi.IOMMU_VFIO_IOAS, { op, ioas_id });
  return result === 0 && op === GET ? out.ioas_id : result;
}

/** A container with an IOAS. */
function container(): number {
  const ioas = calls.ioas();
  expect(vfioIoas(SET, ioas)).toBe(0);
  return ioas;
}

const check = (extension: number) =>
  code(kernel.ioctl(calls.fd, uapi.VFIO_CHECK_EXTENSION.request, extension));
const setType = (type: number) => code(kernel.ioctl(calls.fd, uapi.VFIO_SET_IOMMU.request, type));

function map(iova: bigint, size: bigint, more: object = {}) {
  const values = { flags: 3, iova, size, vaddr: base, ...more };
  return calls.call(calls.fd, uapi.VFIO_IOMMU_MAP_DMA, values).code;
}

/** What the call gave, and the size it left in the struct. */
function unmap(iova: bigint, size: bigint, flags = 0): readonly [string | number, bigint] {
  const { code: result, out } = calls.call(calls.fd, uapi.VFIO_IOMMU_UNMAP_DMA, { flags, iova, size });
  return [result, out.size];
}

function getInfo(argsz: number) {
  const bytes = new Uint8Array(256).fill(0xa5);
  new DataView(bytes.buffer).setUint32(0, argsz, true);
  const result = code(kernel.ioctl(calls.fd, uapi.VFIO_IOMMU_GET_INFO.request, bytes));
  return { code: result, bytes, out: uapi.vfio_iommu_type1_info.decode(bytes) };
}

describe('VFIO_IOAS', () => {
  test('the order of complaints', () => {
    const call = (values: object) => calls.call(calls.fd, uapi.IOMMU_VFIO_IOAS, values).code;
    expect(call({ op: 3, ioas_id: 99, __reserved: 1 })).toBe('EOPNOTSUPP');
    expect(call({ op: 3, ioas_id: 99 })).toBe('EOPNOTSUPP');
    expect(call({ op: SET, ioas_id: 99 })).toBe('ENOENT');
    expect(call({ op: GET, ioas_id: 99 })).toBe('ENODEV');
    expect(call({ op: CLEAR, ioas_id: 99 })).toBe(0);
  });

  test('names an IOAS until it is cleared or destroyed', () => {
    const { id } = calls.faultQueue();
    expect(vfioIoas(SET, id)).toBe('ENOENT');
    const [first, second] = [calls.ioas(), calls.ioas()];
    expect(vfioIoas(SET, first)).toBe(0);
    expect(vfioIoas(SET, second)).toBe(0);
    expect(vfioIoas(SET, 99)).toBe('ENOENT');
    expect(vfioIoas(GET)).toBe(second);
    expect(calls.destroy(first)).toBe(0);
    expect(vfioIoas(GET)).toBe(second);
    // It is not in use by being named.
    expect(calls.destroy(second)).toBe(0);
    expect(vfioIoas(GET)).toBe('ENODEV');
    expect(calls.ioas()).toBe(first);
    expect(calls.ioas()).toBe(second);
    expect(vfioIoas(GET)).toBe('ENODEV');
    expect(vfioIoas(SET, second)).toBe(0);
    expect(vfioIoas(CLEAR)).toBe(0);
    expect(vfioIoas(GET)).toBe('ENODEV');
    expect(calls.destroy(second)).toBe(0);
  });
});

describe('dispatch', () => {
  test('six of the numbers are answered', () => {
    const request = (nr: number) => uapi.requestNumber(uapi.VFIO_TYPE, uapi.VFIO_BASE + nr);
    const answered = Array.from({ length: 28 }, (_, nr) => nr).filter(
      (nr) => code(kernel.ioctl(calls.fd, request(nr), new Uint8Array(64))) !== 'ENOTTY',
    );
    expect(answered).toEqual([0, 1, 2, 12, 13, 14]);
    expect(kernel.ioctl(calls.fd, uapi.VFIO_GET_API_VERSION.request)).toBe(uapi.VFIO_API_VERSION);
    expect(code(kernel.ioctl(calls.fd, request(12) | (1 << 16), new Uint8Array(64)))).toBe('ENOTTY');
  });

  test('without an IOAS most is ENODEV, after the struct is looked at', () => {
    expect(Array.from({ length: 12 }, (_, extension) => check(extension))).toEqual([
      ...[0, 1, 0, 1, 'ENODEV', 0, 0, 0, 1, 1, 0, 0],
    ]);
    expect(setType(TYPE1)).toBe('ENODEV');
    expect(setType(TYPE1_V2)).toBe('ENODEV');
    for (const type of [0, 2, 4, uapi.VFIO_NOIOMMU_IOMMU]) expect(setType(type)).toBe('EINVAL');
    expect(getInfo(15).code).toBe('EINVAL');
    expect(getInfo(16).code).toBe('ENODEV');
    expect(map(IOVA, P)).toBe('ENODEV');
    expect(map(IOVA, P, { flags: 4 })).toBe('EINVAL');
    expect(map(IOVA, P, { argsz: 31 })).toBe('EINVAL');
    expect(unmap(IOVA, P)).toEqual(['ENODEV', P]);
    // The dirty bitmap and new addresses are things of the past.
    for (const flags of [1, 4]) expect(unmap(IOVA, P, flags)[0]).toBe('EINVAL');
    expect(calls.call(calls.fd, uapi.VFIO_IOMMU_UNMAP_DMA, { argsz: 23 }).code).toBe('EINVAL');
    for (const row of [uapi.VFIO_IOMMU_GET_INFO, uapi.VFIO_IOMMU_MAP_DMA, uapi.VFIO_IOMMU_UNMAP_DMA])
      expect(code(kernel.ioctl(calls.fd, row.request, 8))).toBe('EFAULT');
  });
});

describe('CHECK_EXTENSION and SET_IOMMU', () => {
  test('coherency is a property of tables: none, no objection', () => {
    const ioas = container();
    expect(check(uapi.VFIO_DMA_CC_IOMMU)).toBe(1);
    const made = calls.call(calls.fd, uapi.IOMMU_TEST_CMD, { op: uapi.IOMMU_TEST_OP_MOCK_DOMAIN, id: ioas });
    // The mock IOMMU, where there is one, enforces nothing.
    if (made.code === 0) expect(check(uapi.VFIO_DMA_CC_IOMMU)).toBe(0);
    else expect(made.code).toBe('ENOTTY');
  });

  test('the first version wants whole pages, and no table that may have large entries', () => {
    const ioas = container();
    expect(setType(TYPE1_V2)).toBe(0);
    expect(map(IOVA, 1n)).toBe(0);
    expect(setType(TYPE1)).toBe('EADDRINUSE');
    expect(unmap(IOVA, 1n)).toEqual([0, 1n]);
    expect(setType(TYPE1)).toBe(0);
    expect(setType(TYPE1)).toBe(0);
    expect(map(IOVA, 1n)).toBe('EINVAL');
    expect(calls.ranges(ioas).alignment).toBe(P);
    const option = { option_id: uapi.IOMMU_OPTION_HUGE_PAGES, op: uapi.IOMMU_OPTION_OP_GET, object_id: ioas };
    expect(calls.call(calls.fd, uapi.IOMMU_OPTION, option).out.val64).toBe(0n);
    // The second version asks for nothing, and takes nothing back.
    expect(setType(TYPE1_V2)).toBe(0);
    expect(calls.ranges(ioas).alignment).toBe(P);
  });

  test('a table and a mapping are in the way, one of them is not', () => {
    const ioas = container();
    calls.bind(calls.vfio());
    const { out } = calls.call(calls.fd, uapi.IOMMU_HWPT_ALLOC, { dev_id: 2, pt_id: ioas });
    expect(map(IOVA, P)).toBe(0);
    expect(setType(TYPE1)).toBe('EINVAL');
    expect(unmap(IOVA, P)).toEqual([0, P]);
    expect(setType(TYPE1)).toBe(0);
    expect(calls.destroy(out.out_hwpt_id)).toBe(0);
  });
});

describe('GET_INFO', () => {
  const AVAILABLE_AT = 24;
  const RANGES_AT = 40;

  test('page sizes, mappings to be had, usable addresses', () => {
    container();
    const { code: result, bytes, out } = getInfo(256);
    expect(result).toBe(0);
    expect(out).toEqual({ argsz: 72, flags: 3, iova_pgsizes: U64_MAX - 4095n, cap_offset: 24, pad: 0 });
    expect(uapi.vfio_iommu_type1_info_dma_avail.decode(bytes, AVAILABLE_AT)).toEqual({
      header: { id: uapi.VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL, version: 1, next: RANGES_AT },
      avail: 0xffff_ffff,
    });
    expect(uapi.vfio_iommu_type1_info_cap_iova_range.decode(bytes, RANGES_AT)).toMatchObject({
      header: { id: uapi.VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE, version: 1, next: 0 },
      nr_iovas: 1,
      reserved: 0,
    });
    expect(uapi.vfio_iova_range.decode(bytes, RANGES_AT + 16)).toEqual({ start: 0n, end: U64_MAX });
    expect(bytes.subarray(72).every((byte) => byte === 0xa5)).toBe(true);
  });

  test('follows the device that is attached', () => {
    const ioas = container();
    const vfio = calls.vfio();
    calls.bind(vfio);
    calls.attach(vfio, ioas);
    const { bytes, out } = getInfo(256);
    expect(out).toMatchObject({ argsz: 88, cap_offset: 24 });
    expect(out.iova_pgsizes & 0x20_1fffn).toBe(0x20_1000n);
    const { found } = calls.ranges(ioas);
    expect(found.length).toBe(2);
    found.forEach(([start, end], i) =>
      expect(uapi.vfio_iova_range.decode(bytes, RANGES_AT + 16 + 16 * i)).toEqual({ start, end }),
    );
  });

  test.each([
    // argsz; the offset after which nothing is written; the first capability, its link, the second
    [16, 16, false, false, false],
    [20, 20, false, false, false],
    [24, 24, false, false, false],
    [35, 24, false, false, false],
    [36, 36, true, false, false],
    [39, 36, true, false, false],
    [40, 36, true, true, false],
    [71, 36, true, true, false],
    [72, 72, true, true, true],
  ])('with room for %p bytes', (argsz, end, first, linked, second) => {
    container();
    const { code: result, bytes, out } = getInfo(argsz);
    expect([result, out.argsz, out.flags]).toEqual([0, 72, 3]);
    expect(bytes.subarray(end).every((byte) => byte === 0xa5)).toBe(true);
    if (argsz >= 20) expect(out.cap_offset).toBe(second ? 24 : 0);
    const available = uapi.vfio_iommu_type1_info_dma_avail.decode(bytes, AVAILABLE_AT);
    if (first) expect(available.header).toEqual({ id: 3, version: 1, next: linked ? RANGES_AT : 0 });
  });

  test('ranges that fit are there although the list as a whole is not', () => {
    const ioas = container();
    const vfio = calls.vfio();
    calls.bind(vfio);
    calls.attach(vfio, ioas);
    const { bytes } = getInfo(72);
    expect(bytes.subarray(40, 56).every((byte) => byte === 0xa5)).toBe(true);
    expect(uapi.vfio_iova_range.decode(bytes, 56)).toEqual({ start: 0n, end: 0xfedf_ffffn });
    expect(bytes.subarray(72).every((byte) => byte === 0xa5)).toBe(true);
  });
});

describe('MAP_DMA', () => {
  test('has its own idea of what may be mapped', () => {
    const ioas = container();
    expect(map(IOVA, 0n)).toBe('EINVAL');
    expect(map(IOVA, P, { vaddr: U64_MAX })).toBe('EOVERFLOW');
    expect(map(IOVA, U64_MAX, { vaddr: 0n })).toBe('EINVAL');
    expect(map(IOVA, P)).toBe(0);
    expect(map(IOVA, P)).toBe('EEXIST');
    // Where IOMMU_IOAS_MAP stops one byte before.
    expect(map(U64_MAX, 2n)).toBe('EOVERFLOW');
    expect(map(U64_MAX, 1n)).toBe(0);
    expect(unmap(U64_MAX, 1n)).toEqual([0, 1n]);
    expect(map(IOVA + P, P, { vaddr: UNMAPPED })).toBe(0);
    expect(calls.unmap(ioas, 0n, U64_MAX)).toBe(2n * P);
  });

  test('neither readable nor writable is a mapping that no table can have', () => {
    const ioas = container();
    const vfio = calls.vfio();
    calls.bind(vfio);
    expect(map(IOVA, P, { flags: 0 })).toBe(0);
    expect(calls.attach(vfio, ioas)).toBe('EINVAL');
    expect(calls.copy(ioas, 0x8_0000n, ioas, IOVA, P)).toBe('EPERM');
    expect(unmap(IOVA, P)).toEqual([0, P]);
    expect(calls.attach(vfio, ioas)).toBe(3);
    expect(map(IOVA, P, { flags: 0 })).toBe('EINVAL');
    expect(map(IOVA, P, { flags: 1 })).toBe(0);
    expect(map(IOVA + P, P, { vaddr: UNMAPPED })).toBe('EFAULT');
  });
});

describe('UNMAP_DMA', () => {
  test('of the second version: whole mappings, and the size of what is gone', () => {
    container();
    expect(setType(TYPE1_V2)).toBe(0);
    expect(unmap(IOVA, P)).toEqual([0, 0n]);
    expect(unmap(IOVA, 0n)).toEqual(['EINVAL', 0n]);
    expect(unmap(U64_MAX, 2n)).toEqual(['EOVERFLOW', 0n]);
    for (const at of [0n, 2n, 4n]) expect(map(IOVA + at * P, 2n * P)).toBe(0);
    // Two mappings go, the third is straddled.
    expect(unmap(IOVA, 5n * P)).toEqual(['ENOENT', 4n * P]);
    expect(unmap(IOVA + 5n * P, P)).toEqual(['ENOENT', 0n]);
    expect(unmap(0n, U64_MAX)).toEqual([0, 2n * P]);
  });

  test('of everything', () => {
    container();
    for (const at of [0n, 2n]) expect(map(IOVA + at * P, P)).toBe(0);
    expect(unmap(0n, P, ALL)).toEqual(['EINVAL', P]);
    expect(unmap(P, 0n, ALL)).toEqual(['EINVAL', 0n]);
    expect(unmap(0n, 0n, ALL)).toEqual([0, 2n * P]);
    expect(unmap(0n, 0n, ALL)).toEqual([0, 0n]);
  });

  /** IOVA pages of the eight from IOVA on that are mapped, found by what a copy of them gives. */
  function mapped(ioas: number): number[] {
    return Array.from({ length: 8 }, (_, i) => i).filter((i) => {
      const at = 0x100_0000n;
      const found = calls.copy(ioas, at, ioas, IOVA + BigInt(i) * P, P) === at;
      if (found) expect(calls.unmap(ioas, at, P)).toBe(P);
      return found;
    });
  }

  test.each([
    ['no table', false],
    ['a table', true],
  ])('of the first version, with %s: any part of a mapping', (_, attached) => {
    const ioas = container();
    expect(setType(TYPE1)).toBe(0);
    const vfio = calls.vfio();
    calls.bind(vfio);
    if (attached) calls.attach(vfio, ioas);
    expect(map(IOVA, 8n * P)).toBe(0);
    expect(unmap(IOVA + 2n * P, P)).toEqual([0, P]);
    expect(mapped(ioas)).toEqual([0, 1, 3, 4, 5, 6, 7]);
    expect(unmap(IOVA, P)).toEqual([0, P]);
    expect(unmap(IOVA + 7n * P, 4n * P)).toEqual([0, P]);
    expect(mapped(ioas)).toEqual([1, 3, 4, 5, 6]);
    // Across a hole, from the middle of one to the middle of another.
    expect(unmap(IOVA + P, 3n * P)).toEqual([0, 2n * P]);
    expect(mapped(ioas)).toEqual([4, 5, 6]);
    expect(unmap(0n, IOVA + 5n * P)).toEqual([0, P]);
    expect(mapped(ioas)).toEqual([5, 6]);
    if (!attached) expect(calls.attach(vfio, ioas)).toBe(3);
    expect(unmap(0n, 0n, ALL)).toEqual([0, 2n * P]);
  });

  test('of the first version: where it cannot cut', () => {
    const ioas = container();
    expect(setType(TYPE1)).toBe(0);
    expect(map(IOVA, 8n * P)).toBe(0);
    // The end of the range is cut first, then the byte before its start; an error leaves the size alone.
    expect(unmap(IOVA + P, 1n)).toEqual(['EINVAL', 1n]);
    expect(unmap(IOVA + 1n, P)).toEqual(['EINVAL', P]);
    // The first byte of a mapping passes for an end of one: nothing is cut there, and the mapping is straddled.
    expect(unmap(IOVA, 1n)).toEqual(['ENOENT', 0n]);
    expect(unmap(IOVA + 1n, 4n * P - 1n)).toEqual(['ENOENT', 0n]);
    // That one had its end cut all the same.
    expect(calls.unmap(ioas, IOVA, 4n * P)).toBe(4n * P);
    expect(unmap(IOVA + 4n * P, 0n)).toEqual(['EINVAL', 0n]);
    // No bytes: what is cut is the byte before, twice.
    expect(unmap(IOVA + 6n * P, 0n)).toEqual(['EINVAL', 0n]);
    expect(calls.unmap(ioas, IOVA + 4n * P, 2n * P)).toBe(2n * P);
    // A range that wraps is cut where it ends, too.
    expect(unmap(IOVA + 7n * P, U64_MAX - P + 1n)).toEqual(['EOVERFLOW', 0n]);
    expect(calls.unmap(ioas, IOVA + 7n * P, P)).toBe(P);
    expect(mapped(ioas)).toEqual([6]);
  });

  test('the halves of a mapping start where its memory does', () => {
    const ioas = container();
    expect(setType(TYPE1)).toBe(0);
    expect(map(IOVA, 8n * P, { vaddr: base + 16n * P })).toBe(0);
    expect(unmap(IOVA + 3n * P, P)).toEqual([0, P]);
    const vfio = calls.vfio();
    calls.bind(vfio);
    expect(calls.attach(vfio, ioas)).toBe(3);
    expect(mapped(ioas)).toEqual([0, 1, 2, 4, 5, 6, 7]);
    expect(calls.unmap(ioas, IOVA + 4n * P, P)).toBe('ENOENT');
    expect(calls.unmap(ioas, IOVA, 3n * P)).toBe(3n * P);
    expect(calls.unmap(ioas, IOVA + 4n * P, 4n * P)).toBe(4n * P);
  });

  test('parts go only as long as entries are small', () => {
    const ioas = container();
    expect(setType(TYPE1)).toBe(0);
    expect(map(IOVA, 4n * P)).toBe(0);
    const option = { option_id: uapi.IOMMU_OPTION_HUGE_PAGES, object_id: ioas, val64: 1 };
    expect(calls.call(calls.fd, uapi.IOMMU_OPTION, option).code).toBe(0);
    expect(unmap(IOVA, P)).toEqual(['ENOENT', 0n]);
    expect(setType(TYPE1)).toBe(0);
    expect(unmap(IOVA, P)).toEqual([0, P]);
  });

  test('a page below the end of the address space is a page', () => {
    container();
    expect(setType(TYPE1)).toBe(0);
    const last = U64_MAX - BigInt(PAGE) + 1n;
    expect(map(last - P, 2n * P)).toBe(0);
    expect(unmap(last, P)).toEqual([0, P]);
    expect(unmap(last - P, P)).toEqual([0, P]);
  });
});
