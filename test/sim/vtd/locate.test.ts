/** VtdUnit.locate, which leaves halves, and what it does where the level-1 table of an address is cached already. */
import {
  ACCESS_ATOMIC,
  ACCESS_EXECUTE,
  ACCESS_READ,
  ACCESS_TRANSLATED,
  ACCESS_WRITE,
  NO_PASID,
} from '../../../lib/sim/bus';
import { FS_A, FS_D, FS_XD_HIGH, GCMD_REG, NOT_A_FAULT, SGN_6_WRITE, SS_R } from '../../../lib/sim/vtd';
import * as vtd from '../../../lib/sim/vtd';
import { ALL, Bench, high, low, RID, RW, TwoStages } from './bench';

/** Above 2 GiB in both halves' sense: signed halves are negative somewhere. */
const TARGET = 0x2f_8000_0000;

function locate(bench: Bench, address: bigint, access = ACCESS_READ, pasid = NO_PASID): number {
  return bench.unit.locate(RID, pasid, high(address), low(address), access);
}

/** The host address of the last request that went through. */
function host({ unit }: Bench): number {
  expect([unit.host.high | 0, unit.host.low | 0]).toEqual([unit.host.high, unit.host.low]);
  return (unit.host.high >>> 0) * 2 ** 32 + (unit.host.low >>> 0);
}

test('the halves of the address, of a miss and of a hit', () => {
  const bench = new TwoStages();
  bench.map(bench.second, 4, 0x9000_1000n, TARGET, RW, RW);
  for (const offset of [0x123n, 0x456n, 0xfffn]) {
    expect(locate(bench, 0x9000_1000n + offset, ACCESS_WRITE)).toBe(0);
    expect(host(bench)).toBe(TARGET + Number(offset));
  }
});

test('a refused request gives the reason, and it is recorded', () => {
  const bench = new TwoStages();
  bench.map(bench.second, 4, 0x1000n, TARGET, SS_R, RW);
  for (let i = 0; i < 2; i++) {
    expect(locate(bench, 0x1000n, ACCESS_WRITE)).toBe(SGN_6_WRITE);
    expect(bench.takeFaults()).toEqual([SGN_6_WRITE]);
    expect(locate(bench, 0x1008n)).toBe(0);
    expect(host(bench)).toBe(TARGET + 8);
  }
});

test('translated requests, atomic ones, and those while translation is disabled', () => {
  const bench = new TwoStages();
  bench.context(RID, { DTE: 1 });
  bench.map(bench.second, 4, 0x1000n, TARGET, RW, RW);
  expect(locate(bench, 0x1010n, ACCESS_ATOMIC)).toBe(0);
  expect(host(bench)).toBe(TARGET + 0x10);
  expect(locate(bench, 0x1_8000_0020n, ACCESS_TRANSLATED)).toBe(0);
  expect(host(bench)).toBe(0x1_8000_0020);
  expect(locate(bench, 0x1010n)).toBe(0);
  bench.unit.write32(GCMD_REG, 0);
  expect(locate(bench, 0x1010n)).toBe(0);
  expect(host(bench)).toBe(0x1010);
});

test('protected memory is blocked while translation is disabled', () => {
  const bench = new TwoStages({ PLMR: 1 });
  bench.unit.write32(GCMD_REG, 0);
  bench.unit.write32(vtd.PLMBASE_REG, 0x20_0000);
  bench.unit.write32(vtd.PLMLIMIT_REG, 0x20_0000);
  bench.unit.write32(vtd.PMEN_REG, vtd.PMEN_EPM);
  expect(locate(bench, 0x20_0000n)).toBe(NOT_A_FAULT);
  expect(locate(bench, 0x10_0000n)).toBe(0);
});

