/** The driver on a protected namespace, and bits that are flipped on their way: no request ends in wrong data. */
import { NvmeDriver, type NvmeOptions } from '../../../examples/drivers/nvme/driver';
import { Iommu } from '../../../lib';
import { Machine, MemoryStorage, NvmeController, type FaultOptions } from '../../../lib/sim';
import { Random } from '../../../lib/sim/random';
import { BDF, pattern } from './bench';
import { Flipper } from './flipper';
import { Model, torture, wrongBlocks, wrongWithoutError } from './torture';

const seed = Number(process.env['FAULT_SEED'] ?? 20261128);
const SIZE = 256 * 1024;
// Thousands of requests, on a machine that may have other things to do.
jest.setTimeout(60_000);
const opened: { iommu: Iommu; disks: NvmeDriver[] }[] = [];
afterEach(async () => {
  for (const { iommu, disks } of opened.splice(0)) {
    for (const disk of disks) await disk.close();
    iommu.close();
  }
});

type Protection = 1 | 2 | 3;

/** A controller with three protected namespaces: a bit that is flipped makes 3 of 1. */
async function setUp(protection: Protection = 1, options: NvmeOptions = {}) {
  const storages = [1, 2, 3].map(() => new MemoryStorage(SIZE));
  const namespaces = storages.map((storage) => ({ storage, protection }));
  const machine = new Machine({ devices: { [BDF]: new NvmeController({ namespaces }) } });
  const iommu = Iommu.open({ backend: machine });
  const device = iommu.bind(BDF, { cookie: 1n });
  const disks: NvmeDriver[] = [];
  opened.push({ iommu, disks });
  const open = async () => {
    const disk = await NvmeDriver.open(iommu, device, { timeout: 1000, ...options });
    disks.push(disk);
    return disk;
  };
  return { machine, storages, disk: await open(), open };
}

const same = (found: Uint8Array, expected: Uint8Array) => Buffer.compare(found, expected) === 0;

describe('every bit of every access, one after the other', () => {
  const FIRST = 64;
  const BLOCKS = 20;

  /** All blocks of the namespace have something. */
  async function filled() {
    const rig = await setUp();
    const flipper = new Flipper(rig.machine, BDF);
    const model = new Uint8Array(SIZE);
    for (let lba = 0; lba < SIZE / 512; lba += 128) {
      const data = pattern(128 * 512, lba);
      await rig.disk.write(lba, data);
      model.set(data, 512 * lba);
    }
    const stored = () => {
      const all = new Uint8Array(SIZE);
      rig.storages[0].read(0, all);
      return all;
    };
    return { ...rig, flipper, model, stored };
  }

  /** Flips each bit in turn: all of small accesses, some of large ones. */
  async function eachBit(flipper: Flipper, action: (version: number) => Promise<void>): Promise<number> {
    flipper.arm(-1, 0);
    await action(0);
    const accesses = flipper.accesses.slice();
    let version = 0;
    for (const [number, { length }] of accesses.entries()) {
      const step = length > 64 ? 389 : 1;
      for (let bit = 0; bit < 8 * length; bit += step) {
        flipper.arm(number, bit);
        try {
          await action(++version);
        } catch (error) {
          throw new Error(`access ${number} of ${length} bytes, bit ${bit}: ${String(error)}`, {
            cause: error,
          });
        }
        expect(flipper.accesses.length).toBeGreaterThan(number);
      }
    }
    return version;
  }

  test('a write: done, and nothing else has changed', async () => {
    const { disk, flipper, model, stored } = await filled();
    const count = await eachBit(flipper, async (version) => {
      const data = pattern(512 * BLOCKS, version);
      await disk.write(FIRST, data);
      model.set(data, 512 * FIRST);
      expect(same(stored(), model)).toBe(true);
    });
    expect(count).toBeGreaterThan(1300);
    flipper.arm(-1, 0);
    expect(same(await disk.read(0, SIZE / 512), model)).toBe(true);
  });

  test('a read: right', async () => {
    const { disk, flipper, model, stored } = await filled();
    const expected = model.slice(512 * FIRST, 512 * (FIRST + BLOCKS));
    const count = await eachBit(flipper, async () => {
      expect(same(await disk.read(FIRST, BLOCKS), expected)).toBe(true);
    });
    expect(count).toBeGreaterThan(700);
    expect(same(stored(), model)).toBe(true);
  });

  test('a flush: the medium was flushed, and nothing has changed', async () => {
    const { disk, flipper, storages, model, stored } = await filled();
    let flushed = 0;
    storages[0].flush = () => void flushed++;
    const count = await eachBit(flipper, async () => {
      flushed = 0;
      await disk.flush();
      expect(flushed).toBeGreaterThan(0);
    });
    expect(count).toBe(512 + 128);
    expect(same(stored(), model)).toBe(true);
  });

  test('a start: the disk works, or there is a clear error', async () => {
    const { open, flipper, disk } = await filled();
    await disk.close();
    const random = new Random(seed);
    flipper.arm(-1, 0);
    await (await open()).close();
    const accesses = flipper.accesses.slice();
    for (let i = 0; i < 200; i++) {
      const number = random.below(accesses.length);
      flipper.arm(number, random.below(8 * accesses[number].length));
      const again = await open();
      flipper.arm(-1, 0);
      const found = await again.read(FIRST, 4);
      expect([seed, i, same(found, pattern(128 * 512, 0).subarray(512 * FIRST, 512 * FIRST + 2048))]).toEqual(
        [seed, i, true],
      );
      await again.close();
    }
  });
});

const seeds = Array.from({ length: Number(process.env['FAULT_SEEDS'] ?? 2) }, (_, i) => seed + i);
const KINDS: [string, Protection, Partial<FaultOptions>][] = [
  ['corruption', 1, { corruptData: 0.02 }],
  ['corruption of type 2', 2, { corruptData: 0.02 }],
  ['corruption of type 3', 3, { corruptData: 0.02 }],
  ['corruption, and all else', 1, { corruptData: 0.01, dropInterrupt: 0.05, delay: 0.05, dmaError: 0.005 }],
];

test.each(seeds.flatMap((each) => KINDS.map(([name, ...rest]) => [each, name, ...rest] as const)))(
  'random faults, seed %i, %s: every read is right',
  async (each, _name, protection, probabilities) => {
    const { machine, disk, open } = await setUp(protection);
    const injected = machine.injectFaults(BDF, { seed: each, ...probabilities });
    const model = new Model();
    const { outcomes, wrong } = await torture(disk, model, new Random(each), 24);
    injected.stop();
    expect([each, wrong, outcomes['read'] > 0, outcomes['written'] > 0]).toEqual([each, 0, true, true]);
    expect(injected.log.filter(({ kind }) => kind === 'corruptData').length).toBeGreaterThan(5);
    // What has become of the disk is an error, if anything; what it has is right.
    await disk.close();
    const again = await open();
    // Where no reference tag has to be a block's address, a write may hit another block: that is noticed when it is read.
    const find = protection === 1 ? wrongBlocks : wrongWithoutError;
    expect([each, await find(again, model)]).toEqual([each, []]);
    if (process.env['FAULT_SEEDS']) console.log(each, _name, outcomes, disk.counters);
  },
);
