/** CRC generation, with and without a copy. */
import { crc32c } from '../../../lib/sim/devices/dsa/crc';
import { FLAG, OPCODE, STATUS } from '../../../lib/sim/devices/dsa/descriptor';
import { Random } from '../../../lib/sim/random';
import { Bench, bytesOf, closeAll, HOLE, type Sketch } from './bench';

afterEach(closeAll);
const seed = Number(process.env['DSA_SEED'] ?? 20261128);
const PAGE = 4096;
const STANDARD = { plainCrc: false, plainData: false };

/** Bit by bit, by the definition: the remainder of the message, whose bits come in the order that is asked for. */
function slowly(bytes: Uint8Array, initial: number, reflected: boolean): number {
  let remainder = BigInt(initial);
  for (const byte of bytes)
    for (let i = 0; i < 8; i++) {
      const bit = BigInt((byte >>> (reflected ? i : 7 - i)) & 1) ^ (remainder >> 31n);
      remainder = (remainder << 1n) & 0xffff_ffffn;
      if (bit & 1n) remainder ^= 0x1edc6f41n;
    }
  return Number(remainder);
}

function reflect(value: number): number {
  const digits = value.toString(2).padStart(32, '0').split('');
  return Number.parseInt(digits.toReversed().join(''), 2);
}

test('known CRCs: RFC 3720, appendix B.4, and the check value of CRC-32C', () => {
  const ascii = new TextEncoder().encode('123456789');
  expect(crc32c(ascii, 0, STANDARD)).toBe(0xe3069283);
  expect(crc32c(new Uint8Array(32), 0, STANDARD)).toBe(0x8a9136aa);
  expect(crc32c(new Uint8Array(32).fill(0xff), 0, STANDARD)).toBe(0x62a8ab43);
  expect(
    crc32c(
      Uint8Array.from({ length: 32 }, (_, i) => i),
      0,
      STANDARD,
    ),
  ).toBe(0x46dd794e);
});

test('all orders of bits are what the definition says', () => {
  const random = new Random(seed);
  for (let i = 0; i < 50; i++) {
    const bytes = Uint8Array.from({ length: random.below(20) }, () => random.below(256));
    const start = random.below(2 ** 32);
    for (const plainData of [false, true]) {
      const plain = slowly(bytes, start, !plainData);
      const inverted = ~reflect(slowly(bytes, reflect(~start >>> 0), !plainData)) >>> 0;
      expect([seed, i, crc32c(bytes, start, { plainCrc: true, plainData })]).toEqual([seed, i, plain]);
      expect([seed, i, crc32c(bytes, start, { plainCrc: false, plainData })]).toEqual([seed, i, inverted]);
    }
  }
});

/** Two pages of memory before a hole. */
function withMemory() {
  const bench = new Bench().enable();
  const buffer = bench.iommu.allocateDma(2 * PAGE);
  const start = HOLE - BigInt(2 * PAGE);
  bench.space.map(buffer, { iova: start });
  for (let i = 0; i < buffer.length; i++) buffer.bytes[i] = i % 251;
  const crc = (sketch: Omit<Sketch, 'opcode'>, opcode: number = OPCODE.CRC) => {
    const record = bench.record();
    const flags = FLAG.REQUEST_RECORD | (sketch.flags ?? 0);
    bench.submit({ opcode, record: record.address, ...sketch, flags });
    bench.machine.idle();
    return { ...record.read(), crc: record.crc() };
  };
  return { bench, bytes: buffer.bytes, start, crc };
}

test('a CRC of memory over a page bound, with seeds of both kinds', () => {
  const { bytes, start, crc } = withMemory();
  const [source, size] = [start + 3n, 5000];
  const data = bytes.slice(3, 5003);
  expect(crc({ source, size })).toMatchObject({
    ...{ status: STATUS.SUCCESS, completed: 0, result: 0 },
    crc: crc32c(data, 0, STANDARD),
  });
  const more = bytesOf(0x1234_5678n);
  expect(crc({ source, size, more }).crc).toBe(crc32c(data, 0x12345678, STANDARD));
  // The seed at 8000 of the memory.
  const address = Uint8Array.of(...bytesOf(0n), ...bytesOf(start + 8000n));
  const inMemory = new DataView(bytes.buffer, bytes.byteOffset).getUint32(8000, true);
  expect(crc({ source, size, more: address, flags: FLAG.READ_SEED }).crc).toBe(
    crc32c(data, inMemory, STANDARD),
  );
  const flags = FLAG.BYPASS_CRC_REFLECTION | FLAG.BYPASS_DATA_REFLECTION;
  expect(crc({ source, size, flags }).crc).toBe(crc32c(data, 0, { plainCrc: true, plainData: true }));
});

test('copied, and a CRC of it', () => {
  const { bytes, start, crc } = withMemory();
  const done = crc({ source: start, destination: start + 4000n, size: 3000 }, OPCODE.COPY_CRC);
  expect(done).toMatchObject({ status: STATUS.SUCCESS, crc: crc32c(bytes.slice(0, 3000), 0, STANDARD) });
  expect(Buffer.compare(bytes.subarray(4000, 7000), bytes.subarray(0, 3000))).toBe(0);
});

test.each([
  ['a CRC', OPCODE.CRC],
  ['a copy with CRC', OPCODE.COPY_CRC],
])('%s: where a page is missing there is the CRC so far, which is the seed of the rest', (_name, opcode) => {
  const { bench, bytes, start, crc } = withMemory();
  const source = HOLE - 100n;
  const first = crc({ source, destination: start, size: 150 }, opcode);
  expect(first).toMatchObject({ status: STATUS.PAGE_FAULT, completed: 100, address: HOLE });
  expect(first.crc).toBe(crc32c(bytes.slice(-100), 0, STANDARD));
  const more = bench.iommu.allocateDma(PAGE);
  more.bytes.fill(0x99);
  bench.space.map(more, { iova: HOLE });
  const rest = { source: HOLE, destination: start + 100n, size: 50, more: bytesOf(BigInt(first.crc)) };
  const whole = Uint8Array.of(...bytes.slice(-100), ...more.bytes.slice(0, 50));
  expect(crc(rest, opcode).crc).toBe(crc32c(whole, 0, STANDARD));
});
