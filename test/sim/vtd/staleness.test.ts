/** Caches keep what they have until software invalidates it, and lose exactly what an invalidation names. */
import { ACCESS_READ, ACCESS_WRITE, NO_PASID } from '../../../lib/sim/bus';
import {
  AW_48_BIT,
  encodeContextCacheInvalidate,
  encodeIotlbInvalidate,
  encodePasidCacheInvalidate,
  encodePasidIotlbInvalidate,
  FS_PS,
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
  PASID_IOTLB_G_PAGE,
  PASID_IOTLB_G_PASID,
  PGTT_FIRST_STAGE,
  PGTT_NESTED,
  PGTT_PASS_THROUGH,
  PGTT_SECOND_STAGE,
  SS_PS,
  SS_R,
} from '../../../lib/sim/vtd';
import { MAX_TAGS } from '../../../lib/sim/vtd/iotlb';
import { ALL, Bench, RID, RW, TwoStages } from './bench';

const { DID } = TwoStages;
const OLD = 0x50_0000;
const NEW = 0x60_0000;

/** PASID 0 (no PASID): second stage; 1: first stage; 2: nested over the same second stage; all in one domain. */
class Cached extends TwoStages {
  readonly leaves = new Map<string, number>();

  place(pasid: number, address: bigint, target: number): void {
    const key = `${pasid} ${address}`;
    const leaf =
      pasid <= 0
        ? this.map(this.second, 4, address, target, RW, RW)
        : this.map(this.first, 4, address, target, ALL, ALL);
    this.leaves.set(key, leaf);
  }

  /** Maps pages to OLD + address and uses them, then remaps them to NEW + address. */
  stale(pasid: number, ...addresses: bigint[]): void {
    for (const address of addresses) {
      this.place(pasid, address, OLD + Number(address));
      expect(this.translate(address, ACCESS_READ, pasid)).toBe(OLD + Number(address));
      this.place(pasid, address, NEW + Number(address));
      expect(this.isStale(pasid, address)).toBe(true);
    }
  }

  isStale(pasid: number, address: bigint): boolean {
    const result = this.translate(address, ACCESS_READ, pasid);
    expect([OLD + Number(address), NEW + Number(address)]).toContain(result);
    return result === OLD + Number(address);
  }
}

const NONE = NO_PASID;

