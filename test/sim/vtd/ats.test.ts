/** Translation requests and page requests. */
import {
  ACCESS_EXECUTE,
  ACCESS_PRIVILEGED,
  ACCESS_READ,
  ACCESS_TRANSLATED,
  ACCESS_WRITE,
  NO_PASID,
  PageRequest,
  PRG_SUCCESS,
} from '../../../lib/sim/bus';
import {
  AW_48_BIT,
  decodePageRequest,
  ECTL_IM,
  encodeIotlbInvalidate,
  encodePageRequest,
  FS_A,
  FS_D,
  FS_P,
  FS_PS,
  FS_RW,
  G_GLOBAL,
  GCMD_QIE,
  GCMD_REG,
  GCMD_SRTP,
  GCMD_TE,
  PECTL_REG,
  PGTT_FIRST_STAGE,
  PGTT_PASS_THROUGH,
  PGTT_SECOND_STAGE,
  PQH_REG,
  PQT_REG,
  PRS_PPR,
  PRS_PRO,
  PRS_REG,
  RTADDR_REG,
  RTADDR_TTM_SHIFT,
  SS_PS,
  SS_R,
  SS_W,
  VtdCapabilities,
} from '../../../lib/sim/vtd';
import { ALL, Bench, RID } from './bench';

const PASID = 3;

class Ats extends Bench {
  readonly second = this.page();
  readonly first = this.page();
  constructor(capabilities: Partial<VtdCapabilities> = {}) {
    super(capabilities);
    this.context(RID, { DTE: 1, PRE: 1 });
    this.pasid(RID, 0, { PGTT: PGTT_SECOND_STAGE, AW: AW_48_BIT, DID: 1, SSPTPTR: this.second });
    this.pasid(RID, PASID, { PGTT: PGTT_FIRST_STAGE, DID: 2, FSPTPTR: this.first });
  }
}

const REFUSED = { success: false };
const NOT_MAPPED = { success: true, read: false, write: false, execute: false, untranslatedOnly: false };

