/** From requester id and PASID to the PASID table entry: every way it can fail, and FPD. */
import { ACCESS_READ, ACCESS_TRANSLATED, ACCESS_WRITE } from '../../../lib/sim/bus';
import {
  encodeContextCacheInvalidate,
  encodePasidCacheInvalidate,
  G_GLOBAL,
  NOT_A_FAULT,
  PASID_CACHE_G_GLOBAL,
  AW_39_BIT,
  AW_48_BIT,
  AW_57_BIT,
  contextEntryAddress,
  GCMD_QIE,
  GCMD_REG,
  GCMD_SRTP,
  GCMD_TE,
  pasidDirectoryEntryAddress,
  PGTT_FIRST_STAGE,
  PGTT_NESTED,
  PGTT_PASS_THROUGH,
  PGTT_SECOND_STAGE,
  rootEntryAddress,
  RTADDR_REG,
  RTADDR_TTM_SHIFT,
} from '../../../lib/sim/vtd';
import { Bench, RID } from './bench';

const NOWHERE = 0x3f_0000_0000;
const ADDRESS = 0x1234_5678n;

/** RID passes through, with and without PASID 3. */
function passing(): Bench {
  const bench = new Bench();
  bench.context(RID);
  bench.pasid(RID, 0, { PGTT: PGTT_PASS_THROUGH, DID: 1 });
  bench.pasid(RID, 3, { PGTT: PGTT_PASS_THROUGH, DID: 1 });
  return bench;
}

function setBit(bench: Bench, entry: number, bit: number): void {
  const at = entry + 4 * (bit >> 5);
  bench.memory.write32(at, bench.memory.read32(at) | (1 << (bit & 31)));
}

function clearBit(bench: Bench, entry: number, bit: number): void {
  const at = entry + 4 * (bit >> 5);
  bench.memory.write32(at, bench.memory.read32(at) & ~(1 << (bit & 31)));
}

const outcome = (bench: Bench, pasid = -1, access = ACCESS_READ): number => {
  const result = bench.translate(ADDRESS, access, pasid);
  return result < 0 ? -result : 0;
};

test('translation disabled: addresses pass, and nothing is looked at', () => {
  const bench = new Bench();
  bench.unit.write32(GCMD_REG, GCMD_QIE);
  expect(bench.translate(0xffff_ffff_f000n)).toBe(0xffff_ffff_f000);
  bench.unit.write32(GCMD_REG, GCMD_QIE | GCMD_TE);
  expect(bench.refusal(ADDRESS)).toBe(0x39);
});

test('pass-through: identity up to the host address width, but not into the interrupt range', () => {
  const bench = passing();
  expect(bench.translate(ADDRESS)).toBe(Number(ADDRESS));
  expect(bench.translate(ADDRESS, ACCESS_WRITE, 3)).toBe(Number(ADDRESS));
  expect(bench.translate((1n << 46n) - 1n)).toBe(2 ** 46 - 1);
  expect(bench.refusal(1n << 46n)).toBe(0x83);
  expect(bench.refusal(0xfee0_0000n, ACCESS_WRITE, 3)).toBe(0x87);
});

test('abort-DMA mode blocks every request and records nothing, on a unit that has it', () => {
  const bench = new Bench({ ADMS: 1 });
  bench.write64(RTADDR_REG, bench.rootTable, 3 << RTADDR_TTM_SHIFT);
  bench.unit.write32(GCMD_REG, GCMD_SRTP | GCMD_TE | GCMD_QIE);
  expect(bench.translate(ADDRESS)).toBe(-NOT_A_FAULT);
  expect(bench.translate(ADDRESS, ACCESS_WRITE, 3)).toBe(-NOT_A_FAULT);
  expect(bench.request(ADDRESS).success).toBe(false);
  expect(bench.takeFaults()).toEqual([]);
  expect(bench.complete()).toBe(true);
});

test('TTM: only legacy and scalable mode', () => {
  for (const mode of [2, 3]) {
    const bench = passing();
    bench.write64(RTADDR_REG, bench.rootTable, mode << RTADDR_TTM_SHIFT);
    expect(outcome(bench)).toBe(0);
    bench.unit.write32(GCMD_REG, GCMD_SRTP | GCMD_TE | GCMD_QIE);
    expect(bench.refusal(ADDRESS)).toBe(0x30);
  }
});

