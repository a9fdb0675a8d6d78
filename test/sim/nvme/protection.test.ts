/** Metadata and end-to-end data protection of the simulated controller. NVM Express 1.4, 8.2 and 8.3. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { DmaSlice } from '../../../lib';
import { FileStorage, MemoryStorage, NvmeController, type NvmeNamespace } from '../../../lib/sim';
import { crc16 } from '../../../lib/sim/devices/nvme/crc';
import { Bench, pattern, type Ring, type Words } from './bench';

const WRITE = 1;
const READ = 2;
const WRITE_ZEROES = 8;
const DATASET_MANAGEMENT = 9;
/** PRINFO in dword 12. */
const PRACT = 1 << 29;
const GUARD = 1 << 28;
const APPLICATION = 1 << 27;
const REFERENCE = 1 << 26;
const ALL = GUARD | APPLICATION | REFERENCE;
const DEALLOCATE_ZEROES = 1 << 25;
const ALL_BITS = 0xffff_0000;

describe('the guard: CRC-16/T10-DIF', () => {
  // The code words of T10's "Simplified End-to-End Data Protection" (2003), and the check value of the catalogues.
  test.each<[string, Uint8Array, number]>([
    ['123456789', Buffer.from('123456789'), 0xd0db],
    ['32 zeros', new Uint8Array(32), 0],
    ['32 times ff', new Uint8Array(32).fill(0xff), 0xa293],
    ['0 to 31', Uint8Array.from({ length: 32 }, (_, i) => i), 0x0224],
    ['ff ff, then zeros', Uint8Array.from({ length: 32 }, (_, i) => (i < 2 ? 0xff : 0)), 0x21b8],
    ['255 down to 224', Uint8Array.from({ length: 32 }, (_, i) => 255 - i), 0xa0b7],
  ])('%s', (_name, bytes, expected) => {
    expect(crc16(bytes)).toBe(expected);
    const inside = new Uint8Array(bytes.length + 16).fill(0x55);
    inside.set(bytes, 3);
    expect(crc16(inside, 3, 3 + bytes.length)).toBe(expected);
  });

  test('bit by bit, as the polynomial says, for all lengths', () => {
    const bytes = pattern(64, 77);
    let crc = 0;
    for (let length = 0; length <= 64; length++) {
      expect([length, crc16(bytes, 0, length)]).toEqual([length, crc]);
      crc ^= bytes[length] << 8;
      for (let bit = 0; bit < 8; bit++) crc = ((crc << 1) ^ ((crc & 0x8000) !== 0 ? 0x8bb7 : 0)) & 0xffff;
    }
  });
});

/** Protection information as it is in memory: big endian. */
function tags(guard: number, application: number, reference: number): number[] {
  return [guard >> 8, guard & 255, application >> 8, application & 255].concat(
    [24, 16, 8, 0].map((shift) => (reference >>> shift) & 255),
  );
}

interface Protected {
  readonly bench: Bench;
  readonly ring: Ring;
  readonly data: DmaSlice;
  readonly metadata: DmaSlice;
  /** Runs a command with both buffers: its status. */
  run(opcode: number, lba: number, blocks: number, more?: Options): number;
}

interface Options {
  readonly info?: number;
  /** Dwords 14 and 15. */
  readonly reference?: number;
  readonly application?: number;
  readonly words?: Partial<Words>;
}

function setUp(namespace: Partial<NvmeNamespace>): Protected {
  const bench = new Bench({ namespaces: [{ storage: new MemoryStorage(1 << 20), ...namespace }] });
  const ring = bench.createQueues(1);
  const [data, metadata] = [bench.pool.allocate(65536), bench.pool.allocate(4096)];
  const run = (opcode: number, lba: number, blocks: number, more: Options = {}) => {
    const { info = 0, reference = lba, application = 0, words } = more;
    const dwords = [lba, 0, (info | (blocks - 1)) >>> 0, 0, reference, application];
    const pointers = { metadata: metadata.iova, prp1: data.iova, prp2: data.iova + 4096n };
    return bench.outcome(ring, { opcode, namespace: 1, ...pointers, dwords, ...words });
  };
  return { bench, ring, data, metadata, run };
}

/** Blocks with valid information in both buffers. */
function fill({ data, metadata }: Protected, lba: number, blocks: number, application = 0x1234): void {
  data.bytes.set(pattern(512 * blocks, lba));
  for (let i = 0; i < blocks; i++)
    metadata.bytes.set(tags(crc16(data.bytes, 512 * i, 512 * i + 512), application, lba + i), 8 * i);
}

const bytesOf = (slice: DmaSlice, length: number) => [...slice.bytes.subarray(0, length)];

