/** What becomes of memory and mappings that were freed, and of those that were only dropped. */
import assert from 'node:assert';
import { AsyncLocalStorage } from 'node:async_hooks';
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { EFD_NONBLOCK, POLLIN, type DeviceMapping, type Memory } from '../../../lib/kernel';
import { LinuxKernel } from '../../../lib/linux/kernel';

const kernel = new LinuxKernel();
const LENGTH = 1 << 16;
const PROT_READ = 1;

/** Mappings of memfds in this process: they are all this file's. */
const mapped = () => readFileSync('/proc/self/maps', 'latin1').match(/\/memfd:dma/g)?.length ?? 0;
const memfds = () =>
  readdirSync('/proc/self/fd').filter((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`).startsWith('/memfd:dma');
    } catch {
      return false;
    }
  }).length;

function allocate(): Memory {
  const memory = kernel.allocate(LENGTH, { memfd: true });
  assert(typeof memory !== 'number');
  memory.bytes.fill(1);
  return memory;
}

function map(memory: Memory): DeviceMapping {
  const mapping = kernel.mmap(memory.fd, 0, LENGTH, PROT_READ);
  assert(typeof mapping !== 'number');
  return mapping;
}

/** Collects garbage, turn by turn, until `done`; false after many turns. */
async function collectUntil(done: () => boolean, turns = 100): Promise<boolean> {
  for (let turn = 0; turn < turns; turn++) {
    globalThis.gc?.();
    await new Promise((resolve) => setImmediate(resolve));
    if (done()) return true;
  }
  return false;
}

/** As much collecting as frees everything that can be. */
const collect = () => collectUntil(() => false, 10);

async function dropped(): Promise<void> {
  for (let i = 0; i < 8; i++) allocate();
  assert.strictEqual(memfds(), 8);
  assert(await collectUntil(() => mapped() === 0), `${mapped()} mappings were not collected`);
  assert.strictEqual(memfds(), 0);
}

async function bytesOutliveTheirMemory(): Promise<void> {
  let bytes: Uint8Array | undefined = allocate().bytes;
  await collect();
  assert.strictEqual(mapped(), 1);
  assert.strictEqual(bytes[LENGTH - 1], 1);
  bytes = undefined;
  assert(await collectUntil(() => mapped() === 0));
  assert.strictEqual(memfds(), 0);
}

async function freed(): Promise<void> {
  const memory = allocate();
  memory.free();
  assert.strictEqual(mapped(), 0, 'free left the memory mapped');
  assert.strictEqual(memfds(), 0);
  // The addresses of the first go to others once its finalizer ran; it must not unmap them again.
  await collect();
  const later = Array.from({ length: 64 }, allocate);
  memory.free();
  await collect();
  assert.strictEqual(memfds(), 64);
  for (const each of later) assert(each.bytes.every((byte) => byte === 1));
  for (const each of later) each.free();
  await collect();
  assert.strictEqual(mapped(), 0);
}

/** A watch keeps the async context it was made in, whatever is collected before the file is ready. */
async function contexts(): Promise<void> {
  const storage = new AsyncLocalStorage<string>();
  const fd = kernel.eventfd(0, EFD_NONBLOCK);
  const seen: unknown[] = [];
  const watch = storage.run('mine', () => kernel.watch(fd, POLLIN, () => seen.push(storage.getStore())));
  assert(typeof watch !== 'number');
  await collect();
  kernel.write(fd, Uint8Array.of(1, 0, 0, 0, 0, 0, 0, 0));
  assert(await collectUntil(() => seen.length > 0));
  watch.close();
  kernel.close(fd);
  assert.strictEqual(seen[0], 'mine');
}

async function mappings(): Promise<void> {
  const memory = allocate();
  const kept = map(memory);
  for (let i = 0; i < 4; i++) map(memory).load(0, 4);
  assert.strictEqual(mapped(), 6);
  assert(await collectUntil(() => mapped() === 2), `${mapped()} mappings, not 2`);
  kept.unmap();
  await collect();
  assert.strictEqual(mapped(), 1);
  memory.free();
  assert.strictEqual(mapped(), 0);
}

/** Without one turn of the event loop in between, freed memory must be the kernel's again. */
function freedAtOnce(): void {
  const length = 32 << 20;
  for (let i = 0; i < 40; i++) {
    const memory = kernel.allocate(length, { memfd: i % 2 === 0 });
    assert(typeof memory !== 'number');
    memory.bytes.fill(i);
    memory.free();
  }
  const resident = process.memoryUsage.rss();
  assert(resident < 16 * length, `${resident} bytes are resident after 40 times ${length} were freed`);
}

async function main(): Promise<void> {
  await dropped();
  await bytesOutliveTheirMemory();
  await freed();
  await mappings();
  await contexts();
  freedAtOnce();
  console.log('done');
}

void main();
