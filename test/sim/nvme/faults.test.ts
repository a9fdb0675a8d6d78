/** The driver on a controller that misbehaves: every request ends, in the right result or in a clear error. */
import { NvmeDriver, type NvmeOptions } from '../../../examples/drivers/nvme/driver';
import { NvmeError } from '../../../examples/drivers/nvme/errors';
import { Iommu } from '../../../lib';
import {
  Machine,
  MemoryStorage,
  NvmeController,
  type FaultOptions,
  type NvmeStorage,
} from '../../../lib/sim';
import { Random } from '../../../lib/sim/random';
import { BDF, pattern } from './bench';
import { Model, torture, wrongBlocks } from './torture';

const seed = Number(process.env['FAULT_SEED'] ?? 20261128);
const opened: { iommu: Iommu; disk: NvmeDriver }[] = [];
afterEach(async () => {
  for (const { iommu, disk } of opened.splice(0)) {
    await disk.close();
    iommu.close();
  }
});

async function setUp(options: NvmeOptions = {}, storage: NvmeStorage = new MemoryStorage(4 << 20)) {
  const controller = new NvmeController({ namespaces: [{ storage }] });
  const machine = new Machine({ devices: { [BDF]: controller } });
  const iommu = Iommu.open({ backend: machine });
  const disk = await NvmeDriver.open(iommu, BDF, { timeout: 2000, ...options });
  opened.push({ iommu, disk });
  return {
    controller,
    machine,
    disk,
    faults: (rest: Partial<FaultOptions> = {}) => machine.injectFaults(BDF, { seed, ...rest }),
  };
}

const DATA = pattern(8192);

async function works(disk: NvmeDriver): Promise<void> {
  await disk.write(4000, DATA);
  await disk.flush();
  expect(Buffer.compare(await disk.read(4000, 16), DATA)).toBe(0);
}

test.each([false, true])('interrupts that are lost cost time only (polling: %s)', async (polling) => {
  const { disk, faults } = await setUp({ polling });
  const injected = faults({ dropInterrupt: 0.5 });
  for (let i = 0; i < 10; i++) await disk.write(16 * i, DATA);
  expect(Buffer.compare(await disk.read(144, 16), DATA)).toBe(0);
  expect(injected.log.length > 0).toBe(!polling);
  expect(disk.counters).toMatchObject({ resets: 0, aborts: 0 });
});

test('commands that are never answered are aborted, and time out', async () => {
  const { controller, disk } = await setUp();
  controller.loseCommands(2);
  const lost = [disk.read(0, 8, { timeout: 60 }), disk.flush({ timeout: 60 })];
  const fine = disk.write(16, DATA);
  for (const request of lost)
    await expect(request).rejects.toMatchObject({
      code: 'ETIMEDOUT',
      message: expect.stringMatching(BDF) as string,
    });
  await fine;
  expect(disk.counters).toMatchObject({ resets: 0, aborts: 2 });
  await works(disk);
});

test('a controller that does not hear of aborts either is reset; what else was in flight is done', async () => {
  const { controller, disk } = await setUp();
  controller.loseCommands(3, { deaf: true });
  const lost = disk.read(0, 8, { timeout: 60 });
  const others = [disk.write(16, DATA), disk.write(32, DATA)];
  await expect(lost).rejects.toMatchObject({ code: 'ETIMEDOUT' });
  await Promise.all(others);
  expect(Buffer.compare(await disk.read(32, 16), DATA)).toBe(0);
  expect(disk.counters).toMatchObject({ resets: 1, aborts: 1, retries: 2 });
});

test('a signal ends a command that hangs', async () => {
  const { controller, disk } = await setUp();
  controller.loseCommands(1);
  const aborter = new AbortController();
  const hanging = disk.write(0, DATA, { signal: aborter.signal });
  setTimeout(() => aborter.abort(), 10);
  await expect(hanging).rejects.toMatchObject({ name: 'AbortError' });
  expect(disk.counters).toMatchObject({ resets: 0, aborts: 1 });
  await works(disk);
});

test('a fatal status: the controller is reset, and nothing is lost', async () => {
  const { controller, disk } = await setUp();
  const writes = Array.from({ length: 20 }, (_, i) => disk.write(16 * i, DATA));
  controller.fail();
  await Promise.all(writes);
  for (let i = 0; i < 20; i++) expect(Buffer.compare(await disk.read(16 * i, 16), DATA)).toBe(0);
  expect(disk.counters.resets).toBe(1);
});

test('errors of the medium are told with their status', async () => {
  class Scratched extends MemoryStorage {
    override read(offset: number, bytes: Uint8Array): void {
      if (offset === 512) throw new Error('scratched');
      super.read(offset, bytes);
    }
  }
  const { disk } = await setUp({}, new Scratched(1 << 20));
  const failed = await disk.read(1, 1).catch((error: unknown) => error);
  expect(failed).toBeInstanceOf(NvmeError);
  expect(failed).toMatchObject({
    code: 'EIO',
    status: 0x281,
    message: `${BDF}: read of 1 blocks at 1: unrecovered read error (NVMe status 0x281)`,
  });
  expect(disk.counters.retries).toBe(3);
  expect(await disk.read(2, 1)).toEqual(new Uint8Array(512));
});

