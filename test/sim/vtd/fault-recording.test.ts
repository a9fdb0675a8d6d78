import { ACCESS_EXECUTE, ACCESS_PRIVILEGED, ACCESS_READ, ACCESS_WRITE } from '../../../lib/sim/bus';
import { ECTL_IM, FECTL_REG, FSTS_PFO, FSTS_PPF, FSTS_REG } from '../../../lib/sim/vtd';
import { Bench, RID } from './bench';

/** The four words of fault-recording register `index`. */
function record(bench: Bench, index: number): string {
  const at = bench.unit.capabilities.FRO * 16 + 16 * index;
  return [12, 8, 4, 0]
    .map((i) =>
      bench.unit
        .read32(at + i)
        .toString(16)
        .padStart(8, '0'),
    )
    .join(' ');
}

const clear = (bench: Bench, index: number): void =>
  bench.unit.write32(bench.unit.capabilities.FRO * 16 + 16 * index + 12, 0x8000_0000);

test('bits of a record', () => {
  const bench = new Bench();
  bench.translate(0x1234_5678_9abcn, ACCESS_WRITE, -1, 0xabcd);
  expect(record(bench, 0)).toBe('80000039 0000abcd 00001234 56789000');
  bench.translate(0xffff_8000_0000_0fffn, ACCESS_READ, -1, 0xabce);
  expect(record(bench, 1)).toBe('c0000039 0000abce ffff8000 00000000');
  bench.translate(0n, ACCESS_WRITE | ACCESS_EXECUTE | ACCESS_PRIVILEGED, 0x98765, 0xabcf);
  expect(record(bench, 2)).toBe('89876539 e000abcf 00000000 00000000');
  bench.translate(0n, ACCESS_EXECUTE | ACCESS_PRIVILEGED, -1, 0xabd0);
  expect(record(bench, 3)).toBe('c0000039 0000abd0 00000000 00000000');
  expect(bench.unit.read32(FSTS_REG)).toBe(FSTS_PPF);
});

test('a source with a pending fault has the next one collapsed', () => {
  const bench = new Bench();
  bench.translate(0x1000n);
  bench.translate(0x2000n);
  expect(bench.fault(1).F).toBe(0);
  clear(bench, 0);
  expect(bench.unit.read32(FSTS_REG)).toBe(0);
  bench.translate(0x3000n);
  expect(bench.fault(1)).toMatchObject({ F: 1, FI: 0x3000 });
  expect(bench.unit.read32(FSTS_REG)).toBe(FSTS_PPF | (1 << 8));
});

test('overflow: the ninth source sets PFO, and nothing is recorded until it is cleared', () => {
  const bench = new Bench();
  for (let i = 0; i < 8; i++) bench.translate(0n, ACCESS_READ, -1, RID + i);
  expect(bench.unit.read32(FSTS_REG)).toBe(FSTS_PPF);
  bench.translate(0n, ACCESS_READ, -1, RID + 8);
  expect(bench.unit.read32(FSTS_REG)).toBe(FSTS_PPF | FSTS_PFO);
  clear(bench, 0);
  bench.translate(0n, ACCESS_READ, -1, RID + 9);
  expect(bench.fault(0).F).toBe(0);
  expect(bench.unit.read32(FSTS_REG)).toBe(FSTS_PPF | FSTS_PFO);
  bench.unit.write32(FSTS_REG, FSTS_PFO);
  bench.translate(0n, ACCESS_READ, -1, RID + 10);
  expect(bench.fault(0)).toMatchObject({ F: 1, SID: RID + 10 });
});

test('with one register, as QEMU has', () => {
  const bench = new Bench({ NFR: 0 });
  bench.translate(0n);
  bench.translate(0n, ACCESS_READ, -1, RID + 1);
  expect(bench.unit.read32(FSTS_REG)).toBe(FSTS_PPF | FSTS_PFO);
  clear(bench, 0);
  bench.unit.write32(FSTS_REG, FSTS_PFO);
  expect(bench.unit.read32(FSTS_REG)).toBe(0);
  bench.translate(0x5000n, ACCESS_READ, -1, RID + 1);
  expect(bench.fault(0)).toMatchObject({ SID: RID + 1, FI: 0x5000 });
});

describe('fault event', () => {
  const withEvent = (): Bench => {
    const bench = new Bench();
    bench.unit.write32(FECTL_REG + 4, 0x31);
    bench.unit.write32(FECTL_REG + 8, 0xfee0_0000);
    bench.unit.write32(FECTL_REG + 12, 0);
    return bench;
  };
  const MESSAGE = [0, 0xfee0_0000, 0x31];

  test('is masked after reset, pending, and sent when unmasked', () => {
    const bench = withEvent();
    bench.translate(0n);
    expect(bench.interrupts).toEqual([]);
    expect(bench.unit.read32(FECTL_REG)).toBe(0xc000_0000);
    bench.unit.write32(FECTL_REG, 0);
    expect(bench.interrupts).toEqual([MESSAGE]);
    expect(bench.unit.read32(FECTL_REG)).toBe(0);
  });

  test('comes once until every status bit is cleared', () => {
    const bench = withEvent();
    bench.unit.write32(FECTL_REG, 0);
    bench.translate(0n);
    bench.translate(0n, ACCESS_READ, -1, RID + 1);
    expect(bench.interrupts.length).toBe(1);
    clear(bench, 0);
    bench.translate(0n, ACCESS_READ, -1, RID + 2);
    expect(bench.interrupts.length).toBe(1);
    bench.takeFaults();
    bench.translate(0n);
    expect(bench.interrupts.length).toBe(2);
  });

  test('a pending one goes away when its causes do', () => {
    const bench = withEvent();
    bench.translate(0n);
    bench.takeFaults();
    expect(bench.unit.read32(FECTL_REG)).toBe(ECTL_IM >>> 0);
    bench.unit.write32(FECTL_REG, 0);
    expect(bench.interrupts).toEqual([]);
  });
});
