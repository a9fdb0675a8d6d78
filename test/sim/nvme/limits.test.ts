/** Time limits, signals and memory of requests; and what is no NVMe controller. */
import { NvmeDriver, type NvmeOptions } from '../../../examples/drivers/nvme/driver';
import { Iommu } from '../../../lib';
import {
  endpoint,
  Machine,
  MemoryStorage,
  NvmeController,
  PciDevice,
  type NvmeOptions as ControllerOptions,
} from '../../../lib/sim';
import { BDF, pattern } from './bench';
import { settlesBefore } from '../../settles-before';

const MEBIBYTE = 2 ** 20;
const opened: { iommu: Iommu; disk?: NvmeDriver }[] = [];
afterEach(async () => {
  for (const { iommu, disk } of opened.splice(0)) {
    await disk?.close();
    iommu.close();
  }
});

async function setUp(options: NvmeOptions = {}, device: ControllerOptions | PciDevice = {}) {
  const controller = device instanceof PciDevice ? device : new NvmeController(device);
  const iommu = Iommu.open({ backend: new Machine({ devices: { [BDF]: controller } }) });
  const entry: (typeof opened)[number] = { iommu };
  opened.push(entry);
  const disk = await NvmeDriver.open(iommu, BDF, options);
  entry.disk = disk;
  return { controller: controller as NvmeController, disk };
}

const LARGE = { maxTransfer: 512 * 1024 };

describe('memory', () => {
  test('no room for a transfer beside the queues: open() says so', async () => {
    const little = { memory: 4 * MEBIBYTE, queues: 3, depth: 66 };
    await expect(setUp(little, LARGE)).rejects.toMatchObject({
      name: 'RangeError',
      message: expect.stringMatching(/no room for a transfer of 524288 bytes/) as string,
    });
    // Half of it is enough for smaller ones.
    const { disk } = await setUp(little);
    await disk.write(0, pattern(2 * MEBIBYTE));
    expect(Buffer.compare(await disk.read(0, 4096), pattern(2 * MEBIBYTE))).toBe(0);
  });

  test('the least that open() takes does for requests of any size', async () => {
    const { disk } = await setUp({ memory: 4 * MEBIBYTE, queues: 1 }, LARGE);
    const data = pattern(8 * MEBIBYTE);
    await disk.write(0, data);
    expect(Buffer.compare(await disk.read(0, 16384), data)).toBe(0);
  });

  test.each([
    ['the driver has for all', { timeout: 100 }, {}],
    ['the request has', {}, { timeout: 100 }],
  ])('that others keep is waited for as long as %s', async (_name, options, request) => {
    const { controller, disk } = await setUp({ memory: 4 * MEBIBYTE, queues: 1, ...options }, LARGE);
    controller.loseCommands(100);
    const hogs = Array.from({ length: 4 }, () => disk.write(0, pattern(512 * 1024), { timeout: 1000 }));
    const ends = Promise.allSettled(hogs);
    const writing = disk.write(0, pattern(MEBIBYTE), request);
    expect(await settlesBefore(writing, 900)).toBe(true);
    await expect(writing).rejects.toMatchObject({
      code: 'ETIMEDOUT',
      message: expect.stringMatching(
        /^0000:00:05.0: write of 1024 blocks at \d+: other requests left no memory/,
      ) as string,
    });
    for (const end of await ends) expect(end).toMatchObject({ reason: { code: 'ETIMEDOUT' } });
  });

  test('waiting for it and the command have one time limit', async () => {
    const { controller, disk } = await setUp({ memory: 4 * MEBIBYTE, queues: 1 }, LARGE);
    controller.loseCommands(100);
    const hogs = Array.from({ length: 4 }, () => disk.write(0, pattern(512 * 1024), { timeout: 1500 }));
    const ends = Promise.allSettled(hogs);
    const writing = disk.write(0, pattern(512 * 1024), { timeout: 1700 });
    // 1500 ms without memory, and then not another 1700.
    expect(await settlesBefore(writing, 3100)).toBe(true);
    await expect(writing).rejects.toMatchObject({ code: 'ETIMEDOUT' });
    await ends;
  });
});

