import {
  encodeInterruptEntryCacheInvalidate,
  encodeRemappedIrte,
  encodePostedIrte,
  FSTS_IQE,
  FSTS_REG,
  GCMD_CFI,
  GCMD_IRE,
  GCMD_QIE,
  GCMD_REG,
  GCMD_SIRTP,
  GSTS_REG,
  highHalf,
  IR_ACCESS,
  IR_COMPATIBILITY_BLOCKED,
  IR_INDEX_TOO_LARGE,
  IR_NOT_PRESENT,
  IR_POSTED_ACCESS,
  IR_POSTED_RESERVED,
  IR_REQUEST_RESERVED,
  IR_RESERVED,
  IR_SOURCE,
  IRTA_EIME,
  IRTA_REG,
  lowHalf,
  remappableAddress,
  VtdCapabilities,
} from '../../../lib/sim/vtd';
import { Bench, RID } from './bench';

/** A bench with a table of `2^(size + 1)` entries, remapping on. */
class InterruptBench extends Bench {
  readonly table = this.pages(2);

  constructor(capabilities: Partial<VtdCapabilities> = {}, { size = 7, eime = false, cfi = false } = {}) {
    super(capabilities);
    this.setTable(this.table, size, eime);
    this.unit.write32(GCMD_REG, GCMD_QIE | GCMD_IRE | (cfi ? GCMD_CFI : 0));
  }

  setTable(table: number, size: number, eime = false): void {
    this.unit.write64(IRTA_REG, highHalf(table), lowHalf(table) | size | (eime ? IRTA_EIME : 0));
    this.unit.write32(GCMD_REG, (this.unit.read32(GSTS_REG) & (GCMD_QIE | GCMD_IRE | GCMD_CFI)) | GCMD_SIRTP);
  }

  /** Entry `index`, from its two halves. */
  entry(index: number, high: bigint, low: bigint): void {
    this.memory.write64(this.table + 16 * index, Number(low >> 32n), Number(low & 0xffff_ffffn));
    this.memory.write64(this.table + 16 * index + 8, Number(high >> 32n), Number(high & 0xffff_ffffn));
  }

  /** What comes of a message: the one that is delivered, in hexadecimal, or undefined. */
  send(low: number, data = 0, rid = RID): string | undefined {
    this.unit.interruptRequest(rid, low, data);
    const message = this.interrupts.pop();
    expect(this.interrupts).toEqual([]);
    return message?.map((value) => value.toString(16)).join(' ');
  }

  /** The same by index, with SHV = 0. */
  index(index: number, rid = RID): string | undefined {
    return this.send((remappableAddress(index) & ~8) >>> 0, 0xffff_ffff, rid);
  }

  /** Sends what must be blocked; the reason and the index, as recorded. */
  blocked(low: number, data = 0, rid = RID): [number, number] {
    expect(this.send(low, data, rid)).toBeUndefined();
    const { F, SID, FR } = this.fault();
    expect({ F, SID }).toEqual({ F: 1, SID: rid });
    const index = this.unit.read32(this.unit.capabilities.FRO * 16 + 4) >>> 16;
    this.takeFaults();
    return [FR, index];
  }
}

/** QEMU's default: one fault-recording register, so that each fault is found at the same place. */
const ONE: Partial<VtdCapabilities> = { NFR: 0 };

test('the address of a message', () => {
  // 31:20 FEE, 19:5 handle 14:0, 4 format, 3 SHV, 2 handle 15.
  expect(remappableAddress(0)).toBe(0xfee0_0018);
  expect(remappableAddress(0x7fff)).toBe(0xfeef_fff8);
  expect(remappableAddress(0x8000)).toBe(0xfee0_001c);
  expect(remappableAddress(0x1234)).toBe(0xfee2_4698);
});

