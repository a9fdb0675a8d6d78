import { ACCESS_EXECUTE, ACCESS_PRIVILEGED, ACCESS_READ, ACCESS_WRITE } from '../../../lib/sim/bus';
import {
  AW_39_BIT,
  AW_48_BIT,
  AW_57_BIT,
  PGTT_SECOND_STAGE,
  SS_A,
  SS_D,
  SS_PS,
  SS_R,
  SS_SNP,
  SS_TM_HIGH,
  SS_W,
  VtdCapabilities,
} from '../../../lib/sim/vtd';
import { Bench, PasidFields, RID, RW } from './bench';

const DID = 5;

function secondStage(AW: number, capabilities: Partial<VtdCapabilities> = {}, fields: PasidFields = {}) {
  const bench = new Bench(capabilities);
  const root = bench.page();
  bench.context(RID);
  bench.pasid(RID, 0, { PGTT: PGTT_SECOND_STAGE, AW, DID, SSPTPTR: root, ...fields });
  const map = (address: bigint, target: number, flags: number, leafLevel = 1, highFlags = 0): number =>
    bench.map(root, AW + 2, address, target, flags, RW, leafLevel, highFlags);
  return { bench, root, map };
}

describe.each([
  [AW_39_BIT, 39],
  [AW_48_BIT, 48],
  [AW_57_BIT, 57],
])('AW %i (%i bits)', (AW, width) => {
  const top = 1n << BigInt(width);

  test('every page size', () => {
    const { bench, map } = secondStage(AW);
    map(0x7654_3000n, 0x3a_bcde_f000, RW);
    map(0x4020_0000n, 0x2f_ffe0_0000, RW | SS_PS, 2);
    map(top - 0x4000_0000n, 0x15_4000_0000, RW | SS_PS, 3);
    expect(bench.translate(0x7654_3abcn, ACCESS_WRITE)).toBe(0x3a_bcde_fabc);
    expect(bench.translate(0x403f_ffffn)).toBe(0x2f_ffff_ffff);
    expect(bench.translate(top - 1n, ACCESS_WRITE)).toBe(0x15_7fff_ffff);
    expect(bench.takeFaults()).toEqual([]);
  });

  test('an address past the width is SGN.5, whatever lies beneath', () => {
    const { bench, map } = secondStage(AW);
    map(0n, 0x5000, RW);
    expect(bench.refusal(top)).toBe(0x84);
    expect(bench.refusal(1n << 63n)).toBe(0x84);
    expect(bench.translate(0xfffn)).toBe(0x5fff);
  });
});

test('MGAW narrows the input below AW', () => {
  const { bench, map } = secondStage(AW_57_BIT, { MGAW: 47 });
  map((1n << 48n) - 0x1000n, 0x5000, RW);
  expect(bench.translate((1n << 48n) - 1n)).toBe(0x5fff);
  expect(bench.refusal(1n << 48n)).toBe(0x84);
});

describe('permissions', () => {
  test.each([
    [RW, [ACCESS_READ, ACCESS_WRITE], []],
    [SS_R, [ACCESS_READ], [[ACCESS_WRITE, 0x85]]],
    [SS_W, [ACCESS_WRITE], [[ACCESS_READ, 0x86]]],
    [
      0,
      [],
      [
        [ACCESS_READ, 0x79],
        [ACCESS_WRITE, 0x79],
      ],
    ],
  ])('leaf R/W = %i', (flags, allowed, refused) => {
    const { bench, map } = secondStage(AW_48_BIT);
    map(0x1000n, 0x8000, flags);
    for (const access of allowed) expect(bench.translate(0x1000n, access)).toBe(0x8000);
    for (const [access, reason] of refused) expect(bench.refusal(0x1000n, access)).toBe(reason);
  });

  test('are those of every level together; none left is "not present"', () => {
    const { bench, map, root } = secondStage(AW_48_BIT);
    map(0x1000n, 0x8000, SS_W);
    const entry = bench.memory.read32(root);
    bench.memory.write32(root, (entry & ~SS_W) | SS_R);
    expect(bench.refusal(0x1000n, ACCESS_WRITE)).toBe(0x79);
    bench.memory.write32(root, entry & ~SS_R);
    expect(bench.refusal(0x1000n, ACCESS_READ)).toBe(0x86);
    expect(bench.translate(0x1000n, ACCESS_WRITE)).toBe(0x8000);
  });

  test('privilege and execute mean nothing to the second stage', () => {
    const { bench, root, map } = secondStage(AW_48_BIT);
    bench.pasid(RID, 7, { PGTT: PGTT_SECOND_STAGE, AW: AW_48_BIT, DID, SSPTPTR: root });
    map(0x1000n, 0x8000, SS_R);
    expect(bench.translate(0x1000n, ACCESS_PRIVILEGED | ACCESS_EXECUTE, 7)).toBe(0x8000);
  });
});