describe('timeout', () => {
  const all: [string, (disk: NvmeDriver, timeout: number) => Promise<unknown>][] = [
    ['read', (disk, timeout) => disk.read(0, 1, { timeout })],
    ['write', (disk, timeout) => disk.write(0, pattern(512), { timeout })],
    ['flush', (disk, timeout) => disk.flush({ timeout })],
    ['writeZeroes', (disk, timeout) => disk.writeZeroes(0, 1, { timeout })],
    ['trim', (disk, timeout) => disk.trim(0, 1, { timeout })],
    ['health', (disk, timeout) => disk.health({ timeout })],
  ];
  test.each(all)('%s: one rule for all', async (_name, request) => {
    const { disk } = await setUp();
    for (const timeout of [Infinity, NaN, -1, 2 ** 31])
      await expect(request(disk, timeout)).rejects.toThrow(RangeError);
    await expect(request(disk, '10' as unknown as number)).rejects.toThrow(TypeError);
    await request(disk, 2 ** 31 - 1);
  });

  test('of the driver, likewise', async () => {
    for (const timeout of [Infinity, NaN, -1, 2 ** 31])
      await expect(setUp({ timeout })).rejects.toThrow(RangeError);
    await expect(setUp({ timeout: '10' as unknown as number })).rejects.toThrow(TypeError);
  });

  test('a write waits no longer than that for another of the same blocks', async () => {
    const { controller, disk } = await setUp(
      {},
      { namespaces: [{ storage: new MemoryStorage(MEBIBYTE), protection: 1 }] },
    );
    controller.loseCommands(1);
    const first = disk.write(0, pattern(512), { timeout: 300 });
    const second = disk.write(0, pattern(512), { timeout: 50 });
    const aborter = new AbortController();
    const third = disk.write(0, pattern(512), { signal: aborter.signal });
    setTimeout(() => aborter.abort(), 10);
    const ended: string[] = [];
    const note = async (name: string, promise: Promise<void>, error: object) => {
      await expect(promise).rejects.toMatchObject(error);
      ended.push(name);
    };
    await Promise.all([
      note('first', first, { code: 'ETIMEDOUT' }),
      note('second', second, {
        code: 'ETIMEDOUT',
        message: expect.stringMatching(/earlier writes/) as string,
      }),
      note('third', third, { name: 'AbortError' }),
    ]);
    expect(ended).toEqual(['third', 'second', 'first']);
    await disk.write(0, pattern(512));
  });
});

describe('a signal', () => {
  test('has one listener of a request, of however many commands, and none afterwards', async () => {
    const { disk } = await setUp();
    const { signal } = new AbortController();
    const [add, remove] = [jest.spyOn(signal, 'addEventListener'), jest.spyOn(signal, 'removeEventListener')];
    await disk.write(0, pattern(2 * MEBIBYTE), { signal });
    expect([add.mock.calls.length, remove.mock.calls.length]).toEqual([1, 1]);
    expect(remove.mock.calls[0]).toEqual(add.mock.calls[0]);
  });

  test('ends all commands of a request, those that wait for memory too', async () => {
    const { controller, disk } = await setUp({ memory: 4 * MEBIBYTE, queues: 1 }, LARGE);
    // As many as there is memory for; the others wait.
    controller.loseCommands(3);
    const aborter = new AbortController();
    const write = disk.write(0, pattern(8 * MEBIBYTE), { signal: aborter.signal });
    setTimeout(() => aborter.abort(), 20);
    await expect(write).rejects.toMatchObject({ name: 'AbortError' });
    await disk.write(0, pattern(512));
  });
});

class Impostor extends PciDevice {
  constructor(classCode: number, size: number) {
    super(endpoint({ vendorId: 0x1234, deviceId: 1, classCode, bars: { 0: size }, msix: 4 }));
  }
}

describe('what is no NVMe controller', () => {
  test.each([
    ['another class', 0x01_06_01, 16384, /its class code is 01:06:01, not 01:08:02$/],
    ['another programming interface', 0x01_08_03, 16384, /its class code is 01:08:03, not 01:08:02$/],
    ['a BAR without doorbells', 0x01_08_02, 4096, /BAR 0 has 4096 bytes, no room for doorbells$/],
  ])('%s', async (_name, classCode, size, message) => {
    await expect(setUp({}, new Impostor(classCode, size))).rejects.toMatchObject({
      name: 'NvmeError',
      code: 'ENODEV',
      message: expect.stringMatching(message) as string,
    });
    expect(opened.at(-1)?.iommu.describe()).toMatchObject({ devices: [], spaces: [] });
  });
});
