/** Random calls on descriptors: fault queues, event queues, eventfds, closing. */
import type { FdRef, Literal, Value } from '../program';
import type { Builder, FileKind } from './builder';

const SIZES: Readonly<Partial<Record<FileKind, readonly number[]>>> = {
  fault: [0, 40, 40, 80, 41, 400],
  veventq: [0, 8, 7, 12, 16, 24, 64],
  eventfd: [8, 8, 8, 4, 16],
  dmabuf: [8, 0],
  vfio: [4, 8, 0],
};

function queue(builder: Builder): { kind: FileKind; fd: FdRef } | undefined {
  const fitting = builder.files.filter(({ kind }) => kind in SIZES);
  return fitting.length > 0 ? builder.random.pick(fitting) : undefined;
}

export function read(builder: Builder): void {
  const found = queue(builder);
  if (!found) return;
  const fd = builder.random.oneIn(20) ? builder.context : found.fd;
  builder.add({ op: 'read', fd, length: builder.random.pick(SIZES[found.kind]!) });
}

export function write(builder: Builder): void {
  const { random } = builder;
  const found = queue(builder);
  // What a device's registers do with it, elsewhere.
  if (!found || found.kind === 'vfio') return;
  const eventfd = found.kind === 'eventfd';
  const values: Value[] = eventfd
    ? [random.pick<Literal>([1, 5, 0]), random.oneIn(6) ? 0xffff_ffff : 0]
    : Array.from({ length: 4 }, (_, i) => (i % 2 ? random.below(random.oneIn(6) ? 3 : 2) : random.below(4)));
  const length = random.pick(eventfd ? [8, 8, 4, 16] : [8, 8, 16, 0, 7]);
  builder.add({ op: 'write', fd: found.fd, length, bytes: { offset: 0, width: 4, values } });
}

export function poll(builder: Builder): void {
  const { random } = builder;
  const fd = random.oneIn(6) || builder.files.length === 0 ? builder.context : random.pick(builder.files).fd;
  builder.add({ op: 'poll', fd, events: random.pick([0x1, 0x4, 0x5, 0x145, 0x7fff]) });
}

export function close(builder: Builder): void {
  const { random } = builder;
  if (builder.files.length === 0) return;
  const index = random.below(builder.files.length);
  // Without the iommufd there is little left to say.
  if (builder.files[index].fd === builder.context && !random.oneIn(6)) return;
  builder.add({ op: 'close', fd: builder.files[index].fd });
  if (!random.oneIn(4)) builder.files.splice(index, 1);
}

export function eventfd(builder: Builder): void {
  builder.file(
    'eventfd',
    builder.add({ op: 'eventfd', initial: builder.random.pick([0, 0, 1, 0xffff_ffff]) }),
  );
}

/** Another iommufd: later calls go to either. */
export function iommufd(builder: Builder): void {
  const others = builder.files.filter(({ kind }) => kind === 'iommufd');
  if (others.length < 2) builder.file('iommufd', builder.add({ op: 'open', path: '/dev/iommu' }));
  builder.context = builder.fd('iommufd');
}

export function mmap(builder: Builder): void {
  const { random } = builder;
  const other = random.oneIn(3) && builder.files.length > 0;
  const fd = other ? random.pick(builder.files).fd : builder.context;
  // A memfd is no device memory.
  if (fd === 'memfd') return;
  const label = builder.add({
    op: 'mmap',
    fd,
    // An iommufd's pages start at 4096, two for each object that has any.
    offset: random.pick([0, 4096, 4096, 4096, 8192, 0x3000, 0x5000]),
    length: random.pick([4096, 8192, 8192, 8192, 8191, 16384]),
    ...(other ? {} : { keep: true }),
  });
  if (!other) builder.mapped.push(label);
}

export function munmap(builder: Builder): void {
  const [mapping] = builder.mapped;
  if (mapping === undefined) return;
  builder.mapped.shift();
  builder.add({ op: 'munmap', mapping });
}

/** A number that no ioctl has, or another size and direction in it. */
export function unknown(builder: Builder): void {
  const { random } = builder;
  const request = random.pick([
    0x3b00,
    0x3b7f,
    0x3b96,
    0x3b9f,
    0x3bff,
    0x7880,
    0x3b80 | (1 << 16),
    0x3b84 | (1 << 30),
    0x4000_3b81,
  ]);
  builder.add({ op: 'ioctl', fd: builder.context, request, fields: {} });
}