describe('reserved bits', () => {
  const refusedWith = (bit: number, leafLevel: number, capabilities: Partial<VtdCapabilities> = {}) => {
    const { bench, map } = secondStage(AW_48_BIT, capabilities);
    const entry = map(
      0x4020_1000n & (-1n << BigInt(3 + 9 * leafLevel)),
      0x8000_0000,
      RW | (leafLevel > 1 ? SS_PS : 0),
      leafLevel,
    );
    const at = entry + (bit < 32 ? 0 : 4);
    bench.memory.write32(at, bench.memory.read32(at) | (1 << (bit & 31)));
    const result = bench.translate(0x4020_1000n);
    return result < 0 ? -result : 0;
  };

  test.each([
    [1, [46, 47, 51], [2, 3, 7, 8, 9, 10, 11, 12, 45, 52, 61, 62, 63]],
    [2, [12, 20, 46, 51], [2, 3, 8, 9, 10, 11, 21, 45, 52, 61, 62, 63]],
    [3, [12, 21, 29, 46, 51], [2, 3, 8, 9, 10, 11, 30, 45, 52, 61, 62, 63]],
  ])('leaf of level %i', (level, reserved, ignored) => {
    for (const bit of reserved) expect([bit, refusedWith(bit, level)]).toEqual([bit, 0x7a]);
    for (const bit of ignored) expect([bit, refusedWith(bit, level)]).toEqual([bit, 0]);
  });

  test('depend on SC and DT', () => {
    expect(refusedWith(11, 1, { SC: 0 })).toBe(0x7a);
    expect(refusedWith(62, 1, { DT: 0 })).toBe(0x7a);
    expect(SS_SNP).toBe(1 << 11);
    expect(SS_TM_HIGH).toBe(1 << 30);
  });

  test.each([
    [4, 0, [7, 11, 46, 51, 62], [8, 9, 10, 52, 61, 63]],
    [3, 1, [11, 46, 51, 62], [8, 9, 10, 52, 61, 63]],
    [2, 2, [11, 46, 51, 62], [8, 9, 10, 52, 61, 63]],
  ])('table entry of level %i', (_, depth, reserved, ignored) => {
    const build = (bit: number): number => {
      const { bench, root, map } = secondStage(AW_48_BIT);
      map(0n, 0x8000, RW);
      let entry = root;
      for (let i = 0; i < depth; i++) entry = bench.memory.read32(entry) & ~0xfff;
      const at = entry + (bit < 32 ? 0 : 4);
      bench.memory.write32(at, bench.memory.read32(at) | (1 << (bit & 31)));
      const result = bench.translate(0n);
      return result < 0 ? -result : 0;
    };
    for (const bit of reserved) expect([bit, build(bit)]).toEqual([bit, 0x7a]);
    for (const bit of ignored) expect([bit, build(bit)]).toEqual([bit, 0]);
  });

  test.each([
    [2, { SSLPS: 0b0010 }],
    [3, { SSLPS: 0b0001 }],
  ])('a large page of level %i that is not supported', (level, capabilities) => {
    expect(refusedWith(8, level, capabilities)).toBe(0x7a);
  });

  test('come before permissions', () => {
    const { bench, map } = secondStage(AW_48_BIT);
    map(0n, 0x8000, SS_R, 1, 1 << 14);
    expect(bench.refusal(0n, ACCESS_WRITE)).toBe(0x7a);
  });
});

