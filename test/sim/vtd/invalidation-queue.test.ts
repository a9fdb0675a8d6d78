import { NO_PASID, PRG_FAILURE, PRG_INVALID } from '../../../lib/sim/bus';
import {
  decodeSizedAddress,
  DEVICE_TLB_ALL_ORDER,
  ECTL_IM,
  encodeContextCacheInvalidate,
  encodeDeviceTlbInvalidate,
  encodeInterruptEntryCacheInvalidate,
  encodeInvalidationWait,
  encodeIotlbInvalidate,
  encodePageGroupResponse,
  encodePasidCacheInvalidate,
  encodePasidDeviceTlbInvalidate,
  encodePasidIotlbInvalidate,
  FECTL_REG,
  FSTS_ICE,
  FSTS_IQE,
  FSTS_ITE,
  FSTS_REG,
  G_GLOBAL,
  G_PAGE,
  GCMD_QIE,
  GCMD_REG,
  GCMD_SRTP,
  GCMD_TE,
  ICS_IWC,
  ICS_REG,
  IECTL_REG,
  IQA_DW,
  IQA_REG,
  IQERCD_REG,
  IQH_REG,
  IQT_REG,
  PASID_IOTLB_G_PAGE,
  PASID_IOTLB_G_PASID,
  RTADDR_REG,
  RTADDR_TTM_SHIFT,
  TTM_LEGACY,
} from '../../../lib/sim/vtd';
import { Bench, RID } from './bench';

function quads(words: Int32Array): string[] {
  const result: string[] = [];
  for (let i = 0; i < words.length; i += 2) {
    result.push(((BigInt(words[i + 1]! >>> 0) << 32n) | BigInt(words[i]! >>> 0)).toString(16));
  }
  return result;
}

describe('descriptors, as literal vectors', () => {
  test.each([
    [encodeContextCacheInvalidate({ G: 3, DID: 0xabcd, SID: 0x1234, FM: 2 }), '21234abcd0031', '0'],
    [encodePasidCacheInvalidate({ G: 1, DID: 0xabcd, PASID: 0x98765 }), '98765abcd0017', '0'],
    [
      encodeIotlbInvalidate({ G: 3, DW: 1, DR: 1, DID: 0xabcd, AM: 9, IH: 1, ADDR: 0x1234_5678_9000 }),
      'abcd00f2',
      '123456789049',
    ],
    [
      encodePasidIotlbInvalidate({ G: 3, DID: 0xabcd, PASID: 0x98765, AM: 9, IH: 1, ADDR: 0x1234_5678_9000 }),
      '98765abcd0036',
      '123456789049',
    ],
    [encodeInterruptEntryCacheInvalidate({ G: 1, IM: 3, IIDX: 0x4321 }), '432118000014', '0'],
    [
      encodeInvalidationWait({
        IF: 1,
        SW: 1,
        FN: 1,
        PD: 1,
        STATUS_DATA: 0x89abcdef,
        STATUS_ADDRESS: 0x7_6543_210c,
      }),
      '89abcdef000000f5',
      '76543210c',
    ],
    [
      encodePageGroupResponse({ PP: 1, RESPONSE_CODE: 15, RID: 0xabcd, PASID: 0x98765, PRGI: 0x1ff }),
      '98765abcdf019',
      'ff8',
    ],
    [encodeDeviceTlbInvalidate(0xabcd, 0x12, 0x34567000, 0, 5, 0x1234), '1230abcd00054003', '1234567000'],
    [encodeDeviceTlbInvalidate(0xabcd, 0x12, 0x34560000, 4), 'abc0abcd0000d003', '1234567001'],
    [
      encodePasidDeviceTlbInvalidate(0xabcd, 0x98765, 0, 0x200000, 9, true, 5, 0x1234),
      '12398765abcd4058',
      '2ff801',
    ],
    [
      encodePasidDeviceTlbInvalidate(0xabcd, 1, 0, 0, DEVICE_TLB_ALL_ORDER),
      'abc00001abcdd008',
      '7ffffffffffff800',
    ],
  ])('%#', (words, low, high) => {
    expect(quads(words)).toEqual([low, high, '0', '0']);
  });

  test.each([1, 2, 9, 18, 19, 20, 21, 30, 44, 51, 52])('a sized address of order %i comes back', (order) => {
    const high = order >= 20 ? 0x8000_0000 : 0x1234_5678;
    const aligned = order >= 20 ? 0 : (0xffff_f000 << order) >>> 0;
    const base =
      order >= 51
        ? { high: 0, low: 0 }
        : { high: (high & (order >= 20 ? -1 << (order - 20) : -1)) >>> 0, low: aligned };
    const words = encodeDeviceTlbInvalidate(RID, base.high, base.low, order);
    expect(decodeSizedAddress(words, 0, true)).toEqual({ ...base, length: 2 ** (12 + order) });
  });
});

