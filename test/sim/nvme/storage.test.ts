/** What namespaces keep their blocks in. */
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { NvmeDriver } from '../../../examples/drivers/nvme/driver';
import { Iommu } from '../../../lib';
import { FileStorage, Machine, MemoryStorage, NvmeController, type NvmeStorage } from '../../../lib/sim';
import { Random } from '../../../lib/sim/random';
import { BDF, pattern } from './bench';

const SIZE = 300_000;
let folder: string;
beforeEach(() => (folder = mkdtempSync(join(tmpdir(), 'iommufd-nvme-'))));
afterEach(() => rmSync(folder, { recursive: true }));

test.each(['memory', 'file'])('%s: what was written last is there, and zeros elsewhere', (kind) => {
  const storage: NvmeStorage & { close?(): void } =
    kind === 'memory' ? new MemoryStorage(SIZE) : new FileStorage(join(folder, 'disk'), SIZE);
  const seed = Number(process.env['STORAGE_SEED'] ?? 20261128);
  const random = new Random(seed);
  const expected = new Uint8Array(SIZE);
  for (let i = 0; i < 60; i++) {
    const offset = random.below(SIZE);
    const length = 1 + random.below(Math.min(SIZE - offset, 150_000));
    const data = pattern(length, i);
    if (random.below(3) === 0) {
      storage.zero(offset, length);
      expected.fill(0, offset, offset + length);
    } else {
      storage.write(offset, data);
      expected.set(data, offset);
    }
    const found = new Uint8Array(SIZE);
    storage.read(0, found);
    expect([seed, i, Buffer.compare(found, expected)]).toEqual([seed, i, 0]);
  }
  storage.flush();
  storage.close?.();
});

test('memory is taken for what is written, and given back for what is zeroed', () => {
  const storage = new MemoryStorage(2 ** 40);
  storage.write(2 ** 39, new Uint8Array(10).fill(1));
  expect(storage.allocated).toBe(65_536);
  storage.zero(2 ** 39, 65_536);
  expect(storage.allocated).toBe(0);
  expect(() => new MemoryStorage(0)).toThrow(RangeError);
});

test('a file stays when the machine is gone; it is made, extended, and never cut', async () => {
  const path = join(folder, 'disk');
  expect(() => new FileStorage(path)).toThrow('ENOENT');
  expect(existsSync(path)).toBe(false);
  const data = pattern(8192);
  for (const attempt of ['write', 'read']) {
    const storage = new FileStorage(path, 1 << 20);
    const controller = new NvmeController({ namespaces: [{ storage, blockSize: 4096 }] });
    const iommu = Iommu.open({ backend: new Machine({ devices: { [BDF]: controller } }) });
    const disk = await NvmeDriver.open(iommu, BDF);
    expect(disk).toMatchObject({ blockSize: 4096, blocks: 256 });
    if (attempt === 'write') await disk.write(3, data);
    expect(Buffer.compare(await disk.read(3, 2), data)).toBe(0);
    await disk.close();
    iommu.close();
    storage.close();
  }
  expect(Buffer.compare(readFileSync(path).subarray(3 * 4096, 5 * 4096), data)).toBe(0);
  new FileStorage(path, 4096).close();
  expect(statSync(path).size).toBe(1 << 20);
  writeFileSync(path, '');
  expect(() => new FileStorage(path)).toThrow('0 is no number of bytes');
});
