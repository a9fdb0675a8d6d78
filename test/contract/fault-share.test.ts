/** The consumer's side of the fault rings in other hands: a worker's, and another process's. */
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import { openMock } from './mock-objects';
import { PAGE, until } from './support';

const ROOT = join(__dirname, '../../..');

function setUp(limit?: number) {
  const iommu = openMock();
  const device = iommu.createMockDevice({ cookie: 0xabcd_0000_1234n });
  const queue = iommu.createFaultQueue({ limit });
  const space = iommu.createAddressSpace({ faults: queue });
  device.attach(space);
  const raise = (first: number, count: number) => {
    for (let i = first; i < first + count; i++) device.triggerFault({ address: i * PAGE, group: i });
  };
  return { iommu, device, queue, space, raise };
}

/** A worker that takes nothing, and tells how each kind of wait has ended. */
const WAITER = `
  const { parentPort, workerData } = require('node:worker_threads');
  const { FaultConsumer } = require(${JSON.stringify(ROOT)});
  const faults = FaultConsumer.open(workerData.ring);
  const end = (wait) => wait.then(() => 'went on', ({ code }) => code);
  const heard = new Promise((resolve) => faults.on('error', ({ code }) => resolve(code)));
  const iterate = async () => { for await (const fault of faults) throw fault; };
  const waits = [end(faults.next()), end(faults.ready()), end(iterate()), heard];
  parentPort.once('message', (tail) => {
    // A consumer gone mad.
    if (tail !== undefined) Atomics.store(faults.ring.words, 0x80 >> 2, tail);
    parentPort.postMessage('set');
  });
  parentPort.postMessage('waiting');
  Promise.all(waits).then((codes) => {
    let drained;
    try { drained = faults.drain().length; } catch ({ code }) { drained = code; }
    faults.close();
    parentPort.postMessage([...codes, drained]);
    parentPort.unref();
  });`;

/** A worker that answers what comes, and tells the addresses. */
const CONSUMER = `
  const { parentPort, workerData } = require('node:worker_threads');
  const { FaultConsumer } = require(${JSON.stringify(ROOT)});
  const faults = FaultConsumer.open(workerData.ring);
  faults.on('error', (error) => parentPort.postMessage(error.code));
  (async () => {
    for (;;) {
      await faults.ready();
      const seen = [];
      faults.drain((fault) => {
        seen.push([Number(fault.address), fault.cookie, fault.ioasid]);
        fault.respond('success');
      });
      parentPort.postMessage(seen);
    }
  })();
  parentPort.on('message', () => { faults.close(); process.exit(0); });`;

async function startWorker(queue: ReturnType<typeof setUp>['queue']) {
  const { ring, transferList } = queue.share();
  const worker = new Worker(CONSUMER, { eval: true, workerData: { ring }, transferList });
  const seen: [number, bigint, number][] = [];
  const errors: unknown[] = [];
  worker.on('message', (message: typeof seen | string) => {
    if (typeof message === 'string') errors.push(message);
    else seen.push(...message);
  });
  worker.on('error', (error) => errors.push(error));
  await once(worker, 'online');
  const end = async () => {
    const ended = once(worker, 'exit');
    worker.postMessage('end');
    await ended;
  };
  return { seen, errors, end };
}

jest.setTimeout(120_000);

test('a worker takes the faults and answers them, while this thread raises them', async () => {
  const { queue, space, raise } = setUp(4);
  const { seen, errors, end } = await startWorker(queue);
  const take = { code: 'EBUSY', syscall: 'read', hint: expect.stringContaining('unshare()') as string };
  expect(() => queue.drain()).toThrow(expect.objectContaining(take));
  await expect(queue.next()).rejects.toMatchObject(take);
  await expect(queue[Symbol.asyncIterator]().next()).rejects.toMatchObject(take);
  expect(() => queue.share()).toThrow(expect.objectContaining({ code: 'EBUSY' }));
  // No more than four at a time: all come only because answers arrive.
  for (let first = 0; first < 100; first += 10) {
    raise(first, 10);
    await until(() => seen.length === first + 10);
  }
  const all = Array.from({ length: 100 }, (_, i) => [i * PAGE, 0xabcd_0000_1234n, space.ioasid]);
  expect(seen).toEqual(all);
  await end();
  expect(errors).toEqual([]);
  queue.unshare();
  raise(100, 1);
  expect((await queue.next()).respond('success')).toBe(true);
});