describe('Identify Namespace (5.15.2.1)', () => {
  function describeNamespace(namespace: Partial<NvmeNamespace>): number[] {
    const { bench, data } = setUp(namespace);
    const identify = { opcode: 0x06, namespace: 1, prp1: data.iova, dwords: [0] };
    expect(bench.outcome(bench.admin, identify)).toBe(0);
    return [...data.bytes.subarray(26, 30), ...data.bytes.subarray(128, 132)];
  }

  test.each<[string, Partial<NvmeNamespace>, number[]]>([
    // FLBAS, MC, DPC, DPS; metadata size (two bytes), block size, relative performance.
    ['no metadata', {}, [0, 0, 0, 0, 0, 0, 9, 0]],
    ['metadata only', { metadata: new MemoryStorage(16384) }, [0, 2, 0, 0, 8, 0, 9, 0]],
    ['type 1', { protection: 1 }, [0, 2, 0x11, 1, 8, 0, 9, 0]],
    ['type 2', { protection: 2 }, [0, 2, 0x12, 2, 8, 0, 9, 0]],
    ['type 3, in the data', { protection: 3, extended: true }, [0x10, 1, 0x14, 3, 8, 0, 9, 0]],
  ])('%s', (_name, namespace, expected) => {
    expect(describeNamespace(namespace)).toEqual(expected);
  });
});

test('namespaces that cannot be', () => {
  const make = (namespace: Partial<NvmeNamespace>) => () =>
    new NvmeController({ namespaces: [{ storage: new MemoryStorage(1 << 20), ...namespace }] });
  expect(make({ protection: 4 as 3 })).toThrow('protection is of type 1, 2 or 3, or 0 for none, not 4');
  expect(make({ metadata: new MemoryStorage(16383) })).toThrow('takes 16384 bytes, not 16383');
});

test('metadata without protection: moved as it is, zeros where nothing was written', () => {
  const disk = setUp({ metadata: new MemoryStorage(16384) });
  disk.metadata.bytes.fill(9);
  expect(disk.run(READ, 0, 2, { info: ALL })).toBe(0);
  expect(bytesOf(disk.metadata, 17)).toEqual([...new Uint8Array(16), 9]);
  disk.metadata.bytes.set(pattern(16, 3));
  expect(disk.run(WRITE, 5, 2, { info: ALL | PRACT })).toBe(0);
  disk.metadata.bytes.fill(9);
  expect(disk.run(READ, 6, 1)).toBe(0);
  expect(bytesOf(disk.metadata, 9)).toEqual([...pattern(16, 3).subarray(8), 9]);
});

