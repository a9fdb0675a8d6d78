/** One way of taking faults beside another: what one has taken in, the next still gets. Found by reading and trying. */
import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import { FaultConsumer, type Fault } from '../../lib';
import { openMock } from './mock-objects';
import { backend, errorOf, PAGE, sleep, until } from './support';

const ROOT = require.resolve('../../lib');

function setUp(limit?: number) {
  const iommu = openMock();
  const device = iommu.createMockDevice({ cookie: 0x77n });
  const queue = iommu.createFaultQueue({ limit });
  const space = iommu.createAddressSpace({ faults: queue });
  device.attach(space);
  const raise = (...pages: number[]) => {
    for (const page of pages) device.triggerFault({ address: page * PAGE, group: page });
  };
  return { iommu, device, queue, space, raise };
}

const pageOf = ({ address }: { address: bigint }) => Number(address) / PAGE;
const answer = (fault: { respond(response: 'success'): unknown }) => fault.respond('success');

describe("on('record') gets", () => {
  function listen(queue: ReturnType<typeof setUp>['queue'], each: (fault: Fault) => void = () => {}) {
    const seen: number[] = [];
    queue.on('record', (fault) => {
      seen.push(pageOf(fault));
      each(fault);
      answer(fault);
    });
    return seen;
  }

  test('what the getter `pending` has shown, also from within the listener', async () => {
    const { queue, raise } = setUp();
    const seen = listen(queue, () => void queue.pending);
    raise(1, 2, 3, 4, 5);
    await until(() => seen.length === 5);
    expect(seen).toEqual([1, 2, 3, 4, 5]);
  });

  test('what a wait had at hand that failed', async () => {
    const { queue, raise } = setUp();
    raise(1);
    await expect(queue.next({ signal: AbortSignal.abort() })).rejects.toMatchObject({ name: 'AbortError' });
    await expect(queue.next({ timeout: -1 })).rejects.toThrow(RangeError);
    const seen = listen(queue);
    await until(() => seen.length === 1);
    raise(2);
    await until(() => seen.length === 2);
  });

  test('what a callback that threw did not get to', async () => {
    const { queue, raise } = setUp();
    raise(1, 2, 3);
    await queue.ready();
    expect(queue.pending.map(pageOf)).toEqual([1, 2, 3]);
    const stop = () => {
      throw new Error('enough');
    };
    expect(() => queue.drain(stop)).toThrow('enough');
    const seen = listen(queue);
    await until(() => seen.length === 2);
    expect(seen).toEqual([2, 3]);
  });

  test('what the kernel had kept for want of room', async () => {
    const { queue, raise } = setUp(1);
    raise(1, 2, 3);
    const first = queue.drain();
    first.forEach(answer);
    const seen = listen(queue);
    await until(() => seen.length + first.length === 3);
    raise(4);
    await until(() => seen.length + first.length === 4);
    expect([...first.map(pageOf), ...seen]).toEqual([1, 2, 3, 4]);
  });
});

test('ready() is told of what `pending` has shown meanwhile', async () => {
  const { queue, raise } = setUp();
  const waiting = queue.ready();
  raise(1);
  await until(() => queue.pending.length === 1);
  await waiting;
  expect(queue.drain().map(pageOf)).toEqual([1]);
});

test('what was answered by way of `pending` does not come again', async () => {
  const { queue, raise } = setUp();
  raise(1, 2);
  await queue.ready();
  queue.pending.forEach(answer);
  expect(queue.drain(answer)).toBe(0);
  raise(3, 4);
  await queue.ready();
  answer(queue.pending[0]);
  const next = await queue.next();
  expect([pageOf(next), next.answered]).toEqual([4, false]);
  answer(next);
  raise(5);
  await queue.ready();
  queue.pending.forEach(answer);
  queue.share();
  queue.unshare();
});

test('close() within a callback ends the drain of objects too, and counters stay', async () => {
  const { queue, iommu, raise } = setUp();
  raise(1, 2);
  await queue.ready();
  expect(queue.pending.length).toBe(2);
  const visited = queue.drain((fault) => {
    answer(fault);
    iommu.close();
  });
  expect([visited, queue.closed]).toEqual([1, true]);
  expect(queue.counters).toMatchObject({ published: 2, consumed: 2, dropped: 0 });
});

test('arguments that are no functions are refused before anything begins', () => {
  const { queue } = setUp();
  const wrong = 42 as unknown as () => void;
  expect(() => queue.on('record', wrong)).toThrow(TypeError);
  expect(() => queue.on('error', wrong)).toThrow(TypeError);
  expect(() => queue.drain(wrong)).toThrow(TypeError);
  queue.share();
});

