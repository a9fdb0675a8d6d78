/** Commands with data of the simulated controller. NVM Express 1.4, 4.3 (PRPs), 4.4 (SGLs), chapter 6. */
import { MemoryStorage, type NvmeStorage } from '../../../lib/sim';
import { Bench, pattern, transfer, type Ring, type Words } from './bench';

const WRITE = 1;
const READ = 2;
const PAGE = 4096n;

function setUp(options: ConstructorParameters<typeof Bench>[0] = {}): { bench: Bench; ring: Ring } {
  const bench = new Bench(options);
  return { bench, ring: bench.createQueues(1) };
}

/** What the medium has from block `lba` on. */
function stored(bench: Bench, lba: number, length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  bench.storage.read(lba * 512, bytes);
  return bytes;
}

describe('PRPs (4.3)', () => {
  test.each([
    ['one page, from its start', 0, 8],
    ['part of a page, from its middle', 1024, 2],
    ['two pages', 0, 16],
    ['the end of one and the start of another', 3584, 2],
  ])('%s', (_name, offset, blocks) => {
    const { bench, ring } = setUp();
    const { bytes, iova } = bench.pool.allocate(16384);
    const data = pattern(blocks * 512);
    bytes.set(data, offset);
    const prp2 = iova + PAGE;
    expect(bench.outcome(ring, transfer(WRITE, 5, blocks, iova + BigInt(offset), prp2))).toBe(0);
    expect(stored(bench, 5, data.length)).toEqual(data);
    bytes.fill(0);
    expect(bench.outcome(ring, transfer(READ, 5, blocks, iova + BigInt(offset), prp2))).toBe(0);
    expect(bytes.subarray(offset, offset + data.length)).toEqual(data);
  });

  /** A list at an offset of a page, of pages in reverse order. */
  function listed(bench: Bench, blocks: number, { first, at }: { first: number; at: number }) {
    const pages = Math.ceil((first + blocks * 512) / 4096);
    const data = Array.from({ length: pages }, () => bench.pool.allocate(4096)).reverse();
    const lists = [bench.pool.allocate(4096), bench.pool.allocate(4096)];
    const entries = data.slice(1);
    const room = (4096 - at) / 8;
    entries.forEach(({ iova }, i) => {
      const chained = entries.length > room && i >= room - 1;
      const [list, offset] = chained ? [lists[1], 8 * (i - room + 1)] : [lists[0], at + 8 * i];
      new DataView(list.bytes.buffer, list.bytes.byteOffset).setBigUint64(offset, iova, true);
    });
    if (entries.length > room)
      new DataView(lists[0].bytes.buffer, lists[0].bytes.byteOffset).setBigUint64(4088, lists[1].iova, true);
    const gather = () => {
      const all = new Uint8Array(pages * 4096);
      data.forEach(({ bytes }, i) => all.set(bytes, i * 4096));
      return all.subarray(first, first + blocks * 512);
    };
    return { prp1: data[0].iova + BigInt(first), prp2: lists[0].iova + BigInt(at), gather };
  }

  test.each([
    ['three pages', 24, { first: 0, at: 0 }],
    ['an offset in the first page', 30, { first: 1536, at: 0 }],
    ['a list from the middle of a page', 64, { first: 0, at: 2048 }],
    ['a list that fills its page to the last entry', 72, { first: 0, at: 4096 - 64 }],
    ['a list that goes on in another page', 80, { first: 0, at: 4096 - 64 }],
    ['a list whose first page has only the pointer', 80, { first: 512, at: 4096 - 8 }],
  ])('%s', (_name, blocks, where) => {
    const { bench, ring } = setUp();
    const { prp1, prp2, gather } = listed(bench, blocks, where);
    const data = pattern(blocks * 512, 3);
    bench.storage.write(7 * 512, data);
    expect(bench.outcome(ring, transfer(READ, 7, blocks, prp1, prp2))).toBe(0);
    expect(Buffer.compare(gather(), data)).toBe(0);
    expect(bench.outcome(ring, transfer(WRITE, 500, blocks, prp1, prp2))).toBe(0);
    expect(Buffer.compare(stored(bench, 500, data.length), data)).toBe(0);
  });

  test('offsets where there may be none', () => {
    const { bench, ring } = setUp();
    const { iova } = bench.pool.allocate(16384);
    const list = bench.pool.allocate(4096);
    new DataView(list.bytes.buffer, list.bytes.byteOffset).setBigUint64(0, iova + 512n, true);
    expect(bench.outcome(ring, transfer(READ, 0, 1, iova + 2n))).toBe(0x013);
    expect(bench.outcome(ring, transfer(READ, 0, 16, iova, iova + PAGE + 512n))).toBe(0x013);
    expect(bench.outcome(ring, transfer(READ, 0, 24, iova, list.iova + 4n))).toBe(0x013);
    expect(bench.run(ring, transfer(READ, 0, 24, iova, list.iova))).toMatchObject({
      status: 0x013,
      doNotRetry: true,
    });
  });

  test('memory that the device does not reach: a data transfer error, which may be tried again', () => {
    const { bench, ring } = setUp();
    const { iova } = bench.pool.allocate(4096);
    const failed = bench.run(ring, transfer(READ, 0, 16, iova, 0xdead_0000n));
    expect(failed).toMatchObject({ status: 0x004, doNotRetry: false });
    expect(bench.outcome(ring, transfer(WRITE, 0, 24, iova, 0xdead_0000n))).toBe(0x004);
    expect(bench.outcome(ring, transfer(READ, 0, 8, iova))).toBe(0);
  });
});