describe('IOTLB invalidation', () => {
  test('page-selective drops the page and no other', () => {
    const bench = new Cached();
    bench.stale(NONE, 0x1000n, 0x2000n, 0x3000n);
    bench.complete(encodeIotlbInvalidate({ G: G_PAGE, DID: DID + 1, ADDR: 0x2000 }));
    expect(bench.isStale(NONE, 0x2000n)).toBe(true);
    bench.complete(encodeIotlbInvalidate({ G: G_PAGE, DID, ADDR: 0x2000 }));
    expect([0x1000n, 0x2000n, 0x3000n].map((a) => bench.isStale(NONE, a))).toEqual([true, false, true]);
  });

  test.each([1, 2, 6, 7, 9, 18, 31, 32, 33, 45])('address mask %i', (AM) => {
    const bench = new Cached();
    const size = 1n << BigInt(12 + AM);
    // Pages that share no slot of the IOTLB: a collision would look like an invalidation.
    const inside = [size, size + 0x1000n, size + size / 2n + 0x2000n, 2n * size - 0x1000n].filter(
      (a) => a < 2n * size,
    );
    const outside = [size - 0x4000n, 2n * size + 0x5000n].filter((a) => a > 0n);
    const all = AM === 45 ? [0x1000n, (1n << 47n) + 0x2000n] : [...new Set([...inside, ...outside])];
    const addresses = all.filter((a) => a < 1n << 48n);
    expect(addresses.length).toBeGreaterThan(1);
    for (const address of addresses) {
      bench.place(NONE, address, OLD);
      expect(bench.translate(address)).toBe(OLD);
      bench.place(NONE, address, NEW);
    }
    const base = AM === 45 ? 0 : Number((size + size / 2n) & ~0xfffn);
    const touched = (address: bigint): boolean => (AM === 45 ? true : address >> BigInt(12 + AM) === 1n);
    bench.complete(encodeIotlbInvalidate({ G: G_PAGE, DID, AM, ADDR: base }));
    for (const address of addresses) {
      expect([address, bench.translate(address)]).toEqual([address, touched(address) ? NEW : OLD]);
    }
  });

  test('page-selective reaches first-stage and nested entries of the domain, wherever they are', () => {
    const bench = new Cached();
    bench.stale(1, 0x1000n);
    bench.stale(NONE, 0x1000n);
    bench.complete(encodeIotlbInvalidate({ G: G_PAGE, DID, ADDR: 0x9000 }));
    expect(bench.isStale(1, 0x1000n)).toBe(false);
    expect(bench.isStale(NONE, 0x1000n)).toBe(true);
  });

  test('domain-selective and global', () => {
    const bench = new Cached();
    bench.stale(NONE, 0x1000n, 0x1234_5000n);
    bench.stale(1, 0x1000n);
    bench.complete(encodeIotlbInvalidate({ G: G_DOMAIN, DID: DID + 1 }));
    expect(bench.isStale(NONE, 0x1000n)).toBe(true);
    bench.complete(encodeIotlbInvalidate({ G: G_DOMAIN, DID }));
    expect([
      bench.isStale(NONE, 0x1000n),
      bench.isStale(NONE, 0x1234_5000n),
      bench.isStale(1, 0x1000n),
    ]).toEqual([false, false, false]);
    bench.stale(NONE, 0x8000n);
    bench.complete(encodeIotlbInvalidate({ G: G_GLOBAL }));
    expect(bench.isStale(NONE, 0x8000n)).toBe(false);
  });

  test('one 4 KiB page of a large one takes all of it', () => {
    for (const [level, size] of [
      [2, 0x20_0000n],
      [3, 0x4000_0000n],
    ] as const) {
      const bench = new Cached();
      const used = [size, size + 0x5000n, 2n * size - 0x1000n];
      bench.map(bench.second, 4, size, Number(8n * size), RW | SS_PS, RW, level);
      for (const address of used) expect(bench.translate(address)).toBe(Number(7n * size + address));
      bench.map(bench.second, 4, size, Number(16n * size), RW | SS_PS, RW, level);
      for (const address of used) expect(bench.translate(address)).toBe(Number(7n * size + address));
      bench.complete(encodeIotlbInvalidate({ G: G_PAGE, DID, ADDR: Number(size) + 0x3000 }));
      for (const address of used) expect(bench.translate(address)).toBe(Number(15n * size + address));
    }
  });

  test('PASID-based: page-selective reaches first-stage entries of that PASID only', () => {
    const bench = new Cached();
    bench.stale(1, 0x1000n, 0x2000n);
    bench.stale(NONE, 0x1000n);
    bench.complete(encodePasidIotlbInvalidate({ G: PASID_IOTLB_G_PAGE, DID, PASID: 0, ADDR: 0x1000 }));
    bench.complete(
      encodePasidIotlbInvalidate({ G: PASID_IOTLB_G_PAGE, DID: DID + 1, PASID: 1, ADDR: 0x1000 }),
    );
    expect([bench.isStale(NONE, 0x1000n), bench.isStale(1, 0x1000n)]).toEqual([true, true]);
    bench.complete(encodePasidIotlbInvalidate({ G: PASID_IOTLB_G_PAGE, DID, PASID: 1, ADDR: 0x1000 }));
    expect([bench.isStale(1, 0x1000n), bench.isStale(1, 0x2000n)]).toEqual([false, true]);
    bench.stale(1, 0x3000n);
    bench.complete(encodePasidIotlbInvalidate({ G: PASID_IOTLB_G_PAGE, DID, PASID: 1, AM: 8, ADDR: 0 }));
    expect([bench.isStale(1, 0x2000n), bench.isStale(1, 0x3000n)]).toEqual([false, false]);
  });

  test('PASID-based: a page of a large first-stage page takes all of it', () => {
    const bench = new Cached();
    const at = 0x20_0000n;
    bench.map(bench.first, 4, at, 0x40_0000, ALL | FS_PS, ALL, 2);
    expect(bench.translate(at + 0x7000n, ACCESS_READ, 1)).toBe(0x40_7000);
    bench.map(bench.first, 4, at, 0x80_0000, ALL | FS_PS, ALL, 2);
    bench.complete(encodePasidIotlbInvalidate({ G: PASID_IOTLB_G_PAGE, DID, PASID: 1, ADDR: Number(at) }));
    expect(bench.translate(at + 0x7000n, ACCESS_READ, 1)).toBe(0x80_7000);
  });

  test('PASID-selective reaches every entry of the PASID', () => {
    const bench = new Cached();
    bench.stale(1, 0x1000n);
    bench.stale(NONE, 0x1000n);
    bench.complete(encodePasidIotlbInvalidate({ G: PASID_IOTLB_G_PASID, DID, PASID: 1 }));
    expect([bench.isStale(1, 0x1000n), bench.isStale(NONE, 0x1000n)]).toEqual([false, true]);
    bench.complete(encodePasidIotlbInvalidate({ G: PASID_IOTLB_G_PASID, DID, PASID: 0 }));
    expect(bench.isStale(NONE, 0x1000n)).toBe(false);
  });

  test('nested entries go with either stage', () => {
    for (const invalidate of [
      encodeIotlbInvalidate({ G: G_PAGE, DID, ADDR: 0x70_0000 }),
      encodePasidIotlbInvalidate({ G: PASID_IOTLB_G_PAGE, DID, PASID: 2, ADDR: 0x1000 }),
      encodePasidIotlbInvalidate({ G: PASID_IOTLB_G_PASID, DID, PASID: 2 }),
    ]) {
      const bench = new Cached();
      bench.pasid(RID, 2, {
        PGTT: PGTT_NESTED,
        AW: AW_48_BIT,
        DID,
        SSPTPTR: bench.second,
        FSPTPTR: bench.first,
      });
      bench.map(bench.first, 4, 0x1000n, 0x30_0000, ALL, ALL);
      // Guest memory that holds the tables is mapped one to one.
      bench.map(bench.second, 4, 0n, 0, RW | SS_PS, RW, 2);
      bench.place(NONE, 0x30_0000n, OLD);
      expect(bench.translate(0x1000n, ACCESS_READ, 2)).toBe(OLD);
      bench.place(NONE, 0x30_0000n, NEW);
      expect(bench.translate(0x1000n, ACCESS_READ, 2)).toBe(OLD);
      bench.complete(invalidate);
      expect(bench.translate(0x1000n, ACCESS_READ, 2)).toBe(NEW);
    }
  });

  test('an entry without the permission asked for is looked up again', () => {
    const bench = new Cached();
    const leaf = bench.map(bench.second, 4, 0x1000n, OLD, SS_R, RW);
    expect(bench.translate(0x1000n)).toBe(OLD);
    expect(bench.refusal(0x1000n, ACCESS_WRITE)).toBe(0x85);
    bench.memory.write64(leaf, 0, NEW | RW);
    expect(bench.translate(0x1000n)).toBe(OLD);
    expect(bench.translate(0x1000n, ACCESS_WRITE)).toBe(NEW);
    expect(bench.translate(0x1000n)).toBe(NEW);
  });

  test('faults are not cached', () => {
    const bench = new Cached();
    expect(bench.refusal(0x1000n)).toBe(0x79);
    bench.place(NONE, 0x1000n, NEW);
    expect(bench.translate(0x1000n)).toBe(NEW);
  });

  test('a stale 4 KiB entry is served over a new 2 MiB page', () => {
    const bench = new Cached();
    bench.place(NONE, 0x40_1000n, OLD);
    expect(bench.translate(0x40_1000n)).toBe(OLD);
    bench.map(bench.second, 4, 0x40_0000n, 0x80_0000, RW | SS_PS, RW, 2);
    // The table that was there before the large page is still in the paging-structure caches.
    expect([bench.translate(0x40_1000n), bench.translate(0x40_2000n)]).toEqual([OLD, -0x79]);
    expect(bench.takeFaults()).toEqual([0x79]);
    bench.complete(encodeIotlbInvalidate({ G: G_PAGE, DID, ADDR: 0x40_2000 }));
    expect([bench.translate(0x40_1000n), bench.translate(0x40_2000n)]).toEqual([OLD, 0x80_2000]);
  });
});

