/** Legacy mode: VT-d specification rev. 4.1, sections 3.4.2, 9.1, 9.3 and table 26. */
import { ACCESS_READ, ACCESS_TRANSLATED, ACCESS_WRITE, NO_PASID } from '../../../lib/sim/bus';
import {
  AW_39_BIT,
  AW_48_BIT,
  AW_57_BIT,
  encodeContextCacheInvalidate,
  encodeIotlbInvalidate,
  encodeLegacyContextEntry,
  G_DEVICE,
  G_DOMAIN,
  G_PAGE,
  RTADDR_REG,
  SS_PS,
  SS_R,
  SS_SNP,
  SS_W,
  TT_ALL,
  TT_PASS_THROUGH,
  TT_UNTRANSLATED,
} from '../../../lib/sim/vtd';
import { RID, RW } from './bench';
import { ADDRESS, Legacy, TARGET } from './legacy-bench';

test('translates through the second stage of the context entry', () => {
  const bench = new Legacy();
  expect(bench.translate(ADDRESS)).toBe(TARGET + 0x678);
  expect(bench.translate(ADDRESS, ACCESS_WRITE)).toBe(TARGET + 0x678);
});

test('one table serves the 256 functions of a bus', () => {
  const bench = new Legacy();
  const entry = encodeLegacyContextEntry({ P: 1, AW: AW_48_BIT, SSPTPTR: bench.tables });
  bench.memory.writeWords(bench.legacyContexts + 0xf8 * 16, entry);
  expect(bench.translate(ADDRESS, ACCESS_READ, NO_PASID, 0xf8)).toBe(TARGET + 0x678);
});

describe('root and context entries', () => {
  test.each<[string, (bench: Legacy) => void, number]>([
    ['root entry not present', (bench) => bench.flip(bench.rootEntry, 1), 0x01],
    ['root entry, bit 1', (bench) => bench.flip(bench.rootEntry, 2), 0x0a],
    ['root entry, bit 46, beyond the host width', (bench) => bench.flip(bench.rootEntry + 4, 1 << 14), 0x0a],
    ['root entry, upper half', (bench) => bench.flip(bench.rootEntry + 8, 1), 0x0a],
    ['context table without memory', (bench) => bench.flip(bench.rootEntry, 1 << 30), 0x09],
    ['context entry not present', (bench) => bench.flip(bench.entry, 1), 0x02],
    ['context entry, bit 4', (bench) => bench.flip(bench.entry, 1 << 4), 0x0b],
    ['context entry, bit 11', (bench) => bench.flip(bench.entry, 1 << 11), 0x0b],
    ['context entry, bit 71', (bench) => bench.flip(bench.entry + 8, 1 << 7), 0x0b],
    ['context entry, bit 88', (bench) => bench.flip(bench.entry + 8, 1 << 24), 0x0b],
    ['context entry, bit 127', (bench) => bench.flip(bench.entry + 12, 1 << 31), 0x0b],
    ['SSPTPTR beyond the host width', (bench) => bench.flip(bench.entry + 4, 1 << 14), 0x0b],
    ['AW of 30 bits', (bench) => bench.set({ AW: 0 }), 0x03],
    ['AW that SAGAW has not', (bench) => bench.set({ AW: 4 }), 0x03],
    ['TT reserved', (bench) => bench.set({ TT: 3 }), 0x03],
    ['top table without memory', (bench) => bench.set({ SSPTPTR: 2 ** 40 }), 0x03],
  ])('%s', (_, change, reason) => {
    const bench = new Legacy();
    change(bench);
    expect(bench.refusal(ADDRESS)).toBe(reason);
  });

  test('a root table without memory', () => {
    const bench = new Legacy();
    bench.write64(RTADDR_REG, 2 ** 40, 0);
    bench.reload();
    expect(bench.refusal(ADDRESS)).toBe(0x08);
  });

  test('bits 70:67 of a context entry are for software', () => {
    const bench = new Legacy();
    bench.flip(bench.entry + 8, 0x78);
    expect(bench.translate(ADDRESS)).toBe(TARGET + 0x678);
  });

  test('TT and AW need their capabilities', () => {
    const all = new Legacy({ DT: 0, PRS: 0 });
    all.set({ TT: TT_ALL });
    expect(all.refusal(ADDRESS)).toBe(0x03);
    const passing = new Legacy({ PT: 0 });
    passing.set({ TT: TT_PASS_THROUGH });
    expect(passing.refusal(ADDRESS)).toBe(0x03);
    const narrow = new Legacy({ SAGAW: 0b00010 });
    expect(narrow.refusal(ADDRESS)).toBe(0x03);
  });

  test('FPD: nothing is recorded, present or not', () => {
    const bench = new Legacy();
    bench.set({ FPD: 1, AW: 0 });
    expect(bench.translate(ADDRESS)).toBe(-0x03);
    bench.set({ FPD: 1, P: 0 });
    expect(bench.translate(ADDRESS)).toBe(-0x02);
    bench.set({ FPD: 1 });
    expect(bench.translate(0x77_0000n)).toBe(-0x06);
    expect(bench.takeFaults()).toEqual([]);
    bench.flip(bench.rootEntry, 1);
    expect(bench.refusal(ADDRESS)).toBe(0x01);
  });
});

