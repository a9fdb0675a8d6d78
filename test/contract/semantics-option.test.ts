/** IOMMU_OPTION: which objects have which options, who may set them, and what huge pages change. */
import * as uapi from '../../lib/uapi';
import { code } from './calls';
import { withoutCapabilities } from './limits';
import { APERTURE, useRawIommu, type RawIommu } from './mock';
import { PAGE } from './support';

const iommu = useRawIommu();
const { IOMMU_OPTION_RLIMIT_MODE: RLIMIT_MODE, IOMMU_OPTION_HUGE_PAGES: HUGE_PAGES } = uapi;
const { IOMMU_OPTION_OP_SET: SET, IOMMU_OPTION_OP_GET: GET } = uapi;
const HUGE = 2 ** 21;

type Fields = Parameters<typeof uapi.iommu_option.encode>[0];

/** The value after GET, or the result by name. */
function option(raw: RawIommu, fields: Fields): bigint | string | number {
  const { result, out } = raw.call(uapi.IOMMU_OPTION, fields);
  return result === 0 && fields.op === GET ? out.val64 : code(result);
}

function mode(raw: RawIommu): bigint | string | number {
  return option(raw, { option_id: RLIMIT_MODE, op: GET });
}

function setMode(raw: RawIommu, val64: bigint): bigint | string | number {
  return option(raw, { option_id: RLIMIT_MODE, op: SET, val64 });
}

function hugePages(raw: RawIommu, object_id: number, val64?: bigint): bigint | string | number {
  const op = val64 === undefined ? GET : SET;
  return option(raw, { option_id: HUGE_PAGES, object_id, op, ...(val64 === undefined ? {} : { val64 }) });
}

test('the order of complaints', () => {
  const raw = iommu();
  const ioas = raw.ioas();
  expect(option(raw, { option_id: 9, op: 9, __reserved: 1, object_id: 99 })).toBe('EOPNOTSUPP');
  expect(option(raw, { option_id: HUGE_PAGES, op: GET, __reserved: 1, object_id: 99 })).toBe('EOPNOTSUPP');
  expect(option(raw, { option_id: 2, op: GET, object_id: 99 })).toBe('EOPNOTSUPP');
  expect(option(raw, { option_id: RLIMIT_MODE, op: GET, object_id: ioas })).toBe('EOPNOTSUPP');
  expect(option(raw, { option_id: RLIMIT_MODE, op: 2 })).toBe('EOPNOTSUPP');
  expect(option(raw, { option_id: HUGE_PAGES, op: 2, object_id: 99 })).toBe('ENOENT');
  expect(option(raw, { option_id: HUGE_PAGES, op: 2, object_id: ioas })).toBe('EOPNOTSUPP');
  expect(option(raw, { option_id: HUGE_PAGES, op: SET, object_id: 0, val64: 5 })).toBe('ENOENT');
});

describe('RLIMIT_MODE', () => {
  test('is of the whole iommufd, and set before it has objects', () => {
    const raw = iommu();
    expect(mode(raw)).toBe(0n);
    expect(setMode(raw, 2n)).toBe('EINVAL');
    expect(setMode(raw, 2n ** 64n - 1n)).toBe('EINVAL');
    expect(setMode(raw, 1n)).toBe(0);
    expect(mode(raw)).toBe(1n);
    expect(setMode(raw, 0n)).toBe(0);
    expect(setMode(raw, 1n)).toBe(0);
    const ioas = raw.ioas();
    for (const value of [0n, 1n, 2n]) expect(setMode(raw, value)).toBe('EBUSY');
    expect(mode(raw)).toBe(1n);
    raw.destroy(ioas);
    expect(setMode(raw, 0n)).toBe(0);
  });

  test('needs CAP_SYS_RESOURCE, and says so first', () => {
    const raw = iommu();
    withoutCapabilities(raw.kernel, () => {
      expect(setMode(raw, 2n)).toBe('EPERM');
      expect(mode(raw)).toBe(0n);
    });
    raw.ioas();
    withoutCapabilities(raw.kernel, () => expect(setMode(raw, 2n)).toBe('EPERM'));
    expect(setMode(raw, 2n)).toBe('EBUSY');
  });
});