describe('context and PASID caches', () => {
  /** PASID 0's entry is used, then replaced by one that passes through: addresses tell which is in use. */
  const replaced = (): Cached => {
    const bench = new Cached();
    bench.place(NONE, 0x1000n, OLD);
    expect(bench.translate(0x1000n)).toBe(OLD);
    bench.pasid(RID, 0, { PGTT: PGTT_PASS_THROUGH, DID: DID + 1 });
    expect(bench.translate(0x1000n)).toBe(OLD);
    return bench;
  };

  test.each([
    ['domain', encodePasidCacheInvalidate({ G: PASID_CACHE_G_DOMAIN, DID }), 0x1000],
    ['another domain', encodePasidCacheInvalidate({ G: PASID_CACHE_G_DOMAIN, DID: DID + 1 }), OLD],
    ['PASID', encodePasidCacheInvalidate({ G: PASID_CACHE_G_PASID, DID, PASID: 0 }), 0x1000],
    ['another PASID', encodePasidCacheInvalidate({ G: PASID_CACHE_G_PASID, DID, PASID: 1 }), OLD],
    ['PASID of another domain', encodePasidCacheInvalidate({ G: PASID_CACHE_G_PASID, DID: 1 }), OLD],
    ['global', encodePasidCacheInvalidate({ G: PASID_CACHE_G_GLOBAL }), 0x1000],
    ['context global', encodeContextCacheInvalidate({ G: G_GLOBAL }), OLD],
    ['IOTLB global', encodeIotlbInvalidate({ G: G_GLOBAL }), OLD],
  ])('PASID-cache invalidation: %s', (_, descriptor, expected) => {
    const bench = replaced();
    bench.complete(descriptor);
    expect(bench.translate(0x1000n)).toBe(expected);
  });

  test('a PASID-cache invalidation leaves translations alone', () => {
    const bench = new Cached();
    bench.stale(NONE, 0x1000n);
    bench.complete(encodePasidCacheInvalidate({ G: PASID_CACHE_G_GLOBAL }));
    bench.complete(encodeContextCacheInvalidate({ G: G_GLOBAL }));
    expect(bench.isStale(NONE, 0x1000n)).toBe(true);
  });

  test.each([
    ['the device', { G: G_DEVICE, SID: RID }, true],
    ['another device', { G: G_DEVICE, SID: RID + 1 }, false],
    ['function mask 1 spares other low bits', { G: G_DEVICE, SID: RID + 1, FM: 1 }, false],
    ['function mask 1', { G: G_DEVICE, SID: RID + 4, FM: 1 }, true],
    ['function mask 2', { G: G_DEVICE, SID: RID + 6, FM: 2 }, true],
    ['function mask 2 spares bit 0', { G: G_DEVICE, SID: RID + 7, FM: 2 }, false],
    ['function mask 3', { G: G_DEVICE, SID: RID + 7, FM: 3 }, true],
    ['function mask 3 spares other devices', { G: G_DEVICE, SID: RID + 8, FM: 3 }, false],
    ['a domain: all, in scalable mode', { G: G_DOMAIN }, true],
    ['all', { G: G_GLOBAL }, true],
  ])('context-cache invalidation: %s', (_, fields, effective) => {
    const bench = new Cached();
    bench.place(NONE, 0x1000n, OLD);
    expect(bench.translate(0x1000n)).toBe(OLD);
    bench.context(RID, { P: 0 });
    expect(bench.translate(0x1000n)).toBe(OLD);
    bench.complete(encodeContextCacheInvalidate(fields));
    expect(bench.translate(0x1000n)).toBe(effective ? -0x41 : OLD);
  });

  test('requests without PASID notice a new RID_PASID only after a context-cache invalidation', () => {
    const bench = new Cached();
    bench.place(NONE, 0x1000n, OLD);
    bench.place(1, 0x1000n, NEW);
    expect(bench.translate(0x1000n)).toBe(OLD);
    bench.context(RID, { RID_PASID: 1 });
    expect(bench.translate(0x1000n)).toBe(OLD);
    bench.complete(encodeContextCacheInvalidate({ G: G_DEVICE, SID: RID }));
    expect(bench.translate(0x1000n)).toBe(NEW);
  });
});

