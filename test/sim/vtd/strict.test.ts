/** Strict mode: every stale use is reported, naming what changed and what was left out; what is not stale is not. */
import {
  ACCESS_PRIVILEGED,
  ACCESS_READ,
  ACCESS_TRANSLATED,
  ACCESS_WRITE,
  NO_PASID,
} from '../../../lib/sim/bus';
import {
  AW_48_BIT,
  describeStaleUse,
  encodeContextCacheInvalidate,
  encodeIotlbInvalidate,
  encodePasidCacheInvalidate,
  encodePasidIotlbInvalidate,
  FS_D,
  G_DEVICE,
  G_PAGE,
  PASID_CACHE_G_PASID,
  PASID_IOTLB_G_PAGE,
  PGTT_NESTED,
  PGTT_PASS_THROUGH,
  SS_R,
  SS_W,
  StaleUse,
} from '../../../lib/sim/vtd';
import { ALL, RID, RW, TwoStages } from './bench';
import { ADDRESS as LEGACY_ADDRESS, Legacy } from './legacy-bench';

const ADDRESS = 0x12_3456_7000n;
const { DID } = TwoStages;

class Strict extends TwoStages {
  readonly uses: StaleUse[];

  constructor() {
    const uses: StaleUse[] = [];
    super({ SSADS: 1 }, (use) => uses.push(use));
    this.uses = uses;
  }

  place(target: number, flags = RW): number {
    return this.map(this.second, 4, ADDRESS, target, flags, RW);
  }

  placeFirst(target: number, flags = ALL): number {
    return this.map(this.first, 4, ADDRESS, target, flags, ALL);
  }

  /** The one use reported since the last call. */
  take(): StaleUse {
    expect(this.uses).toHaveLength(1);
    return this.uses.pop()!;
  }
}