test('root entry', () => {
  for (const rid of [RID, RID | 0x80]) {
    const bench = new Bench();
    expect(bench.refusal(ADDRESS, ACCESS_READ, -1, rid)).toBe(0x39);
    bench.context(rid);
    for (const bit of [1, 11, 46, 63]) {
      setBit(bench, rootEntryAddress(bench.rootTable, rid), bit);
      expect(bench.refusal(ADDRESS, ACCESS_READ, -1, rid)).toBe(0x3a);
      clearBit(bench, rootEntryAddress(bench.rootTable, rid), bit);
    }
    expect(bench.refusal(ADDRESS, ACCESS_READ, -1, rid ^ 0x80)).toBe(0x39);
    bench.write64(RTADDR_REG, NOWHERE, 1 << RTADDR_TTM_SHIFT);
    bench.unit.write32(GCMD_REG, GCMD_SRTP | GCMD_TE | GCMD_QIE);
    expect(bench.refusal(ADDRESS, ACCESS_READ, -1, rid)).toBe(0x38);
  }
});

test('context entry', () => {
  const bench = passing();
  const root = rootEntryAddress(bench.rootTable, RID);
  const entry = bench.context(RID);
  for (const bit of [5, 8, 46, 63, 84, 85, 127, 128, 255]) {
    setBit(bench, entry, bit);
    expect([bit, bench.refusal(ADDRESS)]).toEqual([bit, 0x42]);
    clearBit(bench, entry, bit);
  }
  bench.context(RID, { P: 0 });
  expect(bench.refusal(ADDRESS)).toBe(0x41);
  bench.memory.write64(root, Math.floor(NOWHERE / 2 ** 32), 1);
  expect(bench.refusal(ADDRESS)).toBe(0x40);
});

test('context entry fields that depend on capabilities', () => {
  for (const [capabilities, fields] of [
    [{ DT: 0 }, { DTE: 1 }],
    [{ PRS: 0 }, { PRE: 1 }],
    [{ PASID: 0 }, { PASIDE: 1 }],
    [{ RPS: 0 }, { RID_PASID: 1 }],
    [{ RPRIVS: 0 }, { RID_PRIV: 1 }],
  ] as const) {
    const bench = new Bench(capabilities);
    bench.context(RID, fields);
    expect(bench.refusal(ADDRESS)).toBe(0x42);
  }
});

test('PASIDE, PDTS and RID_PASID', () => {
  const bench = passing();
  bench.context(RID, { PASIDE: 0 });
  expect(bench.refusal(ADDRESS, ACCESS_READ, 3)).toBe(0x45);
  expect(outcome(bench)).toBe(0);

  const small = new Bench();
  small.context(RID, { PDTS: 0, RID_PASID: 0x1fff });
  small.pasid(RID, 0x1fff, { PGTT: PGTT_PASS_THROUGH });
  expect(small.refusal(ADDRESS, ACCESS_READ, 0x2000)).toBe(0x46);
  expect(outcome(small, 0x1fff)).toBe(0);
  expect(outcome(small)).toBe(0);

  const large = new Bench();
  large.context(RID, { PDTS: 0, RID_PASID: 0x2000 });
  expect(large.refusal(ADDRESS)).toBe(0x43);
});

test('requests without PASID use RID_PASID', () => {
  const bench = passing();
  bench.context(RID, { RID_PASID: 5 });
  expect(bench.refusal(ADDRESS)).toBe(0x59);
  bench.pasid(RID, 5, { PGTT: PGTT_PASS_THROUGH });
  expect(outcome(bench)).toBe(0);
});

test('PASID directory', () => {
  const bench = passing();
  expect(bench.refusal(ADDRESS, ACCESS_READ, 64)).toBe(0x51);
  const entry = pasidDirectoryEntryAddress(bench.directories.get(RID)!, 3);
  for (const bit of [2, 11, 46, 63]) {
    setBit(bench, entry, bit);
    expect([bit, bench.refusal(ADDRESS, ACCESS_READ, 3)]).toEqual([bit, 0x52]);
    clearBit(bench, entry, bit);
  }
  bench.context(0x31, { PASIDDIRPTR: NOWHERE });
  expect(bench.refusal(ADDRESS, ACCESS_READ, 3, 0x31)).toBe(0x50);
});

