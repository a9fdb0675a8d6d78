import { ACCESS_EXECUTE, ACCESS_PRIVILEGED, ACCESS_READ, ACCESS_WRITE, NO_PASID } from '../../../lib/sim/bus';
import {
  FS_A,
  FS_D,
  FS_EA,
  FS_P,
  FS_PS,
  FS_RW,
  FS_US,
  FS_XD_HIGH,
  FSPM_4_LEVEL,
  FSPM_5_LEVEL,
  PGTT_FIRST_STAGE,
  VtdCapabilities,
} from '../../../lib/sim/vtd';
import { ALL, Bench, PasidFields, RID } from './bench';

const PASID = 9;

function firstStage(FSPM: number, capabilities: Partial<VtdCapabilities> = {}, fields: PasidFields = {}) {
  const bench = new Bench(capabilities);
  const root = bench.page();
  bench.context(RID);
  for (const pasid of [0, PASID]) {
    bench.pasid(RID, pasid, { PGTT: PGTT_FIRST_STAGE, FSPM, DID: 3, FSPTPTR: root, ...fields });
  }
  const map = (address: bigint, target: number, flags: number, leafLevel = 1, highFlags = 0): number =>
    bench.map(root, FSPM + 4, address, target, flags, ALL, leafLevel, highFlags);
  return { bench, root, map };
}

describe.each([
  [FSPM_4_LEVEL, 48],
  [FSPM_5_LEVEL, 57],
])('FSPM %i (%i bits)', (FSPM, width) => {
  const half = 1n << BigInt(width - 1);
  const upper = (1n << 64n) - half;

  test('every page size, in both halves', () => {
    const { bench, map } = firstStage(FSPM);
    map(0x7654_3000n, 0x3a_bcde_f000, ALL);
    map(half - 0x20_0000n, 0x2f_ffe0_0000, ALL | FS_PS, 2);
    map(upper, 0x15_4000_0000, ALL | FS_PS, 3);
    expect(bench.translate(0x7654_3abcn, ACCESS_WRITE, PASID)).toBe(0x3a_bcde_fabc);
    expect(bench.translate(half - 1n, ACCESS_READ, PASID)).toBe(0x2f_ffff_ffff);
    expect(bench.translate(upper + 0x3fff_ffffn, ACCESS_WRITE)).toBe(0x15_7fff_ffff);
    expect(bench.takeFaults()).toEqual([]);
  });

  test('an address that is not canonical is SGN.1', () => {
    const { bench } = firstStage(FSPM);
    for (const address of [half, upper - 1n, 1n << 63n]) expect(bench.refusal(address)).toBe(0x80);
    expect(bench.refusal(upper)).toBe(0x71);
    expect(bench.refusal(half - 1n)).toBe(0x71);
  });
});