describe('second stage', () => {
  test('an entry without R and W denies, as one without the wanted bit does', () => {
    const bench = new Legacy();
    expect(bench.refusal(0x77_0000n)).toBe(0x06);
    expect(bench.refusal(0x77_0000n, ACCESS_WRITE)).toBe(0x05);
    bench.map(bench.tables, 4, 0x10_0000_0000n, TARGET, SS_R, RW);
    expect(bench.refusal(0x10_0000_0000n, ACCESS_WRITE)).toBe(0x05);
    bench.map(bench.tables, 4, 0x10_0000_1000n, TARGET, SS_W, RW);
    expect(bench.refusal(0x10_0000_1000n)).toBe(0x06);
    // R above and W below leave nothing.
    bench.map(bench.tables, 4, 0x20_0000_0000n, TARGET, SS_W, SS_R);
    expect(bench.refusal(0x20_0000_0000n)).toBe(0x06);
    expect(bench.refusal(0x20_0000_0000n, ACCESS_WRITE)).toBe(0x05);
  });

  test('reserved bits, missing tables, results among the interrupts', () => {
    const bench = new Legacy({ SC: 0 });
    bench.map(bench.tables, 4, 0x1000n, TARGET, RW | SS_SNP, RW);
    expect(bench.refusal(0x1000n)).toBe(0x0c);
    bench.map(bench.tables, 4, 0x20_0000n, TARGET, RW | SS_PS, RW, 2);
    expect(bench.refusal(0x20_0000n)).toBe(0x0c);
    bench.map(bench.tables, 4, 0x40_0000n, 2 ** 40, RW, RW, 2);
    expect(bench.refusal(0x40_0000n)).toBe(0x07);
    bench.map(bench.tables, 4, 0x2000n, 0xfee0_0000, RW, RW);
    expect(bench.refusal(0x2000n, ACCESS_WRITE)).toBe(0x0e);
  });

  test('A and D are left alone', () => {
    const bench = new Legacy();
    const leaf = bench.map(bench.tables, 4, ADDRESS & ~0xfffn, TARGET, RW, RW);
    bench.translate(ADDRESS, ACCESS_WRITE);
    expect(bench.memory.read32(leaf)).toBe(TARGET | RW);
  });

  test.each([
    [AW_39_BIT, 3, 39],
    [AW_48_BIT, 4, 48],
    [AW_57_BIT, 5, 57],
  ])('AW %i: %i levels, %i bits', (AW, levels, width) => {
    const bench = new Legacy();
    bench.set({ AW });
    const last = (1n << BigInt(width)) - 4096n;
    bench.map(bench.tables, levels, last, TARGET, RW, RW);
    expect(bench.translate(last)).toBe(TARGET);
    expect(bench.refusal(1n << BigInt(width))).toBe(0x04);
  });
});

