/** VFIO devices beyond regions and interrupts: hot reset, ioeventfds, features. */
import * as uapi from '../../../lib/uapi';
import { PAIR_PATHS, SINGLE_PATH, VFIO_PATH } from '../generate/vfio';
import type { Literal, Sequence, Value } from '../program';
import { PAGE, script, u64, type Script } from './world';

const CONFIG = uapi.VFIO_PCI_CONFIG_REGION_INDEX * 2 ** 40;
const COMMAND = CONFIG + 4;
const LIVENESS = 4;
const { VFIO_DEVICE_FEATURE_GET: GET, VFIO_DEVICE_FEATURE_SET: SET } = uapi;
const { VFIO_DEVICE_FEATURE_PROBE: PROBE } = uapi;

function read(s: Script, offset: number, length: number): void {
  s.builder.add({ op: 'pread', fd: s.device, offset, length });
}

function write(s: Script, offset: number, length: number, value: Literal): void {
  const bytes = { offset: 0, width: 4, values: [value] } as const;
  s.builder.add({ op: 'pwrite', fd: s.device, offset, length, bytes });
}

function feature(s: Script, flags: number, values: readonly Value[], argsz = 8 + 4 * values.length): number {
  const extra = { offset: 8, width: 4, values } as const;
  return s.call('VFIO_DEVICE_FEATURE', { argsz, flags }, { extra });
}

const resetting = [VFIO_PATH, SINGLE_PATH, ...PAIR_PATHS].map((path) =>
  script(`hot reset of ${path}`, (s) => {
    s.bind(path);
    s.call('VFIO_DEVICE_GET_INFO', {});
    for (const argsz of [11, 12, 19, 20, 27, 28, 36, 4000])
      s.call('VFIO_DEVICE_GET_PCI_HOT_RESET_INFO', { argsz });
    for (const fields of [{ argsz: 11 }, { flags: 1 }, { count: 1 }, { count: 0xffff_ffff }, {}])
      s.call('VFIO_DEVICE_PCI_HOT_RESET', fields);
    write(s, COMMAND, 2, 6);
    write(s, CONFIG + 0x3c, 1, 0x77);
    s.call('VFIO_DEVICE_PCI_HOT_RESET', {});
    s.call('VFIO_DEVICE_RESET', {});
    read(s, CONFIG, 256);
    read(s, 0, 4);
  }),
);

const owning = script('hot reset: devices of one group, of other groups and iommufds', (s) => {
  const info = () => s.call('VFIO_DEVICE_GET_PCI_HOT_RESET_INFO', { argsz: 64 });
  const first = s.builder.add({ op: 'open', path: PAIR_PATHS[0] });
  s.bind(PAIR_PATHS[1]);
  info();
  const other = s.builder.add({ op: 'open', path: '/dev/iommu' });
  for (const iommufd of [other, s.iommufd, other])
    s.call('VFIO_DEVICE_BIND_IOMMUFD', { iommufd: { fd: iommufd } }, { fd: first });
  info();
  s.call('VFIO_DEVICE_PCI_HOT_RESET', {});
  s.call('VFIO_DEVICE_PCI_HOT_RESET', {}, { fd: first });
  s.close(first);
  info();
  s.call('VFIO_DEVICE_PCI_HOT_RESET', {});
  s.close(s.device);
  s.bind(PAIR_PATHS[0]);
  info();
});

