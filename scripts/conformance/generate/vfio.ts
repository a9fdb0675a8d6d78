/** Random calls on a VFIO device. */
import * as uapi from '../../../lib/uapi';
import { layouts } from '../layouts';
import type { FdRef, Literal, Value, Words } from '../program';
import type { Builder } from './builder';
import { hostileInteger } from './hostile';

/** edu on the root bus; alone behind a root port; and two functions of one device behind another. */
export const VFIO_PATH = '/dev/vfio/devices/vfio0';
export const SINGLE_PATH = '/dev/vfio/devices/vfio1';
export const PAIR_PATHS = ['/dev/vfio/devices/vfio2', '/dev/vfio/devices/vfio3'] as const;
/** Where a region starts in the device's file. */
export const REGION_SHIFT = 2 ** 40;

export function bind(builder: Builder): void {
  const { random } = builder;
  const flags = random.oneIn(12) ? random.below(4) : 0;
  const label = builder.ioctl(
    'VFIO_DEVICE_BIND_IOMMUFD',
    {
      flags,
      iommufd: { fd: random.oneIn(8) ? builder.fd('fault') : builder.context },
      token_uuid_ptr: flags ? { at: 'scratch', offset: 0 } : 0,
    },
    { fd: builder.fd('vfio') },
  );
  builder.made('device', label, 'out_devid');
}

export function attach(builder: Builder): void {
  const { random } = builder;
  const pasid = random.oneIn(6);
  const label = builder.ioctl(
    'VFIO_DEVICE_ATTACH_IOMMUFD_PT',
    {
      flags: pasid ? 1 : 0,
      pt_id: random.oneIn(3) ? builder.id('hwpt', 'nested') : builder.id('ioas'),
      pasid: pasid ? random.pick<Literal>([0, 1, 2, 0xf_ffff, 0x10_0000]) : 0,
      ...(pasid ? {} : { argsz: 12 }),
    },
    { fd: builder.fd('vfio') },
  );
  if (random.oneIn(3)) builder.made('hwpt', label, 'pt_id');
}

export function detach(builder: Builder): void {
  const { random } = builder;
  const pasid = random.oneIn(6);
  builder.ioctl(
    'VFIO_DEVICE_DETACH_IOMMUFD_PT',
    { flags: pasid ? 1 : 0, pasid: pasid ? random.pick([0, 1, 2, 0xf_ffff]) : 0 },
    { fd: builder.fd('vfio') },
  );
}

export function deviceInfo(builder: Builder): void {
  builder.ioctl(
    'VFIO_DEVICE_GET_INFO',
    { argsz: builder.random.pick([16, 20, 24, 64]) },
    { fd: builder.fd('vfio') },
  );
}

export function regionInfo(builder: Builder): void {
  const { random } = builder;
  const index = random.oneIn(8) ? hostileInteger(random, 4) : random.below(11);
  builder.ioctl(
    'VFIO_DEVICE_GET_REGION_INFO',
    { argsz: random.pick([32, 32, 64, 256]), index },
    { fd: builder.fd('vfio') },
  );
}

export function irqInfo(builder: Builder): void {
  const { random } = builder;
  const index = random.oneIn(8) ? hostileInteger(random, 4) : random.below(7);
  builder.ioctl('VFIO_DEVICE_GET_IRQ_INFO', { index }, { fd: builder.fd('vfio') });
}

/** What follows struct vfio_irq_set: nothing, a byte or an eventfd each. */
function irqData(builder: Builder, flags: number, count: number): { words?: Words; bytes: number } {
  const { random } = builder;
  const offset = uapi.vfio_irq_set.size;
  const several = Array.from({ length: Math.min(count, 4) });
  if (flags & uapi.VFIO_IRQ_SET_DATA_BOOL) {
    return { words: { offset, width: 1, values: several.map(() => random.below(3)) }, bytes: count };
  }
  if (!(flags & uapi.VFIO_IRQ_SET_DATA_EVENTFD)) return { bytes: 0 };
  const values: Value[] = several.map(() => (random.oneIn(5) ? '-1' : { fd: builder.fd('eventfd') }));
  return { words: { offset, width: 4, values }, bytes: 4 * count };
}

