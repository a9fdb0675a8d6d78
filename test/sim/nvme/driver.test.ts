/** The driver on controllers that differ in what the specification leaves to them. */
import { crc16 } from '../../../examples/drivers/nvme/crc';
import { NvmeDriver, type NvmeOptions } from '../../../examples/drivers/nvme/driver';
import { Protection } from '../../../examples/drivers/nvme/protection';
import { stress } from '../../../examples/drivers/nvme/stress';
import { Iommu } from '../../../lib';
import {
  Machine,
  MemoryStorage,
  NvmeController,
  type NvmeOptions as ControllerOptions,
} from '../../../lib/sim';
import { BDF, pattern } from './bench';

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

const protectedDisk = (protection: 1 | 2 | 3, blockSize = 512) =>
  disk(blockSize).map((each) => ({ ...each, protection }));

test.each<[string, ControllerOptions, NvmeOptions]>([
  ['one vector for all queues', { vectors: 1 }, {}],
  ['fewer vectors than queues', { vectors: 3 }, { queues: 8 }],
  ['doorbells 1024 bytes apart, and fewer queues than asked for', { stride: 8, ioQueues: 1 }, { queues: 16 }],
  ['queues of four entries', { entries: 4 }, { depth: 256 }],
  ['deep queues', { entries: 65536 }, { depth: 1024 }],
  ['small transfers', { maxTransfer: 8192 }, {}],
  ['transfers without a limit', { maxTransfer: 0 }, {}],
  ['blocks of 4096 bytes', { namespaces: disk(4096) }, {}],
  ['protection of type 1', { namespaces: protectedDisk(1) }, {}],
  ['protection of type 2, small transfers', { namespaces: protectedDisk(2), maxTransfer: 8192 }, {}],
  ['protection of type 3, blocks of 4096 bytes', { namespaces: protectedDisk(3, 4096) }, {}],
  ['protection, little memory', { namespaces: protectedDisk(1) }, { queues: 1, memory: 4 * MEBIBYTE }],
  ['protection, without reading back', { namespaces: protectedDisk(1) }, { verify: false }],
  ['the second namespace', { namespaces: [...disk(512), ...disk(1024)] }, { namespace: 2 }],
])('%s', async (_name, controller, options) => {
  await withDisk({ namespaces: disk(512), ...controller }, options, async (each) => {
    const report = await stress(each, { bytes: 2 * MEBIBYTE, seed: 20261128, depth: 24 });
    expect(report).toMatchObject({ written: 2 * MEBIBYTE, verified: 2 * MEBIBYTE });
    expect(each.counters).toMatchObject({ resets: 0, aborts: 0, retries: 0, mismatches: 0 });
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

test('protected blocks on both sides of address 2^32: reference tags begin again, application tags differ', async () => {
  const edge = 2 ** 32;
  const [namespace] = disk(512, 2 ** 42).map((each) => ({ ...each, protection: 1 as const }));
  await withDisk({ namespaces: [namespace] }, {}, async (each) => {
    const data = pattern(8 * 512);
    await each.write(edge - 4, data);
    await each.write(0, pattern(2048, 5));
    expect(await each.read(edge - 4, 8)).toEqual(data);
    expect(await each.read(edge - 2, 4)).toEqual(data.subarray(1024, 3072));
    expect(each.counters).toMatchObject({ retries: 0, mismatches: 0 });
  });
  const protection = new Protection({ protection: 1, blockSize: 512, unwrittenZeros: true }, 1, undefined);
  expect(protection.tagOf(edge - 1)).not.toBe(protection.tagOf(edge));
});

test('application tags: another one where a bit of the namespace is wrong, and never near the one without checks', () => {
  const tagOf = (namespace: number) =>
    new Protection({ protection: 1, blockSize: 512, unwrittenZeros: true }, namespace, undefined).tagOf(0);
  for (const namespace of [1, 2, 3, 255, 4096, 0xfff, 0x00ff_ffff]) {
    for (let bit = 0; bit < 32; bit++)
      expect(tagOf(namespace)).not.toBe(tagOf((namespace ^ (1 << bit)) >>> 0));
    const zeros = tagOf(namespace).toString(2).padStart(16, '0').replaceAll('1', '');
    expect(zeros.length).toBeGreaterThanOrEqual(3);
  }
});

test.each<[string, Uint8Array, number]>([
  ['123456789', Buffer.from('123456789'), 0xd0db],
  ['32 times ff', new Uint8Array(32).fill(0xff), 0xa293],
  ['0 to 31', Uint8Array.from({ length: 32 }, (_, i) => i), 0x0224],
])('the CRC of %s', (_name, bytes, expected) => {
  expect(crc16(bytes, 0, bytes.length)).toBe(expected);
});

test.each([
  ['in one buffer with the data', { protection: 1, extended: true } as const],
  ['without protection', { metadata: new MemoryStorage(MEBIBYTE) }],
])('metadata %s: the driver says that it cannot', async (_name, more) => {
  const namespaces = disk(512).map((each) => ({ ...each, ...more }));
  await expect(withDisk({ namespaces }, {}, () => Promise.resolve())).rejects.toMatchObject({
    code: 'ENODEV',
    message: `the blocks of namespace 1 of ${BDF} have metadata, 8 bytes of each`,
  });
});