test('entries, as literal vectors', () => {
  const quads = (words: Int32Array) =>
    [3, 2, 1, 0].map((i) => (words[i]! >>> 0).toString(16).padStart(8, '0')).join('');
  const remapped = { P: 1, RH: 1, V: 0x23, DST: 0x100, SID: 0x30, SVT: 1 };
  // As Linux 7.3.4 wrote it for 0000:00:06.0.
  expect(quads(encodeRemappedIrte(remapped))).toBe('00000000000400300000010000230009');
  expect(
    quads(encodeRemappedIrte({ FPD: 1, DM: 1, TM: 1, DLM: 5, AVAIL: 0xf, SQ: 3, SVT: 2, SID: 0xabcd })),
  ).toBe('00000000000babcd0000000000000fb6');
  const posted = { P: 1, IM: 1, URG: 1, VV: 0x45, PDAL: 0x1234567, PDAH: 0x89abcdef, SID: 0xabcd, SVT: 1 };
  expect(quads(encodePostedIrte(posted))).toBe('89abcdef0004abcd48d159c00045c001');
});

describe('off', () => {
  test('messages pass as they are, of either format', () => {
    const bench = new Bench();
    bench.unit.interruptRequest(RID, 0xfee0_1004, 0x4051);
    bench.unit.interruptRequest(RID, 0xfee0_0018, 7);
    expect(bench.interrupts).toEqual([
      [0, 0xfee0_1004, 0x4051],
      [0, 0xfee0_0018, 7],
    ]);
  });

  test('a unit without it cannot turn it on', () => {
    const bench = new InterruptBench({ IR: 0 });
    expect(bench.unit.read32(GSTS_REG) & (GCMD_IRE | GCMD_SIRTP | GCMD_CFI)).toBe(0);
    expect(bench.send(0xfee0_1000, 0x51)).toBe('0 fee01000 51');
  });
});

describe('GSTS', () => {
  test('IRES and CFIS follow, IRTPS stays', () => {
    const bench = new InterruptBench();
    const status = () => bench.unit.read32(GSTS_REG) & (GCMD_IRE | GCMD_SIRTP | GCMD_CFI);
    expect(status()).toBe(GCMD_IRE | GCMD_SIRTP);
    bench.unit.write32(GCMD_REG, GCMD_QIE | GCMD_IRE | GCMD_CFI);
    expect(status()).toBe(GCMD_IRE | GCMD_SIRTP | GCMD_CFI);
    bench.unit.write32(GCMD_REG, GCMD_QIE);
    expect(status()).toBe(GCMD_SIRTP);
  });
});

describe('remapped', () => {
  test('the message that arrives is the entry’s', () => {
    const bench = new InterruptBench();
    bench.entry(1, 0n, 0x0000_ab00_0023_0001n);
    expect(bench.index(1)).toBe('0 feeab000 23');
    // RH, DM, level, DLM 5 (INIT).
    bench.entry(2, 0n, 0x0000_0100_00ff_00bdn);
    expect(bench.index(2)).toBe('0 fee0100c c5ff');
    // For software: bits 11:8.
    bench.entry(3, 0n, 0x0000_0000_0010_0f01n);
    expect(bench.index(3)).toBe('0 fee00000 10');
  });

  test('32-bit destinations with EIME', () => {
    const bench = new InterruptBench({}, { eime: true });
    bench.entry(1, 0n, 0x89ab_cdef_0023_0001n);
    expect(bench.index(1)).toBe('89abcd00 feeef000 23');
  });

  test('the subhandle counts only with SHV', () => {
    const bench = new InterruptBench();
    for (let i = 0; i < 8; i++) bench.entry(i, 0n, (BigInt(0x20 + i) * 0x1_0000n) | 1n);
    expect(bench.send(0xfee0_0018 + (3 << 5), 4)).toBe('0 fee00000 27');
    expect(bench.send(0xfee0_0010 + (3 << 5), 4)).toBe('0 fee00000 23');
    expect(bench.send(0xfee0_0010 + (3 << 5), 0xffff_0004)).toBe('0 fee00000 23');
    // Address bits 1:0 are not looked at.
    expect(bench.send(0xfee0_0013 + (3 << 5), 0)).toBe('0 fee00000 23');
  });

  test('the requester is compared as SVT and SQ say', () => {
    const bench = new InterruptBench(ONE);
    const passes = (svt: number, sq: number, sid: number): number[] => {
      const high = (BigInt(svt) << 18n) | (BigInt(sq) << 16n) | BigInt(sid);
      bench.entry(1, high, 0x20_0001n);
      bench.setTable(bench.table, 7);
      const rids = [0x1230, 0x1231, 0x1232, 0x1234, 0x1236, 0x1237, 0x1238, 0x1330];
      const passed = rids.filter((rid) => bench.index(1, rid) !== undefined);
      bench.takeFaults();
      return passed;
    };
    const all = [0x1230, 0x1231, 0x1232, 0x1234, 0x1236, 0x1237, 0x1238, 0x1330];
    expect(passes(0, 0, 0xffff)).toEqual(all);
    expect(passes(1, 0, 0x1230)).toEqual([0x1230]);
    expect(passes(1, 1, 0x1230)).toEqual([0x1230, 0x1234]);
    expect(passes(1, 2, 0x1230)).toEqual([0x1230, 0x1232, 0x1234, 0x1236]);
    expect(passes(1, 3, 0x1235)).toEqual([0x1230, 0x1231, 0x1232, 0x1234, 0x1236, 0x1237]);
    expect(passes(2, 0, 0x1212)).toEqual(all.slice(0, -1));
    expect(passes(2, 3, 0x1113)).toEqual(all);
    expect(passes(2, 0, 0x1312)).toEqual([]);
    expect(passes(3, 0, 0x1230)).toEqual([]);
  });
});