export function setIrqs(builder: Builder): void {
  const { random } = builder;
  const data = random.pick([1, 2, 4, 4]);
  const action = random.pick([8, 16, 32, 32, 32]);
  const flags = random.oneIn(10) ? builder.flags(1, 2, 4, 8, 16, 32) : data | action;
  const count = random.pick([0, 1, 1, 1, 2]);
  const { words, bytes } = irqData(builder, flags, count);
  builder.ioctl(
    'VFIO_DEVICE_SET_IRQS',
    {
      argsz: uapi.vfio_irq_set.size + (random.oneIn(10) ? random.below(12) : bytes),
      flags,
      index: random.oneIn(8) ? hostileInteger(random, 4) : random.below(5),
      start: random.oneIn(8) ? hostileInteger(random, 4) : 0,
      count: random.oneIn(15) ? hostileInteger(random, 4) : count,
    },
    { fd: builder.fd('vfio'), ...(words ? { extra: words } : {}) },
  );
}

export function reset(builder: Builder): void {
  builder.ioctl('VFIO_DEVICE_RESET', {}, { fd: builder.fd('vfio') });
}

/** Rows that this file has nothing particular for: sizes, flags and indices around what may be right. */
const PARTICULAR = new Set([
  'VFIO_DEVICE_BIND_IOMMUFD',
  'VFIO_DEVICE_ATTACH_IOMMUFD_PT',
  'VFIO_DEVICE_DETACH_IOMMUFD_PT',
  'VFIO_DEVICE_GET_INFO',
  'VFIO_DEVICE_GET_REGION_INFO',
  'VFIO_DEVICE_GET_IRQ_INFO',
  'VFIO_DEVICE_SET_IRQS',
  'VFIO_DEVICE_RESET',
  'VFIO_DEVICE_GET_PCI_HOT_RESET_INFO',
  'VFIO_DEVICE_PCI_HOT_RESET',
  'VFIO_DEVICE_IOEVENTFD',
  'VFIO_DEVICE_FEATURE',
]);
const others = uapi.vfioIoctls.filter(({ name }) => !PARTICULAR.has(name));

export function other(builder: Builder): void {
  const { random } = builder;
  if (others.length === 0) return deviceInfo(builder);
  const { name } = random.pick(others);
  const { leaves, sizeField } = layouts.get(name)!;
  const fields: Record<string, Value> = {};
  for (const { path, size } of leaves) {
    if (path === sizeField || size > 4) continue;
    if (random.oneIn(2)) fields[path] = random.oneIn(4) ? hostileInteger(random, size) : random.below(16);
  }
  builder.ioctl(name, fields, { fd: builder.fd('vfio') });
}

/** The device's file, or another: but not one that grows when it is written to. */
function device(builder: Builder): FdRef {
  const fd = builder.fd('vfio');
  return fd === 'memfd' ? 'none' : fd;
}

/** Configuration space: what is read, and writes that leave the device where it is. */
export function config(builder: Builder): void {
  const { random } = builder;
  const base = uapi.VFIO_PCI_CONFIG_REGION_INDEX * REGION_SHIFT;
  const fd = device(builder);
  if (random.oneIn(4)) {
    const [offset, length] = random.pick([
      [4, 2],
      [0x3c, 1],
      [0x10, 4],
      [0, 4],
      [0x44, 2],
      [0x0c, 1],
    ]);
    // Memory decoding and bus mastering stay as they may be: an edu that is told nothing does nothing.
    const value = random.pick([0, 2, 4, 6, 0x406, 0xffff_ffff, 0xff]);
    builder.add({
      op: 'pwrite',
      fd,
      offset: base + offset,
      length,
      bytes: { offset: 0, width: 4, values: [value] },
    });
    return;
  }
  const length = random.pick([1, 2, 4, 4, 8, 16, 64, 3, 0]);
  const offset = random.oneIn(8) ? random.pick([0xfc, 0xff, 0x100, 0xffc, 0x1000, 0x2000]) : random.below(72);
  builder.add({ op: 'pread', fd, offset: base + offset, length });
}

/** BAR 0 of edu: reads of registers that say what they are, without a side effect. */
export function bar(builder: Builder): void {
  const { random } = builder;
  const fd = device(builder);
  const region = random.oneIn(8) ? random.below(10) : 0;
  if (random.oneIn(4)) {
    builder.add({
      op: 'mmap',
      fd,
      offset: region * REGION_SHIFT + random.pick([0, 0, 4096, 2 ** 20]),
      length: random.pick([4096, 2 ** 20, 8192]),
    });
    return;
  }
  const offset = region * REGION_SHIFT + random.pick([0, 0, 4, 4, 2 ** 20, 2 ** 20 - 4]);
  if (random.oneIn(3)) {
    const values = [random.bits()];
    builder.add({ op: 'pwrite', fd, offset: 4, length: 4, bytes: { offset: 0, width: 4, values } });
    return;
  }
  builder.add({ op: 'pread', fd, offset, length: random.pick([4, 4, 8, 1, 2]) });
}