describe('SGLs (4.4)', () => {
  interface Descriptor {
    readonly type: number;
    readonly address: bigint;
    readonly length: number;
  }

  function encode(descriptors: readonly Descriptor[]): Uint8Array {
    const bytes = new Uint8Array(16 * descriptors.length);
    const view = new DataView(bytes.buffer);
    descriptors.forEach(({ type, address, length }, i) => {
      view.setBigUint64(16 * i, address, true);
      view.setUint32(16 * i + 8, length, true);
      view.setUint8(16 * i + 15, type);
    });
    return bytes;
  }

  /** A command whose data pointer is this descriptor. */
  function withSgl(opcode: 1 | 2, lba: number, blocks: number, descriptor: Descriptor): Words {
    const view = new DataView(encode([descriptor]).buffer);
    const [prp1, prp2] = [view.getBigUint64(0, true), view.getBigUint64(8, true)];
    return { ...transfer(opcode, lba, blocks, prp1, prp2), flags: 0x40 };
  }

  function segment(bench: Bench, type: number, descriptors: readonly Descriptor[]): Descriptor {
    const bytes = encode(descriptors);
    const memory = bench.pool.allocate(bytes.length);
    memory.bytes.set(bytes);
    return { type, address: memory.iova, length: bytes.length };
  }

  const [DATA, BIT_BUCKET, SEGMENT, LAST] = [0x00, 0x10, 0x20, 0x30];

  test('a data block, at any address', () => {
    const { bench, ring } = setUp();
    const { bytes, iova } = bench.pool.allocate(16384);
    const data = pattern(9 * 512);
    bytes.set(data, 4095);
    const block = { type: DATA, address: iova + 4095n, length: data.length };
    expect(bench.outcome(ring, withSgl(WRITE, 3, 9, block))).toBe(0);
    expect(stored(bench, 3, data.length)).toEqual(data);
  });

  test('a segment, which points to the last one', () => {
    const { bench, ring } = setUp();
    const { bytes, iova } = bench.pool.allocate(16384);
    const data = pattern(4 * 512);
    bench.storage.write(0, data);
    const block = (at: number, length: number) => ({ type: DATA, address: iova + BigInt(at), length });
    const last = segment(bench, LAST, [block(9000, 900), block(1, 47)]);
    const first = segment(bench, SEGMENT, [block(5000, 101), block(3000, 1000), last]);
    expect(bench.outcome(ring, withSgl(READ, 0, 4, first))).toBe(0);
    const parts = [bytes.subarray(5000, 5101), bytes.subarray(3000, 4000)];
    const found = Buffer.concat([...parts, bytes.subarray(9000, 9900), bytes.subarray(1, 48)]);
    expect(Buffer.compare(found, data)).toBe(0);
  });

  test('what is wrong with one', () => {
    const { bench, ring } = setUp();
    const { iova } = bench.pool.allocate(4096);
    const block = { type: DATA, address: iova, length: 512 };
    const outcome = (descriptor: Descriptor) => bench.outcome(ring, withSgl(READ, 0, 1, descriptor));
    expect(outcome({ ...block, length: 4096 })).toBe(0);
    expect(outcome({ ...block, length: 511 })).toBe(0x00f);
    expect(outcome({ ...block, type: BIT_BUCKET })).toBe(0x011);
    expect(outcome({ ...block, type: DATA | 1 })).toBe(0x011);
    expect(outcome({ ...segment(bench, LAST, [block]), length: 8 })).toBe(0x00d);
    expect(outcome({ ...segment(bench, LAST, [block]), length: 0 })).toBe(0x00d);
    const pointer = segment(bench, LAST, [block]);
    expect(outcome(segment(bench, LAST, [pointer]))).toBe(0x00d);
    expect(outcome(segment(bench, SEGMENT, [pointer, block]))).toBe(0x00d);
    expect(outcome({ type: LAST, address: 0xdead_0000n, length: 16 })).toBe(0x004);
    expect(bench.outcome(ring, { ...withSgl(READ, 0, 1, block), flags: 0xc0 })).toBe(0x002);
  });

  test('a chain without an end ends', () => {
    const { bench, ring } = setUp();
    const loop = bench.pool.allocate(16);
    const self = { type: SEGMENT, address: loop.iova, length: 16 };
    loop.bytes.set(encode([self]));
    expect(bench.outcome(ring, withSgl(READ, 0, 1, self))).toBe(0x00e);
  });
});