describe('blocked, and recorded', () => {
  const AT = 0xfee0_0018;
  const at = (index: number) => AT + (index << 5);

  test('0x20: data 31:16 with SHV', () => {
    const bench = new InterruptBench(ONE);
    bench.entry(0, 0n, 0x20_0001n);
    expect(bench.blocked(AT, 0x8000_0000)).toEqual([IR_REQUEST_RESERVED, 0]);
    expect(bench.blocked(AT, 0x1_0000)).toEqual([0x20, 0]);
  });

  test('0x21: beyond the table', () => {
    const bench = new InterruptBench(ONE);
    bench.entry(255, 0n, 0x20_0001n);
    expect(bench.index(255)).toBe('0 fee00000 20');
    expect(bench.blocked(at(255), 1)).toEqual([IR_INDEX_TOO_LARGE, 256]);
    // Handle plus subhandle, of which the record has 16 bits.
    expect(bench.blocked(at(0x7fff) | 4, 0xffff)).toEqual([0x21, 0xfffe]);
  });

  test('0x22: not present', () => {
    const bench = new InterruptBench(ONE);
    bench.entry(9, 0xffff_ffff_ffff_ffffn, 0xffff_ffff_ffff_fffcn);
    expect(bench.blocked(at(9))).toEqual([IR_NOT_PRESENT, 9]);
  });

  test('0x23: no memory at the entry', () => {
    const bench = new InterruptBench(ONE);
    bench.setTable(0xfed0_0000, 7);
    expect(bench.blocked(at(9))).toEqual([IR_ACCESS, 9]);
  });

  test.each([
    ...[12, 13, 14, 24, 31, 32, 39, 48, 63].map((bit) => [bit, 0n, (1n << BigInt(bit)) | 1n] as const),
    ...[84, 127].map((bit) => [bit, 1n << BigInt(bit - 64), 1n] as const),
  ])('0x24: bit %i', (_bit, high, low) => {
    const bench = new InterruptBench(ONE);
    bench.entry(3, high, low);
    expect(bench.blocked(at(3))).toEqual([IR_RESERVED, 3]);
  });

  test('0x24: posted, on a unit that cannot', () => {
    const bench = new InterruptBench(ONE);
    bench.entry(3, 0n, 0x8001n);
    expect(bench.blocked(at(3))).toEqual([IR_RESERVED, 3]);
  });

  test('0x25: compatibility format, unless CFI, and with EIME always', () => {
    const blocking = new InterruptBench(ONE);
    expect(blocking.blocked(0xfee0_1008, 0x51)).toEqual([IR_COMPATIBILITY_BLOCKED, 0]);
    const passing = new InterruptBench(ONE, { cfi: true });
    expect(passing.send(0xfee0_1008, 0x51)).toBe('0 fee01008 51');
    const extended = new InterruptBench(ONE, { cfi: true, eime: true });
    expect(extended.blocked(0xfee0_1008, 0x51)).toEqual([IR_COMPATIBILITY_BLOCKED, 0]);
  });

  test('0x26: another requester', () => {
    const bench = new InterruptBench(ONE);
    bench.entry(3, 0x4_1234n, 1n);
    expect(bench.blocked(at(3), 0, 0x1235)).toEqual([IR_SOURCE, 3]);
    expect(bench.index(3, 0x1234)).toBe('0 fee00000 0');
    // From the cache too.
    expect(bench.blocked(at(3), 0, 0x1235)).toEqual([IR_SOURCE, 3]);
  });

  test('the bits of a record', () => {
    const bench = new InterruptBench(ONE);
    bench.send(at(0x9a), 0, 0xabcd);
    const base = bench.unit.capabilities.FRO * 16;
    expect([12, 8, 4, 0].map((offset) => bench.unit.read32(base + offset).toString(16))).toEqual([
      '80000022',
      'abcd',
      '9a0000',
      '0',
    ]);
  });

  test('FPD keeps 0x22, 0x24 and 0x26 from being recorded', () => {
    const bench = new InterruptBench(ONE);
    bench.entry(1, 0n, 0x2n);
    bench.entry(2, 0n, 0x1003n);
    bench.entry(3, 0x4_1234n, 0x3n);
    for (const index of [1, 2, 3]) expect(bench.index(index)).toBeUndefined();
    expect(bench.unit.read32(FSTS_REG)).toBe(0);
    bench.setTable(0xfed0_0000, 7);
    expect(bench.blocked(at(1))).toEqual([IR_ACCESS, 1]);
  });
});

