/** Bit positions of the in-memory structures, as literal vectors from the specification's figures. */
import {
  AW_48_BIT,
  CAP_REG,
  composeCapabilities,
  CONTEXT_ENTRY,
  contextReservedBits,
  DEFAULT_CAPABILITIES,
  decodeCap,
  decodeEcap,
  ECAP_REG,
  encodeCap,
  encodeContextEntry,
  encodeEcap,
  encodeLegacyContextEntry,
  encodeLegacyRootEntry,
  encodePasidDirectoryEntry,
  encodePasidEntry,
  encodeRootEntryHalf,
  firstStageEntryHigh,
  firstStageEntryLow,
  FRCD_REG,
  FS_P,
  FS_RW,
  FS_XD_HIGH,
  Layout,
  LEGACY_CONTEXT_ENTRY,
  LEGACY_ROOT_ENTRY,
  legacyContextEntryAddress,
  PASID_DIRECTORY_ENTRY,
  PASID_ENTRY,
  PGTT_NESTED,
  rootEntryAddress,
  contextEntryAddress,
  pasidDirectoryEntryAddress,
  pasidEntryAddress,
  pasidReservedBits,
  ROOT_ENTRY_HALF,
  secondStageEntryHigh,
  secondStageEntryLow,
  SS_R,
  SS_SNP,
  SS_W,
} from '../../../lib/sim/vtd';

/** 64-bit words of a structure, as hexadecimal, lowest first. */
function quads(words: Int32Array): string[] {
  const result: string[] = [];
  for (let i = 0; i < words.length; i += 2) {
    result.push(((BigInt(words[i + 1]! >>> 0) << 32n) | BigInt(words[i]! >>> 0)).toString(16));
  }
  return result;
}

describe('tables', () => {
  test('scalable root entry', () => {
    expect(quads(encodeRootEntryHalf(0x1234_5678_9000))).toEqual(['123456789001']);
    expect(rootEntryAddress(0x8000, 0x00f8)).toBe(0x8008);
    expect(rootEntryAddress(0x8000, 0xff07)).toBe(0x8ff0);
  });

  test('legacy root entry', () => {
    expect(quads(encodeLegacyRootEntry(0x1234_5678_9000))).toEqual(['123456789001', '0']);
    expect(LEGACY_ROOT_ENTRY.decode([0x8000_1001, 0x12, 0, 0])).toEqual({ P: 1, CTP: 0x12_8000_1000 });
  });

  test('legacy context entry', () => {
    const words = encodeLegacyContextEntry({
      P: 1,
      FPD: 1,
      TT: 2,
      SSPTPTR: 0x2468_ace0_b000,
      AW: 3,
      IGN: 15,
      DID: 0xabcd,
    });
    expect(quads(words)).toEqual(['2468ace0b00b', 'abcd7b']);
    expect(legacyContextEntryAddress(0x3000, 0x01ff)).toBe(0x3ff0);
    expect(quads(LEGACY_CONTEXT_ENTRY.reserved)).toEqual(['ff0', 'ffffffffff000080']);
  });

  test('scalable context entry', () => {
    const words = encodeContextEntry({
      P: 1,
      FPD: 1,
      DTE: 1,
      PASIDE: 1,
      PRE: 1,
      PDTS: 5,
      PASIDDIRPTR: 0x2468_ace0_b000,
      RID_PASID: 0xabcde,
      RID_PRIV: 1,
    });
    expect(quads(words)).toEqual(['2468ace0ba1f', '1abcde', '0', '0']);
    expect(contextEntryAddress(0x3000, 0x01ff)).toBe(0x3fe0);
    expect(quads(contextReservedBits(composeCapabilities()))).toEqual([
      'ffffc000000001e0',
      'fffffffffff00000',
      'ffffffffffffffff',
      'ffffffffffffffff',
    ]);
  });

  test('PASID directory entry', () => {
    expect(quads(encodePasidDirectoryEntry(0x7_0000_1000))).toEqual(['700001001']);
    expect(PASID_DIRECTORY_ENTRY.decode([0x5003, 0])).toEqual({ P: 1, FPD: 1, SMPTBLPTR: 0x5000 });
    expect(pasidDirectoryEntryAddress(0x1000, 0xfffff)).toBe(0x1000 + 0x3fff * 8);
    expect(pasidEntryAddress(0x1000, 0xfffff)).toBe(0x1fc0);
  });

  test('PASID table entry', () => {
    const words = encodePasidEntry({
      P: 1,
      FPD: 1,
      AW: AW_48_BIT,
      PGTT: PGTT_NESTED,
      SSADE: 1,
      SSPTPTR: 0xabc_def0_1000,
      DID: 0x8421,
      PWSNP: 1,
      PGSNP: 1,
      SRE: 1,
      FSPM: 1,
      WPE: 1,
      EAFE: 1,
      FSPTPTR: 0x123_4567_8000,
    });
    expect(quads(words)).toEqual(['abcdef012cb', '1808421', '12345678095', '0', '0', '0', '0', '0']);
    const single = (name: keyof typeof PASID_ENTRY.fields) =>
      quads(encodePasidEntry({ [name]: 1 })).join(' ');
    expect(single('CD')).toBe('0 2000000 0 0 0 0 0 0');
    expect(single('EMTE')).toBe('0 4000000 0 0 0 0 0 0');
    expect(single('PAT')).toBe('0 100000000 0 0 0 0 0 0');
    expect(single('ERE')).toBe('0 0 2 0 0 0 0 0');
    expect(single('NXE')).toBe('0 0 20 0 0 0 0 0');
    expect(single('SMEP')).toBe('0 0 40 0 0 0 0 0');
    expect(quads(pasidReservedBits(composeCapabilities())).slice(0, 4)).toEqual([
      'c20',
      'fffffffffe7f0000',
      'f02',
      'ffffffffffffffff',
    ]);
  });

  test('paging entries', () => {
    const pa = 0xfff_8000_1000;
    expect(secondStageEntryLow(pa, SS_R | SS_W | SS_SNP)).toBe(0x80001803 | 0);
    expect(secondStageEntryHigh(pa)).toBe(0xfff);
    expect(firstStageEntryLow(pa, FS_P | FS_RW)).toBe(0x80001003 | 0);
    expect(firstStageEntryHigh(pa, FS_XD_HIGH)).toBe(0x80000fff | 0);
  });

  test('fault-recording register', () => {
    expect(FRCD_REG.decode([0x89abc000, 0x01234567, 0xe0000123 | 0, 0xeabcde79 | 0])).toEqual({
      FI: Number(0x0123456789abc000n),
      SID: 0x123,
      T2: 0,
      PRIV: 1,
      EXE: 1,
      PP: 1,
      FR: 0x79,
      PV: 0xabcde,
      AT: 2,
      T1: 1,
      F: 1,
    });
  });
});

