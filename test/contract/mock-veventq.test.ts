/** Queues of virtual IOMMUs' events, by raw calls on the selftest IOMMU. */
import { POLLIN, POLLOUT, POLLRDNORM } from '../../lib/kernel';
import * as uapi from '../../lib/uapi';
import { errno } from '../../lib/uapi';
import { RawIommu, useRawIommu, virtualIommu } from './mock';
import { until } from './support';

const iommu = useRawIommu();
const ALL_EVENTS = 0x7fff;
const LOST = uapi.IOMMU_VEVENTQ_FLAG_LOST_EVENTS;
const HEADER = uapi.iommufd_vevent_header.size;
const EVENT = HEADER + uapi.iommu_viommu_event_selftest.size;

/** An event queue, or the error. */
function tryQueue(
  raw: RawIommu,
  viommu_id: number,
  values: Parameters<typeof uapi.iommu_veventq_alloc.encode>[0] = {},
) {
  const fields = { viommu_id, type: uapi.IOMMU_VEVENTQ_TYPE_SELFTEST, veventq_depth: 2, ...values };
  const { result, out } = raw.call(uapi.IOMMU_VEVENTQ_ALLOC, fields);
  return result ? result : { id: out.out_veventq_id, fd: raw.keep(out.out_veventq_fd) };
}

function queueOf(raw: RawIommu, viommu: number, veventq_depth = 2) {
  const made = tryQueue(raw, viommu, { veventq_depth });
  if (typeof made === 'number') throw new Error(`VEVENTQ_ALLOC gave ${made}`);
  return made;
}

function trigger(raw: RawIommu, dev_id: number, times = 1): number {
  let result = 0;
  for (let i = 0; i < times; i++)
    result ||= raw.test(uapi.IOMMU_TEST_OP_TRIGGER_VEVENT, 0, { trigger_vevent: { dev_id } }).result;
  return result;
}

/** One read(2): the error, or [sequence, virtual id] of each event, ['lost', sequence] for lost ones. */
function read(raw: RawIommu, fd: number, length: number) {
  const bytes = new Uint8Array(length);
  const done = raw.kernel.read(fd, bytes);
  if (done < 0) return done;
  const events = [];
  for (let at = 0; at < done;) {
    const { flags, sequence } = uapi.iommufd_vevent_header.decode(bytes, at);
    at += HEADER;
    if (flags === LOST) {
      events.push(['lost', sequence]);
      continue;
    }
    expect(flags).toBe(0);
    events.push([sequence, uapi.iommu_viommu_event_selftest.decode(bytes, at).virt_id]);
    at += uapi.iommu_viommu_event_selftest.size;
  }
  return events;
}

/** A mock device that can report events, under the id `virtualId`. */
function reporting(virtualId: bigint | number = 5) {
  const world = virtualIommu(iommu());
  const { raw, device, stdev, viommu } = world;
  const vdevice = raw.vdevice(viommu, device, virtualId);
  const nested = raw.nested(device, viommu);
  expect(raw.replace(stdev, nested)).toBe(nested);
  return { ...world, vdevice, nested };
}

describe('VEVENTQ_ALLOC', () => {
  test('wants a type, a depth, and a virtual IOMMU without such a queue', () => {
    const { raw, device, viommu } = virtualIommu(iommu());
    for (const wrong of [{ flags: 1 }, { __reserved: 1 }, { type: uapi.IOMMU_VEVENTQ_TYPE_DEFAULT }])
      expect(tryQueue(raw, 99, { ...wrong, veventq_depth: 0 })).toBe(-errno.EOPNOTSUPP);
    for (const veventq_depth of [0, 2 ** 19 + 1])
      expect(tryQueue(raw, 99, { veventq_depth })).toBe(-errno.EINVAL);
    expect(tryQueue(raw, device)).toBe(-errno.ENOENT);
    expect(queueOf(raw, viommu).id).toBe(viommu + 1);
    expect(tryQueue(raw, viommu)).toBe(-errno.EEXIST);
    // What no driver ever reports is as good a type as any.
    expect(tryQueue(raw, viommu, { type: 1, veventq_depth: 2 ** 19 })).toMatchObject({ id: viommu + 2 });
  });

  test('its file keeps the queue, the queue keeps the virtual IOMMU', () => {
    const { raw, viommu } = virtualIommu(iommu());
    const { id, fd } = queueOf(raw, viommu);
    expect(raw.destroy(id)).toBe(-errno.EBUSY);
    expect(raw.drop(fd)).toBe(0);
    expect(raw.destroy(viommu)).toBe(-errno.EBUSY);
    expect(tryQueue(raw, viommu)).toBe(-errno.EEXIST);
    expect(raw.destroy(id)).toBe(0);
    expect(queueOf(raw, viommu).id).toBe(id);
  });

  test('its file keeps the iommufd', () => {
    const { raw, device, fd } = (() => {
      const world = reporting();
      return { ...world, fd: queueOf(world.raw, world.viommu).fd };
    })();
    expect(trigger(raw, device)).toBe(0);
    expect(raw.drop(raw.fd)).toBe(0);
    expect(read(raw, fd, EVENT)).toEqual([[0, 5]]);
    expect(raw.drop(fd)).toBe(0);
  });
});