describe('where the level-1 table is cached', () => {
  const NEIGHBOUR = 0x40_0000n;
  const ADDRESS = 0x40_1000n;

  /** With PASID 1, through the first stage; another page of the same table has been used. */
  function warm(flags: number, highFlags = 0): { bench: TwoStages; entry: number } {
    const bench = new TwoStages();
    bench.map(bench.first, 4, NEIGHBOUR, 0x8000, ALL, ALL);
    const entry = bench.map(bench.first, 4, ADDRESS, TARGET, flags, ALL, 1, highFlags);
    expect(locate(bench, NEIGHBOUR, ACCESS_READ, 1)).toBe(0);
    return { bench, entry };
  }

  test('accessed and dirty flags are set', () => {
    const { bench, entry } = warm(ALL);
    const flags = (): number => bench.memory.read32(entry) & (FS_A | FS_D);
    expect(locate(bench, ADDRESS, ACCESS_READ, 1)).toBe(0);
    expect(flags()).toBe(FS_A);
    expect(locate(bench, ADDRESS, ACCESS_WRITE, 1)).toBe(0);
    expect(flags()).toBe(FS_A | FS_D);
  });

  test('a read of an accessed, clean page does not let writes pass by', () => {
    const { bench, entry } = warm(ALL | FS_A);
    expect(locate(bench, ADDRESS, ACCESS_READ, 1)).toBe(0);
    expect(locate(bench, ADDRESS, ACCESS_WRITE, 1)).toBe(0);
    expect(bench.memory.read32(entry) & FS_D).toBe(FS_D);
  });

  test.each([
    ['not present', 0, 0, ACCESS_READ],
    ['read-only', ALL & ~vtd.FS_RW, 0, ACCESS_WRITE],
    ['the supervisor’s', ALL & ~vtd.FS_US, 0, ACCESS_READ],
    ['reserved bits', ALL | FS_A, 1 << 18, ACCESS_READ],
  ])('%s: as without', (_, flags, highFlags, access) => {
    const { bench } = warm(flags, highFlags);
    const reason = locate(bench, ADDRESS, access, 1);
    const cold = new Bench({}, undefined, false);
    const root = cold.page();
    cold.pasid(RID, 1, { PGTT: vtd.PGTT_FIRST_STAGE, DID: 7, FSPTPTR: root });
    cold.map(root, 4, ADDRESS, TARGET, flags, ALL, 1, highFlags);
    expect(reason).toBeGreaterThan(0);
    expect(locate(cold, ADDRESS, access, 1)).toBe(reason);
  });

  test('what an entry above takes away, the leaf does not give', () => {
    const bench = new TwoStages();
    for (const address of [NEIGHBOUR, ADDRESS]) {
      bench.map(bench.first, 4, address, TARGET, ALL | FS_A | FS_D, ALL & ~vtd.FS_RW);
    }
    expect(locate(bench, NEIGHBOUR, ACCESS_READ, 1)).toBe(0);
    expect(locate(bench, ADDRESS, ACCESS_WRITE, 1)).toBe(SGN_6_WRITE);
    expect(locate(bench, ADDRESS, ACCESS_READ, 1)).toBe(0);
  });

  test('a page of the interrupt window is none', () => {
    const bench = new TwoStages();
    bench.map(bench.first, 4, NEIGHBOUR, 0x8000, ALL, ALL);
    bench.map(bench.first, 4, ADDRESS, 0xfee0_0000, ALL | FS_A | FS_D, ALL);
    expect(locate(bench, NEIGHBOUR, ACCESS_READ, 1)).toBe(0);
    expect(locate(bench, ADDRESS, ACCESS_READ, 1)).toBe(vtd.SGN_8_INTERRUPT_RANGE);
  });

  test('XD of the leaf takes execution away', () => {
    const bench = new TwoStages({ ERS: 1 });
    bench.pasid(RID, 1, { PGTT: vtd.PGTT_FIRST_STAGE, DID: 7, FSPTPTR: bench.first, ERE: 1, NXE: 1 });
    bench.map(bench.first, 4, NEIGHBOUR, 0x8000, ALL, ALL);
    bench.map(bench.first, 4, ADDRESS, TARGET, ALL | FS_A, ALL, 1, FS_XD_HIGH);
    expect(locate(bench, NEIGHBOUR, ACCESS_EXECUTE, 1)).toBe(0);
    expect(locate(bench, ADDRESS, ACCESS_READ, 1)).toBe(0);
    expect(locate(bench, ADDRESS, ACCESS_EXECUTE, 1)).toBe(vtd.SGN_3_EXECUTE);
  });
});