describe('the interrupt entry cache', () => {
  const entries = (bench: InterruptBench, vector: number) => {
    for (let i = 0; i < 16; i++) bench.entry(i, 0n, (BigInt(vector) * 0x1_0000n) | 1n);
  };
  const vectors = (bench: InterruptBench) =>
    Array.from({ length: 16 }, (_, i) => bench.index(i)!.split(' ')[2]).join(' ');

  test('keeps an entry until it is invalidated, by itself, with its neighbours, or with all', () => {
    const bench = new InterruptBench();
    const old = '11 '.repeat(16).trim();
    entries(bench, 0x11);
    expect(vectors(bench)).toBe(old);
    entries(bench, 0x22);
    expect(vectors(bench)).toBe(old);
    bench.complete(encodeInterruptEntryCacheInvalidate({ G: 1, IIDX: 5 }));
    expect(vectors(bench)).toBe('11 11 11 11 11 22 11 11 11 11 11 11 11 11 11 11');
    bench.complete(encodeInterruptEntryCacheInvalidate({ G: 1, IIDX: 10, IM: 2 }));
    expect(vectors(bench)).toBe('11 11 11 11 11 22 11 11 22 22 22 22 11 11 11 11');
    bench.complete(encodeInterruptEntryCacheInvalidate({ IIDX: 3 }));
    expect(vectors(bench)).toBe('22 '.repeat(16).trim());
  });

  test('keeps a valid entry that was cleared, and none that faulted', () => {
    const bench = new InterruptBench();
    expect(bench.index(1)).toBeUndefined();
    entries(bench, 0x11);
    expect(bench.index(1)).toBe('0 fee00000 11');
    bench.entry(1, 0n, 0n);
    expect(bench.index(1)).toBe('0 fee00000 11');
  });

  test('is emptied by SIRTP with ESIRTPS only', () => {
    for (const [ESIRTPS, vector] of [
      [1, '22'],
      [0, '11'],
    ] as const) {
      const bench = new InterruptBench({ ESIRTPS });
      entries(bench, 0x11);
      vectors(bench);
      entries(bench, 0x22);
      bench.setTable(bench.table, 7);
      expect(bench.index(1)).toBe(`0 fee00000 ${vector}`);
    }
  });

  test('refuses a mask beyond MHMV', () => {
    const bench = new InterruptBench({ MHMV: 4 });
    expect(bench.complete(encodeInterruptEntryCacheInvalidate({ G: 1, IM: 4 }))).toBe(true);
    expect(bench.complete(encodeInterruptEntryCacheInvalidate({ G: 1, IM: 5 }))).toBe(false);
    expect(bench.unit.read32(FSTS_REG) & FSTS_IQE).toBe(FSTS_IQE);
  });
});