describe('a translation', () => {
  test('of the second stage: the word, what it was and is, and the invalidation', () => {
    const bench = new Strict();
    const leaf = bench.place(0x50_0000);
    bench.translate(ADDRESS);
    expect(bench.uses).toEqual([]);
    bench.place(0x60_0000);
    expect(bench.translate(ADDRESS + 8n, ACCESS_WRITE)).toBe(0x50_0008);
    const use = bench.take();
    expect(use).toEqual({
      rid: RID,
      pasid: NO_PASID,
      high: 0x12,
      low: 0x3456_7008,
      access: ACCESS_WRITE,
      cache: 'IOTLB',
      entry: leaf,
      was: [0, 0x50_0003],
      is: [0, 0x60_0003],
      missing: 'IOTLB invalidation of page 0x1234567 in domain 7',
    });
    expect(describeStaleUse(use)).toBe(
      `stale use of the IOTLB by function 0x20 at 0x1234567008: the word at 0x${leaf.toString(16)}, 0x500003 ` +
        'became 0x600003, and no IOTLB invalidation of page 0x1234567 in domain 7 followed',
    );
    // Every use is one, until software has done it.
    bench.translate(ADDRESS);
    bench.take();
    bench.complete(encodeIotlbInvalidate({ G: G_PAGE, DID, ADDR: Number(ADDRESS) }));
    expect(bench.translate(ADDRESS)).toBe(0x60_0000);
    expect(bench.uses).toEqual([]);
  });

  test('of the first stage, taken away', () => {
    const bench = new Strict();
    const leaf = bench.placeFirst(0x50_0000);
    bench.translate(ADDRESS, ACCESS_WRITE, 1);
    bench.memory.write64(leaf, 0, 0);
    expect(bench.translate(ADDRESS, ACCESS_READ, 1)).toBe(0x50_0000);
    expect(bench.take()).toMatchObject({
      pasid: 1,
      entry: leaf,
      is: [0, 0],
      missing: 'PASID-based IOTLB invalidation of page 0x1234567, PASID 1, domain 7',
    });
    bench.complete(
      encodePasidIotlbInvalidate({ G: PASID_IOTLB_G_PAGE, DID, PASID: 1, ADDR: Number(ADDRESS) }),
    );
    expect(bench.refusal(ADDRESS, ACCESS_READ, 1)).toBe(0x71);
    expect(bench.uses).toEqual([]);
  });

  test('whose upper table was replaced', () => {
    const bench = new Strict();
    bench.place(0x50_0000);
    bench.translate(ADDRESS);
    bench.memory.write64(bench.second, 0, bench.page() | RW);
    bench.translate(ADDRESS);
    expect(bench.take()).toMatchObject({ cache: 'IOTLB', entry: bench.second });
  });

  test('of both stages: a change of either', () => {
    const bench = new Strict();
    const guest = 0x1000n;
    bench.map(bench.second, 4, guest, bench.page(), RW, RW);
    const inner = bench.map(bench.second, 4, 0x5000n, 0x50_0000, RW, RW);
    // The guest's tables lie where the second stage has them, one to one.
    for (let page = BigInt(bench.first); page < BigInt(bench.first) + 0x10_0000n; page += 4096n)
      bench.map(bench.second, 4, page, Number(page), RW, RW);
    bench.map(bench.first, 4, ADDRESS, 0x5000, ALL, ALL);
    bench.pasid(RID, 2, {
      PGTT: PGTT_NESTED,
      AW: AW_48_BIT,
      DID,
      SSPTPTR: bench.second,
      FSPTPTR: bench.first,
    });
    expect(bench.translate(ADDRESS, ACCESS_READ, 2)).toBe(0x50_0000);
    bench.memory.write64(inner, 0, 0x60_0000 | RW);
    expect(bench.translate(ADDRESS, ACCESS_READ, 2)).toBe(0x50_0000);
    const missing = 'IOTLB invalidation of domain 7';
    expect(bench.take()).toMatchObject({ pasid: 2, entry: inner, missing });
    bench.memory.write64(inner, 0, 0x50_0000 | RW);
    const outer = bench.map(bench.first, 4, ADDRESS, 0x6000, ALL, ALL);
    expect(bench.translate(ADDRESS, ACCESS_READ, 2)).toBe(0x50_0000);
    const outerMissing = 'PASID-based IOTLB invalidation of page 0x1234567, PASID 2, domain 7';
    expect(bench.take()).toMatchObject({ pasid: 2, entry: outer, missing: outerMissing });
  });

  test('of both stages: where the first stage has its tables', () => {
    const bench = new Strict();
    const [was, is] = [bench.page(), bench.page()];
    const table = bench.map(bench.second, 4, 0x1000n, was, RW, RW);
    for (const page of [5, 6]) bench.map(bench.second, 4, BigInt(page) << 12n, page << 20, RW, RW);
    // Entry 0 leads to the table again, from level to level; entry 1 to a page.
    for (const page of [was, is]) bench.memory.write64(page, 0, 0x1000 | ALL);
    bench.memory.write64(was + 8, 0, 0x5000 | ALL);
    bench.memory.write64(is + 8, 0, 0x6000 | ALL);
    const fields = { PGTT: PGTT_NESTED, AW: AW_48_BIT, DID, SSPTPTR: bench.second, FSPTPTR: 0x1000 };
    bench.pasid(RID, 2, fields);
    expect(bench.translate(0x1000n, ACCESS_READ, 2)).toBe(0x50_0000);
    bench.memory.write64(table, 0, is | RW);
    expect(bench.translate(0x1000n, ACCESS_READ, 2)).toBe(0x50_0000);
    expect(bench.take()).toMatchObject({ cache: 'IOTLB', entry: table });
  });

  test('asked for by a device with ATS', () => {
    const bench = new Strict();
    bench.context(RID, { DTE: 1 });
    bench.place(0x50_0000);
    bench.request(ADDRESS);
    bench.place(0x60_0000);
    expect(bench.request(ADDRESS).low).toBe(0x50_0000);
    expect(bench.take()).toMatchObject({ cache: 'IOTLB', low: 0x3456_7000 });
  });

  test('asked for by a device with ATS, which is told of a permission that was not asked for', () => {
    const bench = new Strict();
    bench.context(RID, { DTE: 1 });
    const entry = bench.place(0x50_0000);
    expect(bench.request(ADDRESS, ACCESS_WRITE)).toMatchObject({ read: true, write: true });
    bench.place(0x50_0000, SS_W);
    expect(bench.translate(ADDRESS, ACCESS_WRITE)).toBe(0x50_0000);
    expect(bench.uses).toEqual([]);
    expect(bench.request(ADDRESS, ACCESS_WRITE)).toMatchObject({ read: true, write: true });
    expect(bench.take()).toMatchObject({ cache: 'IOTLB', entry });
  });
});

