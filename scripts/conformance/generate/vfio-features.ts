/** Random calls on a VFIO device beyond its regions and interrupts: hot reset, ioeventfds, features. */
import * as uapi from '../../../lib/uapi';
import type { Literal, Value, Words } from '../program';
import type { Builder } from './builder';
import { eventfd } from './files';
import { hostileInteger } from './hostile';
import { PAIR_PATHS, REGION_SHIFT, SINGLE_PATH, VFIO_PATH } from './vfio';

const { VFIO_DEVICE_FEATURE_GET: GET, VFIO_DEVICE_FEATURE_SET: SET } = uapi;
const { VFIO_DEVICE_FEATURE_PROBE: PROBE } = uapi;
const MOST_DEVICES = 3;
const PAGE = 4096;

/** Another device, mostly one that shares its bus and IOMMU group with a third. */
export function sibling(builder: Builder): void {
  const { random } = builder;
  if (builder.files.filter(({ kind }) => kind === 'vfio').length >= MOST_DEVICES) return;
  const path = random.pick([...PAIR_PATHS, ...PAIR_PATHS, SINGLE_PATH, VFIO_PATH]);
  const fd = builder.add({ op: 'open', path });
  builder.file('vfio', fd);
  if (random.oneIn(5)) return;
  const label = builder.exactly('VFIO_DEVICE_BIND_IOMMUFD', { iommufd: { fd: builder.context } }, { fd });
  builder.made('device', label, 'out_devid');
}

export function hotResetInfo(builder: Builder): void {
  const argsz = builder.random.pick([12, 19, 20, 27, 28, 28, 64, 64, 64, 4000]);
  builder.ioctl('VFIO_DEVICE_GET_PCI_HOT_RESET_INFO', { argsz }, { fd: builder.fd('vfio') });
}

export function hotReset(builder: Builder): void {
  const { random } = builder;
  const count = random.oneIn(6) ? random.pick([1, 2, 3, 0xffff_ffff]) : 0;
  const extra: Words = { offset: 12, width: 4, values: [{ fd: builder.fd('vfio') }, '-1'] };
  const fields = { argsz: random.pick([12, 12, 16, 20]), flags: random.oneIn(12) ? 1 : 0, count };
  builder.ioctl('VFIO_DEVICE_PCI_HOT_RESET', fields, {
    fd: builder.fd('vfio'),
    ...(count ? { extra } : {}),
  });
}

/** The liveness register of edu, and places where there is none. */
export function ioeventfd(builder: Builder): void {
  const { random } = builder;
  if (!builder.files.some(({ kind }) => kind === 'eventfd')) eventfd(builder);
  const bar = random.oneIn(8) ? random.below(10) : 0;
  const at = random.pick([4, 4, 4, 4, 0, 6, 2 ** 20 - 4, 2 ** 20 - 1, 2 ** 20, 0x1000]);
  const flags = random.oneIn(10) ? random.below(32) : random.pick([1, 2, 4, 4, 4, 8]);
  builder.ioctl(
    'VFIO_DEVICE_IOEVENTFD',
    {
      flags,
      offset: bar * REGION_SHIFT + at,
      data: random.pick([0, 1, 0x1234_5678, '0x123456789abcdef0']),
      fd: random.oneIn(3) ? '-1' : { fd: builder.fd(random.oneIn(12) ? 'vfio' : 'eventfd') },
    },
    { fd: builder.fd('vfio') },
  );
}

/** The operations that make sense for a feature, mostly. */
function operations(builder: Builder, usual: number): number {
  const { random } = builder;
  if (random.oneIn(4)) return PROBE | random.pick([0, GET, SET, GET | SET]);
  return random.oneIn(8) ? random.pick([0, GET, SET, GET | SET]) : usual;
}

function feature(builder: Builder, number: number, usual: number, values: readonly Value[]): void {
  const { random } = builder;
  const bytes = 4 * values.length;
  const argsz = 8 + (random.oneIn(8) ? Math.max(0, bytes - 4) : bytes + (random.oneIn(4) ? 8 : 0));
  const label = builder.ioctl(
    'VFIO_DEVICE_FEATURE',
    { argsz, flags: number | operations(builder, usual) },
    { fd: builder.fd('vfio'), extra: { offset: 8, width: 4, values } },
  );
  if (number === uapi.VFIO_DEVICE_FEATURE_DMA_BUF && random.oneIn(2)) builder.file('dmabuf', label);
}

function dmaBuf(builder: Builder): void {
  const { random } = builder;
  const ranges = random.pick([1, 1, 1, 1, 2, 3]);
  const pages = (most: number) => random.below(most) * PAGE;
  const halves = Array.from({ length: ranges }, () => {
    const offset: Literal = random.oneIn(8) ? random.pick([100, 0xff_f000, 0xffff_f000]) : pages(250);
    const high = random.oneIn(12) ? random.pick([1, 0x7fff_ffff, 0xffff_ffff]) : 0;
    const length: Literal = random.oneIn(8) ? random.pick([0, 1, 0xffff_f000]) : pages(6) + PAGE;
    return [offset, high, length, random.oneIn(12) ? random.pick([1, 0x7fff_ffff, 0xffff_ffff]) : 0];
  });
  const region = random.oneIn(8) ? random.below(10) : 0;
  const count = random.oneIn(10) ? random.pick([0, 0x4_0001, 0xffff_ffff]) : ranges;
  const openFlags = random.pick<Literal>([0, 2, 2, 0o2000002, 1]);
  const values = [region, openFlags, random.oneIn(12) ? 1 : 0, count, ...halves.flat()];
  feature(builder, uapi.VFIO_DEVICE_FEATURE_DMA_BUF, GET, values);
}

export function features(builder: Builder): void {
  const { random } = builder;
  switch (random.below(8)) {
    case 0:
      return feature(builder, uapi.VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY, SET, []);
    case 1: {
      const wakeup: Value = random.oneIn(6) ? '-1' : { fd: builder.fd(random.oneIn(8) ? 'vfio' : 'eventfd') };
      return feature(builder, uapi.VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY_WITH_WAKEUP, SET, [wakeup, 0]);
    }
    case 2:
    case 3:
      return feature(builder, uapi.VFIO_DEVICE_FEATURE_LOW_POWER_EXIT, SET, []);
    case 4:
    case 5:
      return dmaBuf(builder);
    case 6:
      return feature(builder, random.below(16), random.pick([GET, SET]), [0, 0, 0, 0, 0, 0]);
    default:
      return feature(builder, Number(hostileInteger(random, 2)) & 0xffff, random.pick([GET, SET]), [0, 0]);
  }
}
