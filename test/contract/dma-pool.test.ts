import fc from 'fast-check';
import { DmaSlice, type DmaPoolOptions } from '../../lib';
import { Edu } from './edu';
import { errorOf, fill, openEdu, PAGE } from './support';

function setUp(options: DmaPoolOptions = {}) {
  const { iommu, device } = openEdu();
  const space = iommu.createAddressSpace();
  device.attach(space);
  return { iommu, device, space, edu: new Edu(device), pool: space.createPool(options) };
}

test('slices are zeroed, apart, and reached by the device', async () => {
  const { pool, edu } = setUp();
  const slices = [100, 64, 1000, 4000].map((length) => pool.allocate(length));
  const addresses = slices.map(({ iova }) => iova);
  expect(new Set(addresses).size).toBe(4);
  expect(addresses.map((iova, i) => Number(iova % BigInt([128, 64, 1024, 4096][i])))).toEqual([0, 0, 0, 0]);
  expect([pool.used, pool.size]).toEqual([128 + 64 + 1024 + 4096, 64 * 1024]);
  const [from, , to] = slices;
  fill(from.bytes, 4);
  await edu.fetch(from.iova, from.length);
  await edu.store(to.iova, from.length);
  expect([...to.bytes.subarray(0, 100)]).toEqual([...from.bytes]);
  expect(to.bytes.subarray(100).every((byte) => byte === 0)).toBe(true);
  expect(slices[1].bytes.every((byte) => byte === 0)).toBe(true);
  to.free();
  expect([to.freed, to.bytes.length, pool.used]).toEqual([true, 0, 128 + 64 + 4096]);
  to.free();
  const again = pool.allocate(1024);
  expect(again.iova).toBe(addresses[2]);
  expect(again.bytes.every((byte) => byte === 0)).toBe(true);
});

test('it grows by chunks up to its limit; a large slice gets memory of its own', () => {
  const { pool, space } = setUp({ chunk: PAGE, limit: 4 * PAGE });
  expect(pool.size).toBe(0);
  const large = pool.allocate(PAGE + 1);
  expect([pool.size, large.length, space.mappings.length]).toEqual([2 * PAGE, PAGE + 1, 1]);
  const small = [pool.allocate(PAGE), pool.allocate(PAGE)];
  expect([pool.size, pool.used]).toEqual([4 * PAGE, 4 * PAGE]);
  expect(errorOf(() => pool.allocate(1))).toMatchObject({
    code: 'ENOSPC',
    request: 'IOMMU_IOAS_MAP',
    hint: expect.stringContaining('acquire()'),
  });
  small[0].free();
  expect(pool.allocate(1).iova).toBe(small[0].iova);
  for (const length of [0, -1, 1.5]) expect(() => pool.allocate(length)).toThrow(RangeError);
  expect(() => space.createPool({ chunk: 2 * PAGE, limit: PAGE })).toThrow('is less than one chunk');
  expect(() => space.createPool({ limit: '1' as unknown as number })).toThrow(TypeError);
});

test('acquire() waits in turn, and who gives up takes nothing', async () => {
  const { pool } = setUp({ chunk: PAGE, limit: PAGE });
  const first = await pool.acquire(PAGE);
  const served: string[] = [];
  const ask = async (name: string, length: number) => {
    const slice = await pool.acquire(length);
    served.push(name);
    return slice;
  };
  const waiting = [ask('a', PAGE), ask('b', 64), ask('c', 64)];
  // Who comes later does not overtake.
  expect(errorOf(() => pool.allocate(64))).toMatchObject({ code: 'ENOSPC' });
  await expect(pool.acquire(64, { timeout: 5 })).rejects.toMatchObject({
    code: 'ETIMEDOUT',
    reason: expect.stringContaining('for 5 ms'),
  });
  const controller = new AbortController();
  const aborted = pool.acquire(64, { signal: controller.signal });
  controller.abort();
  first.free();
  await expect(aborted).rejects.toMatchObject({ name: 'AbortError' });
  (await waiting[0]).free();
  const rest = await Promise.all(waiting.slice(1));
  expect(served).toEqual(['a', 'b', 'c']);
  expect(pool.used).toBe(128);
  for (const slice of rest) slice.free();
  await expect(pool.acquire(PAGE + 1)).rejects.toThrow(RangeError);
});

test('who waits in front and gives up lets the next one through', async () => {
  const { pool } = setUp({ chunk: PAGE, limit: PAGE });
  const half = pool.allocate(PAGE / 2);
  const controller = new AbortController();
  const all = pool.acquire(PAGE, { signal: controller.signal });
  const little = pool.acquire(64);
  controller.abort();
  await expect(all).rejects.toMatchObject({ name: 'AbortError' });
  expect((await little).length).toBe(64);
  half.free();
});

