/** Protected memory regions: VT-d specification rev. 4.1, sections 11.4.8.1 to 11.4.8.5. */
import { ACCESS_READ, ACCESS_TRANSLATED, ACCESS_WRITE, NO_PASID } from '../../../lib/sim/bus';
import {
  AW_48_BIT,
  GCMD_QIE,
  GCMD_REG,
  GCMD_TE,
  NOT_A_FAULT,
  PGTT_PASS_THROUGH,
  PGTT_SECOND_STAGE,
  PHMBASE_REG,
  PHMLIMIT_REG,
  PLMBASE_REG,
  PLMLIMIT_REG,
  PMEN_REG,
  SS_R,
  SS_W,
} from '../../../lib/sim/vtd';
import { Bench, RID } from './bench';

const LOW = 0x40_0000n;
const HIGH = 0x1_0060_0000n;
const BLOCKED = -NOT_A_FAULT;

/** 4 MiB from LOW, and 2 MiB from HIGH. */
function guarded(enabled = true): Bench {
  const bench = new Bench({ PLMR: 1, PHMR: 1 });
  bench.context(RID, { DTE: 1 });
  bench.pasid(RID, 0, { PGTT: PGTT_PASS_THROUGH });
  bench.unit.write32(PLMBASE_REG, Number(LOW));
  bench.unit.write32(PLMLIMIT_REG, Number(LOW) + 0x20_0000);
  bench.unit.write64(PHMBASE_REG, 1, 0x60_0000);
  bench.unit.write64(PHMLIMIT_REG, 1, 0x60_0000);
  if (enabled) bench.unit.write32(PMEN_REG, 0x8000_0000);
  return bench;
}

/** The edges of both regions, inside and outside. */
const EDGES: [bigint, boolean][] = [
  [LOW - 1n, false],
  [LOW, true],
  [LOW + 0x3f_ffffn, true],
  [LOW + 0x40_0000n, false],
  [HIGH - 1n, false],
  [HIGH, true],
  [HIGH + 0x1f_ffffn, true],
  [HIGH + 0x20_0000n, false],
];

test.each([
  ['while translation is disabled', ACCESS_READ, GCMD_QIE],
  ['pass-through', ACCESS_WRITE, GCMD_QIE | GCMD_TE],
  ['translated requests', ACCESS_TRANSLATED, GCMD_QIE | GCMD_TE],
])('requests that are not remapped are blocked, and not recorded: %s', (_, access, command) => {
  const bench = guarded();
  bench.unit.write32(GCMD_REG, command);
  // Twice: the second one could come from the IOTLB.
  for (const [address, inside] of [...EDGES, ...EDGES]) {
    expect([address, bench.translate(address, access)]).toEqual([
      address,
      inside ? BLOCKED : Number(address),
    ]);
  }
  expect(bench.takeFaults()).toEqual([]);
});

test('PRS says when; switching on reaches what is cached, and off lets everything through', () => {
  const bench = guarded(false);
  expect(bench.unit.read32(PMEN_REG)).toBe(0);
  expect(bench.translate(LOW)).toBe(Number(LOW));
  bench.unit.write32(PMEN_REG, 0x8000_0000);
  expect(bench.unit.read32(PMEN_REG)).toBe(0x8000_0001);
  expect(bench.translate(LOW)).toBe(BLOCKED);
  bench.unit.write32(PMEN_REG, 0);
  expect(bench.unit.read32(PMEN_REG)).toBe(0);
  expect(bench.translate(LOW)).toBe(Number(LOW));
});

test('a base above its limit switches a region off', () => {
  const bench = guarded();
  bench.unit.write32(PLMLIMIT_REG, Number(LOW) - 0x20_0000);
  expect([bench.translate(LOW), bench.translate(HIGH)]).toEqual([Number(LOW), BLOCKED]);
  bench.unit.write64(PHMLIMIT_REG, 0, 0x60_0000);
  expect(bench.translate(HIGH)).toBe(Number(HIGH));
});

test('what tables lead there is theirs to forbid', () => {
  const bench = guarded();
  const root = bench.page();
  bench.map(root, 4, 0x1000n, Number(LOW), SS_R | SS_W, SS_R | SS_W);
  bench.pasid(RID, 0, { PGTT: PGTT_SECOND_STAGE, AW: AW_48_BIT, SSPTPTR: root });
  expect(bench.translate(0x1000n, ACCESS_READ, NO_PASID)).toBe(Number(LOW));
});
