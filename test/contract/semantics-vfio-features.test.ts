/** VFIO_DEVICE_FEATURE on edu: what there is, how it is asked for, low power, and BARs as DMA-bufs. */
import * as uapi from '../../lib/uapi';
import { Calls, code } from './calls';
import { PAGE } from './support';

const calls = new Calls();
const { kernel } = calls;
const { VFIO_DEVICE_FEATURE_GET: GET, VFIO_DEVICE_FEATURE_SET: SET, VFIO_DEVICE_FEATURE_PROBE: PROBE } = uapi;
const { VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY: ENTRY, VFIO_DEVICE_FEATURE_LOW_POWER_EXIT: EXIT } = uapi;
const WITH_WAKEUP = uapi.VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY_WITH_WAKEUP;
const DMA_BUF = uapi.VFIO_DEVICE_FEATURE_DMA_BUF;
const BAR_SIZE = 1n << 20n;

let vfio: number;

beforeEach(() => {
  calls.open();
  vfio = calls.vfio();
  calls.bind(vfio);
});
afterEach(() => calls.close());
afterAll(() => calls.free());

function feature(
  flags: number,
  data: Uint8Array = new Uint8Array(0),
  argsz = 8 + data.length,
): string | number {
  const bytes = new Uint8Array(8 + data.length);
  bytes.set(uapi.vfio_device_feature.encode({ argsz, flags }));
  bytes.set(data, 8);
  return code(kernel.ioctl(vfio, uapi.VFIO_DEVICE_FEATURE.request, bytes));
}

describe('what there is', () => {
  test('argsz, then unknown flags, then GET with SET', () => {
    expect(feature(PROBE | ENTRY, undefined, 7)).toBe('EINVAL');
    expect(feature(PROBE | ENTRY | (1 << 19))).toBe('EINVAL');
    expect(feature(GET | SET | 999)).toBe('EINVAL');
    expect(feature(PROBE | GET | SET | 999)).toBe('ENOTTY');
  });

  test('a probe says which operations a feature has', () => {
    for (const number of [ENTRY, WITH_WAKEUP, EXIT]) {
      for (const flags of [0, SET]) expect(feature(PROBE | flags | number)).toBe(0);
      for (const flags of [GET, GET | SET]) expect(feature(PROBE | flags | number)).toBe('EINVAL');
      expect(feature(number)).toBe('EINVAL');
      expect(feature(GET | number)).toBe('EINVAL');
    }
    for (const flags of [0, GET]) expect(feature(PROBE | flags | DMA_BUF)).toBe(0);
    for (const flags of [SET, GET | SET]) expect(feature(PROBE | flags | DMA_BUF)).toBe('EINVAL');
  });

  test('a function without SR-IOV, migration or bus mastering of its own has none of these', () => {
    const none = [
      ...[uapi.VFIO_DEVICE_FEATURE_PCI_VF_TOKEN, uapi.VFIO_DEVICE_FEATURE_MIGRATION],
      ...[uapi.VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE, uapi.VFIO_DEVICE_FEATURE_DMA_LOGGING_START],
      ...[uapi.VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP, uapi.VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT],
      ...[uapi.VFIO_DEVICE_FEATURE_MIG_DATA_SIZE, uapi.VFIO_DEVICE_FEATURE_BUS_MASTER],
      ...[uapi.VFIO_DEVICE_FEATURE_ZPCI_ERROR, 14, 0xffff],
    ];
    for (const number of none)
      for (const flags of [0, GET, SET, PROBE])
        expect(feature(number | flags, new Uint8Array(32))).toBe('ENOTTY');
    for (const flags of [0, GET, SET, PROBE, PROBE | SET])
      expect(feature(uapi.VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFOv2 | flags)).toBe('EINVAL');
  });
});

describe('low power', () => {
  const wakeup = (fd: number) => uapi.vfio_device_low_power_entry_with_wakeup.encode({ wakeup_eventfd: fd });

  test('is allowed once, until it is forbidden', () => {
    expect(feature(SET | EXIT)).toBe(0);
    expect(feature(SET | ENTRY)).toBe(0);
    expect(feature(SET | ENTRY)).toBe('EINVAL');
    expect(feature(SET | WITH_WAKEUP, wakeup(calls.eventfd()))).toBe('EINVAL');
    expect(feature(SET | EXIT)).toBe(0);
    expect(feature(SET | EXIT)).toBe(0);
    expect(feature(SET | ENTRY)).toBe(0);
    calls.shut(vfio);
    vfio = calls.vfio();
    calls.bind(vfio);
    expect(feature(SET | ENTRY)).toBe(0);
  });

  test('the device answers as before', () => {
    expect(feature(SET | ENTRY)).toBe(0);
    const bytes = new Uint8Array(4);
    expect(kernel.pread(vfio, bytes, 0)).toBe(4);
    expect([...bytes]).toEqual([0xed, 0, 0, 1]);
    expect(calls.call(vfio, uapi.VFIO_DEVICE_GET_INFO, {}).code).toBe(0);
    expect(feature(SET | EXIT)).toBe(0);
  });

  test('the eventfd to be woken by', () => {
    expect(feature(SET | WITH_WAKEUP, wakeup(calls.eventfd()), 15)).toBe('EINVAL');
    for (const fd of [-1, -0x8000_0000]) expect(feature(SET | WITH_WAKEUP, wakeup(fd))).toBe('EINVAL');
    expect(feature(SET | WITH_WAKEUP, wakeup(999))).toBe('EBADF');
    expect(feature(SET | WITH_WAKEUP, wakeup(calls.fd))).toBe('EINVAL');
    expect(feature(SET | WITH_WAKEUP, wakeup(calls.eventfd()))).toBe(0);
    expect(feature(SET | EXIT)).toBe(0);
  });
});