/** Lets time pass event by event, and calls `act` before the one of this number. */
function pass(machine: Machine, number: number, act: () => void): () => void {
  let over = false;
  let count = 0;
  const next = () => {
    if (over) return;
    if (count === number) act();
    if (machine.step()) count++;
    setImmediate(next);
  };
  next();
  return () => {
    over = true;
  };
}

test.each(Array.from({ length: 34 }, (_, i) => i))(
  'a DMA access that is refused, after event %i: done again',
  async (number) => {
    const machine = new Machine({ devices: { [BDF]: new NvmeController() }, manual: true });
    const iommu = Iommu.open({ backend: machine });
    let stop = pass(machine, -1, () => {});
    try {
      const disk = await NvmeDriver.open(iommu, BDF, { timeout: 2000 });
      stop();
      const injected = machine.injectFaults(BDF, { seed });
      const writes = [disk.write(0, DATA), disk.write(16, pattern(20_480)), disk.flush()];
      await new Promise(setImmediate);
      stop = pass(machine, number, () => injected.once('dmaError'));
      await Promise.all(writes);
      expect(Buffer.compare(await disk.read(0, 16), DATA)).toBe(0);
      expect(Buffer.compare(await disk.read(16, 40), pattern(20_480))).toBe(0);
      expect(injected.log).toHaveLength(1);
      await disk.close();
    } finally {
      stop();
    }
    iommu.close();
  },
);

test('a controller that fails again and again is given up, with what it did last', async () => {
  const { disk, faults } = await setUp();
  const requests = [disk.write(0, DATA), disk.read(0, 8)];
  faults({ dmaError: 1 });
  for (const request of requests)
    await expect(request).rejects.toMatchObject({
      code: 'ENODEV',
      message: expect.stringMatching(/a reset did not help/) as string,
    });
  await expect(disk.flush()).rejects.toMatchObject({ code: 'ENODEV' });
  await expect(disk.reset()).rejects.toMatchObject({ code: 'ENODEV' });
});

test('a disk that is pulled out: everything ends, and says so', async () => {
  const { disk, faults } = await setUp();
  const requests = Array.from({ length: 30 }, (_, i) => disk.write(16 * i, DATA));
  faults().once('remove');
  const ends = await Promise.allSettled(requests);
  const reasons = ends.flatMap((end) => (end.status === 'rejected' ? [end.reason as NvmeError] : []));
  expect(reasons.length).toBeGreaterThan(0);
  for (const reason of reasons) {
    expect(reason).toBeInstanceOf(NvmeError);
    expect(reason.message).toMatch(/does not answer/);
  }
  await expect(disk.read(0, 1)).rejects.toMatchObject({ code: 'ENODEV' });
});

test.each(Array.from({ length: 20 }, (_, i) => 1 + 5 * i))(
  'pulled out after event %i: every request is done or says so',
  async (number) => {
    const machine = new Machine({ devices: { [BDF]: new NvmeController() }, manual: true });
    const iommu = Iommu.open({ backend: machine });
    const stop = pass(machine, number, () => machine.unplug(BDF));
    try {
      const disk = await NvmeDriver.open(iommu, BDF, { timeout: 2000 }).catch((error: unknown) => error);
      const requests =
        disk instanceof NvmeDriver
          ? [disk.write(0, DATA), disk.read(16, 8), disk.flush(), disk.trim(0, 8), disk.health()]
          : [Promise.reject(disk)];
      const again = disk instanceof NvmeDriver ? [disk.reset(), disk.write(0, DATA)] : [];
      const ends = await Promise.allSettled([...requests, ...again]);
      const reasons = ends.flatMap((end) => (end.status === 'rejected' ? [end.reason as unknown] : []));
      expect(reasons.filter((reason) => !(reason instanceof NvmeError))).toEqual([]);
      if (disk instanceof NvmeDriver) await disk.close();
    } finally {
      stop();
    }
    iommu.close();
  },
);

test.each([
  ['lost interrupts and late events', { dropInterrupt: 0.2, delay: 0.2 }],
  ['refused accesses', { dmaError: 0.02 }],
  ['all of these', { dropInterrupt: 0.1, delay: 0.1, dmaError: 0.01 }],
])(`random faults, ${seed}: %s`, async (_name, probabilities) => {
  const { controller, disk, faults } = await setUp({ timeout: 1000 });
  const injected = faults(probabilities);
  const model = new Model();
  const random = new Random(seed);
  const { outcomes, wrong } = await torture(disk, model, random, 12);
  controller.loseCommands(2);
  const more = await torture(disk, model, random, 4);
  injected.stop();
  expect([seed, wrong + more.wrong, outcomes['written'] > 0, outcomes['read'] > 0]).toEqual([
    seed,
    0,
    true,
    true,
  ]);
  expect(injected.log.length).toBeGreaterThan(5);
  expect(await wrongBlocks(disk, model)).toEqual([]);
});

test(`data that is corrupted on its way, ${seed}: requests end, and the disk works again`, async () => {
  const { disk, faults } = await setUp({ timeout: 500 });
  const injected = faults({ corruptData: 0.02 });
  await torture(disk, new Model(), new Random(seed), 10);
  expect(injected.log.length).toBeGreaterThan(0);
  injected.stop();
  await disk.reset();
  await works(disk);
});
