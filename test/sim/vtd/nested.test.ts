import { ACCESS_READ, ACCESS_WRITE } from '../../../lib/sim/bus';
import {
  AW_39_BIT,
  AW_48_BIT,
  FS_A,
  FS_D,
  FS_P,
  FS_PS,
  FS_US,
  PGTT_NESTED,
  SS_A,
  SS_D,
  SS_PS,
  SS_R,
  SS_W,
} from '../../../lib/sim/vtd';
import { ALL, Bench, PasidFields, RID, RW } from './bench';

const PASID = 4;

/** A guest whose page g lies at host page `host(g)`, with first-stage tables in guest memory. */
function nested(fields: PasidFields = {}, AW = AW_48_BIT) {
  const bench = new Bench();
  const second = bench.page();
  bench.context(RID);
  const hostOf = new Map<number, number>();
  const leafOf = new Map<number, number>();
  const mapGuest = (guest: number, host: number, flags = RW): void => {
    hostOf.set(guest, host);
    leafOf.set(guest, bench.map(second, AW + 2, BigInt(guest), host, flags, RW));
  };
  const tables = [0x10_0000, 0x10_1000, 0x10_2000, 0x10_3000];
  for (const table of tables) mapGuest(table, bench.page());
  const setEntry = (level: number, index: number, target: number, flags: number): number => {
    const entry = hostOf.get(tables[4 - level]!)! + 8 * index;
    bench.memory.write64(entry, Math.floor(target / 2 ** 32), target | flags);
    return entry;
  };
  for (const level of [4, 3, 2]) setEntry(level, 0, tables[5 - level]!, ALL);
  bench.pasid(RID, PASID, {
    PGTT: PGTT_NESTED,
    AW,
    DID: 2,
    SSPTPTR: second,
    FSPTPTR: tables[0]!,
    ...fields,
  });
  const translate = (address: bigint, access = ACCESS_READ): number => {
    const result = bench.translate(address, access, PASID);
    expect(bench.takeFaults()).toEqual(result < 0 ? [-result] : []);
    return result;
  };
  const setFlags = (guest: number, flags: number): void => {
    const leaf = leafOf.get(guest)!;
    bench.memory.write32(leaf, (bench.memory.read32(leaf) & ~RW) | flags);
  };
  return { bench, second, tables, mapGuest, setEntry, translate, setFlags, leafOf };
}

test('both stages, 4 KiB', () => {
  const { mapGuest, setEntry, translate } = nested();
  mapGuest(0x20_0000, 0x3_4567_8000);
  setEntry(1, 5, 0x20_0000, ALL);
  expect(translate(0x5abcn)).toBe(0x3_4567_8abc);
  expect(translate(0x5000n, ACCESS_WRITE)).toBe(0x3_4567_8000);
});

test('a large first-stage page over small second-stage pages, and the other way around', () => {
  const { bench, second, mapGuest, setEntry, translate } = nested();
  setEntry(2, 1, 0x40_0000, ALL | FS_PS);
  mapGuest(0x40_3000, 0x9000);
  expect(translate(0x20_3008n)).toBe(0x9008);
  expect(translate(0x20_4008n)).toBe(-0x79);
  bench.map(second, 4, 0x8000_0000n, 0x2_4000_0000, RW | SS_PS, RW, 3);
  setEntry(1, 6, 0x8123_4000, ALL);
  expect(translate(0x6123n)).toBe(0x2_4123_4123);
});

test('a translation completion covers the smaller of the two pages', () => {
  const { bench, second, mapGuest, setEntry } = nested();
  bench.context(RID, { DTE: 1 });
  setEntry(2, 1, 0x40_0000, ALL | FS_PS);
  mapGuest(0x40_3000, 0x9000);
  bench.map(second, 4, 0x8000_0000n, 0x2_4000_0000, RW | SS_PS, RW, 3);
  setEntry(2, 2, 0x8020_0000, ALL | FS_PS);
  for (let cached = 0; cached < 2; cached++) {
    expect(bench.request(0x20_3008n, ACCESS_READ, PASID)).toMatchObject({ low: 0x9000, length: 4096 });
    const large = { high: 2, low: 0x4020_0000, length: 0x20_0000 };
    expect(bench.request(0x41_2345n, ACCESS_READ, PASID)).toMatchObject(large);
  }
});