describe('translation requests', () => {
  test('carry address, size and permissions', () => {
    const bench = new Ats();
    bench.map(bench.second, 4, 0x1000n, 0x12_3456_7000, SS_R | SS_W, SS_R | SS_W);
    bench.map(bench.second, 4, 0x2000n, 0x8000, SS_R, SS_R | SS_W);
    bench.map(bench.second, 4, 0x40_0000n, 0x2_ffe0_0000, SS_R | SS_PS, SS_R | SS_W, 2);
    bench.map(bench.second, 4, 0x4000_0000n, 0x3_c000_0000, SS_R | SS_W | SS_PS, SS_R | SS_W, 3);
    expect(bench.request(0x1abcn, ACCESS_WRITE)).toEqual({
      success: true,
      high: 0x12,
      low: 0x3456_7000,
      length: 4096,
      read: true,
      write: true,
      execute: false,
      privileged: false,
      global: false,
      untranslatedOnly: false,
      snooped: false,
    });
    expect(bench.request(0x1000n)).toMatchObject({ read: true, write: false });
    expect(bench.request(0x2000n, ACCESS_WRITE)).toMatchObject({ read: true, write: false, low: 0x8000 });
    for (let i = 0; i < 2; i++) {
      const large = { high: 2, low: 0xffe0_0000, length: 0x20_0000, read: true };
      expect(bench.request(0x41_2345n)).toMatchObject(large);
      const huge = { high: 3, low: 0xc000_0000, length: 0x4000_0000, write: true };
      expect(bench.request(0x7654_3210n, ACCESS_WRITE)).toMatchObject(huge);
    }
  });

  test('a write-only page: W if asked for', () => {
    const bench = new Ats();
    bench.map(bench.second, 4, 0x1000n, 0x8000, SS_W, SS_R | SS_W);
    expect(bench.request(0x1000n, ACCESS_WRITE)).toMatchObject({ read: false, write: true });
    expect(bench.request(0x1000n)).toMatchObject(NOT_MAPPED);
    expect(bench.takeFaults()).toEqual([]);
  });

  test('set A, and D only if write is granted', () => {
    const bench = new Ats();
    const leaf = bench.map(bench.first, 4, 0x1000n, 0x8000, ALL, ALL);
    expect(bench.request(0x1000n, ACCESS_READ, PASID)).toMatchObject({ read: true, write: false });
    expect(bench.memory.read32(leaf) & (FS_A | FS_D)).toBe(FS_A);
    expect(bench.request(0x1000n, ACCESS_WRITE, PASID)).toMatchObject({ read: true, write: true });
    expect(bench.memory.read32(leaf) & (FS_A | FS_D)).toBe(FS_A | FS_D);
  });

  test('execute and privilege are echoed where granted', () => {
    const bench = new Ats({ ERS: 1 });
    bench.pasid(RID, PASID, { PGTT: PGTT_FIRST_STAGE, DID: 2, FSPTPTR: bench.first, SRE: 1, ERE: 1, NXE: 1 });
    bench.map(bench.first, 4, 0x1000n, 0x8000, FS_P | FS_RW, ALL);
    bench.map(bench.first, 4, 0x2000n, 0x9000, FS_P, ALL, 1, 1 << 31);
    const access = ACCESS_EXECUTE | ACCESS_PRIVILEGED | ACCESS_WRITE;
    const granted = { read: true, write: true, execute: true, privileged: true };
    expect(bench.request(0x1000n, access, PASID)).toMatchObject(granted);
    const partly = { read: true, write: true, execute: false, privileged: true };
    expect(bench.request(0x2000n, access, PASID)).toMatchObject(partly);
    expect(bench.request(0x1000n, ACCESS_WRITE, PASID)).toMatchObject(NOT_MAPPED);
  });

  test('come from the IOTLB, stale too', () => {
    const bench = new Ats();
    bench.map(bench.second, 4, 0x1000n, 0x8000, SS_R | SS_W, SS_R | SS_W);
    bench.translate(0x1000n);
    bench.map(bench.second, 4, 0x1000n, 0, 0, SS_R | SS_W);
    expect(bench.request(0x1000n, ACCESS_WRITE)).toMatchObject({ low: 0x8000, write: true });
    bench.complete(encodeIotlbInvalidate({ G: G_GLOBAL }));
    expect(bench.request(0x1000n)).toMatchObject(NOT_MAPPED);
  });

  test('what is not mapped is a success without permissions, and not recorded', () => {
    const bench = new Ats();
    bench.map(bench.second, 4, 0x1000n, 0xfee0_0000, SS_R | SS_W, SS_R | SS_W);
    bench.map(bench.first, 4, 0x1000n, 0x8000, FS_P | FS_RW, ALL);
    for (const [address, pasid] of [
      [0x5000n, NO_PASID],
      [1n << 60n, NO_PASID],
      [0x1000n, NO_PASID],
      [0x5000n, PASID],
      [0x1000n, PASID],
      [1n << 50n, PASID],
    ] as const) {
      expect(bench.request(address, ACCESS_WRITE, pasid)).toMatchObject(NOT_MAPPED);
    }
    expect(bench.takeFaults()).toEqual([]);
  });

  test('malformed entries and missing tables are refused and recorded', () => {
    const bench = new Ats();
    bench.map(bench.second, 4, 0x1000n, 0x8000, SS_R, SS_R | SS_W, 1, 1 << 15);
    bench.map(bench.first, 4, 0x20_0000n, 0x1000, ALL | FS_PS | (1 << 14), ALL, 2);
    for (const [address, pasid, reason] of [
      [0x1000n, NO_PASID, 0x7a],
      [0x20_0000n, PASID, 0x72],
      [0n, 4, 0x59],
      [0n, 64, 0x51],
      [0n, 0x8000, 0x46],
    ] as const) {
      expect(bench.request(address, ACCESS_READ, pasid)).toMatchObject(REFUSED);
      expect(bench.fault((bench.unit.read32(0x34) >>> 8) & 0xff)).toMatchObject({ FR: reason, AT: 1, T1: 1 });
      expect(bench.takeFaults()).toEqual([reason]);
    }
  });

  test('need DTE, device-TLB support and translation', () => {
    const bench = new Ats();
    bench.map(bench.second, 4, 0x1000n, 0x8000, SS_R, SS_R | SS_W);
    bench.unit.write32(GCMD_REG, GCMD_QIE);
    expect(bench.request(0x1000n)).toMatchObject(REFUSED);
    bench.context(RID);
    bench.unit.write32(GCMD_REG, GCMD_QIE | GCMD_TE);
    expect(bench.request(0x1000n)).toMatchObject(REFUSED);
    expect(bench.takeFaults()).toEqual([0x44]);
    const without = new Bench({ DT: 0 });
    without.pasid(RID, 0, { PGTT: PGTT_PASS_THROUGH });
    expect(without.request(0x1000n)).toMatchObject(REFUSED);
  });

  test('pass-through, and the interrupt range', () => {
    const bench = new Ats();
    bench.pasid(RID, 0, { PGTT: PGTT_PASS_THROUGH });
    const same = { high: 0x12, low: 0x3456_7000, length: 4096, read: true, write: true };
    expect(bench.request(0x12_3456_789an, ACCESS_WRITE)).toMatchObject(same);
    const interrupt = { success: true, low: 0xfee0_1000, read: false, write: true, untranslatedOnly: true };
    expect(bench.request(0xfee0_1004n, ACCESS_WRITE)).toMatchObject(interrupt);
    expect(bench.request(0xfee0_1004n, ACCESS_WRITE, PASID)).toMatchObject(NOT_MAPPED);
    expect(bench.unit.isInterruptAddress(0, 0xfeef_ffff)).toBe(true);
    expect(bench.unit.isInterruptAddress(0, 0xfef0_0000)).toBe(false);
    expect(bench.unit.isInterruptAddress(1, 0xfee0_0000)).toBe(false);
  });

  test('the translated request that follows passes', () => {
    const bench = new Ats();
    bench.map(bench.second, 4, 0x1000n, 0x12_3456_7000, SS_R | SS_W, SS_R | SS_W);
    const { high, low } = bench.request(0x1000n, ACCESS_WRITE);
    expect(bench.unit.translate(RID, NO_PASID, high, low + 8, ACCESS_WRITE | ACCESS_TRANSLATED)).toBe(
      0x12_3456_7008,
    );
  });
});