const writing = script('IOEVENTFD', (s) => {
  s.bind();
  const eventfd = s.builder.add({ op: 'eventfd', initial: 0 });
  const set = (flags: number, offset: number, data: Literal, fd: Value = { fd: eventfd }) =>
    s.call('VFIO_DEVICE_IOEVENTFD', { flags, offset, data, fd });
  const signal = () => {
    s.write(eventfd, 8, 1);
    s.read(eventfd, 8);
    read(s, LIVENESS, 4);
  };
  for (const flags of [0, 1, 2, 3, 4, 8, 16]) set(flags, LIVENESS, '0x1122334455667788');
  signal();
  for (const flags of [1, 2, 4, 8]) set(flags, LIVENESS, '0x1122334455667788', '-1');
  set(4, LIVENESS, 5);
  set(4, LIVENESS, 6);
  set(4, LIVENESS, 5);
  signal();
  write(s, COMMAND, 2, 0);
  signal();
  write(s, COMMAND, 2, 2);
  read(s, LIVENESS, 4);
  set(4, LIVENESS, 5, '-1');
  signal();
  for (let region = 0; region < 10; region++) set(4, region * 2 ** 40 + 0x1000, 0);
  for (const offset of [2 ** 20 - 4, 2 ** 20 - 3, 2 ** 20]) set(4, offset, 0);
  for (const fd of ['-1', '-2', 0x7fff_fff0, { fd: s.iommufd }, { fd: s.device }] as const)
    set(4, LIVENESS, 7, fd);
  const pending = s.builder.add({ op: 'eventfd', initial: 1 });
  set(4, LIVENESS, 9, { fd: pending });
  read(s, LIVENESS, 4);
  s.read(pending, 8, 8);
});

const limit = script('IOEVENTFD: a thousand', (s) => {
  s.bind();
  const eventfd = s.builder.add({ op: 'eventfd', initial: 0 });
  for (let data = 0; data < 1002; data++)
    s.call('VFIO_DEVICE_IOEVENTFD', { flags: 4, offset: LIVENESS, data, fd: { fd: eventfd } });
});

const probing = script('FEATURE: every number, every operation', (s) => {
  s.bind();
  for (let number = 0; number < 16; number++) {
    for (const flags of [0, GET, SET, GET | SET]) {
      feature(s, PROBE | flags | number, []);
      feature(s, flags | number, [], 8);
      // None of these is a descriptor.
      if (number !== uapi.VFIO_DEVICE_FEATURE_DMA_BUF) feature(s, flags | number, ['-1', 0, 0, 0, 0, 0]);
    }
  }
  for (const flags of [1 << 19, 1 << 31, 0xffff]) feature(s, flags, []);
});

const sleeping = script('FEATURE: low power', (s) => {
  s.bind();
  const eventfd = s.builder.add({ op: 'eventfd', initial: 0 });
  const entry = () => feature(s, SET | uapi.VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY, []);
  const exit = () => feature(s, SET | uapi.VFIO_DEVICE_FEATURE_LOW_POWER_EXIT, []);
  const wakeup = (fd: Value, argsz = 16) =>
    feature(s, SET | uapi.VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY_WITH_WAKEUP, [fd, 0], argsz);
  for (const step of [exit, entry, entry, exit, exit, entry]) step();
  read(s, 0, 4);
  wakeup({ fd: eventfd });
  exit();
  wakeup({ fd: eventfd }, 15);
  for (const fd of ['-1', 0x7fff_fff0, { fd: s.device }, { fd: eventfd }] as const) wakeup(fd);
  entry();
  exit();
});

const exporting = script('FEATURE: BARs as DMA-bufs', (s) => {
  s.bind();
  const get = (head: readonly Value[], ranges: readonly Literal[]) => {
    const count = 24 + 8 * ranges.length;
    const fields = { argsz: count, flags: GET | uapi.VFIO_DEVICE_FEATURE_DMA_BUF };
    // The head is four words: two of them a long one.
    const longs = [head[0], head[1], head[2], head[3]].map(Number);
    const words = [longs[0] + longs[1] * 2 ** 32, longs[2] + longs[3] * 2 ** 32];
    return s.call('VFIO_DEVICE_FEATURE', fields, {
      extra: u64(8, [...words.map((word) => `0x${BigInt(word).toString(16)}`), ...ranges]),
    });
  };
  const whole = [0, 2 ** 20];
  for (let region = 0; region < 11; region++) get([region, 0, 0, 1], whole);
  get([0, 2, 1, 1], whole);
  for (const count of [0, 2 ** 18 + 1, 2 ** 32 - 1]) get([0, 2, 0, count], whole);
  for (const [offset, length] of [
    [0, 0],
    [1, PAGE],
    [0, PAGE + 1],
    [PAGE, 2 ** 20],
    [2 ** 20, PAGE],
    ['0xfffffffffffff000', PAGE],
    [0, '0x8000000000000000'],
    [0, '0xfffffffffffff000'],
    ['0x7ffffffffffff000', '0x7ffffffffffff000'],
  ] as const)
    get([0, 2, 0, 1], [offset, length]);
  for (const flags of [0, 1, 2, 0o2000002, 0o4002]) {
    const file = get([0, flags, 0, 2], [0, PAGE, 0, PAGE]);
    s.read(file, 0, 8);
    s.write(file, 8, 1);
    s.poll(file);
    s.builder.add({ op: 'pread', fd: file, offset: 0, length: 8 });
    s.builder.add({ op: 'mmap', fd: file, offset: 0, length: PAGE });
    s.close(file);
  }
});