describe('permissions', () => {
  const check = (
    flags: number,
    access: number,
    fields: PasidFields = {},
    highFlags = 0,
    pasid = PASID,
  ): number => {
    const { bench, map } = firstStage(FSPM_4_LEVEL, { ERS: 1 }, fields);
    map(0x1000n, 0x8000, flags, 1, highFlags);
    const result = bench.translate(0x1000n, access, pasid);
    if (result >= 0) expect(result).toBe(0x8000);
    return result < 0 ? -result : 0;
  };

  test.each([
    ['not present', 0, ACCESS_READ, {}, 0, 0x71],
    ['read-only, read', FS_P | FS_US, ACCESS_READ, {}, 0, 0],
    ['read-only, write', FS_P | FS_US, ACCESS_WRITE, {}, 0, 0x85],
    ['supervisor page, user', FS_P | FS_RW, ACCESS_READ, {}, 0, 0x81],
    ['supervisor page, supervisor', FS_P | FS_RW, ACCESS_PRIVILEGED, { SRE: 1 }, 0, 0],
    ['user page, supervisor', ALL, ACCESS_PRIVILEGED | ACCESS_WRITE, { SRE: 1 }, 0, 0],
    ['read-only, supervisor write', FS_P, ACCESS_PRIVILEGED | ACCESS_WRITE, { SRE: 1 }, 0, 0],
    ['read-only, supervisor write, WPE', FS_P, ACCESS_PRIVILEGED | ACCESS_WRITE, { SRE: 1, WPE: 1 }, 0, 0x85],
    ['supervisor without SRE', ALL, ACCESS_PRIVILEGED, {}, 0, 0x5d],
    ['execute without ERE', ALL, ACCESS_EXECUTE, {}, 0, 0x5c],
    ['execute', ALL, ACCESS_EXECUTE, { ERE: 1, NXE: 1 }, 0, 0],
    ['execute, XD', ALL, ACCESS_EXECUTE, { ERE: 1, NXE: 1 }, FS_XD_HIGH, 0x82],
    ['execute, XD without NXE', ALL, ACCESS_EXECUTE, { ERE: 1 }, FS_XD_HIGH, 0],
    ['read, XD', ALL, ACCESS_READ, { ERE: 1, NXE: 1 }, FS_XD_HIGH, 0],
    ['SMEP', ALL, ACCESS_EXECUTE | ACCESS_PRIVILEGED, { ERE: 1, SRE: 1, SMEP: 1 }, 0, 0x82],
    ['user before write', FS_P, ACCESS_WRITE, {}, 0, 0x81],
    [
      'execute before write',
      FS_P | FS_US,
      ACCESS_EXECUTE | ACCESS_WRITE,
      { ERE: 1, NXE: 1 },
      FS_XD_HIGH,
      0x82,
    ],
  ])('%s', (_, flags, access, fields, highFlags, reason) => {
    expect(check(flags, access, fields, highFlags)).toBe(reason);
  });

  test('privilege and execute do not come without PASID', () => {
    expect(check(ALL, ACCESS_PRIVILEGED | ACCESS_EXECUTE, {}, 0, NO_PASID)).toBe(0);
    expect(check(FS_P | FS_RW, ACCESS_PRIVILEGED, {}, 0, NO_PASID)).toBe(0x81);
  });

  test('SRE and ERE hold for a page that is cached already', () => {
    const { bench, map } = firstStage(FSPM_4_LEVEL, { ERS: 1 });
    map(0x1000n, 0x8000, ALL);
    expect(bench.translate(0x1000n, ACCESS_WRITE, PASID)).toBe(0x8000);
    expect(bench.refusal(0x1000n, ACCESS_PRIVILEGED, PASID)).toBe(0x5d);
    expect(bench.refusal(0x1000n, ACCESS_EXECUTE, PASID)).toBe(0x5c);
  });

  test('RID_PRIV makes requests without PASID privileged', () => {
    const { bench, map } = firstStage(FSPM_4_LEVEL, { RPRIVS: 1 }, { SRE: 1 });
    bench.context(RID, { RID_PRIV: 1 });
    map(0x1000n, 0x8000, FS_P | FS_RW);
    expect(bench.translate(0x1000n)).toBe(0x8000);
    expect(bench.translate(0x1008n)).toBe(0x8008);
    expect(bench.refusal(0x1000n, ACCESS_READ, PASID)).toBe(0x81);
  });

  test('are those of every level together', () => {
    for (const [flag, access, reason] of [
      [FS_RW, ACCESS_WRITE, 0x85],
      [FS_US, ACCESS_READ, 0x81],
    ] as const) {
      const { bench, root, map } = firstStage(FSPM_4_LEVEL);
      map(0x1000n, 0x8000, ALL);
      bench.memory.write32(root, bench.memory.read32(root) & ~flag);
      expect(bench.refusal(0x1000n, access, PASID)).toBe(reason);
    }
  });
});

