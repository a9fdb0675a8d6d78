/** Which requests snoop the processors' caches whatever they ask for: SNP of second-stage leaves, and PGSNP. */
import { ACCESS_WRITE } from '../../../lib/sim/bus';
import {
  AW_48_BIT,
  encodeIotlbInvalidate,
  encodePasidCacheInvalidate,
  G_GLOBAL,
  PASID_CACHE_G_GLOBAL,
  PGTT_FIRST_STAGE,
  PGTT_NESTED,
  PGTT_PASS_THROUGH,
  PGTT_SECOND_STAGE,
  SS_SNP,
} from '../../../lib/sim/vtd';
import { ALL, Bench, RID, RW, type PasidFields } from './bench';

/** Page 1 with SNP, page 2 without; the same in a first stage, which has no such bit. */
function scene(fields: PasidFields, capabilities = {}): Bench {
  const bench = new Bench(capabilities);
  const [second, first] = [bench.page(), bench.page()];
  bench.context(RID);
  for (const [page, flags] of [
    [1, RW | SS_SNP],
    [2, RW],
  ]) {
    bench.map(second, 4, BigInt(page * 4096), 0x40_0000 + page * 4096, flags, RW);
    bench.map(first, 4, BigInt(page * 4096), 0x80_0000 + page * 4096, ALL, ALL);
  }
  bench.pasid(RID, 0, { AW: AW_48_BIT, DID: 3, SSPTPTR: second, FSPTPTR: first, ...fields });
  return bench;
}

/** For a request to each page: whether it has to snoop. Twice, the second time out of the IOTLB. */
function forced(bench: Bench): boolean[] {
  const each = [0x1000, 0x2000].map((low) => {
    const found = [0, 1].map(() => {
      expect(bench.unit.translate(RID, -1, 0, low + 8, ACCESS_WRITE)).toBeGreaterThan(0);
      return bench.unit.forcesSnoop(0, low + 8);
    });
    expect(found[0]).toBe(found[1]);
    return found[0];
  });
  return each;
}

test('a second stage says it in each leaf; PGSNP is not for it', () => {
  expect(forced(scene({ PGTT: PGTT_SECOND_STAGE }))).toEqual([true, false]);
  expect(forced(scene({ PGTT: PGTT_SECOND_STAGE, PGSNP: 1 }))).toEqual([true, false]);
});

test('a first stage, and pass-through, say it in the PASID entry', () => {
  for (const PGTT of [PGTT_FIRST_STAGE, PGTT_PASS_THROUGH]) {
    expect(forced(scene({ PGTT }))).toEqual([false, false]);
    expect(forced(scene({ PGTT, PGSNP: 1 }))).toEqual([true, true]);
  }
});

test('nothing is left of the translation before', () => {
  const bench = scene({ PGTT: PGTT_SECOND_STAGE });
  const root = bench.page();
  bench.map(root, 4, 0x3000n, 0x90_0000, ALL, ALL);
  bench.pasid(RID, 1, { PGTT: PGTT_FIRST_STAGE, DID: 4, FSPTPTR: root });
  bench.pasid(RID, 2, { PGTT: PGTT_PASS_THROUGH, DID: 5 });
  for (const pasid of [1, 2]) {
    // Each walk follows one of a leaf with SNP, which is then not in the IOTLB any more.
    bench.submit(encodeIotlbInvalidate({ G: G_GLOBAL }));
    const ask = (of: number, low: number) => {
      expect(bench.unit.translate(RID, of, 0, low, 0)).toBeGreaterThan(0);
      return bench.unit.forcesSnoop(0, low);
    };
    expect([ask(-1, 0x1000), ask(pasid, 0x3000)]).toEqual([true, false]);
  }
});

test('nested, either is enough', () => {
  const bench = new Bench();
  const second = bench.page();
  const guest = [0x10_0000, 0x10_1000, 0x10_2000, 0x10_3000];
  const host = guest.map(() => bench.page());
  bench.context(RID);
  guest.forEach((at, i) => bench.map(second, 4, BigInt(at), host[i], RW, RW));
  guest.slice(0, 3).forEach((_, i) => bench.memory.write64(host[i], 0, guest[i + 1] | ALL));
  for (const [page, flags] of [
    [1, RW | SS_SNP],
    [2, RW],
  ]) {
    bench.memory.write64(host[3] + 8 * page, 0, (0x20_0000 + page * 4096) | ALL);
    bench.map(second, 4, BigInt(0x20_0000 + page * 4096), 0x40_0000 + page * 4096, flags, RW);
  }
  const fields = { PGTT: PGTT_NESTED, AW: AW_48_BIT, DID: 3, SSPTPTR: second, FSPTPTR: guest[0] };
  bench.pasid(RID, 0, fields);
  expect(forced(bench)).toEqual([true, false]);
  bench.pasid(RID, 0, { ...fields, PGSNP: 1 });
  const everything = encodePasidCacheInvalidate({ G: PASID_CACHE_G_GLOBAL });
  bench.submit(everything, encodeIotlbInvalidate({ G: G_GLOBAL }));
  expect(forced(bench)).toEqual([true, true]);
});

test('without snoop control (ECAP.SC) both bits are reserved', () => {
  const leaves = scene({ PGTT: PGTT_SECOND_STAGE }, { SC: 0 });
  expect(leaves.refusal(0x1000n)).toBe(0x7a);
  expect(leaves.translate(0x2000n)).toBe(0x40_2000);
  expect(scene({ PGTT: PGTT_FIRST_STAGE, PGSNP: 1 }, { SC: 0 }).refusal(0x2000n)).toBe(0x5a);
});

test('the IOTLB keeps it until it is invalidated, and the address is not touched by it', () => {
  const bench = new Bench();
  const root = bench.page();
  bench.context(RID);
  const leaf = bench.map(root, 4, 0x1000n, 0x7_0000_1000, RW | SS_SNP, RW);
  bench.pasid(RID, 0, { PGTT: PGTT_SECOND_STAGE, AW: AW_48_BIT, DID: 3, SSPTPTR: root });
  const ask = () => [bench.translate(0x1000n), bench.unit.forcesSnoop(0, 0x1000)];
  expect(ask()).toEqual([0x7_0000_1000, true]);
  bench.memory.write32(leaf, bench.memory.read32(leaf) & ~SS_SNP);
  expect(ask()).toEqual([0x7_0000_1000, true]);
  bench.submit(encodeIotlbInvalidate({ G: G_GLOBAL }));
  expect(ask()).toEqual([0x7_0000_1000, false]);
});

test('a translation completion says that requests must snoop (N)', () => {
  const bench = scene({ PGTT: PGTT_SECOND_STAGE });
  bench.context(RID, { DTE: 1 });
  const snooped = (low: number) => bench.unit.translationRequest(RID, -1, 0, low, 0).snooped;
  // The second time it is in the IOTLB.
  for (let time = 0; time < 2; time++) expect([snooped(0x1000), snooped(0x2000)]).toEqual([true, false]);
});

test('while translation is off nothing is forced', () => {
  const bench = new Bench();
  bench.unit.write32(0x18, 0);
  expect(bench.unit.forcesSnoop(0, 0x1000)).toBe(false);
});
