import { EduDriver, EDU_TRANSFER_MAXIMUM } from '../../examples/drivers/edu/driver';
import { backend, fill, open, PAGE, sleep } from './support';

function setUp() {
  const iommu = open();
  const edu = EduDriver.open(iommu, 0xed0n);
  const space = iommu.createAddressSpace();
  edu.device.attach(space);
  return { iommu, edu, space, pool: space.createPool() };
}

test('it answers, and computes', async () => {
  const { edu } = setUp();
  expect(edu.alive()).toBe(true);
  const numbers = [0, 1, 2, 12, 20, 33, 34];
  // 20! and 33! modulo 2^32.
  const expected = [1, 1, 2, 479_001_600, 2_192_834_560, 2_147_483_648, 0];
  expect(await Promise.all(numbers.map((n) => edu.factorial(n)))).toEqual(expected);
});

test('memory goes through its buffer, and what is asked at once is done in turn', async () => {
  const { edu, pool } = setUp();
  const [one, other, target] = [pool.allocate(1000), pool.allocate(500), pool.allocate(PAGE)];
  fill(one.bytes, 1);
  fill(other.bytes, 2);
  const [, , product] = await Promise.all([
    edu.fetch(one.iova, 1000, { at: 100 }),
    edu.fetch(other.iova, 500, { at: 3000 }),
    edu.factorial(5),
    edu.store(target.iova, EDU_TRANSFER_MAXIMUM),
  ]);
  expect(product).toBe(120);
  expect([...target.bytes.subarray(100, 1100)]).toEqual([...one.bytes]);
  expect([...target.bytes.subarray(3000, 3500)]).toEqual([...other.bytes]);
});

test('who gives up in time has nothing done, and those behind go on', async () => {
  const { edu, pool } = setUp();
  const [source, target] = [pool.allocate(64), pool.allocate(64)];
  fill(source.bytes, 3);
  const controller = new AbortController();
  const first = edu.fetch(source.iova, 64);
  const given = edu.store(target.iova, 64, { signal: controller.signal });
  const last = edu.factorial(6);
  controller.abort();
  await first;
  await expect(given).rejects.toMatchObject({ name: 'AbortError' });
  expect(await last).toBe(720);
  expect(target.bytes.every((byte) => byte === 0)).toBe(true);
});

test('what the device cannot do is refused before it is asked', () => {
  const { iommu, edu } = setUp();
  for (const [length, at] of [
    [0, 0],
    [4096, 0],
    [1.5, 0],
    [100, 4000],
    [1, -1],
  ])
    expect(() => edu.fetch(0n, length, { at })).toThrow(RangeError);
  expect(() => EduDriver.open(iommu, 1n, 7)).toThrow('no edu device 7');
});

test('closing ends what is under way', async () => {
  const { edu, pool } = setUp();
  const slice = pool.allocate(64);
  const work = Promise.allSettled([edu.store(slice.iova, 64), edu.factorial(3)]);
  // QEMU's device takes 100 ms; the simulated one is done when somebody looks.
  if (backend === 'linux') await sleep(20);
  edu.close();
  const closed = { status: 'rejected', reason: expect.objectContaining({ code: 'EBADF' }) };
  expect(await work).toEqual([closed, closed]);
});