describe('missing memory', () => {
  const nowhere = 0x3f_0000_0000;
  test('top table', () => {
    const { bench } = secondStage(AW_48_BIT, {}, { SSPTPTR: nowhere });
    expect(bench.refusal(0n)).toBe(0x7b);
  });

  test.each([4, 3, 2])('table below level %i', (level) => {
    const { bench, map } = secondStage(AW_48_BIT);
    map(0n, nowhere, RW, level);
    expect(bench.refusal(0n)).toBe(0x78);
  });

  test('a page need not have any: that is the access itself', () => {
    const { bench, map } = secondStage(AW_48_BIT);
    map(0n, nowhere, RW);
    expect(bench.translate(0n)).toBe(nowhere);
  });
});

test('a result in the interrupt range is SGN.8', () => {
  const { bench, map } = secondStage(AW_48_BIT);
  map(0x1000n, 0xfee0_0000, RW);
  map(0x4000_0000n, 0xc000_0000, RW | SS_PS, 3);
  expect(bench.refusal(0x1000n, ACCESS_WRITE)).toBe(0x87);
  expect(bench.refusal(0x4000_0000n + 0x3eef_f000n)).toBe(0x87);
  expect(bench.translate(0x4000_0000n + 0x3eef_0000n - 0x10_0000n)).toBe(0xfedf_0000);
  expect(bench.translate(0x4000_0000n + 0x3ef0_0000n)).toBe(0xfef0_0000);
});

describe('accessed and dirty', () => {
  const flags = (bench: Bench, entry: number): number => bench.memory.read32(entry) & (SS_A | SS_D);

  test('SSADE = 0 leaves entries alone', () => {
    const { bench, map } = secondStage(AW_48_BIT);
    const leaf = map(0n, 0x8000, RW);
    bench.translate(0n, ACCESS_WRITE);
    expect(flags(bench, leaf)).toBe(0);
  });

  test('A on every level, D on the leaf of a write, and a write after a cached read sets it too', () => {
    const { bench, root, map } = secondStage(AW_48_BIT, {}, { SSADE: 1 });
    const leaf = map(0n, 0x8000, RW);
    expect(bench.translate(0n)).toBe(0x8000);
    expect(flags(bench, leaf)).toBe(SS_A);
    let entry = root;
    for (let i = 0; i < 3; i++) {
      expect(flags(bench, entry)).toBe(SS_A);
      entry = bench.memory.read32(entry) & ~0xfff;
    }
    expect(bench.translate(4n, ACCESS_WRITE)).toBe(0x8004);
    expect(flags(bench, leaf)).toBe(SS_A | SS_D);
    expect(flags(bench, root)).toBe(SS_A);
  });

  test('a refused request sets nothing', () => {
    const { bench, root, map } = secondStage(AW_48_BIT, {}, { SSADE: 1 });
    const leaf = map(0n, 0x8000, SS_R);
    expect(bench.refusal(0n, ACCESS_WRITE)).toBe(0x85);
    expect(bench.refusal(0x1000n)).toBe(0x79);
    expect([flags(bench, leaf), flags(bench, root)]).toEqual([0, 0]);
  });

  test('without page-walk snoop an update is SSS.5, and none is needed where the bits are set', () => {
    const { bench, root, map } = secondStage(AW_48_BIT, {}, { SSADE: 1, PWSNP: 0 });
    const leaf = map(0n, 0x8000, RW | SS_A);
    expect(bench.refusal(0n)).toBe(0x7c);
    let entry = root;
    for (let i = 0; i < 3; i++) {
      const word = bench.memory.read32(entry);
      bench.memory.write32(entry, word | SS_A);
      entry = word & ~0xfff;
    }
    expect(bench.translate(0n)).toBe(0x8000);
    expect(bench.refusal(0n, ACCESS_WRITE)).toBe(0x7c);
    expect(flags(bench, leaf)).toBe(SS_A);
  });
});