describe('posted', () => {
  const PI: Partial<VtdCapabilities> = { ...ONE, PI: 1 };

  /** Entry 1 posts vector 0x45 into a descriptor with this control word; NV 0x31, NDST 0x200. */
  function posting({ urgent = false, control = 0, ndst = 0x200, eime = false } = {}) {
    const bench = new InterruptBench(PI, { eime });
    const descriptor = bench.page() + 0x40;
    const high = (BigInt(highHalf(descriptor)) << 32n) | 0x4_0020n;
    const low = (BigInt(descriptor) << 32n) | (urgent ? 0x45_c001n : 0x45_8001n);
    bench.entry(1, high, low);
    bench.memory.write64(descriptor + 32, ndst, 0x31_0000 | control);
    const word = (index: number) => bench.memory.read32(descriptor + 4 * index) >>> 0;
    return { bench, descriptor, word };
  }

  test('sets the request and notifies once', () => {
    const { bench, word } = posting();
    expect(bench.index(1)).toBe('0 fee02000 31');
    expect([word(2), word(8)]).toEqual([1 << 5, 0x31_0001]);
    expect(bench.index(1)).toBeUndefined();
    expect(bench.unit.read32(FSTS_REG)).toBe(0);
  });

  test('notifies nobody while that is suppressed, unless urgent', () => {
    const quiet = posting({ control: 2 });
    expect(quiet.bench.index(1)).toBeUndefined();
    expect([quiet.word(2), quiet.word(8)]).toEqual([1 << 5, 0x31_0002]);
    const urgent = posting({ control: 2, urgent: true });
    expect(urgent.bench.index(1)).toBe('0 fee02000 31');
    expect(urgent.word(8)).toBe(0x31_0003);
  });

  test('a 32-bit destination with EIME', () => {
    expect(posting({ eime: true, ndst: 0x1234_5678 }).bench.index(1)).toBe('12345600 fee78000 31');
  });

  test('0x27: no memory at the descriptor', () => {
    const { bench } = posting();
    bench.entry(1, 0x4_0020n, 0xfed0_0000_0045_8001n);
    expect(bench.blocked(0xfee0_0038)).toEqual([IR_POSTED_ACCESS, 1]);
    bench.entry(1, 0xffff_ffff_0004_0020n, 0xfed0_0000_0045_8001n);
    bench.setTable(bench.table, 7);
    expect(bench.blocked(0xfee0_0038)).toEqual([IR_POSTED_ACCESS, 1]);
  });

  test('0x28: a reserved bit of the descriptor, and nothing is posted', () => {
    for (const settings of [{ control: 4 }, { control: 1 << 15 }, { control: 1 << 24 }, { ndst: 1 }]) {
      const { bench, word } = posting(settings);
      expect(bench.blocked(0xfee0_0038)).toEqual([IR_POSTED_RESERVED, 1]);
      expect(word(2)).toBe(0);
    }
    const { bench, descriptor } = posting();
    bench.memory.write32(descriptor + 60, 1);
    expect(bench.blocked(0xfee0_0038)).toEqual([IR_POSTED_RESERVED, 1]);
  });

  test.each([2, 7, 12, 13, 24, 37, 84, 95])('0x24: bit %i', (bit) => {
    const { bench } = posting();
    const all = 1n << BigInt(bit);
    bench.entry(1, 0x4_0020n | (all >> 64n), 0x45_8001n | (all & 0xffff_ffff_ffff_ffffn));
    expect(bench.blocked(0xfee0_0038)).toEqual([IR_RESERVED, 1]);
  });
});