test('permissions are those of both stages', () => {
  const { mapGuest, setEntry, translate } = nested();
  mapGuest(0x20_0000, 0x8000, SS_R);
  mapGuest(0x20_1000, 0x9000, SS_W);
  mapGuest(0x20_2000, 0xa000);
  setEntry(1, 0, 0x20_0000, ALL);
  setEntry(1, 1, 0x20_1000, ALL);
  setEntry(1, 2, 0x20_2000, FS_P | FS_US);
  setEntry(1, 3, 0x20_3000, ALL);
  expect(translate(0x0000n)).toBe(0x8000);
  expect(translate(0x0000n, ACCESS_WRITE)).toBe(-0x85);
  expect(translate(0x1000n)).toBe(-0x86);
  expect(translate(0x2000n, ACCESS_WRITE)).toBe(-0x85);
  expect(translate(0x3000n)).toBe(-0x79);
  expect(translate(0x4000n)).toBe(-0x71);
});

test('a first-stage table the second stage does not let read', () => {
  const { setFlags, tables, setEntry, mapGuest, translate } = nested();
  mapGuest(0x20_0000, 0x8000);
  setEntry(1, 0, 0x20_0000, ALL);
  setFlags(tables[0]!, SS_W);
  expect(translate(0n)).toBe(-0x75);
  setFlags(tables[0]!, RW);
  setFlags(tables[2]!, SS_W);
  expect(translate(0n)).toBe(-0x76);
  setFlags(tables[2]!, 0);
  expect(translate(0n)).toBe(-0x79);
});

test('a first-stage table the second stage does not let write: only while A or D has to be set', () => {
  const { bench, setFlags, tables, setEntry, mapGuest, translate } = nested();
  mapGuest(0x20_0000, 0x8000);
  const leaf = setEntry(1, 0, 0x20_0000, ALL);
  setFlags(tables[3]!, SS_R);
  expect(translate(0n)).toBe(-0x77);
  bench.memory.write32(leaf, bench.memory.read32(leaf) | FS_A);
  expect(translate(0n)).toBe(0x8000);
  expect(translate(0n, ACCESS_WRITE)).toBe(-0x77);
  expect(bench.memory.read32(leaf) & FS_D).toBe(0);
  setFlags(tables[3]!, RW);
  expect(translate(0n, ACCESS_WRITE)).toBe(0x8000);
  expect(bench.memory.read32(leaf) & FS_D).toBe(FS_D);
});

test('guest addresses beyond the second stage', () => {
  const wide = 2 ** 39;
  expect(nested({ FSPTPTR: wide }, AW_39_BIT).translate(0n)).toBe(-0x84);
  for (const level of [4, 3, 2, 1]) {
    const { setEntry, translate } = nested({}, AW_39_BIT);
    setEntry(level, 0, wide, ALL);
    expect(translate(0n)).toBe(-0x74);
  }
});

test('second-stage A and D: of tables read and written, and of the page', () => {
  const { bench, leafOf, tables, setEntry, mapGuest, translate } = nested({ SSADE: 1 });
  mapGuest(0x20_0000, 0x8000);
  setEntry(1, 0, 0x20_0000, ALL);
  const marks = (guest: number): number => bench.memory.read32(leafOf.get(guest)!) & (SS_A | SS_D);
  expect(translate(0n)).toBe(0x8000);
  // First-stage A bits were written into every table.
  expect(tables.map(marks)).toEqual([SS_A | SS_D, SS_A | SS_D, SS_A | SS_D, SS_A | SS_D]);
  expect(marks(0x20_0000)).toBe(SS_A);
  expect(translate(0n, ACCESS_WRITE)).toBe(0x8000);
  expect(marks(0x20_0000)).toBe(SS_A | SS_D);
});

test('a refused page leaves first-stage A and D alone', () => {
  const { bench, setEntry, translate } = nested();
  const leaf = setEntry(1, 0, 0x20_0000, ALL);
  expect(translate(0n, ACCESS_WRITE)).toBe(-0x79);
  expect(bench.memory.read32(leaf) & (FS_A | FS_D)).toBe(0);
});

test('a result in the interrupt range is SGN.8; a guest address there is like any other', () => {
  const { mapGuest, setEntry, translate } = nested();
  mapGuest(0x20_0000, 0xfee0_0000);
  mapGuest(0xfee0_1000, 0x8000);
  setEntry(1, 0, 0x20_0000, ALL);
  setEntry(1, 1, 0xfee0_1000, ALL);
  expect(translate(0n)).toBe(-0x87);
  expect(translate(0x1000n)).toBe(0x8000);
});