describe('an entry above', () => {
  test('the context entry', () => {
    const bench = new Strict();
    bench.place(0x50_0000);
    bench.translate(ADDRESS);
    const entry = bench.context(RID, { P: 0 });
    expect(bench.translate(ADDRESS)).toBe(0x50_0000);
    expect(bench.take()).toMatchObject({ cache: 'context-cache', entry });
    bench.complete(encodeContextCacheInvalidate({ G: G_DEVICE, SID: RID }));
    expect(bench.refusal(ADDRESS)).toBe(0x41);
    expect(bench.uses).toEqual([]);
  });

  test('the context entry, for a request with a translated address', () => {
    const bench = new Strict();
    bench.context(RID, { DTE: 1 });
    expect(bench.translate(ADDRESS, ACCESS_TRANSLATED)).toBe(Number(ADDRESS));
    bench.context(RID, { DTE: 0 });
    expect(bench.translate(ADDRESS, ACCESS_TRANSLATED)).toBe(Number(ADDRESS));
    expect(bench.take()).toMatchObject({ cache: 'context-cache', access: ACCESS_TRANSLATED });
  });

  test('the PASID table entry', () => {
    const bench = new Strict();
    bench.place(0x50_0000);
    bench.translate(ADDRESS);
    const entry = bench.pasid(RID, 0, { PGTT: PGTT_PASS_THROUGH, DID });
    expect(bench.translate(ADDRESS)).toBe(0x50_0000);
    expect(bench.take()).toMatchObject({
      cache: 'PASID-cache',
      entry,
      missing: 'PASID-cache invalidation of PASID 0 in domain 7',
    });
    bench.complete(encodePasidCacheInvalidate({ G: PASID_CACHE_G_PASID, DID, PASID: 0 }));
    expect(bench.uses).toEqual([]);
  });
});

describe('not stale', () => {
  test('more than before: a page that was not there, a permission that was not', () => {
    const bench = new Strict();
    expect(bench.refusal(ADDRESS)).toBe(0x79);
    bench.place(0x50_0000, SS_R);
    expect(bench.translate(ADDRESS)).toBe(0x50_0000);
    bench.place(0x50_0000, RW);
    expect(bench.translate(ADDRESS)).toBe(0x50_0000);
    expect(bench.translate(ADDRESS, ACCESS_WRITE)).toBe(0x50_0000);
    expect(bench.uses).toEqual([]);
  });

  test('A and D that software has cleared', () => {
    const bench = new Strict();
    const leaf = bench.placeFirst(0x50_0000);
    bench.translate(ADDRESS, ACCESS_WRITE, 1);
    expect(bench.memory.read32(leaf) & FS_D).not.toBe(0);
    bench.placeFirst(0x50_0000);
    expect(bench.translate(ADDRESS, ACCESS_WRITE, 1)).toBe(0x50_0000);
    expect(bench.uses).toEqual([]);
  });

  test('another table with the same translation', () => {
    const bench = new Strict();
    bench.place(0x50_0000);
    bench.translate(ADDRESS);
    bench.memory.write64(bench.second, 0, 0);
    bench.place(0x50_0000);
    expect(bench.translate(ADDRESS)).toBe(0x50_0000);
    expect(bench.uses).toEqual([]);
  });

  test('what the PASID table entry itself refuses', () => {
    const bench = new Strict();
    bench.placeFirst(0x50_0000);
    bench.translate(ADDRESS, ACCESS_READ, 1);
    bench.map(bench.first, 4, ADDRESS + 0x1000n, 0x60_0000, ALL, ALL);
    bench.translate(ADDRESS + 0x1000n, ACCESS_READ, 1);
    bench.memory.write64(bench.first, 0, 0);
    expect(bench.refusal(ADDRESS, ACCESS_PRIVILEGED, 1)).toBe(0x5d);
    expect(bench.uses).toEqual([]);
  });

  test('a legacy context entry whose bits for software have changed', () => {
    const uses: StaleUse[] = [];
    const bench = new Legacy({}, (use) => uses.push(use));
    for (const IGN of [0, 1, 8]) {
      bench.set({ IGN });
      bench.translate(LEGACY_ADDRESS);
      expect(uses).toEqual([]);
    }
    bench.set({ DID: 6 });
    bench.translate(LEGACY_ADDRESS);
    expect(uses).toMatchObject([{ cache: 'context-cache', entry: bench.entry + 8 }]);
  });

  test('pass-through, after tables were used at the same place', () => {
    const bench = new Strict();
    bench.place(0x50_0000);
    bench.translate(ADDRESS);
    bench.pasid(RID, 0, { PGTT: PGTT_PASS_THROUGH, DID });
    bench.complete(
      encodePasidCacheInvalidate({ G: PASID_CACHE_G_PASID, DID, PASID: 0 }),
      encodeIotlbInvalidate({ G: G_PAGE, DID, ADDR: Number(ADDRESS) }),
    );
    for (let i = 0; i < 2; i++) expect(bench.translate(ADDRESS)).toBe(Number(ADDRESS));
    expect(bench.uses).toEqual([]);
  });
});