test('functions and PASIDs take turns without mixing up', () => {
  const bench = new Bench();
  const keys: [number, number][] = [];
  for (const rid of [0x08, 0x10, 0x118, 0x1f8]) {
    for (const pasid of [NO_PASID, 1, 2]) {
      const root = bench.page();
      bench.context(rid);
      const entry = { PGTT: PGTT_FIRST_STAGE, DID: keys.length, FSPTPTR: root };
      bench.pasid(rid, Math.max(pasid, 0), entry);
      bench.map(root, 4, 0x1000n, 0x10_0000 + 0x1000 * keys.length, ALL, ALL);
      keys.push([rid, pasid]);
    }
  }
  for (let round = 0; round < 3; round++) {
    keys.forEach(([rid, pasid], i) => {
      expect(bench.translate(0x1000n, ACCESS_WRITE, pasid, rid)).toBe(0x10_0000 + 0x1000 * i);
    });
  }
});

test('TE off and on, and SRTP, drop everything', () => {
  for (const commands of [[GCMD_QIE, GCMD_QIE | GCMD_TE], [GCMD_QIE | GCMD_TE | GCMD_SRTP]]) {
    const bench = new Cached();
    bench.stale(NONE, 0x1000n);
    for (const command of commands) bench.unit.write32(GCMD_REG, command);
    expect(bench.isStale(NONE, 0x1000n)).toBe(false);
  }
});