test('pass-through: identity up to the host address width', () => {
  const bench = new Legacy();
  bench.set({ TT: TT_PASS_THROUGH });
  expect(bench.translate(ADDRESS, ACCESS_WRITE)).toBe(Number(ADDRESS));
  expect(bench.translate((1n << 46n) - 1n)).toBe(2 ** 46 - 1);
  expect(bench.refusal(1n << 46n)).toBe(0x04);
});

describe('other requests', () => {
  test('with PASID, and page requests, are scalable mode’s', () => {
    const bench = new Legacy();
    expect(bench.refusal(ADDRESS, ACCESS_READ, 1)).toBe(0x31);
    const request = { high: 0, low: 0x1000, read: true, write: true, execute: false, privileged: false };
    expect(bench.unit.pageRequest(RID, { ...request, pasid: NO_PASID, last: true, prgIndex: 1 })).toBe(false);
    expect(bench.takeFaults()).toEqual([0x32]);
  });

  test('translation and translated requests need TT 1', () => {
    const bench = new Legacy();
    expect(bench.request(ADDRESS).success).toBe(false);
    expect(bench.takeFaults()).toEqual([0x0d]);
    expect(bench.translate(0x5000n, ACCESS_TRANSLATED)).toBe(-0x0d);
    expect(bench.takeFaults()).toEqual([0x0d]);
    bench.set({ TT: TT_ALL });
    bench.reload();
    expect(bench.request(ADDRESS, ACCESS_WRITE)).toMatchObject({ low: TARGET, read: true, write: true });
    expect(bench.request(0x77_0000n)).toMatchObject({ success: true, read: false, write: false });
    expect(bench.request(1n << 50n)).toMatchObject({ success: true, read: false, write: false });
    expect(bench.translate(0x5000n, ACCESS_TRANSLATED)).toBe(0x5000);
    expect(bench.takeFaults()).toEqual([]);
  });
});

describe('caches', () => {
  test('the context entry is cached until its function or its domain is invalidated', () => {
    const bench = new Legacy();
    expect(bench.translate(ADDRESS)).toBe(TARGET + 0x678);
    const passes = (): boolean => bench.translate(ADDRESS) === Number(ADDRESS);
    bench.set({ TT: TT_PASS_THROUGH, DID: 6 });
    bench.complete(encodeContextCacheInvalidate({ G: G_DOMAIN, DID: 6 }));
    bench.complete(encodeContextCacheInvalidate({ G: G_DEVICE, SID: RID + 1 }));
    expect(passes()).toBe(false);
    bench.complete(encodeContextCacheInvalidate({ G: G_DOMAIN, DID: 5 }));
    expect(passes()).toBe(true);
    bench.set({ TT: TT_UNTRANSLATED });
    expect(passes()).toBe(true);
    bench.complete(encodeContextCacheInvalidate({ G: G_DEVICE, SID: RID }));
    expect(passes()).toBe(false);
  });

  test('pages go by domain', () => {
    const bench = new Legacy();
    expect(bench.translate(ADDRESS)).toBe(TARGET + 0x678);
    bench.map(bench.tables, 4, ADDRESS & ~0xfffn, 0x50_0000, RW, RW);
    const page = { G: G_PAGE, ADDR: Number(ADDRESS & ~0xfffn) };
    bench.complete(encodeIotlbInvalidate({ ...page, DID: 6 }));
    expect(bench.translate(ADDRESS)).toBe(TARGET + 0x678);
    bench.complete(encodeIotlbInvalidate({ ...page, DID: 5 }));
    expect(bench.translate(ADDRESS)).toBe(0x50_0678);
  });
});
