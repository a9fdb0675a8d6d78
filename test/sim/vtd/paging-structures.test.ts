/** Paging-structure caches: VT-d specification rev. 4.1, sections 6.2.5 and 6.5.2. */
import { ACCESS_READ, ACCESS_WRITE, NO_PASID } from '../../../lib/sim/bus';
import {
  AW_48_BIT,
  describeStaleUse,
  encodeIotlbInvalidate,
  encodePasidIotlbInvalidate,
  FS_A,
  G_DOMAIN,
  G_GLOBAL,
  G_PAGE,
  PASID_IOTLB_G_PAGE,
  PASID_IOTLB_G_PASID,
  PGTT_NESTED,
  StaleUse,
} from '../../../lib/sim/vtd';
import { ALL, Bench, RID, RW, TwoStages } from './bench';

const { DID } = TwoStages;
const FIRST = 1;
/** Two pages of one table, and where they and the others of a new table lead. */
const USED = 0x1234_5000n;
const OTHER = 0x1234_6000n;
const OLD = 0x50_0000;
const NEW = 0x60_0000;

/** PASID 0 (none): second stage; 1: first stage. USED was translated; then the entry of `level` was put on a new table. */
class Moved extends TwoStages {
  constructor(
    readonly pasidValue: number,
    level: number,
    strict?: (use: StaleUse) => void,
    structureCaches?: boolean,
  ) {
    super({}, strict, structureCaches);
    for (const address of [USED, OTHER]) this.place(address, OLD);
    expect(this.read(USED)).toBe(OLD);
    this.memory.write64(this.entryOf(USED, level), 0, 0);
    for (const address of [USED, OTHER]) this.place(address, NEW);
  }

  get root(): number {
    return this.pasidValue === FIRST ? this.first : this.second;
  }

  place(address: bigint, target: number): void {
    const flags = this.pasidValue === FIRST ? ALL : RW;
    this.map(this.root, 4, address, target, flags, flags);
  }

  read(address: bigint, access = ACCESS_READ): number {
    return this.translate(address, access, this.pasidValue === FIRST ? FIRST : NO_PASID);
  }

  /** Address of the entry of `level` (4 is the top) for an address. */
  entryOf(address: bigint, level: number): number {
    let table = this.root;
    for (let at = 4; ; at--) {
      const entry = table + 8 * Number((address >> BigInt(3 + 9 * at)) & 0x1ffn);
      if (at === level) return entry;
      table = this.memory.read32(entry) & ~0xfff;
    }
  }
}

const STAGES: [string, number][] = [
  ['second stage', 0],
  ['first stage', FIRST],
];

describe.each(STAGES)('%s', (_, pasid) => {
  test.each([2, 3, 4])('a walk begins below a cached entry, of level %i here', (level) => {
    const bench = new Moved(pasid, level);
    // OTHER is not in the IOTLB, and the entries above it are those of USED.
    expect(bench.read(OTHER)).toBe(OLD);
    bench.complete(encodeIotlbInvalidate({ G: G_GLOBAL }));
    expect(bench.read(OTHER)).toBe(NEW);
  });

  test('what permits is cached with it', () => {
    const bench = new Moved(pasid, 2);
    bench.complete(encodeIotlbInvalidate({ G: G_GLOBAL }));
    expect(bench.read(USED)).toBe(NEW);
    const top = bench.entryOf(USED, 4);
    bench.memory.write32(top, bench.memory.read32(top) & ~2);
    expect(bench.read(OTHER, ACCESS_WRITE)).toBe(NEW);
    bench.complete(encodeIotlbInvalidate({ G: G_GLOBAL }));
    expect(bench.read(OTHER, ACCESS_WRITE)).toBe(-0x85);
    // And the other way round: denied with what is cached, though the table now permits.
    bench.memory.write32(top, bench.memory.read32(top) | 2);
    expect(bench.read(USED)).toBe(NEW);
    expect(bench.read(OTHER, ACCESS_WRITE)).toBe(NEW);
  });

  test('an entry that is not present is not cached, nor anything of a walk that faults', () => {
    const bench = new Moved(pasid, 2);
    bench.complete(encodeIotlbInvalidate({ G: G_GLOBAL }));
    const middle = bench.entryOf(OTHER, 2);
    const value = bench.memory.read32(middle);
    bench.memory.write32(middle, 0);
    expect(bench.read(OTHER)).toBe(pasid === FIRST ? -0x71 : -0x79);
    bench.memory.write32(middle, value);
    expect(bench.read(OTHER)).toBe(NEW);
  });
});

const second = (fields: object): Int32Array => encodeIotlbInvalidate({ DID, ...fields });
const first = (fields: object): Int32Array => encodePasidIotlbInvalidate({ DID, PASID: FIRST, ...fields });
const AT = Number(OTHER);

