/** A worker that ends with a device open gives it back: its descriptors are closed with it. */
import { once } from 'node:events';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import { Iommu } from '../../lib';

const ROOT = join(__dirname, '../../..');
const EDU = '0000:00:04.0';

const HOLDER = `
  const { parentPort } = require('node:worker_threads');
  const { Iommu } = require('${ROOT}');
  const iommu = Iommu.open({ backend: 'linux' });
  const device = iommu.bind('${EDU}', { cookie: 1 });
  device.attach(iommu.createAddressSpace());
  iommu.createFaultQueue();
  device.region('bar0').read32(0);
  parentPort.postMessage('holding');
  if (process.env.WAY === 'exit') process.exit(0);
  setInterval(() => {}, 1e6);`;

jest.setTimeout(60_000);

test.each(['exit', 'terminate'])('by %s', async (way) => {
  const worker = new Worker(HOLDER, { eval: true, env: { ...process.env, WAY: way } });
  const ended = once(worker, 'exit');
  const [message] = (await once(worker, 'message')) as [string];
  expect(message).toBe('holding');
  if (way === 'terminate') await worker.terminate();
  await ended;
  using iommu = Iommu.open({ backend: 'linux' });
  expect(iommu.bind(EDU, { cookie: 2 }).bdf).toBe(EDU);
});