describe('DMA-bufs', () => {
  interface Wanted {
    region?: number;
    open_flags?: number;
    flags?: number;
    nr_ranges?: number;
    ranges?: readonly (readonly [bigint, bigint])[];
  }

  function data({
    region = 0,
    open_flags = 0o2000002,
    flags = 0,
    nr_ranges,
    ranges = [[0n, BAR_SIZE]],
  }: Wanted) {
    const head = { region_index: region, open_flags, flags, nr_ranges: nr_ranges ?? ranges.length };
    const bytes = new Uint8Array(16 + 16 * ranges.length);
    bytes.set(uapi.vfio_device_feature_dma_buf.encode(head));
    ranges.forEach(([offset, length], i) =>
      bytes.set(uapi.vfio_region_dma_range.encode({ offset, length }), 16 + 16 * i),
    );
    return bytes;
  }

  const get = (wanted: Wanted = {}) => feature(GET | DMA_BUF, data(wanted));

  function file(wanted: Wanted = {}): number {
    const fd = get(wanted);
    if (typeof fd !== 'number' || fd < 3) throw new Error(`no descriptor: ${fd}`);
    return fd;
  }

  test('the order of complaints', () => {
    expect(feature(GET | DMA_BUF, data({}), 23)).toBe('EINVAL');
    expect(get({ nr_ranges: 0, region: 9 })).toBe('EINVAL');
    expect(get({ flags: 1, region: 9 })).toBe('EINVAL');
    for (const region of [1, 5, 6, 7, 9, 2 ** 32 - 1])
      expect(get({ region, ranges: [[1n, 0n]] })).toBe('ENODEV');
    for (const nr_ranges of [2 ** 18 + 1, 2 ** 32 - 1]) expect(get({ nr_ranges })).toBe('ENOMEM');
    const page = BigInt(PAGE);
    const outside: (readonly [bigint, bigint])[] = [
      ...([
        [0n, 0n],
        [1n, page],
        [0n, page + 1n],
      ] as const),
      ...([
        [0n, BAR_SIZE + page],
        [BAR_SIZE, page],
        [page, BAR_SIZE],
      ] as const),
    ];
    for (const range of outside) expect(get({ ranges: [range] })).toBe('EINVAL');
    expect(
      get({
        ranges: [
          [0n, page],
          [0n, 0n],
        ],
      }),
    ).toBe('EINVAL');
    expect(get({ ranges: [[0n, 1n << 63n]] })).toBe('EINVAL');
    expect(
      get({
        ranges: [
          [0n, 2n ** 64n - page],
          [0n, page],
        ],
      }),
    ).toBe('EINVAL');
    expect(get({ ranges: [[2n ** 64n - page, page]] })).toBe('EOVERFLOW');
    expect(get({ ranges: [[page, 2n ** 63n - page]] })).toBe('EINVAL');
  });

  test('a file that is neither read, written nor mapped', () => {
    const fd = file({
      ranges: [
        [0n, BigInt(PAGE)],
        [0n, BigInt(PAGE)],
      ],
    });
    try {
      const bytes = new Uint8Array(8);
      expect(code(kernel.read(fd, bytes))).toBe('EINVAL');
      expect(code(kernel.write(fd, bytes))).toBe('EINVAL');
      expect(code(kernel.pread(fd, bytes, 0))).toBe('ESPIPE');
      expect(code(kernel.pwrite(fd, bytes, 0))).toBe('ESPIPE');
      expect(code(kernel.mmap(fd, 0, PAGE, 1) as number)).toBe('EINVAL');
      expect(kernel.poll(fd, 0x7fff)).toBe(5);
      expect(code(kernel.ioctl(fd, uapi.VFIO_DEVICE_FEATURE.request, bytes))).toBe('ENOTTY');
    } finally {
      kernel.close(fd);
    }
  });

  test('outlives the device’s file, and takes its access from open_flags', () => {
    const fds = [0, 1, 2].map((open_flags) => file({ open_flags }));
    calls.shut(vfio);
    const bytes = new Uint8Array(8);
    expect(fds.map((fd) => code(kernel.write(fd, bytes)))).toEqual(['EBADF', 'EINVAL', 'EINVAL']);
    expect(fds.map((fd) => code(kernel.read(fd, bytes)))).toEqual(['EINVAL', 'EBADF', 'EINVAL']);
    // That it has no offsets comes before what it was opened for.
    for (const fd of fds) {
      expect(code(kernel.pread(fd, bytes, 0))).toBe('ESPIPE');
      expect(code(kernel.pwrite(fd, bytes, 0))).toBe('ESPIPE');
      expect(kernel.close(fd)).toBe(0);
    }
  });
});