describe('commands (chapter 6)', () => {
  test('blocks beyond the end, namespaces that there are not, and transfers beyond MDTS', () => {
    const { bench, ring } = setUp({ maxTransfer: 8192 });
    const { iova } = bench.pool.allocate(16384);
    expect(bench.outcome(ring, transfer(READ, 2047, 1, iova))).toBe(0);
    expect(bench.run(ring, transfer(READ, 2047, 2, iova))).toMatchObject({ status: 0x080, doNotRetry: true });
    expect(bench.outcome(ring, { ...transfer(READ, 0, 1, iova), dwords: [0, 1, 0] })).toBe(0x080);
    expect(bench.outcome(ring, { ...transfer(READ, 0, 1, iova), namespace: 2 })).toBe(0x00b);
    expect(bench.outcome(ring, { ...transfer(READ, 0, 1, iova), namespace: 0 })).toBe(0x00b);
    expect(bench.outcome(ring, transfer(READ, 0, 16, iova, iova + PAGE))).toBe(0);
    expect(bench.outcome(ring, transfer(READ, 0, 17, iova, iova + PAGE))).toBe(0x002);
    expect(bench.outcome(ring, { opcode: 0x7f, namespace: 1 })).toBe(0x001);
  });

  test('write zeroes, and ranges that are deallocated', () => {
    const { bench, ring } = setUp();
    bench.storage.write(0, pattern(64 * 512));
    expect(bench.outcome(ring, { opcode: 0x08, namespace: 1, dwords: [2, 0, 3] })).toBe(0);
    const { bytes, iova } = bench.pool.allocate(64);
    const view = new DataView(bytes.buffer, bytes.byteOffset);
    for (const [i, lba, blocks] of [[0, 10, 2] as const, [1, 20, 1] as const]) {
      view.setUint32(16 * i + 4, blocks, true);
      view.setBigUint64(16 * i + 8, BigInt(lba), true);
    }
    const manage = { opcode: 0x09, namespace: 1, prp1: iova };
    expect(bench.outcome(ring, { ...manage, dwords: [1, 0] })).toBe(0);
    expect(stored(bench, 10, 1024).some((byte) => byte !== 0)).toBe(true);
    expect(bench.outcome(ring, { ...manage, dwords: [1, 4] })).toBe(0);
    const zeroed = Array.from({ length: 64 }, (_, lba) => lba).filter((lba) =>
      stored(bench, lba, 512).every((byte) => byte === 0),
    );
    expect(zeroed).toEqual([2, 3, 4, 5, 10, 11, 20]);
    view.setBigUint64(24, 2048n, true);
    expect(bench.outcome(ring, { ...manage, dwords: [1, 4] })).toBe(0x080);
  });

  test('flush: of one namespace, or of all', () => {
    let flushes = 0;
    class Counting extends MemoryStorage {
      override flush() {
        flushes++;
      }
    }
    const namespaces = [{ storage: new Counting(4096) }, { storage: new Counting(8192), blockSize: 4096 }];
    const { bench, ring } = setUp({ namespaces });
    expect(bench.outcome(ring, { opcode: 0x00, namespace: 2 })).toBe(0);
    expect(bench.outcome(ring, { opcode: 0x00, namespace: 0xffff_ffff })).toBe(0);
    expect(bench.outcome(ring, { opcode: 0x00, namespace: 3 })).toBe(0x00b);
    expect(flushes).toBe(3);
  });

  test('errors of the medium', () => {
    const broken: NvmeStorage = {
      size: 4096,
      ...Object.fromEntries(
        ['read', 'write', 'zero', 'flush'].map((name) => [
          name,
          () => {
            throw new Error('the head has crashed');
          },
        ]),
      ),
    } as NvmeStorage;
    const { bench, ring } = setUp({ namespaces: [{ storage: broken }] });
    const { iova } = bench.pool.allocate(4096);
    expect(bench.run(ring, transfer(READ, 0, 1, iova))).toMatchObject({ status: 0x281, doNotRetry: false });
    expect(bench.outcome(ring, transfer(WRITE, 0, 1, iova))).toBe(0x280);
    expect(bench.outcome(ring, { opcode: 0, namespace: 1 })).toBe(0x280);
  });

  test('many at once, which end in any order, each once', () => {
    const { bench, ring } = setUp();
    const { iova } = bench.pool.allocate(4096);
    const ids = Array.from({ length: 12 }, (_, i) =>
      bench.place(
        ring,
        i % 3 === 0 ? { opcode: 0, namespace: 1 } : transfer(i % 3 === 1 ? READ : WRITE, i, 1, iova),
      ),
    );
    bench.doorbell(1, 'tail', ring.tail);
    bench.machine.idle();
    const ended = ids.map(() => bench.take(ring));
    expect(ended.map((entry) => entry?.status)).toEqual(ids.map(() => 0));
    const order = ended.map((entry) => entry?.id as number);
    expect(order).not.toEqual(ids);
    expect([...order].sort((a, b) => a - b)).toEqual(ids);
    expect(bench.take(ring)).toBeUndefined();
  });

  test('an identifier that is in use (4.2)', () => {
    const { bench, ring } = setUp();
    bench.place(ring, { opcode: 0, namespace: 1 }, 7);
    bench.place(ring, { opcode: 0, namespace: 1 }, 7);
    bench.doorbell(1, 'tail', ring.tail);
    bench.machine.idle();
    expect([bench.take(ring), bench.take(ring)]).toMatchObject([
      { id: 7, status: 0x003 },
      { id: 7, status: 0 },
    ]);
  });
});