test('PASID table entry: access, presence, reserved bits', () => {
  const bench = passing();
  expect(bench.refusal(ADDRESS, ACCESS_READ, 4)).toBe(0x59);
  for (const bit of [5, 10, 11, 80, 86, 89, 90, 91, 95, 96, 127, 129, 136, 139, 192, 511]) {
    const entry = bench.pasid(RID, 3, { PGTT: PGTT_PASS_THROUGH });
    setBit(bench, entry, bit);
    expect([bit, bench.refusal(ADDRESS, ACCESS_READ, 3)]).toEqual([bit, 0x5a]);
  }
  // NXE and SMEP, without execute requests: ignored.
  for (const bit of [133, 134]) {
    setBit(bench, bench.pasid(RID, 3, { PGTT: PGTT_PASS_THROUGH }), bit);
    expect([bit, outcome(bench, 3)]).toEqual([bit, 0]);
    bench.complete(encodePasidCacheInvalidate({ G: PASID_CACHE_G_GLOBAL }));
  }
  const directory = pasidDirectoryEntryAddress(bench.directories.get(RID)!, 3);
  bench.memory.write64(directory, Math.floor(NOWHERE / 2 ** 32), 1);
  expect(bench.refusal(ADDRESS, ACCESS_READ, 3)).toBe(0x58);
});

test('PASID table entry fields that depend on capabilities', () => {
  for (const [capabilities, fields] of [
    [{ SSADS: 0 }, { SSADE: 1 }],
    [{ SMPWCS: 0 }, { PWSNP: 1 }],
    [{ SC: 0 }, { PGSNP: 1, PWSNP: 1 }],
    [{ SRS: 0 }, { SRE: 1 }],
    [{ EAFS: 0 }, { EAFE: 1 }],
  ] as const) {
    const bench = new Bench(capabilities);
    bench.pasid(RID, 0, { PGTT: PGTT_PASS_THROUGH, ...fields });
    expect(bench.refusal(ADDRESS)).toBe(0x5a);
  }
});

test('FPD keeps faults from being recorded, but not those of reading an entry (table 26, "qualified")', () => {
  const bench = new Bench();
  bench.context(RID, { FPD: 1, PASIDDIRPTR: NOWHERE });
  expect(bench.refusal(ADDRESS)).toBe(0x50);
  bench.context(RID, { FPD: 1 });
  bench.complete(encodeContextCacheInvalidate({ G: G_GLOBAL }));
  expect(bench.translate(ADDRESS)).toBe(-0x51);
  const entry = bench.pasid(RID, 0, { PGTT: PGTT_PASS_THROUGH });
  const directory = pasidDirectoryEntryAddress(bench.directories.get(RID)!, 0);
  bench.memory.write64(directory, Math.floor(NOWHERE / 2 ** 32), 3);
  expect(bench.refusal(ADDRESS)).toBe(0x58);
  bench.memory.write64(directory, 0, (entry & ~0xfff) | 3);
  bench.pasid(RID, 0, { PGTT: PGTT_SECOND_STAGE, AW: AW_48_BIT, SSPTPTR: NOWHERE });
  expect(bench.translate(ADDRESS)).toBe(-0x7b);
  expect(bench.takeFaults()).toEqual([]);
});

test('table pointers beyond the host address width, used or not', () => {
  const bench = new Bench();
  bench.pasid(RID, 0, { PGTT: PGTT_PASS_THROUGH, SSPTPTR: 2 ** 46 });
  expect(bench.refusal(ADDRESS)).toBe(0x5a);
  bench.pasid(RID, 0, { PGTT: PGTT_PASS_THROUGH, FSPTPTR: 2 ** 46 });
  expect(bench.refusal(ADDRESS)).toBe(0x5a);
  bench.pasid(RID, 0, { PGTT: PGTT_SECOND_STAGE, AW: AW_48_BIT, SSPTPTR: 2 ** 46 });
  expect(bench.refusal(ADDRESS)).toBe(0x5a);
  bench.pasid(RID, 0, { PGTT: PGTT_FIRST_STAGE, FSPTPTR: 2 ** 46 });
  expect(bench.refusal(ADDRESS)).toBe(0x5a);
});