// Found by 'many requests at once': four chunks of a page each, all free, and a request for two pages that never ended.
test('free memory in pieces that are too small is given back for a larger one', async () => {
  const { pool, space, edu } = setUp({ chunk: PAGE, limit: 4 * PAGE });
  const small = Array.from({ length: 4 }, () => pool.allocate(PAGE));
  expect([pool.size, space.mappings.length]).toEqual([4 * PAGE, 4]);
  small[0].free();
  small[2].free();
  small[3].free();
  const kept = small[1];
  const pair = pool.allocate(2 * PAGE);
  expect([pool.size, pool.used, space.mappings.length]).toEqual([4 * PAGE, 3 * PAGE, 3]);
  const waiting = pool.acquire(4 * PAGE);
  pair.free();
  fill(kept.bytes, 5);
  await edu.fetch(kept.iova, 64);
  kept.free();
  const all = await waiting;
  expect([all.bytes.length, pool.size, space.mappings.length]).toEqual([4 * PAGE, 4 * PAGE, 1]);
  await edu.store(all.iova + BigInt(PAGE), 64);
  expect([...all.bytes.subarray(PAGE, PAGE + 64)]).toEqual([...fill(new Uint8Array(64), 5)]);
});

test('closing the pool, its space or the device leaves nothing reachable, and ends waits', async () => {
  const { pool, space, edu, iommu } = setUp({ chunk: PAGE, limit: PAGE });
  const slice = pool.allocate(PAGE);
  const { iova } = slice;
  fill(slice.bytes, 1);
  await edu.fetch(iova, 64);
  const waiting = pool.acquire(64);
  pool.close();
  await expect(waiting).rejects.toMatchObject({ code: 'EBADF' });
  expect([slice.freed, slice.bytes.length, space.mappings.length]).toEqual([true, 0, 0]);
  slice.free();
  const target = iommu.allocateDma(PAGE);
  space.map(target, { iova });
  await edu.store(iova, 64);
  expect([...target.bytes.subarray(0, 64)]).toEqual([...fill(new Uint8Array(64), 1)]);
  expect(errorOf(() => pool.allocate(1))).toMatchObject({ code: 'EBADF' });
  const other = space.createPool();
  using held: DmaSlice = other.allocate(64);
  space.close();
  expect([other.closed, held.freed]).toEqual([true, true]);
  expect(errorOf(() => space.createPool())).toMatchObject({ code: 'EBADF' });
});

test('memory that devices may only read', async () => {
  const { pool, edu, space } = setUp({ write: false });
  const other = space.createPool();
  const source = other.allocate(64);
  const guarded = pool.allocate(64);
  fill(source.bytes, 9);
  await edu.fetch(source.iova, 64);
  await edu.store(guarded.iova, 64);
  expect(guarded.bytes.every((byte) => byte === 0)).toBe(true);
});

const requests = fc.array(
  fc.record({ length: fc.integer({ min: 1, max: 2 * PAGE }), hold: fc.nat(3), abort: fc.boolean() }),
  { maxLength: 60 },
);

test('many requests at once: no two have the same memory, and all of it comes back', async () => {
  const { pool } = setUp({ chunk: PAGE, limit: 4 * PAGE });
  const owners = new Map<bigint, string>();
  const cells = ({ iova, length }: DmaSlice) =>
    Array.from({ length: Math.ceil(length / 64) }, (_, i) => iova + BigInt(64 * i));
  const request = async (
    name: string,
    { length, hold, abort }: { length: number; hold: number; abort: boolean },
  ) => {
    const controller = new AbortController();
    if (abort) setImmediate(() => controller.abort());
    const slice = await pool.acquire(length, { signal: controller.signal }).catch((error: Error) => error);
    if (!(slice instanceof DmaSlice)) return expect(slice.name).toBe('AbortError');
    for (const cell of cells(slice)) {
      expect([name, owners.get(cell)]).toEqual([name, undefined]);
      owners.set(cell, name);
    }
    for (let turn = 0; turn < hold; turn++) await new Promise(setImmediate);
    for (const cell of cells(slice)) owners.delete(cell);
    slice.free();
  };
  await fc.assert(
    fc.asyncProperty(requests, async (list) => {
      const ends = await Promise.allSettled(list.map((each, i) => request(`request ${i}`, each)));
      expect(ends.filter(({ status }) => status === 'rejected')).toEqual([]);
      expect([pool.used, owners.size]).toEqual([0, 0]);
    }),
    { numRuns: 30 },
  );
});

test('huge pages: 2 MiB at a time, where the system has some', async () => {
  const { iommu, pool, edu } = setUp({ hugePages: true });
  const available =
    iommu.backend === 'simulated' ||
    pool.space.context.kernel.writeFile('/proc/sys/vm/nr_hugepages', '8') >= 0;
  expect(available).toBe(true);
  const [one, other] = [pool.allocate(1 << 20), pool.allocate(1000)];
  expect(pool.size).toBe(2 << 20);
  fill(one.bytes, 3);
  await edu.fetch(one.iova + 0x80000n, 1000);
  await edu.store(other.iova, 1000);
  expect([...other.bytes]).toEqual([...one.bytes.subarray(0x80000, 0x80000 + 1000)]);
});