const pageRequest = (changes: Partial<PageRequest> = {}): PageRequest => ({
  pasid: PASID,
  high: 0xffff_8765,
  low: 0x4321_0000,
  read: true,
  write: false,
  execute: false,
  privileged: false,
  last: true,
  prgIndex: 0x155,
  ...changes,
});

test('Priv answers a PASID in privileged mode, and not RID_PRIV: without a PASID there is no such bit', () => {
  const bench = new Bench({ RPRIVS: 1 });
  bench.context(RID, { DTE: 1, RID_PRIV: 1 });
  const root = bench.page();
  bench.map(root, 4, 0x1000n, 0x8000, FS_P | FS_RW, FS_P | FS_RW);
  for (const pasid of [0, 1]) bench.pasid(RID, pasid, { PGTT: PGTT_FIRST_STAGE, FSPTPTR: root, SRE: 1 });
  expect(bench.request(0x1000n)).toMatchObject({ read: true, privileged: false });
  expect(bench.request(0x1000n, ACCESS_PRIVILEGED, 1)).toMatchObject({ read: true, privileged: true });
});

describe('page requests', () => {
  test('descriptor bits', () => {
    const words = encodePageRequest(
      0xabcd,
      pageRequest({ pasid: 0x98765, execute: true, privileged: true, write: true }),
    );
    expect([...words].map((word) => (word >>> 0).toString(16))).toEqual([
      'abcd0101',
      '398765',
      '43210aaf',
      'ffff8765',
      '0',
      '0',
      '0',
      '0',
    ]);
    expect(decodePageRequest(words)).toEqual({
      TYPE: 1,
      PP: 1,
      RID: 0xabcd,
      PASID: 0x98765,
      EXE: 1,
      PRIV: 1,
      RD: 1,
      WR: 1,
      LPIG: 1,
      PRGI: 0x155,
      ADDR: Number(0xffff_8765_4321_0000n),
    });
    expect(encodePageRequest(1, pageRequest({ pasid: NO_PASID, last: false }))[0]).toBe(0x10001);
  });

  test('land in the queue, with one event until PPR is cleared', () => {
    const bench = new Ats();
    const { unit } = bench;
    unit.write32(PECTL_REG, 0);
    unit.write32(PECTL_REG + 4, 0x52);
    unit.write32(PECTL_REG + 8, 0xfee0_2000);
    expect(unit.pageRequest(RID, pageRequest())).toBe(true);
    expect(unit.pageRequest(RID, pageRequest({ write: true, last: false }))).toBe(true);
    expect(unit.read32(PQT_REG)).toBe(64);
    expect(unit.read32(PRS_REG)).toBe(PRS_PPR);
    expect(bench.interrupts).toEqual([[0, 0xfee0_2000, 0x52]]);
    const words = new Int32Array(8);
    bench.memory.readWords(bench.pageRequestQueue + 32, words);
    expect([...words]).toEqual([...encodePageRequest(RID, pageRequest({ write: true, last: false }))]);
    unit.write32(PRS_REG, PRS_PPR);
    unit.write32(PQH_REG, 64);
    unit.write32(PECTL_REG, ECTL_IM);
    unit.pageRequest(RID, pageRequest());
    expect(bench.interrupts.length).toBe(1);
    unit.write32(PRS_REG, PRS_PPR);
    unit.write32(PECTL_REG, 0);
    expect(bench.interrupts.length).toBe(1);
    expect(bench.messages).toEqual([]);
  });

  test('overflow: dropped, the last of a group answered with success, until software clears PRO', () => {
    const bench = new Ats();
    const { unit } = bench;
    for (let i = 0; i < 127; i++)
      expect(unit.pageRequest(RID, pageRequest({ prgIndex: i, last: false }))).toBe(true);
    expect(unit.read32(PRS_REG)).toBe(PRS_PPR);
    expect(unit.pageRequest(RID, pageRequest({ prgIndex: 200, last: false }))).toBe(true);
    expect(unit.read32(PRS_REG)).toBe(PRS_PPR | PRS_PRO);
    expect(bench.messages).toEqual([]);
    expect(unit.pageRequest(RID, pageRequest({ prgIndex: 201 }))).toBe(true);
    expect(bench.messages).toEqual([[RID, 'response', PASID, 201, PRG_SUCCESS]]);
    expect(unit.read32(PQT_REG)).toBe(127 * 32);
    unit.write32(PQH_REG, 127 * 32);
    expect(unit.pageRequest(RID, pageRequest({ pasid: NO_PASID, prgIndex: 202 }))).toBe(true);
    expect(bench.messages[1]).toEqual([RID, 'response', NO_PASID, 202, PRG_SUCCESS]);
    unit.write32(PRS_REG, PRS_PRO | PRS_PPR);
    expect(unit.pageRequest(RID, pageRequest())).toBe(true);
    expect(unit.read32(PQT_REG)).toBe(0);
    expect(bench.messages.length).toBe(2);
  });

  test('are refused without PRE, a context, PASIDE or translation, and those faults recorded', () => {
    const bench = new Ats();
    const { unit } = bench;
    expect(unit.pageRequest(0x19, pageRequest())).toBe(false);
    expect(bench.fault()).toMatchObject({ FR: 0x41, T1: 0, T2: 1, PP: 1, PV: PASID, SID: 0x19 });
    expect(bench.takeFaults()).toEqual([0x41]);
    bench.context(0x28, { DTE: 1 });
    expect(unit.pageRequest(0x28, pageRequest())).toBe(false);
    expect(bench.takeFaults()).toEqual([0x47]);
    bench.context(0x29, { PRE: 1, PASIDE: 0 });
    expect(unit.pageRequest(0x29, pageRequest())).toBe(false);
    expect(bench.takeFaults()).toEqual([0x45]);
    bench.context(0x2a, { FPD: 1 });
    expect(unit.pageRequest(0x2a, pageRequest())).toBe(false);
    expect(bench.takeFaults()).toEqual([]);
    unit.write32(GCMD_REG, GCMD_QIE);
    expect(unit.pageRequest(RID, pageRequest())).toBe(false);
    expect(unit.read32(PQT_REG)).toBe(0);
    expect(unit.read32(PRS_REG)).toBe(0);
  });

  test('a table mode the unit has not refuses them too', () => {
    const bench = new Ats();
    bench.write64(RTADDR_REG, bench.rootTable, 3 << RTADDR_TTM_SHIFT);
    bench.unit.write32(GCMD_REG, GCMD_QIE | GCMD_TE | GCMD_SRTP);
    expect(bench.unit.pageRequest(RID, pageRequest())).toBe(false);
    expect(bench.takeFaults()).toEqual([0x30]);
  });
});