describe('an event queue', () => {
  test('is read, and nothing else', async () => {
    const { raw, device, viommu } = reporting();
    const { fd } = queueOf(raw, viommu);
    const { kernel } = raw;
    for (const length of [0, 7]) expect(read(raw, fd, length)).toBe(-errno.EINVAL);
    expect(read(raw, fd, HEADER)).toEqual([]);
    for (const length of [0, 8]) expect(kernel.write(fd, new Uint8Array(length))).toBe(-errno.EINVAL);
    expect(kernel.pread(fd, new Uint8Array(64), 0)).toBe(-errno.ESPIPE);
    expect(kernel.mmap(fd, 0, 4096, 1)).toBe(-errno.ENODEV);
    expect(kernel.ioctl(fd, uapi.IOMMU_DESTROY.request)).toBe(-errno.ENOTTY);
    expect(kernel.poll(fd, ALL_EVENTS)).toBe(0);
    let woken = 0;
    const watch = kernel.watch(fd, POLLIN | POLLOUT, (ready) => (woken |= ready));
    if (typeof watch === 'number') throw new Error(`watch gave ${watch}`);
    expect(trigger(raw, device)).toBe(0);
    expect(kernel.poll(fd, ALL_EVENTS)).toBe(POLLIN | POLLRDNORM);
    await until(() => woken !== 0);
    expect(woken).toBe(POLLIN);
    watch.close();
    expect(read(raw, fd, 64)).toEqual([[0, 5]]);
    expect(kernel.poll(fd, ALL_EVENTS)).toBe(0);
  });

  test('gives whole events', () => {
    const { raw, device, viommu } = reporting(2 ** 32 + 6);
    const { fd } = queueOf(raw, viommu, 8);
    expect(trigger(raw, device, 4)).toBe(0);
    expect(read(raw, fd, EVENT - 1)).toBe(-errno.EINVAL);
    expect(read(raw, fd, EVENT)).toEqual([[0, 6]]);
    expect(read(raw, fd, 3 * EVENT - 1)).toEqual([
      [1, 6],
      [2, 6],
    ]);
    expect(read(raw, fd, EVENT + HEADER - 1)).toEqual([[3, 6]]);
  });

  test('that is full says so at its end, until there is room for another', () => {
    const { raw, device, viommu } = reporting();
    const { fd } = queueOf(raw, viommu, 2);
    const { kernel } = raw;
    expect(trigger(raw, device, 5)).toBe(0);
    expect(read(raw, fd, 2 * EVENT + HEADER - 1)).toEqual([
      [0, 5],
      [1, 5],
    ]);
    expect(kernel.poll(fd, ALL_EVENTS)).toBe(POLLIN | POLLRDNORM);
    expect(read(raw, fd, HEADER)).toEqual([['lost', 4]]);
    expect(kernel.poll(fd, ALL_EVENTS)).toBe(0);

    // Lost events that nobody has read of are forgotten with the next one that is kept.
    expect(trigger(raw, device, 3)).toBe(0);
    expect(read(raw, fd, EVENT)).toEqual([[5, 5]]);
    expect(trigger(raw, device)).toBe(0);
    expect(read(raw, fd, 64)).toEqual([
      [6, 5],
      [8, 5],
    ]);
    expect(trigger(raw, device, 4)).toBe(0);
    expect(read(raw, fd, 64)).toEqual([
      [9, 5],
      [10, 5],
      ['lost', 12],
    ]);
  });

  test('that is gone takes its events with it', () => {
    const { raw, device, viommu } = reporting();
    const { id, fd } = queueOf(raw, viommu);
    expect(trigger(raw, device, 3)).toBe(0);
    raw.drop(fd);
    expect(trigger(raw, device)).toBe(0);
    expect(raw.destroy(id)).toBe(0);
    expect(trigger(raw, device)).toBe(-errno.EOPNOTSUPP);
    const again = queueOf(raw, viommu);
    expect(read(raw, again.fd, 64)).toEqual([]);
    expect(trigger(raw, device)).toBe(0);
    expect(read(raw, again.fd, 64)).toEqual([[0, 5]]);
  });
});

describe('events', () => {
  test('are those of devices that a virtual IOMMU translates for', () => {
    const { raw, ioas, device, stdev, viommu, nested } = reporting();
    expect(trigger(raw, device)).toBe(-errno.EOPNOTSUPP);
    const { fd } = queueOf(raw, viommu);
    expect(trigger(raw, 99)).toBe(-errno.ENOENT);
    expect(trigger(raw, stdev)).toBe(-errno.ENOENT);
    expect(trigger(raw, raw.device(ioas).device)).toBe(-errno.ENOENT);
    expect(raw.replace(stdev, ioas)).toBeGreaterThan(0);
    expect(trigger(raw, device)).toBe(-errno.ENOENT);
    expect(raw.replace(stdev, nested)).toBe(nested);
    expect(trigger(raw, device)).toBe(0);
    expect(read(raw, fd, 64)).toEqual([[0, 5]]);
  });

  test('carry the id that the device had when it came to its virtual IOMMU', () => {
    const { raw, ioas, device, stdev, viommu, vdevice, nested } = reporting();
    const { fd } = queueOf(raw, viommu, 8);
    expect(raw.destroy(vdevice)).toBe(0);
    expect(trigger(raw, device)).toBe(0);
    expect(raw.vdevice(viommu, device, 6)).toBe(vdevice);
    const other = raw.nested(device, viommu);
    expect(raw.replace(stdev, other)).toBe(other);
    expect(trigger(raw, device)).toBe(0);
    raw.replace(stdev, ioas);
    expect(raw.replace(stdev, nested)).toBe(nested);
    expect(trigger(raw, device)).toBe(0);
    expect(read(raw, fd, 64)).toEqual([
      [0, 5],
      [1, 5],
      [2, 6],
    ]);
  });

  test('are not reported under the id 0', () => {
    const { raw, device, viommu } = reporting(0);
    queueOf(raw, viommu);
    expect(trigger(raw, device)).toBe(-errno.ENOENT);
  });
});
