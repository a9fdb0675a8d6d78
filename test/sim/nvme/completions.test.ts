/** The driver, and completions and memory of which bits are flipped: without anything that protects the data. */
import { NvmeDriver, type NvmeOptions } from '../../../examples/drivers/nvme/driver';
import { NvmeError } from '../../../examples/drivers/nvme/errors';
import { Iommu } from '../../../lib';
import { Machine, MemoryStorage, NvmeController, type NvmeNamespace } from '../../../lib/sim';
import { DmaError } from '../../../lib/sim/devices/device-dma';
import type { Process } from '../../../lib/sim/devices/process';
import { BDF, pattern } from './bench';
import { Flipper } from './flipper';

// Hundreds of requests, on a machine that may have other things to do.
jest.setTimeout(60_000);
const opened: { iommu: Iommu; disks: NvmeDriver[] }[] = [];
afterEach(async () => {
  for (const { iommu, disks } of opened.splice(0)) {
    for (const disk of disks) await disk.close();
    iommu.close();
  }
});

/** What a controller does whose addresses are wrong. */
class Rogue extends NvmeController {
  /** Writes to memory: why it was refused, if it was. */
  poke(address: bigint): Promise<string> {
    return new Promise((resolve) => this.start(this.#poke(address, resolve)));
  }

  /** Reads memory. */
  peek(address: bigint, length: number): Promise<Uint8Array> {
    return new Promise((resolve) => this.start(this.#peek(address, length, resolve)));
  }

  *#peek(address: bigint, length: number, told: (bytes: Uint8Array) => void): Process {
    told(yield* this.dma.read(address, length));
  }

  *#poke(address: bigint, told: (outcome: string) => void): Process {
    try {
      yield* this.dma.write(address, new Uint8Array([0x66]));
      told('written');
    } catch (error) {
      if (!(error instanceof DmaError)) throw error;
      told(error.reason);
    }
  }
}

async function setUp(options: NvmeOptions = {}, namespace: Partial<NvmeNamespace> = {}) {
  const storage = new MemoryStorage(1 << 20);
  const others = [2, 3].map(() => ({ storage: new MemoryStorage(1 << 20), ...namespace }));
  const controller = new Rogue({ namespaces: [{ storage, ...namespace }, ...others] });
  const machine = new Machine({ devices: { [BDF]: controller } });
  const iommu = Iommu.open({ backend: machine });
  const device = iommu.bind(BDF, { cookie: 1n });
  const disks: NvmeDriver[] = [];
  opened.push({ iommu, disks });
  const open = async (more: NvmeOptions = {}) => {
    const disk = await NvmeDriver.open(iommu, device, { timeout: 1000, queues: 1, ...options, ...more });
    disks.push(disk);
    return disk;
  };
  const flipper = new Flipper(machine, BDF);
  return { controller, machine, device, storage, flipper, open, disk: await open() };
}

/** Of a write of one block: its command, its data, its completion. */
const COMPLETION = 2;
const BITS = { sqHead: 64, queue: 80, identifier: 96, phase: 112, status: 113 };

function stored(storage: MemoryStorage, lba: number): Uint8Array {
  const bytes = new Uint8Array(512);
  storage.read(512 * lba, bytes);
  return bytes;
}

test('a completion with any bit flipped: no write is done that was not, and none hangs', async () => {
  const { controller, disk, flipper, storage } = await setUp();
  const codes = new Set<string>();
  for (let bit = 0; bit < 128; bit++) {
    const write = async (lba: number) => {
      const data = pattern(512, bit + lba);
      const end = await disk.write(lba, data).then(
        () => 'done',
        (error: unknown) => (error instanceof NvmeError ? error.code : String(error)),
      );
      codes.add(end);
      if (end === 'done') expect([bit, lba, stored(storage, lba)]).toEqual([bit, lba, data]);
    };
    // The first commands get lost, so that their identifiers are in use when the last one is completed.
    controller.loseCommands(2, { deaf: true });
    const lost = [write(10), write(11)];
    await new Promise(setImmediate);
    flipper.arm(COMPLETION, bit);
    await write(12);
    // Where nothing was noticed, they are lost still.
    await disk.reset();
    await Promise.all(lost);
  }
  expect([...codes]).toEqual(['done']);
  // Wrong bits of the queue, of the identifier and of the phase tag; other bits are of no use, or an error that is tried again.
  expect(disk.counters.resets).toBe(128 + 16 + 16 + 1);
});

test.each([
  ['of another queue', BITS.queue + 3, 1],
  ['of no command', BITS.identifier + 1, 1],
  ['with a wrong phase tag', BITS.phase, 1],
  ['with a wrong head', BITS.sqHead + 4, 0],
])('a completion %s: %i, %i resets', async (_name, bit, resets) => {
  const { disk, flipper } = await setUp();
  flipper.arm(COMPLETION, bit);
  await disk.write(3, pattern(512));
  expect(flipper.accesses[COMPLETION]).toMatchObject({ write: true, length: 16 });
  expect(disk.counters).toMatchObject({ resets, aborts: 0, retries: resets });
  expect(await disk.read(3, 1)).toEqual(pattern(512));
});

test('over many passes through the ring, no old entry is taken for a new one with a wrong phase tag', async () => {
  const { disk } = await setUp({ depth: 4 });
  for (let i = 0; i < 100; i++) await disk.write(i, pattern(512, i));
  expect(disk.counters).toMatchObject({ resets: 0, retries: 0 });
});

test('Identify of which a bit is flipped is asked for again', async () => {
  const { disk, flipper, open } = await setUp();
  await disk.close();
  flipper.arm(-1, 0);
  const fine = await open();
  const answers = flipper.accesses.flatMap(({ length }, number) => (length === 4096 ? [number] : []));
  expect(answers).toHaveLength(4);
  const { blocks, blockSize, serial, maxTransfer } = fine;
  await fine.close();
  // The serial number, MDTS; the size, FLBAS, the size of a block.
  for (const [answer, byte] of [
    [0, 5],
    [1, 77],
    [2, 1],
    [2, 26],
    [3, 130],
  ]) {
    flipper.arm(answers[answer], 8 * byte);
    const again = await open();
    expect(again).toMatchObject({ blocks, blockSize, serial, maxTransfer });
    await again.close();
  }
});

test('a command to start with that is refused because of a flipped bit: it starts again', async () => {
  const { disk, flipper, open } = await setUp();
  await disk.close();
  // Bit 1 of the opcode of the first command: Get Features becomes something else, or nothing.
  flipper.arm(0, 2);
  const again = await open();
  await again.write(1, pattern(512));
  await again.close();
  await expect(open({ namespace: 9 })).rejects.toMatchObject({ code: 'EIO', status: 0x00b });
});

test('who closes the IOMMU ends the driver: nothing is left that looks at memory which is gone', async () => {
  const { controller, disk } = await setUp();
  controller.loseCommands(1);
  const lost = disk.read(0, 1);
  await new Promise(setImmediate);
  opened[0].iommu.close();
  await expect(lost).rejects.toMatchObject({ code: 'ECANCELED', message: 'the address space was closed' });
  await expect(disk.flush()).rejects.toMatchObject({ code: 'ECANCELED' });
});

test('the device cannot write to commands: they are in memory that it only reads', async () => {
  const { controller, device } = await setUp();
  const bar = device.region('bar0');
  const [commands, completions] = [bar.read64(0x28), bar.read64(0x30)];
  expect([await controller.poke(commands), await controller.poke(completions + 4000n)]).toEqual([
    'refused',
    'written',
  ]);
});

describe('a protected namespace', () => {
  const protection = { protection: 1 } as const;

  test('a write that went to another namespace is noticed there, too', async () => {
    const { disk, flipper, open } = await setUp({}, protection);
    const data = pattern(512);
    await disk.close();
    const third = await open({ namespace: 3 });
    await third.write(5, pattern(512, 9));
    await third.close();
    const again = await open();
    flipper.arm(0, 33); // the namespace of the command: 3 instead of 1
    await again.write(5, data);
    expect(again.counters.mismatches).toBe(1);
    expect(await again.read(5, 1)).toEqual(data);
    await again.close();
    // The controller's own check finds it first.
    await expect((await open({ namespace: 3 })).read(5, 1)).rejects.toMatchObject({
      code: 'EIO',
      status: 0x283,
      message: `${BDF}: read of 1 blocks at 5: end-to-end application tag check error (NVMe status 0x283)`,
    });
  });

  test('what a write leaves in memory is valid for no command that names it again', async () => {
    const { controller, disk, flipper } = await setUp({}, protection);
    flipper.arm(-1, 0);
    await disk.write(7, pattern(1024));
    const [, data, metadata] = flipper.accesses;
    expect([data.length, metadata.length]).toEqual([1024, 16]);
    expect(await controller.peek(metadata.address, 24)).toEqual(new Uint8Array(24));
  });

  test('data that is wrong each time: an error that says where', async () => {
    const { disk, flipper } = await setUp({}, protection);
    await disk.write(7, pattern(1024));
    // On the way from the controller, which has checked it.
    flipper.spoil(1024, 8 * 600);
    await expect(disk.read(7, 2)).rejects.toMatchObject({
      name: 'NvmeError',
      code: 'EILSEQ',
      message: expect.stringMatching(
        /read of 2 blocks at 7: block 8 has the guard 0x[0-9a-f]+, not 0x[0-9a-f]+, 4 times$/,
      ) as string,
    });
    await expect(disk.write(7, pattern(1024))).rejects.toMatchObject({ code: 'EILSEQ' });
    expect(await disk.read(7, 1)).toEqual(pattern(1024).subarray(0, 512));
  });

  test('writes of the same blocks at once: one after the other', async () => {
    const { disk } = await setUp({}, protection);
    const versions = Array.from({ length: 20 }, (_, i) => pattern(512 * (1 + (i % 5)), i));
    await Promise.all(versions.map((data, i) => disk.write(100 + (i % 3), data)));
    expect(disk.counters).toMatchObject({ mismatches: 0, retries: 0 });
    expect(await disk.read(101, 5)).toEqual(versions[19]);
  });

  test('without reading back, a write that became a flush is lost; with it, it is not', async () => {
    for (const verify of [false, true]) {
      const { disk, flipper } = await setUp({ verify }, protection);
      await disk.write(5, pattern(512, 1));
      flipper.arm(0, 0); // the opcode: 0 instead of 1
      await disk.write(5, pattern(512, 2));
      expect(await disk.read(5, 1)).toEqual(pattern(512, verify ? 2 : 1));
    }
  });

  test('blocks that somebody else wrote: an error, unless their application tag is named', async () => {
    const { disk, open } = await setUp({ applicationTag: 0 }, protection);
    await disk.write(5, pattern(512));
    await disk.close();
    await expect((await open({ applicationTag: undefined })).read(5, 1)).rejects.toMatchObject({
      status: 0x283,
    });
    await expect(open({ applicationTag: 0xffff })).rejects.toThrow(RangeError);
  });
});
