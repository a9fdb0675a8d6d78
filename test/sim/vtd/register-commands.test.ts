/** Invalidation through registers, which units before version 6 have: VT-d specification rev. 4.1, section 6.5.1. */
import {
  CCMD_REG,
  encodeLegacyContextEntry,
  GCMD_QIE,
  GCMD_REG,
  GCMD_TE,
  IOTLB_REG,
  IVA_REG,
  legacyContextEntryAddress,
  VER_1_0,
  VtdUnit,
} from '../../../lib/sim/vtd';
import { Bench, RID, RW } from './bench';
import { ADDRESS, Legacy, TARGET } from './legacy-bench';

const DID = 5;
const PAGE = ADDRESS & ~0xfffn;
const OTHER = PAGE ^ 0x1000n;
const FRESH = 0x200_0000;

/** Domain, address and granularity (1 global, 2 domain, 3 page) to IOTLB_REG; its high word afterwards. */
function invalidate(unit: VtdUnit, granularity: number, did = DID, address = PAGE, am = 0): number {
  const base = unit.capabilities.IRO * 16;
  unit.write64(base + IVA_REG, Number(address >> 32n), (Number(address & 0xffff_f000n) | am) >>> 0);
  unit.write64(base + IOTLB_REG, (0x8000_0000 | (granularity << 28) | did) >>> 0, 0);
  return unit.read32(base + IOTLB_REG + 4);
}

/** Two pages cached, then moved elsewhere; whether each is still served as it was. */
class Commanded extends Legacy {
  constructor(did = DID) {
    super({ VER: VER_1_0, PSI: 1 });
    this.set({ DID: did });
    this.unit.write32(GCMD_REG, GCMD_TE);
    this.map(this.tables, 4, OTHER, TARGET + 0x1000, RW, RW);
    expect(this.stale()).toEqual([true, true]);
    this.map(this.tables, 4, PAGE, FRESH, RW, RW);
    this.map(this.tables, 4, OTHER, FRESH, RW, RW);
  }

  stale(): boolean[] {
    return [this.translate(PAGE) === TARGET, this.translate(OTHER) === TARGET + 0x1000];
  }
}

test.each([
  ['a page', 3, DID, 0, [false, true]],
  ['two pages', 3, DID, 1, [false, false]],
  ['a page of another domain', 3, DID + 1, 0, [true, true]],
  ['a domain', 2, DID, 0, [false, false]],
  ['another domain', 2, DID + 1, 0, [true, true]],
  ['all', 1, 0, 0, [false, false]],
])('IOTLB_REG: %s', (_, granularity, did, am, left) => {
  const bench = new Commanded();
  const high = invalidate(bench.unit, granularity, did, PAGE, am);
  expect(high).toBe(((granularity << 28) | (granularity << 25) | did) >>> 0);
  expect(bench.stale()).toEqual(left);
});

test('incorrect requests are ignored, and say granularity 0', () => {
  const bench = new Commanded();
  expect(invalidate(bench.unit, 0)).toBe(DID);
  expect(invalidate(bench.unit, 3, DID, PAGE, 46)).toBe(0x3000_0000 | DID);
  bench.unit.write32(GCMD_REG, GCMD_TE | GCMD_QIE);
  expect(invalidate(bench.unit, 1)).toBe(0x1000_0000 | DID);
  expect(bench.stale()).toEqual([true, true]);

  const scalable = new Bench({ VER: VER_1_0 });
  scalable.unit.write32(GCMD_REG, GCMD_TE);
  expect(invalidate(scalable.unit, 1)).toBe(0x1000_0000 | DID);
  scalable.unit.write64(CCMD_REG, 0xa000_0000, 0);
  expect(scalable.unit.read32(CCMD_REG + 4)).toBe(0x2000_0000);
});

test.each([
  ['the function', 3, DID, RID, 0, true],
  ['another function', 3, DID, RID + 1, 0, false],
  ['the functions of a device', 3, DID, RID + 7, 3, true],
  ['its domain', 2, DID, 0, 0, true],
  ['another domain', 2, DID + 1, 0, 0, false],
  ['all', 1, 0, 0, 0, true],
])('CCMD_REG: %s', (_, granularity, did, sid, fm, effective) => {
  const bench = new Commanded();
  const entry = legacyContextEntryAddress(bench.legacyContexts, RID);
  bench.memory.writeWords(entry, encodeLegacyContextEntry({}));
  bench.unit.write64(CCMD_REG, (0x8000_0000 | (granularity << 29) | fm) >>> 0, ((sid << 16) | did) >>> 0);
  expect(bench.unit.read32(CCMD_REG + 4)).toBe(((granularity << 29) | (granularity << 27) | fm) >>> 0);
  expect(bench.translate(PAGE)).toBe(effective ? -0x02 : TARGET);
});

test('a unit of version 6 has no such registers', () => {
  const bench = new Legacy();
  expect(invalidate(bench.unit, 1)).toBe(0);
});
