/** A program that does not answer page faults holds a bounded number of them; none is lost. */
import type { Fault } from '../../lib';
import { openMock } from './mock-objects';
import { PAGE, sleep } from './support';

function setUp(limit: number | undefined) {
  const iommu = openMock();
  const device = iommu.createMockDevice({ cookie: 5n });
  const queue = iommu.createFaultQueue({ limit });
  const space = iommu.createAddressSpace({ faults: queue });
  device.attach(space);
  /** Raises faults of groups of their own. */
  const raise = (first: number, count: number) => {
    for (let i = first; i < first + count; i++) device.triggerFault({ address: i * PAGE, group: i });
  };
  return { iommu, device, queue, space, raise };
}

const pages = (faults: readonly Fault[]) => faults.map(({ address }) => Number(address) / PAGE);

test('faults beyond the limit stay with the kernel until others are answered', () => {
  const { queue, raise } = setUp(3);
  expect(queue.limit).toBe(3);
  raise(1, 8);
  const first = queue.drain();
  expect(pages(first)).toEqual([1, 2, 3]);
  expect([queue.drain(), pages(queue.pending)]).toEqual([[], [1, 2, 3]]);
  first[1].respond('success');
  const next = queue.drain();
  expect(pages(next)).toEqual([4]);
  expect(pages(queue.pending)).toEqual([1, 3, 4]);
  for (const fault of [first[0], first[2], next[0]]) expect(fault.respond('invalid')).toBe(true);
  expect(pages(queue.drain())).toEqual([5, 6, 7]);
  expect(setUp(undefined).queue.limit).toBe(4096);
});

test('whoever waits gets the next one when there is room, and nothing spins until then', async () => {
  const { iommu, queue, raise } = setUp(2);
  raise(1, 3);
  const [one, two] = queue.drain();
  const reads = jest.spyOn(iommu.kernel, 'read');
  const waiting = queue.next();
  await sleep(30);
  expect(reads.mock.calls.length).toBeLessThan(5);
  reads.mockRestore();
  two.respond('success');
  expect((await waiting).address).toBe(BigInt(3 * PAGE));
  const later = queue.next();
  await sleep(5);
  one.respond('success');
  raise(4, 1);
  expect((await later).address).toBe(BigInt(4 * PAGE));
});

test('detaching, replacing and closing give the room back: the kernel has answered those faults', () => {
  const { iommu, device, queue, space, raise } = setUp(2);
  raise(1, 2);
  const [fault] = queue.drain();
  device.detach();
  expect(queue.pending).toEqual([]);
  expect(fault.respond('success')).toBe(false);
  device.attach(space);
  raise(3, 2);
  expect(pages(queue.drain())).toEqual([3, 4]);
  const other = iommu.createAddressSpace({ faults: queue });
  device.attach(other, { replace: true });
  raise(5, 3);
  expect(queue.drain().map(({ ioasid }) => ioasid)).toEqual([other.ioasid, other.ioasid]);
  device.close();
  expect(queue.pending).toEqual([]);
});

test.each([0, -1, 1.5, NaN, '4'])('%p is no limit', (limit) => {
  expect(() => setUp(limit as number)).toThrow(RangeError);
});