describe.each([1, 2, 3] as const)('type %i', (protection) => {
  // The reference tag of type 3 is not the controller's to check.
  const checks = protection === 3 ? GUARD | APPLICATION : ALL;
  const right = { info: checks, application: 0x1234 | ALL_BITS };

  test('what was written comes back with its information, in a buffer of its own', () => {
    const disk = setUp({ protection });
    fill(disk, 7, 8);
    const before = bytesOf(disk.metadata, 64);
    expect(disk.run(WRITE, 7, 8, right)).toBe(0);
    for (const { bytes } of [disk.data, disk.metadata]) bytes.fill(0x55);
    expect(disk.run(READ, 7, 8, right)).toBe(0);
    expect(bytesOf(disk.data, 4097)).toEqual([...pattern(4096, 7), 0x55]);
    expect(bytesOf(disk.metadata, 65)).toEqual([...before, 0x55]);
  });

  test('each wrong bit of data, guard and tags is found; nothing is written', () => {
    const disk = setUp({ protection });
    const outcomes: number[] = [];
    for (const [slice, at] of [
      ['data', 512 + 100],
      ['metadata', 8 + 0],
      ['metadata', 8 + 3],
      ['metadata', 8 + 7],
    ] as const) {
      fill(disk, 7, 2);
      disk[slice].bytes[at] ^= 4;
      outcomes.push(disk.run(WRITE, 7, 2, right));
    }
    expect(outcomes).toEqual([0x282, 0x282, 0x283, protection === 3 ? 0 : 0x284]);
    if (protection === 3) return;
    expect(disk.run(READ, 7, 2)).toBe(0);
    expect(bytesOf(disk.metadata, 16)).toEqual(Array.from({ length: 16 }, () => 0xff));
  });

  test('what is wrong on the medium is found when it is read, where that is asked for', () => {
    const storage = new MemoryStorage(1 << 20);
    const disk = setUp({ protection, storage });
    fill(disk, 7, 2);
    expect(disk.run(WRITE, 7, 2, right)).toBe(0);
    storage.write(8 * 512 + 3, new Uint8Array([1]));
    const failed = disk.run(READ, 7, 2, right);
    expect([failed, disk.run(READ, 7, 1, right)]).toEqual([0x282, 0]);
    expect(disk.run(READ, 7, 2, { ...right, info: checks & ~GUARD })).toBe(0);
    expect(disk.run(READ, 7, 2, { ...right, application: 0x1235 | ALL_BITS })).toBe(0x283);
    // Only the bits of the mask count.
    expect(disk.run(READ, 7, 1, { ...right, application: 0x1235 | 0xfffe_0000 })).toBe(0);
  });

  test('PRACT: the controller makes the information, and takes it away', () => {
    const disk = setUp({ protection });
    disk.data.bytes.set(pattern(1024, 5));
    disk.metadata.bytes.fill(0x55);
    const info = checks | PRACT;
    expect(disk.run(WRITE, 9, 2, { info, application: 0xabcd })).toBe(0);
    disk.data.bytes.fill(0);
    const application = 0xabcd | ALL_BITS;
    expect(disk.run(READ, 9, 2, { info, application })).toBe(0);
    expect(bytesOf(disk.data, 1024)).toEqual([...pattern(1024, 5)]);
    expect(disk.metadata.bytes.every((byte) => byte === 0x55)).toBe(true);
    expect(disk.run(READ, 9, 2, { info, application: 0xabcc | ALL_BITS })).toBe(0x283);
    expect(disk.run(READ, 9, 2, { info: checks, application })).toBe(0);
    const guards = [0, 512].map((at) => crc16(disk.data.bytes, at, at + 512));
    const second = protection === 3 ? 9 : 10;
    expect(bytesOf(disk.metadata, 16)).toEqual([
      ...tags(guards[0], 0xabcd, 9),
      ...tags(guards[1], 0xabcd, second),
    ]);
  });

  test('tags that switch the checks off', () => {
    const disk = setUp({ protection });
    const unchecked = protection === 3 ? [0xffff_ffff] : [0, 0xffff_ffff];
    for (const reference of unchecked) {
      disk.metadata.bytes.set(tags(0xbad, 0xffff, reference));
      expect([reference, disk.run(WRITE, 3, 1, right), disk.run(READ, 3, 1, right)]).toEqual([
        reference,
        0,
        0,
      ]);
    }
    disk.metadata.bytes.set(tags(0xbad, 0xffff, 1));
    expect(disk.run(WRITE, 3, 1, right)).toBe(protection === 3 ? 0x282 : 0);
  });

  test('blocks that were not written, were deallocated, or are zeros', () => {
    const disk = setUp({ protection });
    const ones = Array.from({ length: 8 }, () => 0xff);
    const found = (lba: number) => {
      disk.metadata.bytes.fill(0x55);
      expect(disk.run(READ, lba, 1, right)).toBe(0);
      return bytesOf(disk.metadata, 8);
    };
    expect(found(20)).toEqual(ones);
    fill(disk, 20, 4);
    expect(disk.run(WRITE, 20, 4, right)).toBe(0);
    new DataView(disk.data.bytes.buffer, disk.data.bytes.byteOffset).setUint32(4, 1, true);
    disk.data.bytes[8] = 20;
    disk.data.bytes.fill(0, 9, 16);
    const range = { words: { dwords: [0, 4] } };
    expect(disk.run(DATASET_MANAGEMENT, 0, 1, range)).toBe(0);
    expect(disk.run(WRITE_ZEROES, 21, 1, { info: DEALLOCATE_ZEROES })).toBe(0);
    expect(disk.run(WRITE_ZEROES, 22, 1, { info: PRACT, application: 0x1234 })).toBe(0);
    expect(disk.run(WRITE_ZEROES, 23, 1)).toBe(0);
    expect([found(20), found(21), found(22)]).toEqual([ones, ones, tags(0, 0x1234, 22)]);
    expect(disk.run(READ, 23, 1)).toBe(0);
    expect(bytesOf(disk.metadata, 8)).toEqual(tags(0, 0, 0));
    expect(bytesOf(disk.data, 512)).toEqual([...new Uint8Array(512)]);
  });

  test('data and metadata in one buffer', () => {
    const disk = setUp({ protection, extended: true });
    const source = setUp({ protection });
    fill(source, 7, 9);
    const both = Array.from({ length: 9 }, (_, i) => [
      ...source.data.bytes.subarray(512 * i, 512 * i + 512),
      ...source.metadata.bytes.subarray(8 * i, 8 * i + 8),
    ]).flat();
    disk.data.bytes.set(both);
    expect(disk.run(WRITE, 7, 9, right)).toBe(0);
    disk.data.bytes.fill(0x55);
    expect(disk.run(READ, 8, 8, { ...right, reference: 8 })).toBe(0);
    expect(bytesOf(disk.data, 8 * 520 + 1)).toEqual([...both.slice(520), 0x55]);
    disk.data.bytes.fill(0x55);
    expect(disk.run(READ, 7, 2, { ...right, info: checks | PRACT })).toBe(0);
    expect(bytesOf(disk.data, 1025)).toEqual([...pattern(1024, 7), 0x55]);
    expect(disk.metadata.bytes.every((byte) => byte === 0)).toBe(true);
  });
});

