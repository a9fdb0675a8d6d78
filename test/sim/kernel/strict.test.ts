/** A driver that leaves out an invalidation: strict mode finds it where hardware only goes on. */
import { describeStaleUse, type StaleUse } from '../../../lib/sim';
import { InvalidationQueue } from '../../../lib/sim/kernel/intel/invalidation-queue';
import * as inv from '../../../lib/sim/vtd';
import { Bench, PAGE } from './bench';

const IOVA = 0x40_0000;
const NEST = 1;

afterEach(() => jest.restoreAllMocks());

/** Descriptors of these types are lost from now on. */
function lose(...types: number[]): void {
  const real = InvalidationQueue.prototype.submit;
  jest.spyOn(InvalidationQueue.prototype, 'submit').mockImplementation(function (
    this: InvalidationQueue,
    ...descriptors: readonly Int32Array[]
  ) {
    real.call(this, ...descriptors.filter((words) => !types.includes(words[0]! & 0xf)));
  });
}

class Watched extends Bench {
  readonly uses: StaleUse[];
  readonly first;
  readonly space: number;

  /** A page mapped, attached and read once. */
  constructor(flags = 0) {
    const uses: StaleUse[] = [];
    super({ iommu: { strict: (use) => uses.push(use) } });
    this.uses = uses;
    this.bind();
    this.space = this.ioas();
    this.first = this.memory();
    this.map(this.space, IOVA, this.first.address);
    // Keeps the memory pinned when that mapping goes.
    this.map(this.space, 2 * IOVA, this.first.address);
    this.attach(flags === 0 ? this.space : this.hwpt(this.space, { flags }));
    expect(this.probe.read(IOVA, 1)).toEqual([0]);
  }
}

test.each([
  [
    'first stage',
    0,
    inv.TYPE_PASID_IOTLB,
    /no PASID-based IOTLB invalidation of page 0x400, PASID 0, domain \d/,
  ],
  ['second stage', NEST, inv.TYPE_IOTLB, /no IOTLB invalidation of page 0x400 in domain \d/],
])('unmap, %s: the DMA after it reaches memory that is no longer its own', (_, flags, type, message) => {
  const bench = new Watched(flags);
  lose(type);
  expect(bench.unmap(bench.space, IOVA, PAGE)).toBe(BigInt(PAGE));
  expect(bench.uses).toEqual([]);
  expect(bench.probe.read(IOVA + 8, 1)).toEqual([0]);
  expect(bench.uses).toHaveLength(1);
  const [use] = bench.uses;
  expect(use).toMatchObject({ rid: 0x30, low: IOVA + 8, cache: 'IOTLB' });
  expect(describeStaleUse(use!)).toMatch(message);
});

test('detach: the PASID entry is cached too', () => {
  const bench = new Watched();
  lose(inv.TYPE_PASID_CACHE, inv.TYPE_PASID_IOTLB);
  bench.detach();
  bench.probe.read(IOVA, 1);
  expect(bench.uses).toMatchObject([{ cache: 'PASID-cache' }]);
});

test('a driver that leaves out nothing: nothing is said', () => {
  const bench = new Watched();
  bench.unmap(bench.space);
  expect(bench.probe.read(IOVA, 1)).toBeUndefined();
  bench.map(bench.space, IOVA, bench.memory().address);
  expect(bench.probe.read(IOVA, 1)).toEqual([0]);
  bench.detach();
  expect(bench.probe.read(IOVA, 1)).toBeUndefined();
  expect(bench.uses).toEqual([]);
});

test('IOMMUFD_STRICT=1: a stale use is an error', () => {
  const before = process.env['IOMMUFD_STRICT'];
  process.env['IOMMUFD_STRICT'] = '1';
  try {
    const bench = new Bench();
    bench.bind();
    const space = bench.ioas();
    bench.map(space, IOVA, bench.memory().address);
    bench.attach(space);
    expect(bench.probe.read(IOVA, 1)).toEqual([0]);
    lose(inv.TYPE_PASID_IOTLB);
    bench.unmap(space);
    expect(() => bench.probe.read(IOVA, 1)).toThrow(/^stale use of the IOTLB by function 0x30 at 0x400000:/);
  } finally {
    if (before === undefined) delete process.env['IOMMUFD_STRICT'];
    else process.env['IOMMUFD_STRICT'] = before;
  }
});