describe('capabilities', () => {
  // CAP and ECAP of a machine with scalable mode, as its kernel logs them: cap 9ed008c40780466 ecap 3ee9e86f050df.
  test('decode a real unit', () => {
    expect(decodeCap([0x40780466, 0x09ed008c])).toMatchObject({
      ND: 6,
      PLMR: 1,
      PHMR: 1,
      CM: 0,
      SAGAW: 0b00100,
      MGAW: 56,
      FRO: 0x40,
      SSLPS: 0b0011,
      PSI: 1,
      NFR: 0,
      MAMV: 45,
      DWD: 1,
      DRD: 1,
      FS1GP: 1,
      PI: 1,
      FS5LP: 0,
    });
    expect(decodeEcap([0x86f050df | 0, 0x3ee9e])).toMatchObject({
      C: 1,
      QI: 1,
      DT: 1,
      IR: 1,
      EIM: 1,
      PT: 1,
      SC: 1,
      IRO: 0x50,
      MHMV: 15,
      NEST: 1,
      PRS: 0,
      SRS: 1,
      EAFS: 1,
      PSS: 19,
      PASID: 0,
      SMTS: 1,
      SSADS: 1,
      SSTS: 1,
      FSTS: 1,
      SMPWCS: 1,
      RPS: 1,
    });
  });

  test('the default is what it says', () => {
    expect(quads(encodeCap(DEFAULT_CAPABILITIES))).toEqual(['d1ed078c22780e06']);
    expect(quads(encodeEcap(DEFAULT_CAPABILITIES))).toEqual(['3ed9ea4f00fdf']);
    expect(decodeCap(encodeCap(DEFAULT_CAPABILITIES)).ESRTPS).toBe(1);
  });

  test('values that do not fit are refused', () => {
    expect(() => composeCapabilities({ ND: 8 })).toThrow(RangeError);
    expect(() => composeCapabilities({ PSS: 32 })).toThrow(RangeError);
    expect(() => composeCapabilities({ HAW: 53 })).toThrow(RangeError);
    expect(() => composeCapabilities({ FRO: 0xf9 })).toThrow(RangeError);
    expect(() => composeCapabilities({ IRO: 0x100 })).toThrow(RangeError);
  });
});

describe('every layout', () => {
  const layouts: [string, Layout<string>][] = Object.entries({
    ROOT_ENTRY_HALF,
    CONTEXT_ENTRY,
    PASID_DIRECTORY_ENTRY,
    PASID_ENTRY,
    FRCD_REG,
    CAP_REG,
    ECAP_REG,
  });

  test.each(layouts)('%s: fields do not overlap, and each survives alone and at its largest', (_, layout) => {
    const union = new Int32Array(layout.wordCount);
    for (const [name, field] of Object.entries(layout.fields)) {
      const [top, bottom] = 'address' in field ? field.address : field;
      const unit = 'address' in field ? 2 ** (bottom % 64) : 1;
      const largest = (2 ** (top - bottom + 1) - 1) * unit;
      const words = layout.encode({ [name]: largest });
      expect(layout.decode(words)).toEqual(
        Object.fromEntries(Object.keys(layout.fields).map((key) => [key, key === name ? largest : 0])),
      );
      words.forEach((word, i) => {
        expect(word & (union[i]! | layout.reserved[i]!)).toBe(0);
        union[i]! |= word;
      });
      expect(() => layout.encode({ [name]: largest + unit })).toThrow(RangeError);
      expect(() => layout.encode({ [name]: -unit })).toThrow(RangeError);
    }
    union.forEach((word, i) => expect(word | layout.reserved[i]!).toBe(-1));
  });
});