test.each<[string, number, Int32Array, boolean]>([
  ['its domain', 0, second({ G: G_DOMAIN }), true],
  ['another domain', 0, second({ G: G_DOMAIN, DID: DID + 1 }), false],
  ['the page', 0, second({ G: G_PAGE, ADDR: AT }), true],
  ['the page, IH = 1', 0, second({ G: G_PAGE, ADDR: AT, IH: 1 }), false],
  ['another page of the table', 0, second({ G: G_PAGE, ADDR: AT - 0x4000 }), true],
  ['a page of the next table', 0, second({ G: G_PAGE, ADDR: AT + 0x20_0000 }), false],
  ['4 MiB around that', 0, second({ G: G_PAGE, ADDR: 0x1240_0000, AM: 10 }), false],
  ['8 MiB around that', 0, second({ G: G_PAGE, ADDR: 0x1240_0000, AM: 11 }), true],
  ['the page, in another domain', 0, second({ G: G_PAGE, DID: DID + 1, ADDR: AT }), false],
  [
    'a PASID page does not reach a second stage',
    0,
    first({ G: PASID_IOTLB_G_PAGE, PASID: 0, ADDR: AT }),
    false,
  ],
  ['a PASID does', 0, first({ G: PASID_IOTLB_G_PASID, PASID: 0 }), true],
  ['the PASID', FIRST, first({ G: PASID_IOTLB_G_PASID }), true],
  ['another PASID', FIRST, first({ G: PASID_IOTLB_G_PASID, PASID: 0 }), false],
  ['the page', FIRST, first({ G: PASID_IOTLB_G_PAGE, ADDR: AT }), true],
  ['the page, IH = 1', FIRST, first({ G: PASID_IOTLB_G_PAGE, ADDR: AT, IH: 1 }), false],
  ['a page of the next table', FIRST, first({ G: PASID_IOTLB_G_PAGE, ADDR: AT + 0x20_0000 }), false],
  ['any second-stage page of the domain', FIRST, second({ G: G_PAGE, ADDR: 0x1000 }), true],
  ['the same, IH = 1', FIRST, second({ G: G_PAGE, ADDR: 0x1000, IH: 1 }), false],
])('invalidation of %s (PASID %i)', (_, pasid, descriptor, effective) => {
  const bench = new Moved(pasid, 2);
  bench.complete(descriptor);
  expect(bench.read(OTHER)).toBe(effective ? NEW : OLD);
});

test('A is set in the entries that are read: not in those that are cached', () => {
  const bench = new Moved(FIRST, 2);
  bench.complete(encodeIotlbInvalidate({ G: G_GLOBAL }));
  expect(bench.read(USED)).toBe(NEW);
  const middle = bench.entryOf(USED, 2);
  bench.memory.write32(middle, bench.memory.read32(middle) & ~FS_A);
  expect(bench.read(OTHER)).toBe(NEW);
  expect(bench.memory.read32(middle) & FS_A).toBe(0);
  expect(bench.memory.read32(bench.entryOf(OTHER, 1)) & FS_A).toBe(FS_A);
  bench.complete(encodeIotlbInvalidate({ G: G_GLOBAL }));
  expect(bench.read(OTHER)).toBe(NEW);
  expect(bench.memory.read32(middle) & FS_A).toBe(FS_A);
});

test('nested walks use the second stage that is cached', () => {
  const bench = new Bench();
  const parent = bench.page();
  const guest = bench.page();
  bench.pasid(RID, 0, { PGTT: PGTT_NESTED, AW: AW_48_BIT, DID, SSPTPTR: parent, FSPTPTR: guest });
  for (const page of [guest, 0x7000_0000, 0x7000_1000]) bench.map(parent, 4, BigInt(page), page, RW, RW);
  const tables = [bench.page(), bench.page(), bench.page()];
  for (const table of tables) bench.map(parent, 4, BigInt(table), table, RW, RW);
  [guest, ...tables].forEach((table, i) => {
    bench.memory.write64(table + 8 * (i === 3 ? 1 : 0), 0, (tables[i] ?? 0x7000_0000) | ALL);
    if (i === 3) bench.memory.write64(table + 16, 0, 0x7000_1000 | ALL);
  });
  expect(bench.translate(0x1000n)).toBe(0x7000_0000);
  // The second stage's table for 0x7000_xxxx is replaced by one that leads elsewhere.
  const replacement = bench.page();
  bench.memory.write64(replacement + 8, 0, NEW | RW);
  const top = bench.memory.read32(parent) & ~0xfff;
  const directory = bench.memory.read32(top + 8) & ~0xfff;
  bench.memory.write64(directory + 8 * 0x180, 0, replacement | RW);
  expect(bench.translate(0x2000n)).toBe(0x7000_1000);
  bench.complete(second({ G: G_PAGE, ADDR: 0x7000_1000 }));
  expect(bench.translate(0x2000n)).toBe(NEW);
});

test('a unit can do without', () => {
  expect(new Moved(0, 2, undefined, false).read(OTHER)).toBe(NEW);
});

test('strict mode names the entry that was cached, and the invalidation that is missing', () => {
  const uses: StaleUse[] = [];
  const bench = new Moved(0, 3, (use) => uses.push(use));
  expect(uses).toEqual([]);
  expect(bench.read(OTHER)).toBe(OLD);
  expect(uses).toHaveLength(1);
  expect(uses[0]).toMatchObject({ cache: 'paging-structure cache', entry: bench.entryOf(OTHER, 3) });
  expect(describeStaleUse(uses[0]!)).toMatch(
    /no IOTLB invalidation of page 0x12346 in domain 7 with IH = 0 followed$/,
  );
  // The IOTLB now has what the stale walk found.
  expect(bench.read(OTHER)).toBe(OLD);
  expect(uses[1]).toMatchObject({ cache: 'IOTLB', entry: bench.entryOf(OTHER, 3) });
  bench.complete(second({ G: G_PAGE, ADDR: Number(OTHER) }));
  expect(bench.read(OTHER)).toBe(NEW);
  expect(uses).toHaveLength(2);
});

test('strict mode keeps silent about a table that changed and says the same', () => {
  const uses: StaleUse[] = [];
  const bench = new Moved(0, 2, (use) => uses.push(use));
  bench.place(OTHER, OLD);
  expect(bench.read(OTHER)).toBe(OLD);
  expect(uses).toEqual([]);
});
