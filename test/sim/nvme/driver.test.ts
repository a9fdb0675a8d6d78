/** The driver on controllers that differ in what the specification leaves to them. */
import { NvmeDriver, type NvmeOptions } from '../../../examples/drivers/nvme/driver';
import { stress } from '../../../examples/drivers/nvme/stress';
import { Iommu } from '../../../lib';
import {
  Machine,
  MemoryStorage,
  NvmeController,
  type NvmeOptions as ControllerOptions,
} from '../../../lib/sim';
import { BDF } from './bench';

const MEBIBYTE = 2 ** 20;

async function withDisk(
  controller: ControllerOptions,
  options: NvmeOptions,
  use: (disk: NvmeDriver) => Promise<void>,
): Promise<void> {
  const machine = new Machine({ devices: { [BDF]: new NvmeController(controller) } });
  using iommu = Iommu.open({ backend: machine });
  const disk = await NvmeDriver.open(iommu, BDF, options);
  await use(disk);
  await disk.close();
}

const disk = (blockSize: number, size = MEBIBYTE) => [{ storage: new MemoryStorage(size), blockSize }];

test.each<[string, ControllerOptions, NvmeOptions]>([
  ['one vector for all queues', { vectors: 1 }, {}],
  ['fewer vectors than queues', { vectors: 3 }, { queues: 8 }],
  ['doorbells 1024 bytes apart, and fewer queues than asked for', { stride: 8, ioQueues: 1 }, { queues: 16 }],
  ['queues of four entries', { entries: 4 }, { depth: 256 }],
  ['deep queues', { entries: 65536 }, { depth: 1024 }],
  ['small transfers', { maxTransfer: 8192 }, {}],
  ['transfers without a limit', { maxTransfer: 0 }, {}],
  ['blocks of 4096 bytes', { namespaces: disk(4096) }, {}],
  ['the second namespace', { namespaces: [...disk(512), ...disk(1024)] }, { namespace: 2 }],
])('%s', async (_name, controller, options) => {
  await withDisk({ namespaces: disk(512), ...controller }, options, async (each) => {
    const report = await stress(each, { bytes: 2 * MEBIBYTE, seed: 20261128, depth: 24 });
    expect(report).toMatchObject({ written: 2 * MEBIBYTE, verified: 2 * MEBIBYTE });
    expect(each.counters).toMatchObject({ resets: 0, aborts: 0, retries: 0 });
  });
});

test('what the stress program finds: a block that changed behind its back', async () => {
  const storage = new MemoryStorage(MEBIBYTE);
  await withDisk({ namespaces: [{ storage }] }, {}, async (each) => {
    const progress = (written: number) => {
      if (written === MEBIBYTE) storage.write(700 * 512 + 3, new Uint8Array([1, 2, 3]));
    };
    await expect(stress(each, { bytes: MEBIBYTE, seed: 1, progress })).rejects.toThrow(
      /^block 700, byte [345]: \d+ was read, \d+ was written$/,
    );
  });
});