describe('wait', () => {
  test('writes its status where it says, after what is before it', () => {
    const bench = new Bench();
    bench.submit(
      encodeIotlbInvalidate({ G: G_GLOBAL }),
      encodeInvalidationWait({ SW: 1, STATUS_DATA: 0xcafe_f00d, STATUS_ADDRESS: bench.status + 12 }),
    );
    expect(bench.memory.read32(bench.status + 12)).toBe(0xcafe_f00d | 0);
    expect(bench.memory.read32(bench.status + 8)).toBe(0);
    expect(bench.unit.read32(IQH_REG)).toBe(64);
    expect(bench.unit.read32(ICS_REG)).toBe(0);
  });

  test('interrupts through ICS and IECTL, once until it is cleared, and when unmasked', () => {
    const bench = new Bench();
    const { unit } = bench;
    unit.write32(IECTL_REG + 4, 0x41);
    unit.write32(IECTL_REG + 8, 0xfee0_1000);
    unit.write32(IECTL_REG + 12, 2);
    bench.submit(encodeInvalidationWait({ IF: 1 }));
    expect(unit.read32(ICS_REG)).toBe(ICS_IWC);
    expect(unit.read32(IECTL_REG)).toBe(0xc000_0000);
    expect(bench.interrupts).toEqual([]);
    unit.write32(IECTL_REG, 0);
    expect(bench.interrupts).toEqual([[2, 0xfee0_1000, 0x41]]);
    expect(unit.read32(IECTL_REG)).toBe(0);
    bench.submit(encodeInvalidationWait({ IF: 1 }));
    expect(bench.interrupts.length).toBe(1);
    unit.write32(ICS_REG, ICS_IWC);
    bench.submit(encodeInvalidationWait({ IF: 1 }));
    expect(bench.interrupts.length).toBe(2);
    unit.write32(IECTL_REG, ECTL_IM);
    unit.write32(ICS_REG, ICS_IWC);
    bench.submit(encodeInvalidationWait({ IF: 1 }));
    unit.write32(ICS_REG, ICS_IWC);
    unit.write32(IECTL_REG, 0);
    expect(bench.interrupts.length).toBe(2);
  });
});

test('the queue wraps', () => {
  const bench = new Bench();
  for (let i = 0; i < 300; i++) expect(bench.complete(encodeIotlbInvalidate({ G: G_GLOBAL }))).toBe(true);
  expect(bench.unit.read32(IQH_REG)).toBe((600 * 32) % 8192);
});

test('nothing runs while the queue is disabled; enabling starts at 0', () => {
  const bench = new Bench();
  bench.complete();
  bench.unit.write32(GCMD_REG, GCMD_TE);
  bench.unit.write32(IQT_REG, 0);
  expect(bench.complete()).toBe(false);
  bench.unit.write32(IQT_REG, 32);
  bench.memory.writeWords(
    bench.queue,
    encodeInvalidationWait({ SW: 1, STATUS_DATA: 77, STATUS_ADDRESS: bench.status }),
  );
  bench.unit.write32(GCMD_REG, GCMD_TE | GCMD_QIE);
  expect(bench.memory.read32(bench.status)).toBe(77);
  expect(bench.unit.read32(IQH_REG)).toBe(32);
});

/** Descriptors of 128 bits, in the place of the bench's own queue. */
function submitNarrow(bench: Bench, descriptors: Int32Array[]): void {
  bench.unit.write32(GCMD_REG, GCMD_TE);
  bench.write64(IQA_REG, bench.queue, 0);
  bench.unit.write32(GCMD_REG, GCMD_TE | GCMD_QIE);
  descriptors.forEach((words, i) => bench.memory.writeWords(bench.queue + 16 * i, words.subarray(0, 4)));
  bench.unit.write32(IQT_REG, 16 * descriptors.length);
}

/** Sets the translation table mode. */
function setMode(bench: Bench, mode: number): void {
  bench.write64(RTADDR_REG, bench.rootTable, mode << RTADDR_TTM_SHIFT);
  bench.unit.write32(GCMD_REG, GCMD_TE | GCMD_QIE | GCMD_SRTP);
}

test('128-bit descriptors, in legacy mode, which has no types above 5', () => {
  const bench = new Bench();
  setMode(bench, TTM_LEGACY);
  submitNarrow(bench, [
    encodeIotlbInvalidate({ G: G_GLOBAL }),
    encodeInvalidationWait({ SW: 1, STATUS_DATA: 5, STATUS_ADDRESS: bench.status }),
    encodePasidCacheInvalidate({ G: 3 }),
  ]);
  expect(bench.memory.read32(bench.status)).toBe(5);
  expect(bench.unit.read32(IQH_REG)).toBe(32);
  expect(bench.unit.read32(FSTS_REG)).toBe(FSTS_IQE);
  expect(bench.unit.read32(IQERCD_REG)).toBe(3);
});

