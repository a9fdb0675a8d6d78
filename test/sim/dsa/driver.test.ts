/** The driver of examples/drivers/dsa, on the simulated accelerator. QEMU has no such device: there is no other to try. */
import { DsaDriver, type DsaOptions } from '../../../examples/drivers/dsa/driver';
import { operations } from '../../../examples/drivers/dsa/descriptor';
import { type AddressSpace, Iommu } from '../../../lib';
import { Dsa, Machine } from '../../../lib/sim';
import { Random } from '../../../lib/sim/random';

const BDF = '0000:00:06.0';
const PAGE = 4096;
const seed = Number(process.env['DSA_SEED'] ?? 20261128);

const opened: { iommu: Iommu; dsa: DsaDriver }[] = [];
afterEach(async () => {
  for (const { iommu, dsa } of opened.splice(0)) {
    await dsa.close();
    iommu.close();
  }
});

async function setUp(options: DsaOptions = {}) {
  const machine = new Machine({ devices: { [BDF]: new Dsa() } });
  const iommu = Iommu.open({ backend: machine });
  const dsa = await DsaDriver.open(iommu, { timeout: 5000, ...options });
  opened.push({ iommu, dsa });
  return { machine, iommu, dsa };
}

/** `length` bytes of memory in the driver's space, random ones. */
function randomBytes(dsa: DsaDriver, length: number, random: Random) {
  const slice = dsa.pool.allocate(length);
  for (let i = 0; i < length; i++) slice.bytes[i] = random.below(256);
  return slice;
}

function expectSame(one: Uint8Array, other: Uint8Array, what: unknown): void {
  expect([what, Buffer.compare(one, other)]).toEqual([what, 0]);
}

describe.each<[string, DsaOptions]>([
  ['interrupts', {}],
  ['polling', { polling: true }],
  ['interrupts, with a PASID', { pasid: 5 }],
  ['polling, with a PASID', { polling: true, pasid: 0xfffff }],
])('%s', (_name, options) => {
  test('memory is moved, filled and compared', async () => {
    const { dsa } = await setUp(options);
    const random = new Random(seed);
    const [from, to] = [randomBytes(dsa, 20_000, random), randomBytes(dsa, 20_000, random)];
    expect(await dsa.compare(from.iova, to.iova, 20_000)).toBeLessThan(20);
    await dsa.move(from.iova, to.iova, 20_000);
    expectSame(from.bytes, to.bytes, 'moved');
    expect(await dsa.compare(from.iova, to.iova, 20_000)).toBeUndefined();
    to.bytes[12_345] ^= 1;
    expect(await dsa.compare(from.iova, to.iova, 20_000)).toBe(12_345);
    await dsa.fill(to.iova + 3n, 9001, 0x0807060504030201n);
    const pattern = Uint8Array.from({ length: 9001 }, (_, i) => (i % 8) + 1);
    expectSame(to.bytes.subarray(3, 9004), pattern, 'filled');
    expect([to.bytes[2], to.bytes[9004]]).toEqual([from.bytes[2], from.bytes[9004]]);
  });

  test('many at once, more than the device holds, and batches', async () => {
    const { dsa } = await setUp({ ...options, entries: 4 });
    const random = new Random(seed);
    const [from, to] = [randomBytes(dsa, 40 * 512, random), dsa.pool.allocate(40 * 512)];
    const piece = (i: number) => [from.iova + BigInt(512 * i), to.iova + BigInt(512 * i)] as const;
    const singles = Array.from({ length: 20 }, (_, i) => dsa.move(...piece(i), 512));
    const list = Array.from({ length: 20 }, (_, i) => operations.move(...piece(20 + i), 512));
    await Promise.all([...singles, dsa.batch(list)]);
    expectSame(from.bytes, to.bytes, 'all');
    const compares = [operations.compare(...piece(0), 512), operations.compare(...piece(1), 512)];
    to.bytes[512 + 7] ^= 1;
    expect(await dsa.batch(compares)).toEqual([undefined, 7]);
    expect(await dsa.batch([compares[1]])).toEqual([7]);
    expect(await dsa.batch([])).toEqual([]);
    await dsa.drain();
  });
});
