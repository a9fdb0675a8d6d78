/** End-to-end data protection, the same driver on the simulated controller and on QEMU's: a disk of type 1 at 0000:00:09.0. */
import { existsSync } from 'node:fs';
import { commands } from '../../examples/drivers/nvme/commands';
import { Controller } from '../../examples/drivers/nvme/controller';
import { NvmeDriver, type NvmeOptions } from '../../examples/drivers/nvme/driver';
import { Engine } from '../../examples/drivers/nvme/engine';
import { makeMemory } from '../../examples/drivers/nvme/memory';
import { Protection } from '../../examples/drivers/nvme/protection';
import { stress } from '../../examples/drivers/nvme/stress';
import { Iommu, type Device } from '../../lib';
import { Machine, MemoryStorage, NvmeController } from '../../lib/sim';
import { giveTo } from './nvme';
import { backend, fill } from './support';

const PROTECTED = '0000:00:09.0';
const MEBIBYTE = 2 ** 20;
const seed = Number(process.env['NVME_SEED'] ?? 20261128);
// A guest has this disk where --device names it: see docs/vm.md.
const there = backend !== 'linux' || existsSync(`/sys/bus/pci/devices/${PROTECTED}`);

const ends: (() => Promise<void> | void)[] = [];
afterEach(async () => {
  for (const end of ends.splice(0).reverse()) await end();
});

function bind(): { iommu: Iommu; device: Device } {
  const simulated = () =>
    new NvmeController({
      namespaces: [{ storage: new MemoryStorage(64 * MEBIBYTE), protection: 1 }],
    });
  const iommu = Iommu.open({
    backend: backend === 'linux' ? backend : new Machine({ devices: { [PROTECTED]: simulated() } }),
  });
  ends.push(() => iommu.close());
  return { iommu, device: iommu.bind(PROTECTED, { cookie: 1n }) };
}

async function openDisk(options: NvmeOptions = {}): Promise<NvmeDriver> {
  const { iommu, device } = bind();
  const disk = await NvmeDriver.open(iommu, device, options);
  ends.push(() => disk.close());
  return disk;
}

/** The controller without the driver's checks: what a test gives it, it gets. */
async function openRaw() {
  const { iommu, device } = bind();
  const space = iommu.createAddressSpace();
  device.attach(space);
  device.enableBusMaster();
  const memory = makeMemory(space, { chunk: MEBIBYTE, limit: 4 * MEBIBYTE });
  const controller = new Controller(device, memory, { pairs: 1, depth: 16, vectors: 1 });
  const engine = new Engine(device, controller, memory, { namespace: 1, timeout: 10_000, vectors: 1 });
  ends.push(() => engine.close());
  await engine.start('it was opened');
  const protection = new Protection(engine.identity, 1, 0x1234);
  const [data, metadata] = [memory.fromDevice.allocate(1024), memory.fromDevice.allocate(16)];
  /** The status of a write of two blocks at 40, after `spoil`. `reference`: the first block's tag, as the command says. */
  const write = async (spoil: () => void = () => {}, reference = 40) => {
    fill(data.bytes, 1);
    protection.seal(data.bytes, metadata.bytes, 40);
    spoil();
    const command = protection.checked(commands.write(1, 40, 2), 40);
    return outcome({ ...command, dwords: command.dwords!.with(4, reference) });
  };
  const outcome = (command: ReturnType<typeof commands.read>) =>
    engine.run('raw', command, { data, metadata }).then(
      () => 0,
      ({ status }: { status: number }) => status,
    );
  return { data, metadata, protection, write, outcome };
}

(there ? describe : describe.skip)('a protected disk', () => {
  if (backend === 'linux') {
    beforeAll(() => giveTo('vfio-pci', PROTECTED));
    afterAll(() => giveTo('\n', PROTECTED));
  }

  test('random pieces, read back and checked', async () => {
    const disk = await openDisk();
    expect(disk).toMatchObject({ protection: 1, blockSize: 512, blocks: 131072 });
    const bytes = (backend === 'linux' ? 1 : 8) * MEBIBYTE;
    const report = await stress(disk, { bytes, seed, depth: 16 });
    expect([seed, report.verified]).toEqual([seed, bytes]);
    expect(disk.counters).toMatchObject({ resets: 0, retries: 0, mismatches: 0 });
  });

  test('blocks that were never written, zeros, and health', async () => {
    const disk = await openDisk();
    const data = fill(new Uint8Array(2048), 3);
    await disk.write(100_000, data);
    await disk.writeZeroes(100_001, 2);
    await disk.trim(100_000, 1);
    data.fill(0, 512, 1536);
    expect(Buffer.compare(await disk.read(100_000, 4), data)).toBe(0);
    // Not beside others: those have tags of zeros on QEMU's disk, in the same 4 KiB of its file.
    expect(await disk.read(110_000, 8)).toEqual(new Uint8Array(4096));
    expect((await disk.health()).temperature).toBeGreaterThan(273);
  });

  test('the controller refuses blocks with a wrong guard or tag, and writes nothing', async () => {
    const { data, metadata, protection, write, outcome } = await openRaw();
    expect(await write()).toBe(0);
    const before = metadata.bytes.slice();
    const flip = (at: number) => () => void (metadata.bytes[at] ^= 1);
    const corrupt = () => void (data.bytes[1000] ^= 1);
    expect([await write(corrupt), await write(flip(1))]).toEqual([0x282, 0x282]);
    expect([await write(flip(10)), await write(flip(15))]).toEqual([0x283, 0x284]);
    expect(await write(undefined, 41)).toBe(0x181);
    for (const { bytes } of [data, metadata]) bytes.fill(0);
    expect(await outcome(protection.checked(commands.read(1, 40, 2), 40))).toBe(0);
    expect(metadata.bytes).toEqual(before);
    expect(data.bytes).toEqual(fill(new Uint8Array(1024), 1));
    expect(protection.check(data.bytes, metadata.bytes, 40)).toEqual({
      problem: undefined,
      unwritten: false,
    });
  });
});
