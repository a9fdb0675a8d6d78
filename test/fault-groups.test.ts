/** Page request groups of several pages, which the kernel's mock device cannot make. */
import { FaultConsumer, Iommu } from '../lib';
import { Machine } from '../lib/sim';
import * as reg from '../lib/sim/devices/dma-engine-registers';
import { fill, until } from './contract/support';

const PAGE = 4096;
const IOVA = 0x300_0000n;
const PAGES = 5;

function setUp() {
  const iommu = Iommu.open({ backend: new Machine() });
  const device = iommu.bind('0000:00:05.0', { cookie: 99 });
  const queue = iommu.createFaultQueue();
  const space = iommu.createAddressSpace({ faults: queue });
  device.attach(space);
  device.enableBusMaster();
  const bar = device.region('bar0');
  const source = iommu.allocateDma(PAGES * PAGE);
  const target = iommu.allocateDma(PAGES * PAGE);
  fill(source.bytes, 77);
  space.map(target, { iova: 0x900_0000n });
  bar.write32(reg.dmaEngine.PREFETCH, PAGES);
  bar.write64(reg.dmaEngine.SOURCE, IOVA);
  bar.write64(reg.dmaEngine.DESTINATION, 0x900_0000n);
  bar.write32(reg.dmaEngine.LENGTH, PAGES * PAGE);
  bar.write32(
    reg.dmaEngine.CONTROL,
    reg.CONTROL_START | reg.OPERATION_COPY | reg.CONTROL_ATS | reg.CONTROL_PAGE_REQUESTS,
  );
  const status = () => bar.read32(reg.dmaEngine.STATUS);
  return { iommu, queue, space, source, target, status };
}

async function group(queue: ReturnType<typeof setUp>['queue']) {
  const iterator = queue[Symbol.asyncIterator]();
  const faults = [];
  for (;;) {
    const { value } = await iterator.next();
    faults.push(value!);
    if (value!.last) return faults;
  }
}

test('a group of faults is answered as one, when all its pages are there', async () => {
  const { iommu, queue, space, source, target, status } = setUp();
  const faults = await group(queue);
  // The kernel puts the last request at the end, and those before it in no order.
  expect(faults.map(({ address }) => address).sort((a, b) => Number(a - b))).toEqual(
    Array.from({ length: PAGES }, (_, i) => IOVA + BigInt(i * PAGE)),
  );
  expect(new Set(faults.map(({ group }) => group)).size).toBe(1);
  expect(new Set(faults.map(({ raw }) => raw.cookie)).size).toBe(1);
  for (const fault of faults) {
    expect(status() & reg.STATUS_WAITING).not.toBe(0);
    space.map(source, { iova: fault.address, offset: Number(fault.address - IOVA), length: PAGE });
    expect(fault.respond('success')).toBe(true);
  }
  await until(() => (status() & reg.STATUS_BUSY) === 0);
  expect(status() >>> reg.STATUS_ERROR_SHIFT).toBe(reg.ERROR_NONE);
  expect(Buffer.compare(target.bytes, source.bytes)).toBe(0);
  iommu.close();
});

test('one invalid page makes the group invalid', async () => {
  const { iommu, queue, target, status } = setUp();
  const faults = await group(queue);
  faults.forEach((fault, i) => expect(fault.respond(i === 1 ? 'invalid' : 'success')).toBe(true));
  await until(() => (status() & reg.STATUS_BUSY) === 0);
  expect(status() >>> reg.STATUS_ERROR_SHIFT).toBe(reg.ERROR_PAGE_INVALID);
  expect(target.bytes.every((byte) => byte === 0)).toBe(true);
  iommu.close();
});

// Found by a review: nobody had answered the first page, and the device was told that all of them were there.
test('a group that another consumer has begun is refused, not answered as if nothing had been taken', async () => {
  const { queue, status } = setUp();
  const consumer = FaultConsumer.open(queue.share().ring);
  await consumer.next();
  consumer.close();
  queue.unshare();
  expect(queue.drain((fault) => fault.respond('success'))).toBe(PAGES - 1);
  await until(() => (status() & reg.STATUS_BUSY) === 0);
  expect(status() >>> reg.STATUS_ERROR_SHIFT).toBe(reg.ERROR_PAGE_INVALID);
  expect(queue.counters).toMatchObject({ published: PAGES, consumed: PAGES, refused: 0 });
});