test('what a worker holds when its device is detached is answered by the kernel, and a late response harms nobody', async () => {
  const { queue, device, space, raise } = setUp(4);
  const { seen, errors, end } = await startWorker(queue);
  for (let round = 0; round < 20; round++) {
    raise(10 * round, 3);
    device.detach();
    device.attach(space);
  }
  raise(1000, 1);
  await until(() => seen.some(([address]) => address === 1000 * PAGE));
  expect(errors).toEqual([]);
  await end();
  queue.unshare();
});

test('a queue that is in use is not handed over', async () => {
  const { queue, raise } = setUp();
  raise(1, 1);
  const [fault] = queue.drain();
  expect(() => queue.share()).toThrow(expect.objectContaining({ code: 'EBUSY' }));
  fault.respond('success');
  const waiting = queue.next();
  expect(() => queue.share()).toThrow(expect.objectContaining({ code: 'EBUSY' }));
  raise(2, 1);
  (await waiting).respond('success');
  queue.share();
  queue.unshare();
});

/** A worker that waits; `tail`: it then writes this where its index is. */
async function startWaiter(queue: ReturnType<typeof setUp>['queue'], tail?: number) {
  const { ring, transferList } = queue.share();
  const worker = new Worker(WAITER, { eval: true, workerData: { ring }, transferList });
  const exit = once(worker, 'exit');
  expect(await once(worker, 'message')).toEqual(['waiting']);
  worker.postMessage(tail);
  expect(await once(worker, 'message')).toEqual(['set']);
  return { ended: once(worker, 'message'), exit };
}

test('a queue that is closed ends all waits of the worker that has it', async () => {
  const { queue, space, device } = setUp();
  const { ended, exit } = await startWaiter(queue);
  device.detach();
  space.close();
  queue.close();
  expect(await ended).toEqual([Array(5).fill('EBADF')]);
  expect(await exit).toEqual([0]);
});

test('a pump that ends, here by a worker that writes nonsense, ends the waits too', async () => {
  const { queue, raise } = setUp();
  const { ended, exit } = await startWaiter(queue, 5);
  raise(1, 1);
  expect(await ended).toEqual([Array(5).fill('EIO')]);
  expect(await exit).toEqual([0]);
  queue.unshare();
  expect(() => queue.drain()).toThrow(expect.objectContaining({ code: 'EIO' }));
  await expect(queue.next()).rejects.toMatchObject({ code: 'EIO' });
});

test('another process takes them: a program in C', async () => {
  const { iommu, queue, space, raise } = setUp();
  const { ring } = queue.share();
  // The simulation's rings are memory of this process.
  expect(ring.kind).toBe(iommu.backend === 'linux' ? 'memfd' : 'memory');
  if (ring.kind === 'memory') return;
  const folder = mkdtempSync(join(tmpdir(), 'consumer-'));
  const program = join(folder, 'fault-consumer');
  execFileSync('cc', [
    '-O2',
    '-I',
    join(ROOT, 'native'),
    '-o',
    program,
    join(ROOT, 'examples/c/fault-consumer.c'),
  ]);
  const child = spawn(program, ['20'], {
    stdio: ['ignore', 'pipe', 'inherit', ring.memfd, ring.doorbell, ring.kick],
  });
  let text = '';
  child.stdout!.on('data', (chunk: Buffer) => (text += String(chunk)));
  raise(0, 20);
  expect(await once(child, 'close')).toEqual([0, null]);
  rmSync(folder, { recursive: true });
  const lines = text
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as object);
  expect(lines).toEqual(
    Array.from({ length: 20 }, (_, i) => ({
      address: `0x${(i * PAGE).toString(16)}`,
      cookie: 0xabcd_0000_1234,
      ioasid: space.ioasid,
      code: i % 2,
    })),
  );
});