describe('a loan', () => {
  test('may begin with faults that nobody has taken', async () => {
    const { queue, raise } = setUp();
    raise(1, 2, 3);
    await queue.ready();
    const { ring } = queue.share();
    const consumer = FaultConsumer.open(ring);
    await consumer.ready();
    expect(consumer.drain(answer)).toBe(3);
    consumer.close();
  });

  test('is not ended by the end of the one before', async () => {
    const { queue } = setUp();
    queue.share();
    queue.unshare();
    queue.share();
    await sleep(100);
    expect(errorOf(() => queue.drain())).toMatchObject({ code: 'EBUSY' });
    queue.unshare();
    expect(queue.drain()).toEqual([]);
  });

  test('ends with the other consumer, or the worker that has it', async () => {
    const { queue, raise } = setUp();
    const first = queue.share();
    FaultConsumer.open(first.ring).close();
    const free = () => {
      try {
        queue.drain(answer);
        return true;
      } catch (error) {
        expect(error).toMatchObject({ code: 'EBUSY' });
        return false;
      }
    };
    await until(free);
    const { ring, transferList } = queue.share();
    const program = `
      const { workerData } = require('node:worker_threads');
      const faults = require(${JSON.stringify(ROOT)}).FaultConsumer.open(workerData.ring);
      faults.on('record', () => {});`;
    const worker = new Worker(program, { eval: true, workerData: { ring }, transferList });
    await once(worker, 'online');
    expect(free()).toBe(false);
    await worker.terminate();
    await until(free);
    raise(1);
    await queue.ready();
    expect(queue.drain(answer)).toBe(1);
  });

  test('that is ended by its owner ends the waits of the other side', async () => {
    const { queue } = setUp();
    const consumer = FaultConsumer.open(queue.share().ring);
    const waits = Promise.allSettled([consumer.next(), consumer.ready()]);
    await sleep(10);
    queue.unshare();
    const closed = { status: 'rejected', reason: expect.objectContaining({ code: 'EBADF' }) };
    expect(await waits).toEqual([closed, closed]);
    expect(errorOf(() => consumer.drain())).toMatchObject({ code: 'EBADF' });
    consumer.close();
  });

  test('leaves no answer behind, and no ear at the doorbell', async () => {
    const { queue, raise } = setUp();
    const { ring } = queue as unknown as { ring: { responses: number } };
    const consumer = FaultConsumer.open(queue.share().ring);
    raise(1);
    await consumer.ready();
    consumer.drain(answer);
    const waiting = consumer.next().catch((error: unknown) => error);
    queue.unshare();
    expect(await waiting).toMatchObject({ code: 'EBADF' });
    expect(ring.responses).toBe(0);
    // The other consumer is not closed, and hears nothing any more.
    for (let page = 2; page < 12; page++) {
      const next = queue.next({ timeout: 20_000 });
      await sleep(2);
      raise(page);
      const fault = await next;
      expect(pageOf(fault)).toBe(page);
      answer(fault);
    }
    consumer.close();
  });

  test('of a queue that is closed is no other queue’s, and nobody waits for its answers', async () => {
    const { iommu, device, queue, space, raise } = setUp();
    raise(1);
    const { ring } = queue.share();
    const consumer = FaultConsumer.open(ring);
    const fault = await consumer.next();
    device.detach();
    space.close();
    queue.close();
    expect(fault.respond('success')).toBe(false);
    const other = iommu.createFaultQueue();
    if (backend === 'linux') expect(errorOf(() => FaultConsumer.open(ring))).toMatchObject({ code: 'EBADF' });
    expect(other.drain()).toEqual([]);
    consumer.close();
  });
});

test('the end of the pump is heard by who listens for nothing else', async () => {
  const { queue } = setUp();
  const heard: string[] = [];
  queue.on('error', (error) => heard.push((error as { code: string }).code));
  // A consumer gone mad.
  Atomics.store((queue as unknown as { ring: { words: Int32Array } }).ring.words, 0x80 >> 2, 12_345);
  await sleep(1);
  expect(errorOf(() => queue.drain())).toMatchObject({ code: 'EIO' });
  await until(() => heard.length > 0);
  expect(errorOf(() => queue.drain())).toMatchObject({ code: 'EIO' });
  expect(heard).toEqual(['EIO']);
});