describe('HUGE_PAGES', () => {
  test('without them, mappings are of whole pages', () => {
    const raw = iommu();
    const ioas = raw.ioas();
    const { address } = raw.memory(2 * PAGE);
    expect(hugePages(raw, ioas)).toBe(1n);
    expect(hugePages(raw, ioas, 2n)).toBe('EINVAL');
    expect(raw.map(ioas, address + 1n, 1, 0x5001n)).toBe(0x5001n);
    expect(hugePages(raw, ioas, 0n)).toBe('EADDRINUSE');
    expect(hugePages(raw, ioas)).toBe(1n);
    expect(raw.unmap(ioas, 0x5001n, 1)).toBe(0);
    expect(hugePages(raw, ioas, 0n)).toBe(0);
    expect(hugePages(raw, ioas, 0n)).toBe(0);
    expect(hugePages(raw, ioas)).toBe(0n);
    const ranges = { ioas_id: ioas, num_iovas: 0 };
    expect(raw.call(uapi.IOMMU_IOAS_IOVA_RANGES, ranges).out.out_iova_alignment).toBe(BigInt(PAGE));
    for (const [memory, length, iova] of [
      [address, 1, 0x5000n],
      [address + 1n, PAGE, 0x5000n],
      [address, PAGE, 0x5800n],
      [address, 2048, undefined],
      [address + 2048n, PAGE, undefined],
    ] as const)
      expect(code(Number(raw.map(ioas, memory, length, iova)))).toBe('EINVAL');
    expect(raw.map(ioas, address, PAGE, 0x5000n)).toBe(0x5000n);
    expect(hugePages(raw, ioas, 1n)).toBe(0);
    expect(raw.map(ioas, address, 1, 0x7001n)).toBe(0x7001n);
  });

  test('an automatic IOVA is aligned as before', () => {
    const raw = iommu();
    const ioas = raw.ioas();
    const { address } = raw.memory(3 * HUGE);
    const aligned = (address + BigInt(HUGE) - 1n) & -BigInt(HUGE);
    expect(hugePages(raw, ioas, 0n)).toBe(0);
    expect(raw.map(ioas, aligned, HUGE)).toBe(BigInt(HUGE));
    expect(raw.map(ioas, aligned, 2 * PAGE)).toBe(BigInt(2 * PAGE));
  });

  test('cannot be taken away once there are both tables and mappings', () => {
    const raw = iommu();
    const ioas = raw.ioas();
    const { address } = raw.memory(PAGE);
    raw.device(ioas);
    expect(hugePages(raw, ioas, 0n)).toBe(0);
    expect(hugePages(raw, ioas, 1n)).toBe(0);
    expect(raw.map(ioas, address, PAGE, APERTURE)).toBe(APERTURE);
    expect(hugePages(raw, ioas, 0n)).toBe('EINVAL');
    expect(hugePages(raw, ioas, 1n)).toBe(0);
    expect(raw.unmap(ioas, APERTURE, PAGE)).toBe(0);
    expect(hugePages(raw, ioas, 0n)).toBe(0);
    expect(raw.map(ioas, address, PAGE, APERTURE)).toBe(APERTURE);
    // What there is already is no obstacle.
    expect(hugePages(raw, ioas, 0n)).toBe(0);
    expect(hugePages(raw, ioas, 1n)).toBe(0);
  });

  test.each([
    [1n, 16],
    [0n, 1],
  ])('set to %d, an entry of a table has %d of 16 pages', (value, expected) => {
    const raw = iommu();
    const ioas = raw.ioas();
    const { device } = raw.device(ioas);
    const hwpt = raw.hwpt({ dev_id: device, pt_id: ioas, flags: uapi.IOMMU_HWPT_ALLOC_DIRTY_TRACKING });
    expect(hugePages(raw, ioas, value)).toBe(0);
    // The one memory that is contiguous for devices too.
    expect(raw.mapFile(ioas, raw.dmabuf(16 * PAGE), 0, 16 * PAGE, APERTURE)).toBe(APERTURE);
    expect(raw.run(uapi.IOMMU_HWPT_SET_DIRTY_TRACKING, { hwpt_id: hwpt, flags: 1 })).toBe(0);
    const bits = raw.memory(PAGE);
    bits.bytes[0] = 0b1000;
    const range = { iova: APERTURE, length: 16 * PAGE, page_size: PAGE };
    expect(raw.test(uapi.IOMMU_TEST_OP_DIRTY, hwpt, { dirty: { ...range, uptr: bits.address } }).result).toBe(
      0,
    );
    bits.bytes.fill(0);
    const bitmap = { hwpt_id: hwpt, ...range, data: bits.address };
    expect(raw.run(uapi.IOMMU_HWPT_GET_DIRTY_BITMAP, bitmap)).toBe(0);
    const word = bits.bytes[0] | (bits.bytes[1] << 8);
    expect(word).toBe(expected === 16 ? 0xffff : 0b1000);
  });
});