test('reference tags that cannot be: those of type 1 are addresses, those of type 3 nobody checks', () => {
  const outcome = (protection: 1 | 2 | 3, opcode: number, info: number) => {
    const disk = setUp({ protection });
    return disk.run(opcode, 7, 1, { info, reference: 8 });
  };
  for (const opcode of [READ, WRITE, WRITE_ZEROES]) {
    const info = REFERENCE | PRACT;
    expect([1, 2, 3].map((type) => outcome(type as 1 | 2 | 3, opcode, info))).toEqual([0x181, 0, 0x181]);
    expect([1, 2, 3].map((type) => outcome(type as 1 | 2 | 3, opcode, PRACT))).toEqual([0, 0, 0]);
  }
});

test('reference tags go on from block to block, over the end of 32 bits', () => {
  const disk = setUp({ protection: 2 });
  fill(disk, 0xffff_ffff, 3);
  const options = { info: ALL, reference: 0xffff_ffff, application: 0x1234 | ALL_BITS };
  expect(disk.run(WRITE, 3, 3, options)).toBe(0);
  expect(bytesOf(disk.metadata, 24).slice(12, 16)).toEqual([0, 0, 0, 0]);
  expect(disk.run(READ, 3, 3, options)).toBe(0);
  expect(disk.run(READ, 4, 2, options)).toBe(0x284);
});

test('where the metadata is: at an address, or where an SGL descriptor says (4.2)', () => {
  const disk = setUp({ protection: 1 });
  const { iova } = disk.metadata;
  const run = (flags: number, metadata: bigint, prp2: bigint) =>
    disk.run(READ, 7, 1, { words: { flags, metadata, prp2 } });
  expect(run(0, iova + 2n, 0n)).toBe(0x002);
  expect(run(0, 0xdead_0000n, 0n)).toBe(0x004);
  expect(run(0x40, iova + 2n, 512n)).toBe(0);
  expect(bytesOf(disk.metadata, 11)).toEqual([0, 0, ...Array.from({ length: 8 }, () => 0xff), 0]);
  const view = new DataView(disk.metadata.bytes.buffer, disk.metadata.bytes.byteOffset);
  view.setBigUint64(64, iova + 33n, true);
  view.setUint32(72, 8, true);
  expect(run(0x80, iova + 64n, 512n)).toBe(0);
  expect([...disk.metadata.bytes.subarray(32, 42)]).toEqual([0, ...Array.from({ length: 8 }, () => 0xff), 0]);
  expect(run(0x80, iova + 68n, 512n)).toBe(0x002);
  view.setUint32(72, 7, true);
  expect(run(0x80, iova + 64n, 512n)).toBe(0x00f);
});

test('what checks find counts as errors of integrity in the health log', () => {
  const disk = setUp({ protection: 1 });
  fill(disk, 7, 1);
  disk.metadata.bytes[0] ^= 1;
  expect(disk.run(WRITE, 7, 1, { info: GUARD })).toBe(0x282);
  const log = { opcode: 0x02, namespace: 0xffff_ffff, prp1: disk.data.iova, dwords: [(127 << 16) | 2] };
  expect(disk.bench.outcome(disk.bench.admin, log)).toBe(0);
  expect(disk.data.bytes[160]).toBe(1);
});

test('a file for the metadata: it stays with that of the data', () => {
  const folder = mkdtempSync(join(tmpdir(), 'iommufd-nvme-'));
  try {
    for (const attempt of ['write', 'read']) {
      const storage = new FileStorage(join(folder, 'data'), 1 << 20);
      const metadata = new FileStorage(join(folder, 'metadata'), 16384);
      const disk = setUp({ protection: 1, storage, metadata });
      const options = { info: ALL, application: 0x1234 | ALL_BITS };
      fill(disk, 7, 2);
      if (attempt === 'write') expect(disk.run(WRITE, 7, 2, options)).toBe(0);
      const expected = bytesOf(disk.metadata, 16);
      disk.metadata.bytes.fill(0);
      expect(disk.run(READ, 7, 2, options)).toBe(0);
      expect(bytesOf(disk.metadata, 16)).toEqual(expected);
      expect(disk.run(0, 0, 1)).toBe(0);
      storage.close();
      metadata.close();
    }
    // Inverted, so that a new file says that nothing was written.
    const kept = readFileSync(join(folder, 'metadata'));
    expect([...kept.subarray(56, 72)].filter((byte) => byte !== 0).length).toBeGreaterThan(8);
    expect([...kept.subarray(0, 56)].every((byte) => byte === 0)).toBe(true);
  } finally {
    rmSync(folder, { recursive: true });
  }
});