describe('the width of descriptors goes with the mode', () => {
  const broken = (bench: Bench): number[] => [bench.unit.read32(IQH_REG), bench.unit.read32(IQERCD_REG)];
  test('scalable mode has no 128-bit ones', () => {
    const bench = new Bench();
    submitNarrow(bench, [encodeIotlbInvalidate({ G: G_GLOBAL })]);
    expect(broken(bench)).toEqual([0, 5]);
  });
  test('a unit of legacy mode alone has no 256-bit ones', () => {
    const bench = new Bench({ SMTS: 0 });
    setMode(bench, TTM_LEGACY);
    bench.submit(encodeIotlbInvalidate({ G: G_GLOBAL }));
    expect(broken(bench)).toEqual([0, 5]);
  });
  test('a mode that is reserved, or that the unit has not, stops the queue', () => {
    for (const mode of [2, 3]) {
      const bench = new Bench();
      setMode(bench, mode);
      bench.submit(encodeIotlbInvalidate({ G: G_GLOBAL }));
      expect(broken(bench)).toEqual([0, 7]);
    }
  });
});

test('descriptors that need a capability are of an invalid type without it', () => {
  for (const [capabilities, descriptor] of [
    [{ DT: 0 }, encodeDeviceTlbInvalidate(RID, 0, 0, 0)],
    [{ DT: 0 }, encodePasidDeviceTlbInvalidate(RID, 1, 0, 0, 0)],
    [{ IR: 0 }, encodeInterruptEntryCacheInvalidate({})],
    [{ PRS: 0 }, encodePageGroupResponse({ RID })],
  ] as const) {
    const bench = new Bench(capabilities);
    bench.submit(descriptor);
    expect(bench.unit.read32(IQERCD_REG)).toBe(3);
    expect(bench.messages).toEqual([]);
  }
  const bench = new Bench({ PDS: 0 });
  bench.submit(encodeInvalidationWait({ PD: 1 }));
  expect(bench.unit.read32(IQERCD_REG)).toBe(4);
  const unselective = new Bench({ PSI: 0 });
  unselective.submit(encodeIotlbInvalidate({ G: G_PAGE }));
  expect(unselective.unit.read32(IQERCD_REG)).toBe(4);
});

test('MAMV does not limit PASID-based invalidation (section 11.4.2)', () => {
  const bench = new Bench();
  expect(bench.complete(encodePasidIotlbInvalidate({ G: PASID_IOTLB_G_PAGE, AM: 63 }))).toBe(true);
});

test('a new IQA_REG, or the queue switched off, puts the head back to 0', () => {
  const bench = new Bench();
  bench.complete();
  bench.write64(IQA_REG, bench.queue, IQA_DW | 1);
  expect([bench.unit.read32(IQH_REG), bench.unit.read32(IQT_REG)]).toEqual([0, 0]);
  const other = new Bench();
  other.complete();
  other.unit.write32(GCMD_REG, GCMD_TE);
  expect([other.unit.read32(IQH_REG), other.unit.read32(IQT_REG)]).toEqual([0, 32]);
});