test.each([
  ['PGTT 0', {}, { PGTT: 0 }],
  ['PGTT 5', {}, { PGTT: 5 }],
  ['no FSTS', { FSTS: 0 }, { PGTT: PGTT_FIRST_STAGE }],
  ['no SSTS', { SSTS: 0 }, { PGTT: PGTT_SECOND_STAGE, AW: AW_48_BIT }],
  ['no NEST', { NEST: 0 }, { PGTT: PGTT_NESTED, AW: AW_48_BIT }],
  ['no PT', { PT: 0 }, { PGTT: PGTT_PASS_THROUGH }],
  ['AW 0', {}, { PGTT: PGTT_SECOND_STAGE, AW: 0 }],
  ['AW 4', {}, { PGTT: PGTT_SECOND_STAGE, AW: 4 }],
  ['AW not in SAGAW', { SAGAW: 0b0100 }, { PGTT: PGTT_SECOND_STAGE, AW: AW_39_BIT }],
  ['AW not in SAGAW, nested', { SAGAW: 0b0100 }, { PGTT: PGTT_NESTED, AW: AW_57_BIT }],
  ['FSPM 2', {}, { PGTT: PGTT_FIRST_STAGE, FSPM: 2 }],
  ['FSPM 1 without FS5LP', { FS5LP: 0 }, { PGTT: PGTT_FIRST_STAGE, FSPM: 1 }],
])('invalid PASID table entry: %s', (_, capabilities, fields) => {
  const bench = new Bench(capabilities);
  bench.pasid(RID, 0, fields);
  expect(bench.refusal(ADDRESS)).toBe(0x5b);
});

describe('FPD: the fault is returned and not recorded', () => {
  const unrecorded = (bench: Bench, reason: number, pasid = 3): void => {
    expect(outcome(bench, pasid)).toBe(reason);
    expect(bench.takeFaults()).toEqual([]);
  };

  test('in the context entry', () => {
    const bench = passing();
    const entry = bench.context(RID, { FPD: 1, P: 0 });
    unrecorded(bench, 0x41);
    bench.context(RID, { FPD: 1 });
    setBit(bench, entry, 5);
    unrecorded(bench, 0x42);
    clearBit(bench, entry, 5);
    unrecorded(bench, 0x59, 4);
    unrecorded(bench, 0x51, 64);
  });

  test('in the PASID directory entry', () => {
    const bench = passing();
    const entry = pasidDirectoryEntryAddress(bench.directories.get(RID)!, 3);
    setBit(bench, entry, 1);
    unrecorded(bench, 0x59, 4);
    clearBit(bench, entry, 0);
    unrecorded(bench, 0x51);
  });

  test('in the PASID table entry, present or not, fresh or cached', () => {
    const bench = passing();
    bench.pasid(RID, 3, { P: 0, FPD: 1 });
    unrecorded(bench, 0x59);
    bench.pasid(RID, 3, { FPD: 1, PGTT: PGTT_FIRST_STAGE, FSPTPTR: bench.page() });
    unrecorded(bench, 0x71);
    unrecorded(bench, 0x71);
    expect(bench.refusal(ADDRESS, ACCESS_READ, 4)).toBe(0x59);
  });
});

test('translated requests need DTE, and nothing more', () => {
  const bench = passing();
  expect(bench.translate(ADDRESS, ACCESS_TRANSLATED)).toBe(-0x44);
  expect(bench.fault()).toMatchObject({ FR: 0x44, AT: 2, T1: 1 });
  bench.takeFaults();
  const other = new Bench();
  other.context(RID, { DTE: 1, PASIDE: 0 });
  expect(other.translate(ADDRESS, ACCESS_TRANSLATED | ACCESS_WRITE)).toBe(Number(ADDRESS));
  expect(other.refusal(ADDRESS, ACCESS_TRANSLATED, 3)).toBe(0x45);
  expect(other.refusal(1n << 46n, ACCESS_TRANSLATED)).toBe(0x83);
  expect(other.refusal(0xfee0_1000n, ACCESS_TRANSLATED)).toBe(0x87);
});

test('context entries are indexed by function within the half', () => {
  const bench = passing();
  expect(bench.context(0x2f) - bench.context(RID)).toBe(15 * 32);
  expect(contextEntryAddress(0, 0x2f)).toBe(0x2f * 32);
});
