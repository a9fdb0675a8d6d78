/** The bare unit: requests as plain data, registers of 32 and 64 bits. */
import {
  AW_48_BIT,
  CAP_REG_OFFSET,
  encodeCap,
  faultReasonName,
  NOT_A_FAULT,
  PGTT_FIRST_STAGE,
  PGTT_SECOND_STAGE,
  RTADDR_REG,
  FS_P,
  FS_RW,
  FS_US,
  SS_R,
  SS_W,
} from '../../../lib/sim/vtd';
import { Bench, RID, RW } from './bench';

/** Three pages, of which the second two lie together; the third is read-only. */
function mapped(): Bench {
  const bench = new Bench();
  const root = bench.page();
  bench.context(RID, { DTE: 1 });
  bench.pasid(RID, 0, { PGTT: PGTT_SECOND_STAGE, AW: AW_48_BIT, SSPTPTR: root });
  bench.map(root, 4, 0x1000n, 0x70_0000, RW, RW);
  bench.map(root, 4, 0x2000n, 0x50_0000, RW, RW);
  bench.map(root, 4, 0x3000n, 0x50_1000, SS_R, RW);
  return bench;
}

test('a request is split at pages, and what lies together is one range', () => {
  const { unit } = mapped();
  expect(unit.submit({ rid: RID, address: 0x1ff0n, length: 0x2010 })).toEqual({
    ranges: [
      { address: 0x70_0ff0n, length: 0x10 },
      { address: 0x50_0000n, length: 0x2000 },
    ],
  });
  expect(unit.submit({ rid: RID, address: 0x2004 })).toEqual({
    ranges: [{ address: 0x50_0004n, length: 1 }],
  });
});

test('a fault says why, where, and what had passed before; it is recorded', () => {
  const bench = mapped();
  expect(bench.unit.submit({ rid: RID, address: 0x2800n, length: 0x1000, write: true })).toEqual({
    ranges: [{ address: 0x50_0800n, length: 0x800 }],
    fault: { reason: 0x85, name: 'SGN_6_WRITE', address: 0x3000n },
  });
  expect(bench.takeFaults()).toEqual([0x85]);
});

test('translated requests, and translation requests', () => {
  const { unit } = mapped();
  const translated = unit.submit({ rid: RID, address: 0x1234n, length: 8, kind: 'translated' });
  expect(translated).toEqual({ ranges: [{ address: 0x1234n, length: 8 }] });
  const asked = unit.submit({ rid: RID, address: 0x3010n, write: true, kind: 'translation' });
  expect(asked).toMatchObject({
    ranges: [],
    completion: { success: true, low: 0x50_1000, read: true, write: false },
  });
});

test('a PASID with its privileges', () => {
  const bench = mapped();
  const root = bench.page();
  bench.pasid(RID, 3, { PGTT: PGTT_FIRST_STAGE, FSPTPTR: root, SRE: 1, WPE: 1 });
  bench.map(root, 4, 0x1000n, 0x70_0000, FS_P | FS_RW, FS_P | FS_RW | FS_US);
  const { unit } = bench;
  const supervisor = { rid: RID, pasid: 3, address: 0x1000n };
  expect(unit.submit({ ...supervisor, privileged: true, write: true }).ranges).toHaveLength(1);
  expect(unit.submit(supervisor).fault).toMatchObject({ name: 'SGN_2_USER' });
});

test('an AtomicOp reads and writes: both are asked for, and a fault is recorded as what it is', () => {
  const bench = new Bench();
  const root = bench.page();
  bench.pasid(RID, 0, { PGTT: PGTT_SECOND_STAGE, AW: AW_48_BIT, SSPTPTR: root });
  bench.map(root, 4, 0x1000n, 0x70_0000, RW, RW);
  bench.map(root, 4, 0x2000n, 0x50_0000, SS_R, RW);
  bench.map(root, 4, 0x3000n, 0x50_0000, SS_W, RW);
  const atomic = (address: bigint) => bench.unit.submit({ rid: RID, address, length: 8, atomic: true });
  // Twice: the second one comes from the IOTLB.
  for (let i = 0; i < 2; i++) {
    expect(atomic(0x1000n)).toEqual({ ranges: [{ address: 0x70_0000n, length: 8 }] });
    expect(atomic(0x2000n).fault?.name).toBe('SGN_6_WRITE');
    expect(bench.fault(2 * i)).toMatchObject({ T1: 1, T2: 1, FR: 0x85 });
    expect(bench.takeFaults()).toEqual([0x85]);
    expect(atomic(0x3000n).fault?.name).toBe('SGN_7_READ');
    expect(bench.takeFaults()).toEqual([0x86]);
  }
});

test.each([
  [{ rid: 0x1_0000, address: 0 }, /rid 65536/],
  [{ rid: RID, pasid: 2 ** 20, address: 0 }, /pasid 1048576/],
  [{ rid: RID, address: 0, execute: true }, /give a pasid/],
  [{ rid: RID, address: -1 }, /64 bits/],
  [{ rid: RID, address: 2n ** 64n - 1n, length: 2 }, /64 bits/],
  [{ rid: RID, address: 0, length: 0 }, /length 0/],
  [{ rid: RID, address: 0xfee0_0000 }, /interruptRequest/],
])('%j is refused, and does nothing', (request, message) => {
  const bench = mapped();
  expect(() => bench.unit.submit(request)).toThrow(RangeError);
  expect(() => bench.unit.submit(request)).toThrow(message);
  expect(bench.takeFaults()).toEqual([]);
});

test('names of fault reasons', () => {
  expect([0x05, 0x5b, NOT_A_FAULT, 0xff].map(faultReasonName)).toEqual([
    'LGN_2_WRITE',
    'SPT_4_INVALID',
    'NOT_A_FAULT',
    '0xff',
  ]);
});

test('64-bit registers are read whole', () => {
  const { unit, rootTable } = mapped();
  const [capLow, capHigh] = encodeCap(unit.capabilities);
  expect(unit.read64(CAP_REG_OFFSET)).toBe((BigInt(capHigh! >>> 0) << 32n) | BigInt(capLow! >>> 0));
  expect(unit.read64(RTADDR_REG)).toBe(BigInt(rootTable) | 0x400n);
  expect(() => unit.read64(4)).toThrow(RangeError);
});
