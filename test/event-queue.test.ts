/** lib/event-queue.ts over a scripted kernel: records that need more than a cache line, and lost ones. */
import { EventQueue } from '../lib/event-queue';
import {
  IOMMU_DESTROY,
  IOMMU_VEVENTQ_ALLOC,
  IOMMU_VEVENTQ_FLAG_LOST_EVENTS as LOST_EVENTS,
  iommufd_vevent_header,
} from '../lib/uapi';
import type { VirtualEvent } from '../lib/virtual-event';
import type { VirtualIommu } from '../lib/virtual-iommu';
import { ScriptedFaultFile } from './rings/fault-file';

const HEADER = iommufd_vevent_header.size;

function setUp(recordSize: number) {
  const kernel = new ScriptedFaultFile();
  kernel.ioctls.set(IOMMU_VEVENTQ_ALLOC.request, (bytes) => {
    const { size, offsets } = IOMMU_VEVENTQ_ALLOC.struct;
    expect((bytes as Uint8Array).length).toBe(size);
    const view = new DataView((bytes as Uint8Array).buffer);
    view.setUint32(offsets.out_veventq_id, 6, true);
    view.setUint32(offsets.out_veventq_fd, 40, true);
    return 0;
  });
  kernel.ioctls.set(IOMMU_DESTROY.request, () => 0);
  const virtualIommu = { id: 3, context: { kernel, fd: 3 }, children: new Set() };
  const queue = new EventQueue(virtualIommu as unknown as VirtualIommu, {
    type: { id: 99, recordSize },
    depth: 16,
  });
  const event = (sequence: number) => {
    const bytes = new Uint8Array(HEADER + recordSize).fill(sequence % 251, HEADER);
    bytes.set(iommufd_vevent_header.encode({ flags: 0, sequence }));
    kernel.deliver(bytes);
  };
  /** The header that says that events up to this number were lost. */
  const lost = (sequence: number) =>
    kernel.deliver(iommufd_vevent_header.encode({ flags: LOST_EVENTS, sequence }));
  const raw = (sequence: number, missing = 0) => ({
    type: 'raw' as const,
    sequence,
    lost: missing,
    data: new Uint8Array(recordSize).fill(sequence % 251),
  });
  return { kernel, queue, event, lost, raw };
}

// A slot is 64 bytes with 56 for the header and the record, then 128 with 120, and so on.
test.each([0, 1, 48, 49, 60, 112, 113, 500])(
  'records of %d bytes keep their bytes and order',
  async (size) => {
    const { queue, event, raw } = setUp(size);
    const waiting = queue.next();
    event(0);
    expect(await waiting).toEqual(raw(0));
    // More than the ring has slots.
    for (let i = 1; i <= 300; i++) event(i);
    const legible = (one: VirtualEvent) => ({ ...one, data: Buffer.from(one.data).toString('hex') });
    const expected = Array.from({ length: 300 }, (_, i) => legible(raw(i + 1)));
    expect(queue.drain().map(legible)).toEqual(expected);
    expect(queue.counters).toMatchObject({ published: 301, consumed: 301, dropped: 0 });
    queue.close();
  },
);

test('headers of lost events lie between records of another size, and are told by either', () => {
  const { queue, event, lost, raw } = setUp(60);
  event(0);
  lost(4);
  event(5);
  event(9);
  lost(9);
  const empty = new Uint8Array(0);
  expect(queue.drain()).toEqual([
    raw(0),
    { type: 'lost', sequence: 4, lost: 4, data: empty },
    raw(5),
    raw(9, 3),
    // None beyond those that are known.
    { type: 'lost', sequence: 9, lost: 0, data: empty },
  ]);
  queue.close();
});

test('numbers begin at 0 again behind 2^31 - 1', () => {
  const { queue, event, lost, raw } = setUp(8);
  event(2 ** 31 - 2);
  event(1);
  lost(4);
  expect(queue.drain()).toEqual([
    raw(2 ** 31 - 2, 2 ** 31 - 2),
    raw(1, 2),
    { type: 'lost', sequence: 4, lost: 3, data: new Uint8Array(0) },
  ]);
  queue.close();
});

test('drain(callback): the same objects, and what a callback that throws leaves', () => {
  const { queue, event, raw } = setUp(60);
  for (let i = 0; i < 4; i++) event(i);
  const seen: unknown[] = [];
  const callback = (one: unknown) => {
    seen.push(one);
    if (seen.length === 2) throw new Error('two');
  };
  expect(() => queue.drain(callback)).toThrow('two');
  expect(seen).toEqual([raw(0), raw(1)]);
  expect(queue.drain((one) => void seen.push(one))).toBe(2);
  expect(seen).toEqual([0, 1, 2, 3].map((n) => raw(n)));
  queue.close();
});

test('close() in a callback ends the drain', () => {
  const { kernel, queue, event } = setUp(60);
  for (let i = 0; i < 4; i++) event(i);
  expect(queue.drain(() => queue.close())).toBe(1);
  expect(kernel.closed).toEqual([40]);
});
