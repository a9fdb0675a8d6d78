/** Workers that end, each in its way, with watches, memory and mappings open. The main thread loads no addon itself. */
import assert from 'node:assert';
import { once } from 'node:events';
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import { needAddon } from '../../linux/has-addon';

const POLLIN = 1;
const ways = [
  'terminated',
  'terminated in a callback',
  'exit',
  'exit in a callback',
  'thrown',
  'ended',
] as const;
type Way = (typeof ways)[number];
const ROUNDS = 3;

function inWorker(way: Way): void {
  const addon = needAddon();
  const busy = way.endsWith('callback') || way === 'thrown';
  const fd = addon.eventfd(busy ? 1 : 0, 0);
  const quiet = addon.eventfd(0, 0);
  for (let i = 0; i < 3; i++) addon.watch(quiet, POLLIN, () => undefined);
  const memory = addon.allocate(addon.pageSize, false, true);
  assert(typeof memory !== 'number');
  const mapping = addon.mmap(memory.fd, 0, addon.pageSize, 3);
  addon.store(mapping, 0, 4, 7);
  assert.strictEqual(new Uint32Array(memory.buffer)[0], 7);
  const page = addon.callPage();
  assert(typeof page !== 'number');
  new Int32Array(page).set([1, 0, 0, 0, quiet, 0x541b, 4096, 0]);
  addon.runCalls();
  const closed = addon.watch(quiet, POLLIN, () => undefined);
  const watch = addon.watch(fd, POLLIN, () => {
    if (way === 'exit in a callback') process.exit(0);
    if (way === 'thrown') throw new Error('thrown in a worker');
    parentPort?.postMessage('ready');
    for (;;);
  });
  // This one is still closing when the worker ends.
  addon.closeWatch(closed);
  if (way === 'exit') process.exit(0);
  if (way === 'ended') for (const each of [0, 1, 2, watch]) addon.unrefWatch(each);
  if (way === 'terminated') parentPort?.postMessage('ready');
}

/** Ends are checked by what is left: descriptors and mappings that only a watch or memory can hold. */
function left(): { watched: number; memory: number } {
  const links = readdirSync('/proc/self/fd').map((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`);
    } catch {
      return '';
    }
  });
  return {
    watched: links.filter((link) => link === 'anon_inode:[eventfd]').length,
    memory:
      links.filter((link) => link.startsWith('/memfd:dma')).length +
      (readFileSync('/proc/self/maps', 'latin1').match(/\/memfd:dma/g)?.length ?? 0),
  };
}

async function inMain(): Promise<void> {
  // One worker first: libuv and Node open eventfds of their own.
  await once(new Worker('0', { eval: true }), 'exit');
  const before = left();
  let started = 0;
  for (let round = 0; round < ROUNDS; round++) {
    await Promise.all(
      ways.map(async (way) => {
        const worker = new Worker(__filename, { workerData: way });
        started++;
        const errors: unknown[] = [];
        worker.on('error', (error) => errors.push(error));
        worker.on('message', () => void worker.terminate());
        await new Promise((resolve) => worker.on('exit', resolve));
        assert.deepStrictEqual(errors.map(String), way === 'thrown' ? ['Error: thrown in a worker'] : []);
      }),
    );
  }
  const after = left();
  assert.strictEqual(after.watched, before.watched, `of ${started} workers`);
  assert.strictEqual(after.memory, 0);
  console.log('done');
}

if (isMainThread) void inMain();
else inWorker(ways.find((way) => way === workerData) ?? 'ended');
