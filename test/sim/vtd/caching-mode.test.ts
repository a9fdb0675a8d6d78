/** Caching mode (CAP_REG.CM = 1): VT-d specification rev. 4.1, section 6.1. */
import { ACCESS_READ, NO_PASID } from '../../../lib/sim/bus';
import {
  AW_48_BIT,
  encodeContextCacheInvalidate,
  encodeIotlbInvalidate,
  encodePasidCacheInvalidate,
  encodePasidIotlbInvalidate,
  FS_P,
  FS_RW,
  FS_US,
  G_DEVICE,
  G_DOMAIN,
  G_GLOBAL,
  G_PAGE,
  GCMD_QIE,
  GCMD_REG,
  GCMD_SRTP,
  GCMD_TE,
  PASID_CACHE_G_DOMAIN,
  PASID_CACHE_G_GLOBAL,
  PASID_CACHE_G_PASID,
  PASID_IOTLB_G_PASID,
  PGTT_FIRST_STAGE,
  PGTT_PASS_THROUGH,
  PGTT_SECOND_STAGE,
} from '../../../lib/sim/vtd';
import { Machine } from '../../../lib/sim';
import { Iommu } from '../../../lib';
import { Bench, RID, RW } from './bench';

const DID = 7;
const PAGE = 0x1234_5000n;
const AT = Number(PAGE);
const TARGET = 0x50_0000;

/** Refused once, for what is missing at `level`; then the table was completed, and nothing invalidated. */
function completed(level: 'context' | 'pasid' | 'page', pasid = NO_PASID): Bench {
  const bench = new Bench({ CM: 1 });
  const root = bench.page();
  const entry = { PGTT: PGTT_SECOND_STAGE, AW: AW_48_BIT, DID, SSPTPTR: root };
  if (level !== 'context') bench.context(RID);
  else bench.context(RID + 0x40);
  if (level === 'page') bench.pasid(RID, Math.max(pasid, 0), entry);
  const reason = { context: 0x41, pasid: 0x51, page: 0x79 }[level];
  expect(bench.refusal(PAGE, ACCESS_READ, pasid)).toBe(reason);
  bench.context(RID);
  bench.pasid(RID, Math.max(pasid, 0), entry);
  bench.map(root, 4, PAGE, TARGET, RW, RW);
  expect(bench.refusal(PAGE, ACCESS_READ, pasid)).toBe(reason);
  return bench;
}

test.each([
  ['all', { G: G_GLOBAL }, true],
  ['domain 0, which such entries are in', { G: G_DOMAIN, DID: 0 }, true],
  ['another domain', { G: G_DOMAIN, DID }, false],
  ['the function', { G: G_DEVICE, SID: RID }, true],
  ['another function', { G: G_DEVICE, SID: RID + 1 }, false],
  ['the functions of a device', { G: G_DEVICE, SID: RID + 1, FM: 3 }, true],
])('a context entry that was not present: invalidation of %s', (_, fields, effective) => {
  const bench = completed('context');
  bench.complete(encodeContextCacheInvalidate(fields));
  expect(bench.translate(PAGE)).toBe(effective ? TARGET : -0x41);
});

test.each([
  ['all', { G: PASID_CACHE_G_GLOBAL }, true],
  ['domain 0', { G: PASID_CACHE_G_DOMAIN, DID: 0 }, true],
  ['another domain', { G: PASID_CACHE_G_DOMAIN, DID }, false],
  ['the PASID', { G: PASID_CACHE_G_PASID, DID, PASID: 3 }, true],
  ['another PASID', { G: PASID_CACHE_G_PASID, DID, PASID: 4 }, false],
])('a PASID entry that was not there: invalidation of %s', (_, fields, effective) => {
  const bench = completed('pasid', 3);
  bench.complete(encodePasidCacheInvalidate(fields));
  expect(bench.translate(PAGE, ACCESS_READ, 3)).toBe(effective ? TARGET : -0x51);
});

test.each([
  ['all', encodeIotlbInvalidate({ G: G_GLOBAL }), true],
  ['its domain', encodeIotlbInvalidate({ G: G_DOMAIN, DID }), true],
  ['another domain', encodeIotlbInvalidate({ G: G_DOMAIN, DID: DID + 1 }), false],
  ['the page', encodeIotlbInvalidate({ G: G_PAGE, DID, ADDR: AT }), true],
  ['the next page', encodeIotlbInvalidate({ G: G_PAGE, DID, ADDR: AT + 0x1000 }), false],
  ['pages around', encodeIotlbInvalidate({ G: G_PAGE, DID, ADDR: AT & ~0xffff, AM: 4 }), true],
  ['the page, in another domain', encodeIotlbInvalidate({ G: G_PAGE, DID: DID + 1, ADDR: AT }), false],
  ['its PASID', encodePasidIotlbInvalidate({ G: PASID_IOTLB_G_PASID, DID, PASID: 0 }), true],
  ['another PASID', encodePasidIotlbInvalidate({ G: PASID_IOTLB_G_PASID, DID, PASID: 1 }), false],
])('a second-stage page that was not mapped: invalidation of %s', (_, descriptor, effective) => {
  const bench = completed('page');
  bench.complete(descriptor);
  expect(bench.translate(PAGE)).toBe(effective ? TARGET : -0x79);
});

test('SRTP drops them all', () => {
  const bench = completed('context');
  bench.unit.write32(GCMD_REG, GCMD_QIE | GCMD_TE | GCMD_SRTP);
  expect(bench.translate(PAGE)).toBe(TARGET);
});

test('first-stage pages are never cached so, nor is anything without caching mode', () => {
  const bench = new Bench({ CM: 1 });
  const root = bench.page();
  bench.pasid(RID, 0, { PGTT: PGTT_FIRST_STAGE, DID, FSPTPTR: root });
  expect(bench.refusal(PAGE)).toBe(0x71);
  bench.map(root, 4, PAGE, TARGET, FS_P | FS_RW | FS_US, FS_P | FS_RW | FS_US);
  expect(bench.translate(PAGE)).toBe(TARGET);

  const plain = new Bench();
  plain.context(RID);
  expect(plain.refusal(PAGE)).toBe(0x51);
  plain.pasid(RID, 0, { PGTT: PGTT_PASS_THROUGH });
  expect(plain.translate(PAGE)).toBe(AT);
});

test('the kernel of a machine invalidates what it makes present', () => {
  const machine = new Machine({ iommu: { capabilities: { CM: 1, FSTS: 0 } } });
  using iommu = Iommu.open({ backend: machine });
  const device = iommu.bind('0000:00:05.0', { cookie: 1n });
  const { unit } = machine;
  const rid = 0x28;
  const read = (address: bigint) => unit.submit({ rid, address });
  expect(read(0x1000n).fault?.name).toBe('SPD_2_NOT_PRESENT');
  const space = iommu.createAddressSpace();
  device.attach(space);
  expect(read(0x1000n).fault?.name).toBe('SSS_2_NOT_PRESENT');
  const { iova } = space.map(iommu.allocateDma(4096), { iova: 0x1000n });
  expect(read(iova).fault).toBeUndefined();
});
