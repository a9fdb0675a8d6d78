/** The NVMe driver, the same file on the simulated controller and on QEMU's. */
import { stress } from '../../examples/drivers/nvme/stress';
import { closeDisks, giveTo, NVME, openDisk } from './nvme';
import { backend, fill } from './support';

const MEBIBYTE = 2 ** 20;
const seed = Number(process.env['NVME_SEED'] ?? 20261128);

if (backend === 'linux') {
  beforeAll(() => giveTo('vfio-pci'));
  afterAll(() => giveTo('\n'));
}
afterEach(closeDisks);

test('it says what it is', async () => {
  const disk = await openDisk();
  expect(disk).toMatchObject({ serial: 'iommufd', blockSize: 512, blocks: 131072 });
  expect(disk.model).toMatch(/NVMe/);
  expect(disk.maxTransfer).toBeGreaterThanOrEqual(128 * 1024);
  expect((await disk.health()).temperature).toBeGreaterThan(273);
});

test.each([
  ['interrupts', false, backend === 'linux' ? 4 : 16],
  ['polling', true, backend === 'linux' ? 2 : 8],
])('random pieces at random depths, with %s, seed %#', async (_name, polling, mebibytes) => {
  const disk = await openDisk({ polling });
  const report = await stress(disk, { bytes: mebibytes * MEBIBYTE, seed });
  expect([seed, report.written, report.verified]).toEqual([seed, mebibytes * MEBIBYTE, mebibytes * MEBIBYTE]);
  expect(report.flushes).toBeGreaterThan(0);
  expect(disk.counters).toMatchObject({ resets: 0, aborts: 0, retries: 0 });
});

test('shallow queues, and little memory: requests wait for both', async () => {
  const disk = await openDisk({ queues: 1, depth: 2, memory: 4 * MEBIBYTE });
  const report = await stress(disk, { bytes: MEBIBYTE, seed: seed + 1, depth: 32 });
  expect(report.verified).toBe(MEBIBYTE);
});

test('a request larger than a command is several', async () => {
  const disk = await openDisk();
  const data = fill(new Uint8Array(disk.maxTransfer + 3 * 512), 5);
  await disk.write(1001, data);
  const found = await disk.read(1001, data.length / 512);
  expect(Buffer.compare(found, data)).toBe(0);
});

test('zeroes without data; blocks that nobody needs', async () => {
  const disk = await openDisk();
  const data = fill(new Uint8Array(64 * 512), 9);
  await disk.write(500, data);
  await disk.writeZeroes(510, 5);
  await disk.trim(550, 8);
  const found = await disk.read(500, 50);
  const expected = data.slice(0, 50 * 512);
  expected.fill(0, 10 * 512, 15 * 512);
  expect(Buffer.compare(found, expected)).toBe(0);
});

test('a reset in the middle: requests in flight are done', async () => {
  const disk = await openDisk();
  const pieces = Array.from({ length: 40 }, (_, i) => fill(new Uint8Array(8192), i));
  const writes = pieces.map((piece, i) => disk.write(100 + 16 * i, piece));
  await disk.reset();
  await Promise.all(writes);
  for (const [i, piece] of pieces.entries())
    expect([i, Buffer.compare(await disk.read(100 + 16 * i, 16), piece)]).toEqual([i, 0]);
  expect(disk.counters.resets).toBe(1);
});

test('blocks that there are not are refused before anything happens', async () => {
  const disk = await openDisk();
  for (const [lba, count] of [
    [-1, 1],
    [131072, 1],
    [131071, 2],
    [0, 0],
    [0.5, 1],
  ])
    await expect(disk.read(lba, count)).rejects.toThrow(RangeError);
  await expect(disk.write(0, new Uint8Array(100))).rejects.toThrow('the number of blocks must be an integer');
  await expect(openDisk({ depth: 1 })).rejects.toThrow(RangeError);
});

test('a signal that has aborted already, and one that does later', async () => {
  const disk = await openDisk();
  const reason = new Error('no longer');
  await expect(disk.read(0, 1, { signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
  const aborter = new AbortController();
  const reads = Array.from({ length: 200 }, () => disk.read(0, 256, { signal: aborter.signal }));
  aborter.abort(reason);
  const ends = await Promise.allSettled(reads);
  // Some may have been done by then; all of the others have the reason.
  for (const end of ends) if (end.status === 'rejected') expect(end.reason).toBe(reason);
  expect(ends.some(({ status }) => status === 'rejected')).toBe(true);
  expect((await disk.read(0, 8)).length).toBe(4096);
});

test('closed: requests in flight end, later ones are refused, and it can be opened again', async () => {
  const disk = await openDisk();
  const data = fill(new Uint8Array(4096), 3);
  await disk.write(8, data);
  const last = disk.read(0, 256).then(
    () => 'done',
    (error: Error & { code: string }) => error.code,
  );
  await disk.close();
  expect(['done', 'ECANCELED']).toContain(await last);
  await expect(disk.flush()).rejects.toMatchObject({ code: 'ECANCELED' });
  await expect(disk.read(0, 1)).rejects.toMatchObject({ code: 'ECANCELED' });
  await disk.close();
});

test('a namespace that there is not', async () => {
  await expect(openDisk({ namespace: 77 })).rejects.toMatchObject({
    name: 'NvmeError',
    message: expect.stringMatching(/namespace/) as string,
  });
  expect((await openDisk()).device.name).toBe(NVME);
});