const mapped = script('FEATURE: a DMA-buf in an address space', (s) => {
  const ioas = s.ioas();
  s.bind();
  const get = (...ranges: number[]) =>
    s.call(
      'VFIO_DEVICE_FEATURE',
      { argsz: 24 + 8 * ranges.length, flags: GET | uapi.VFIO_DEVICE_FEATURE_DMA_BUF },
      { extra: u64(8, ['0x200000000', (ranges.length / 2) * 2 ** 32, ...ranges]) },
    );
  const map = (fd: number, iova: number, start: number, length: number) =>
    s.call('IOMMU_IOAS_MAP_FILE', { flags: 7, ioas_id: ioas, fd: { fd }, iova, start, length });
  const unmap = (iova: number) => s.unmap(ioas, iova, 4 * PAGE);
  const [whole, two] = [get(0, 2 ** 20), get(0, PAGE, 2 * PAGE, PAGE)];
  map(two, 0x10_0000, 0, PAGE);
  map(whole, 0x10_0000, 0, 4 * PAGE);
  map(whole, 0x20_0000, 2 ** 20 - PAGE, PAGE);
  map(whole, 0x30_0000, 2 ** 20 - PAGE, 2 * PAGE);
  s.attach(ioas);
  map(whole, 0x30_0000, 0, 4 * PAGE);
  s.call('IOMMU_IOAS_COPY', {
    ...{ flags: 7, dst_ioas_id: ioas, src_ioas_id: ioas },
    ...{ dst_iova: 0x40_0000, src_iova: 0x30_0000, length: PAGE },
  });
  // Without memory space it leads nowhere, and stays so for who had it.
  write(s, COMMAND, 2, 0);
  map(whole, 0x50_0000, 0, PAGE);
  unmap(0x30_0000);
  write(s, COMMAND, 2, 2);
  map(whole, 0x50_0000, 0, 4 * PAGE);
  feature(s, SET | uapi.VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY, []);
  map(whole, 0x60_0000, 0, PAGE);
  feature(s, SET | uapi.VFIO_DEVICE_FEATURE_LOW_POWER_EXIT, []);
  map(whole, 0x60_0000, 0, PAGE);
  for (const iova of [0x10_0000, 0x20_0000, 0x50_0000]) unmap(iova);
  s.close(s.device);
  map(whole, 0x70_0000, 0, PAGE);
  s.unmap(ioas, 0, '0xffffffffffffffff');
});

const streaming = script('VFIO: read and write go on from where they were', (s) => {
  s.bind();
  s.read(s.device, 0, 4);
  s.write(s.device, 4, 0x1234);
  read(s, LIVENESS, 4);
  s.read(s.device, 4, 2, 1);
});

const previous = script('VFIO: nothing of an earlier user is left', (s) => {
  s.bind();
  const eventfd = s.builder.add({ op: 'eventfd', initial: 0 });
  const fields = { argsz: 24, flags: 4 | 32, index: uapi.VFIO_PCI_MSI_IRQ_INDEX, count: 1 };
  s.call('VFIO_DEVICE_SET_IRQS', fields, { extra: { offset: 20, width: 4, values: [{ fd: eventfd }] } });
  write(s, COMMAND, 2, 0xffff);
  read(s, COMMAND, 2);
  s.close(s.device);
  s.bind();
  read(s, CONFIG, 256);
});

export const vfioSemantics: readonly Sequence[] = [
  ...resetting,
  ...[owning, writing, limit, probing, sleeping, exporting, mapped, streaming, previous],
];