describe('reserved bits', () => {
  const refusedWith = (
    bit: number,
    leafLevel: number,
    capabilities: Partial<VtdCapabilities> = {},
  ): number => {
    const { bench, map } = firstStage(FSPM_4_LEVEL, capabilities);
    const entry = map(0n, 0x8000_0000, ALL | (leafLevel > 1 ? FS_PS : 0), leafLevel);
    const at = entry + (bit < 32 ? 0 : 4);
    bench.memory.write32(at, bench.memory.read32(at) | (1 << (bit & 31)));
    const result = bench.translate(0n, ACCESS_READ, PASID);
    return result < 0 ? -result : 0;
  };

  test.each([
    [1, [46, 51], [3, 4, 7, 8, 9, 10, 11, 12, 45, 52, 62, 63]],
    [2, [13, 20, 46, 51], [3, 4, 8, 9, 10, 11, 12, 21, 45, 52, 62, 63]],
    [3, [13, 21, 29, 46, 51], [3, 4, 8, 9, 10, 11, 12, 30, 45, 52, 62, 63]],
  ])('leaf of level %i', (level, reserved, ignored) => {
    for (const bit of reserved) expect([bit, refusedWith(bit, level)]).toEqual([bit, 0x72]);
    for (const bit of ignored) expect([bit, refusedWith(bit, level)]).toEqual([bit, 0]);
  });

  test('1 GiB pages without FS1GP', () => expect(refusedWith(3, 3, { FS1GP: 0 })).toBe(0x72));

  test.each([
    [0, [7, 46, 51], [8, 9, 11, 52, 62, 63]],
    [1, [46, 51], [8, 9, 11, 52, 62, 63]],
    [2, [46, 51], [8, 9, 11, 52, 62, 63]],
  ])('table entry %i below the top', (depth, reserved, ignored) => {
    const build = (bit: number): number => {
      const { bench, root, map } = firstStage(FSPM_4_LEVEL);
      map(0n, 0x8000, ALL);
      let entry = root;
      for (let i = 0; i < depth; i++) entry = bench.memory.read32(entry) & ~0xfff;
      const at = entry + (bit < 32 ? 0 : 4);
      bench.memory.write32(at, bench.memory.read32(at) | (1 << (bit & 31)));
      const result = bench.translate(0n, ACCESS_READ, PASID);
      return result < 0 ? -result : 0;
    };
    for (const bit of reserved) expect([bit, build(bit)]).toEqual([bit, 0x72]);
    for (const bit of ignored) expect([bit, build(bit)]).toEqual([bit, 0]);
  });
});

test('missing memory: SFS.4 at the top, SFS.1 below', () => {
  const nowhere = 0x3f_0000_0000;
  expect(firstStage(FSPM_4_LEVEL, {}, { FSPTPTR: nowhere }).bench.refusal(0n)).toBe(0x73);
  for (const level of [4, 3, 2]) {
    const { bench, map } = firstStage(FSPM_4_LEVEL);
    map(0n, nowhere, ALL, level);
    expect(bench.refusal(0n)).toBe(0x70);
  }
});

test('a result in the interrupt range is SGN.8', () => {
  const { bench, map } = firstStage(FSPM_4_LEVEL);
  map(0x1000n, 0xfeef_f000, ALL);
  expect(bench.refusal(0x1000n, ACCESS_WRITE, PASID)).toBe(0x87);
});

describe('accessed and dirty', () => {
  const MARKS = FS_A | FS_D | FS_EA;

  test.each([
    [0, FS_A],
    [1, FS_A | FS_EA],
  ])('EAFE = %i', (EAFE, accessed) => {
    const { bench, root, map } = firstStage(FSPM_5_LEVEL, {}, { EAFE });
    const leaf = map(0n, 0x8000, ALL);
    const marks = (): number[] => {
      const seen: number[] = [];
      for (let entry = root, i = 0; i < 4; i++, entry = bench.memory.read32(entry) & ~0xfff) {
        seen.push(bench.memory.read32(entry) & MARKS);
      }
      return [...seen, bench.memory.read32(leaf) & MARKS];
    };
    bench.translate(0n, ACCESS_READ, PASID);
    expect(marks()).toEqual([accessed, accessed, accessed, accessed, accessed]);
    expect(bench.translate(8n, ACCESS_WRITE, PASID)).toBe(0x8008);
    expect(marks()).toEqual([accessed, accessed, accessed, accessed, accessed | FS_D]);
  });

  test('a refused request sets nothing', () => {
    const { bench, root, map } = firstStage(FSPM_4_LEVEL);
    const leaf = map(0n, 0x8000, FS_P | FS_US);
    expect(bench.refusal(0n, ACCESS_WRITE)).toBe(0x85);
    expect([root, leaf].map((entry) => bench.memory.read32(entry) & MARKS)).toEqual([0, 0]);
  });

  test('without page-walk snoop an update is SFS.9', () => {
    const { bench, map } = firstStage(FSPM_4_LEVEL, {}, { PWSNP: 0 });
    map(0n, 0x8000, ALL);
    expect(bench.refusal(0n)).toBe(0x90);
  });

  test('on a unit without that control they are set', () => {
    const { bench, map } = firstStage(FSPM_4_LEVEL, { SMPWCS: 0 }, { PWSNP: 0 });
    const leaf = map(0n, 0x8000, ALL);
    expect(bench.translate(0n, ACCESS_WRITE)).toBe(0x8000);
    expect(bench.memory.read32(leaf) & MARKS).toBe(FS_A | FS_D);
  });
});
