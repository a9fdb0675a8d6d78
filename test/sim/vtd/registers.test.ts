import { PhysicalMemory } from '../../../lib/sim/memory';
import { GCMD_QIE, GCMD_SRTP, GCMD_TE, VtdCapabilities, VtdUnit } from '../../../lib/sim/vtd';

const unit = (capabilities: Partial<VtdCapabilities> = {}): VtdUnit =>
  new VtdUnit({
    memory: new PhysicalMemory(2 ** 20),
    capabilities,
    interrupt: () => undefined,
    endpoint: () => undefined,
  });

test('after reset', () => {
  const fresh = unit();
  const nonzero: [number, number][] = [];
  for (let offset = 0; offset < 4096; offset += 4) {
    const value = fresh.read32(offset);
    if (value !== 0) nonzero.push([offset, value]);
  }
  expect(nonzero).toEqual([
    [0x00, 0x60],
    [0x08, 0x2278_0e06],
    [0x0c, 0xd1ed_078c],
    [0x10, 0xa4f0_0fdf],
    [0x14, 0x0003_ed9e],
    [0x38, 0x8000_0000],
    [0xa0, 0x8000_0000],
    [0xe0, 0x8000_0000],
  ]);
});

/** [offset, bits that keep what is written] from the register figures, with HAW = 46; every other word of the block ignores writes. */
const WRITABLE: [number, number][] = [
  [0x20, 0xffff_fc00],
  [0x24, 0x3fff],
  [0x38, 0x8000_0000],
  [0x3c, 0xffff_ffff],
  [0x40, 0xffff_fffc],
  [0x44, 0xffff_ffff],
  [0x88, 0x0007_fff0],
  [0x90, 0xffff_f807],
  [0x94, 0x3fff],
  [0xa0, 0x8000_0000],
  [0xa4, 0xffff_ffff],
  [0xa8, 0xffff_fffc],
  [0xac, 0xffff_ffff],
  [0xb8, 0xffff_f80f],
  [0xbc, 0x3fff],
  [0xc0, 0x0007_ffe0],
  [0xc8, 0x0007_ffe0],
  [0xd0, 0xffff_f007],
  [0xd4, 0x3fff],
  [0xe0, 0x8000_0000],
  [0xe4, 0xffff_ffff],
  [0xe8, 0xffff_fffc],
  [0xec, 0xffff_ffff],
];

/** The same, of registers that depend on capabilities. */
const OPTIONAL: [Partial<VtdCapabilities>, [number, number][]][] = [
  [
    { VER: 0x10 },
    [
      [0x28, 0xffff_ffff],
      [0x2c, 0x6000_0003],
      [0xf0, 0xffff_f07f],
      [0xf4, 0xffff_ffff],
      [0xfc, 0x3003_ffff],
    ],
  ],
  [
    { PLMR: 1 },
    [
      [0x64, 0x8000_0000],
      [0x68, 0xffe0_0000],
      [0x6c, 0xffe0_0000],
    ],
  ],
  [
    { PHMR: 1 },
    [
      [0x64, 0x8000_0000],
      [0x70, 0xffe0_0000],
      [0x74, 0x3fff],
      [0x78, 0xffe0_0000],
      [0x7c, 0x3fff],
    ],
  ],
];

/** Words whose bits keep, or do not keep, something else than `writable` says: offset, and what is read. */
function differing(capabilities: Partial<VtdCapabilities>, writable: Map<number, number>): number[][] {
  const wrong: number[][] = [];
  for (let offset = 0; offset < 4096; offset += 4) {
    if (offset === 0x18) continue;
    const fresh = unit(capabilities);
    const before = fresh.read32(offset);
    const mask = writable.get(offset) ?? 0;
    fresh.write32(offset, 0xffff_ffff);
    // CAIG and IAIG report the granularity carried out; PRS follows EPM.
    const reported = mask === 0 ? 0 : (REPORTED.get(offset) ?? 0);
    const ones = fresh.read32(offset);
    fresh.write32(offset, 0);
    const zeros = fresh.read32(offset) & mask;
    if (ones !== ((before & ~mask) | mask | reported) >>> 0 || zeros !== 0) wrong.push([offset, ones, zeros]);
  }
  return wrong;
}

const REPORTED = new Map([
  [0x2c, 0x1800_0000],
  [0xfc, 0x0600_0000],
  [0x64, 1],
]);

test('writable bits, and nothing else', () => {
  expect(differing({}, new Map(WRITABLE))).toEqual([]);
});

test.each(OPTIONAL)('registers that come with %j', (capabilities, words) => {
  expect(differing(capabilities, new Map([...WRITABLE, ...words]))).toEqual([]);
});

test('registers that go without QI, PRS and IR', () => {
  const gone = new Map(WRITABLE.filter(([offset]) => offset < 0x80));
  expect(differing({ QI: 0, PRS: 0, IR: 0 }, gone)).toEqual([]);
});

test('GCMD reads 0 and shows in GSTS; SRTP stays set', () => {
  const u = unit();
  const gsts = (): number => u.read32(0x1c);
  const write = (value: number): void => {
    u.write32(0x18, value);
    expect(u.read32(0x18)).toBe(0);
  };
  write(GCMD_SRTP);
  expect(gsts()).toBe(0x4000_0000);
  write(GCMD_QIE);
  expect(gsts()).toBe(0x4400_0000);
  write(GCMD_QIE | GCMD_TE);
  expect(gsts()).toBe(0xc400_0000);
  write(0);
  expect(gsts()).toBe(0x4000_0000);
});

test('offsets outside the block or between words are refused', () => {
  const u = unit();
  for (const offset of [-4, 4096, 2, NaN]) {
    expect(() => u.read32(offset)).toThrow(RangeError);
    expect(() => u.write32(offset, 0)).toThrow(RangeError);
  }
  expect(() => u.write64(0x24, 0, 0)).toThrow(RangeError);
  expect(() => u.write64(4096, 0, 0)).toThrow(RangeError);
});

test('addresses of tables and queues end at the host address width', () => {
  for (const HAW of [39, 52]) {
    const narrow = unit({ HAW });
    for (const offset of [0x20, 0x90, 0xb8, 0xd0]) {
      narrow.write64(offset, 0xffff_ffff, 0x1000);
      expect(narrow.read64(offset)).toBe(((1n << BigInt(HAW)) - (1n << 32n)) | 0x1000n);
    }
  }
});
