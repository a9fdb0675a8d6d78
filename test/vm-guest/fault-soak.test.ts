/**
 * Many faults of the kernel's mock device, taken and answered through the rings by a worker, while this thread raises them
 * and maps and unmaps: none is lost, none comes twice, and the kernel takes every answer. IOMMUFD_FAULTS says how many.
 */
import { once } from 'node:events';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import { Iommu } from '../../lib';

const ROOT = join(__dirname, '../../..');
const FAULTS = Number(process.env['IOMMUFD_FAULTS'] ?? 20_000);
const PAGE = 4096;
/** No more than these are read and unanswered: that all come shows that answers arrive. */
const LIMIT = 256;
/** Raised in one go. */
const BURST = 500;
const GROUPS = 512;

const CONSUMER = `
  const { parentPort, workerData } = require('node:worker_threads');
  const { FaultConsumer } = require(${JSON.stringify(ROOT)});
  const faults = FaultConsumer.open(workerData.ring);
  let seen = 0, wrong = 0;
  const take = (fault) => {
    // The number of a fault is its page; 32 bits and halves, so that nothing is allocated.
    const page = fault.addressHigh * 1048576 + (fault.addressLow >>> 12);
    if (page !== seen || fault.group !== page % ${GROUPS} || fault.cookieLow !== 77) wrong++;
    seen++;
    fault.respond(page % 3 === 0 ? 'invalid' : 'success');
  };
  (async () => {
    while (seen < workerData.count) {
      await faults.ready();
      faults.drain(take);
    }
    parentPort.postMessage({ seen, wrong });
    faults.close();
  })();`;

jest.setTimeout(20 * 60_000);

test(`${FAULTS} faults of the mock device, with mappings that change`, async () => {
  using iommu = Iommu.open({ backend: 'linux' });
  const device = iommu.createMockDevice({ cookie: 77n });
  const queue = iommu.createFaultQueue({ limit: LIMIT });
  const space = iommu.createAddressSpace({ faults: queue });
  device.attach(space);
  const buffer = iommu.allocateDma(PAGE);
  const { ring, transferList } = queue.share();
  const worker = new Worker(CONSUMER, { eval: true, workerData: { ring, count: FAULTS }, transferList });
  const result = once(worker, 'message') as Promise<[{ seen: number; wrong: number }]>;
  for (let page = 0; page < FAULTS; page++) {
    device.triggerFault({ address: page * PAGE, group: page % GROUPS });
    if (page % 10 === 0) space.map(buffer, { iova: 0x1000000n + BigInt(page % 100) * 4096n }).unmap();
    // Messages of the worker come with a turn of the event loop.
    if (page % BURST === 0) await new Promise(setImmediate);
  }
  expect(await result).toEqual([{ seen: FAULTS, wrong: 0 }]);
  await once(worker, 'exit');
  queue.unshare();
  expect(queue.drain()).toEqual([]);
  expect(queue.counters).toMatchObject({
    published: FAULTS,
    consumed: FAULTS,
    dropped: 0,
    refused: 0,
  });
  // Every group is answered: the cookies are free, and a fault is answered as the first was.
  device.triggerFault({ address: 0 });
  const [fault] = queue.drain();
  expect([fault.raw.cookie <= LIMIT, fault.respond('success')]).toEqual([true, true]);
});