describe('errors stop the queue at the descriptor', () => {
  const garbage = (...words: number[]): Int32Array => Int32Array.from({ length: 8 }, (_, i) => words[i] ?? 0);
  test.each([
    ['type 0', garbage(0), 3],
    ['type 10', garbage(10), 3],
    ['type with bits 11:9', garbage(5 | (1 << 9)), 3],
    ['reserved bit of a wait', garbage(5, 0, 2), 4],
    ['reserved bit in the upper half', garbage(5, 0, 0, 0, 1), 4],
    ['context-cache granularity 0', encodeContextCacheInvalidate({}), 4],
    ['PASID-cache granularity 2', encodePasidCacheInvalidate({ G: 2 }), 4],
    ['IOTLB granularity 0', encodeIotlbInvalidate({}), 4],
    ['PASID-based IOTLB granularity 1', encodePasidIotlbInvalidate({ G: 1 }), 4],
    ['address mask above MAMV', encodeIotlbInvalidate({ G: G_PAGE, AM: 46 }), 4],
  ])('%s', (_, descriptor, information) => {
    const bench = new Bench();
    bench.unit.write32(FECTL_REG, 0);
    expect(bench.complete(encodePasidIotlbInvalidate({ G: PASID_IOTLB_G_PASID }))).toBe(true);
    const head = bench.unit.read32(IQH_REG);
    expect(bench.complete(descriptor)).toBe(false);
    expect(bench.unit.read32(IQH_REG)).toBe(head);
    expect(bench.unit.read32(FSTS_REG)).toBe(FSTS_IQE);
    expect(bench.unit.read32(IQERCD_REG)).toBe(information);
    expect(bench.interrupts.length).toBe(1);
    // Software replaces the descriptor and clears the error: the queue goes on.
    bench.memory.writeWords(bench.queue + head, encodeIotlbInvalidate({ G: G_GLOBAL }));
    bench.unit.write32(FSTS_REG, FSTS_IQE);
    expect(bench.unit.read32(FSTS_REG)).toBe(0);
    expect(bench.memory.read32(bench.status)).toBe(2);
  });

  test('a tail outside the queue, or between descriptors', () => {
    for (const [tail, information, kept] of [
      [8192, 1, 8192],
      [48, 6, 32],
    ] as const) {
      const bench = new Bench();
      bench.unit.write32(IQT_REG, tail);
      expect(bench.unit.read32(FSTS_REG)).toBe(FSTS_IQE);
      expect(bench.unit.read32(IQERCD_REG)).toBe(information);
      expect(bench.unit.read32(IQT_REG)).toBe(kept);
    }
  });

  test('a queue without memory', () => {
    const bench = new Bench();
    bench.unit.write32(GCMD_REG, GCMD_TE);
    bench.write64(IQA_REG, 0x3f_0000_0000, IQA_DW);
    bench.unit.write32(GCMD_REG, GCMD_TE | GCMD_QIE);
    bench.unit.write32(IQT_REG, 32);
    expect(bench.unit.read32(IQERCD_REG)).toBe(2);
  });
});

describe('messages to devices', () => {
  test('device-TLB invalidations, with and without PASID', () => {
    const bench = new Bench();
    bench.complete(
      encodeDeviceTlbInvalidate(RID, 0x7, 0x1230_0000, 8),
      encodePasidDeviceTlbInvalidate(RID, 0x54321, 0, 0x9000, 0, true),
      encodeDeviceTlbInvalidate(0x99, 0, 0, DEVICE_TLB_ALL_ORDER),
    );
    expect(bench.messages).toEqual([
      [RID, 'invalidate', NO_PASID, 0x7, 0x1230_0000, 0x10_0000, false],
      [RID, 'invalidate', 0x54321, 0, 0x9000, 0x1000, true],
      [0x99, 'invalidate', NO_PASID, 0, 0, 2 ** 64, false],
    ]);
  });

  test('page group responses', () => {
    const bench = new Bench();
    bench.complete(
      encodePageGroupResponse({ RID, PP: 1, PASID: 7, PRGI: 300, RESPONSE_CODE: PRG_INVALID }),
      encodePageGroupResponse({ RID, PASID: 7, PRGI: 1, RESPONSE_CODE: PRG_FAILURE }),
    );
    expect(bench.messages).toEqual([
      [RID, 'response', 7, 300, PRG_INVALID],
      [RID, 'response', NO_PASID, 1, PRG_FAILURE],
    ]);
  });

  test('nobody there: the next wait is aborted with ITE, naming the source; clearing it goes on', () => {
    const bench = new Bench();
    bench.absent.add(0x99);
    expect(bench.complete(encodeDeviceTlbInvalidate(0x99, 0, 0, 0))).toBe(false);
    expect(bench.unit.read32(FSTS_REG)).toBe(FSTS_ITE);
    expect(bench.unit.read32(IQERCD_REG + 4)).toBe(0x99);
    expect(bench.complete()).toBe(false);
    bench.unit.write32(FSTS_REG, FSTS_ITE);
    expect(bench.memory.read32(bench.status)).toBe(2);
    expect(bench.complete()).toBe(true);
  });

  test('a completion that nobody asked for is ICE, naming the source; the queue goes on', () => {
    const bench = new Bench();
    const { unit } = bench;
    unit.write32(FECTL_REG, 0);
    unit.invalidationCompletion(0x1234);
    unit.invalidationCompletion(0x4321);
    expect([unit.read32(FSTS_REG), unit.read32(IQERCD_REG + 4)]).toEqual([FSTS_ICE, 0x1234_0000]);
    expect(bench.interrupts.length).toBe(1);
    expect(bench.complete()).toBe(true);
    unit.write32(FSTS_REG, FSTS_ICE);
    unit.invalidationCompletion(0x4321);
    expect([unit.read32(FSTS_REG), unit.read32(IQERCD_REG + 4)]).toEqual([FSTS_ICE, 0x4321_0000]);
  });
});