test('without ESRTPS, SRTP drops nothing', () => {
  const bench = new Bench({ ESRTPS: 0 });
  bench.pasid(RID, 0, { PGTT: PGTT_PASS_THROUGH });
  expect(bench.translate(0x1000n)).toBe(0x1000);
  bench.context(RID, { P: 0 });
  bench.unit.write32(GCMD_REG, GCMD_QIE | GCMD_TE | GCMD_SRTP);
  expect(bench.translate(0x1000n)).toBe(0x1000);
});

test('more (domain, PASID) pairs than the IOTLB has tags for', () => {
  const bench = new Bench();
  const count = MAX_TAGS + 10;
  for (let pasid = 0; pasid < count; pasid++) {
    bench.pasid(RID, pasid, { PGTT: PGTT_PASS_THROUGH, DID: pasid & 0xff });
    expect(bench.translate(0x1000n, ACCESS_READ, pasid)).toBe(0x1000);
  }
  bench.pasid(RID, 5, { P: 0 });
  bench.complete(encodePasidCacheInvalidate({ G: PASID_CACHE_G_PASID, DID: 5, PASID: 5 }));
  expect(bench.translate(0x1000n, ACCESS_READ, 5)).toBe(-0x59);
  expect(bench.translate(0x1000n, ACCESS_READ, count - 1)).toBe(0x1000);
});

test('tags that translation requests have used up: memory requests of others forget theirs', () => {
  const bench = new Bench();
  const [mine, others] = [bench.page(), bench.page()];
  bench.map(mine, 4, 0n, OLD, RW, RW);
  bench.map(others, 4, 0n, NEW, RW, RW);
  bench.pasid(RID, 0, { PGTT: PGTT_SECOND_STAGE, AW: AW_48_BIT, DID, SSPTPTR: mine });
  expect(bench.translate(0n)).toBe(OLD);
  const rid = RID + 8;
  bench.context(rid, { DTE: 1 });
  const entry = { PGTT: PGTT_SECOND_STAGE, AW: AW_48_BIT, DID: DID + 1, SSPTPTR: others };
  for (let pasid = 1; pasid <= MAX_TAGS + 10; pasid++) {
    bench.pasid(rid, pasid, entry);
    expect(bench.request(0n, ACCESS_READ, pasid, rid).low).toBe(NEW);
  }
  expect(bench.translate(0n)).toBe(OLD);
});
