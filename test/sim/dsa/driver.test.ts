/** The driver of examples/drivers/dsa, on the simulated accelerator. QEMU has no such device: there is no other to try. */
import { DsaDriver, type DsaOptions } from '../../../examples/drivers/dsa/driver';
import { operations } from '../../../examples/drivers/dsa/descriptor';
import { type AddressSpace, Iommu } from '../../../lib';
import { Dsa, Machine } from '../../../lib/sim';
import { crc32c } from '../../../lib/sim/devices/dsa/crc';
import { Random } from '../../../lib/sim/random';

const BDF = '0000:00:06.0';
const PAGE = 4096;
const ISCSI = { plainCrc: false, plainData: false };
const seed = Number(process.env['DSA_SEED'] ?? 20261128);

const opened: { iommu: Iommu; dsa: DsaDriver }[] = [];
afterEach(async () => {
  for (const { iommu, dsa } of opened.splice(0)) {
    await dsa.close();
    iommu.close();
  }
});

async function setUp(options: DsaOptions = {}) {
  const machine = new Machine({ devices: { [BDF]: new Dsa() } });
  const iommu = Iommu.open({ backend: machine });
  const dsa = await DsaDriver.open(iommu, { timeout: 5000, ...options });
  opened.push({ iommu, dsa });
  return { machine, iommu, dsa };
}

/** `length` bytes of memory in the driver's space, random ones. */
function randomBytes(dsa: DsaDriver, length: number, random: Random) {
  const slice = dsa.pool.allocate(length);
  for (let i = 0; i < length; i++) slice.bytes[i] = random.below(256);
  return slice;
}

function expectSame(one: Uint8Array, other: Uint8Array, what: unknown): void {
  expect([what, Buffer.compare(one, other)]).toEqual([what, 0]);
}

describe.each<[string, DsaOptions]>([
  ['interrupts', {}],
  ['polling', { polling: true }],
  ['interrupts, with a PASID', { pasid: 5 }],
  ['polling, with a PASID', { polling: true, pasid: 0xfffff }],
])('%s', (_name, options) => {
  test('memory is moved, filled and compared', async () => {
    const { dsa } = await setUp(options);
    const random = new Random(seed);
    const [from, to] = [randomBytes(dsa, 20_000, random), randomBytes(dsa, 20_000, random)];
    expect(await dsa.compare(from.iova, to.iova, 20_000)).toBeLessThan(20);
    await dsa.move(from.iova, to.iova, 20_000);
    expectSame(from.bytes, to.bytes, 'moved');
    expect(await dsa.compare(from.iova, to.iova, 20_000)).toBeUndefined();
    to.bytes[12_345] ^= 1;
    expect(await dsa.compare(from.iova, to.iova, 20_000)).toBe(12_345);
    expect(await dsa.crc(from.iova, 20_000)).toBe(crc32c(from.bytes.slice(), 0, ISCSI));
    await dsa.fill(to.iova + 3n, 9001, 0x0807060504030201n);
    expect(await dsa.comparePattern(to.iova + 3n, 9001, 0x0807060504030201n)).toBeUndefined();
    expect(await dsa.comparePattern(to.iova + 3n, 9002, 0x0807060504030201n)).toBe(9001);
    const pattern = Uint8Array.from({ length: 9001 }, (_, i) => (i % 8) + 1);
    expectSame(to.bytes.subarray(3, 9004), pattern, 'filled');
    expect([to.bytes[2], to.bytes[9004]]).toEqual([from.bytes[2], from.bytes[9004]]);
  });

  test('many at once, more than the device holds, and batches', async () => {
    const { dsa } = await setUp({ ...options, entries: 4 });
    const random = new Random(seed);
    const [from, to] = [randomBytes(dsa, 40 * 512, random), dsa.pool.allocate(40 * 512)];
    const piece = (i: number) => [from.iova + BigInt(512 * i), to.iova + BigInt(512 * i)] as const;
    const singles = Array.from({ length: 20 }, (_, i) => dsa.move(...piece(i), 512));
    const list = Array.from({ length: 20 }, (_, i) => operations.move(...piece(20 + i), 512));
    await Promise.all([...singles, dsa.batch(list)]);
    expectSame(from.bytes, to.bytes, 'all');
    const compares = [operations.compare(...piece(0), 512), operations.compare(...piece(1), 512)];
    to.bytes[512 + 7] ^= 1;
    expect(await dsa.batch(compares)).toEqual([undefined, 7]);
    expect(await dsa.batch([compares[1]])).toEqual([7]);
    expect(await dsa.batch([])).toEqual([]);
    await dsa.drain();
  });
});

// ---- Random operations

/** A model of the memory: the same operations in plain JavaScript. */
function apply(memory: Uint8Array, kind: number, from: number, to: number, length: number, pattern: bigint) {
  if (kind === 0) memory.copyWithin(to, from, from + length);
  else if (kind === 1)
    for (let i = 0; i < length; i++) memory[to + i] = Number((pattern >> BigInt(8 * (i % 8))) & 0xffn);
  else if (kind === 3) return crc32c(memory.slice(from, from + length), 0, ISCSI);
  else {
    for (let i = 0; i < length; i++) if (memory[from + i] !== memory[to + i]) return i;
  }
  return undefined;
}

/** An operation on `base`, where the device has the memory. */
function randomOperation(random: Random, base: bigint, size: number) {
  const kind = random.below(4);
  const length = 1 + random.below(random.below(2) ? 3 * PAGE : 100);
  const from = random.below(size - length);
  // Near each other now and then, so that they overlap.
  const near = Math.max(0, Math.min(size - length, from + random.below(2 * length) - length));
  const to = random.below(2) ? near : random.below(size - length);
  const pattern = (BigInt(random.below(2 ** 32)) << 32n) | BigInt(random.below(2 ** 32));
  const [source, destination] = [base + BigInt(from), base + BigInt(to)];
  const operation =
    kind === 0
      ? operations.move(source, destination, length)
      : kind === 1
        ? operations.fill(destination, length, pattern)
        : kind === 2
          ? operations.compare(source, destination, length)
          : operations.crc(source, length);
  return { operation, expect: (memory: Uint8Array) => apply(memory, kind, from, to, length, pattern) };
}

const RANDOM_BYTES = 6 * PAGE;

test('random operations do what they do in plain JavaScript', async () => {
  const random = new Random(seed);
  const { dsa } = await setUp({ pasid: 3 });
  const memory = randomBytes(dsa, RANDOM_BYTES, random);
  const model = memory.bytes.slice();
  for (let i = 0; i < 200; i++) {
    const { operation, expect: expected } = randomOperation(random, memory.iova, RANDOM_BYTES);
    const result = await dsa.run(operation);
    expect([seed, i, result]).toEqual([seed, i, expected(model)]);
    expectSame(memory.bytes, model, [seed, i]);
  }
});

// ---- Pages that are missing

/** A window of memory that comes page by page, when it is asked for. */
function lazily(random: Random) {
  const brought: bigint[] = [];
  let iommu: Iommu | undefined;
  const content = new Map<bigint, Uint8Array>();
  const pageIn = (address: bigint, space: AddressSpace) => {
    if (address < WINDOW || address >= WINDOW + BigInt(RANDOM_BYTES)) throw new Error('no such page');
    if (content.has(address)) return;
    const buffer = (iommu as Iommu).allocateDma(PAGE);
    for (let i = 0; i < PAGE; i++) buffer.bytes[i] = random.below(4);
    content.set(address, buffer.bytes);
    space.map(buffer, { iova: address });
    brought.push(address);
  };
  const page = (address: bigint) => content.get(address);
  return { brought, pageIn, page, use: (opened: Iommu) => (iommu = opened) };
}
const WINDOW = 0x7000_0000n;

describe.each([
  ['the device waits for', true],
  ['the device stops at, and the driver resumes behind', false],
])('pages that %s', (_name, block) => {
  test.each([undefined, 9])('random operations on memory that is not there yet, PASID %s', async (pasid) => {
    const random = new Random(seed);
    const lazy = lazily(new Random(seed));
    const { dsa, iommu } = await setUp({ pageIn: lazy.pageIn, block, ...(pasid && { pasid }) });
    lazy.use(iommu);
    const model = new Uint8Array(RANDOM_BYTES);
    const known = new Set<bigint>();
    // What the device finds is known when the page has come: before an operation changes it the model has it all.
    const other = new Random(seed);
    const order: Uint8Array[] = [];
    for (let i = 0; i < RANDOM_BYTES / PAGE; i++)
      order.push(Uint8Array.from({ length: PAGE }, () => other.below(4)));
    for (let i = 0; i < 60; i++) {
      const { operation, expect: expected } = randomOperation(random, WINDOW, RANDOM_BYTES);
      const untouched = model.slice();
      const result = await dsa.run(operation);
      // Pages that came meanwhile had their random content before.
      for (const address of lazy.brought.filter((each) => !known.has(each))) {
        known.add(address);
        untouched.set(order[known.size - 1], Number(address - WINDOW));
      }
      model.set(untouched);
      expect([seed, i, result]).toEqual([seed, i, expected(model)]);
      for (const address of known) {
        const at = Number(address - WINDOW);
        expectSame(lazy.page(address) as Uint8Array, model.subarray(at, at + PAGE), [seed, i, address]);
      }
    }
    expect(lazy.brought).toHaveLength(RANDOM_BYTES / PAGE);
  });

  test('a page that does not come is an error that says which', async () => {
    const lazy = lazily(new Random(seed));
    const { dsa, iommu } = await setUp({ pageIn: lazy.pageIn, block, pasid: 2 });
    lazy.use(iommu);
    const end = WINDOW + BigInt(RANDOM_BYTES);
    await expect(dsa.fill(end - 10n, 20, 1n)).rejects.toMatchObject({ code: 'EFAULT', address: end });
    await expect(dsa.batch([1, 2].map(() => operations.move(end - 4n, WINDOW, 8)))).rejects.toMatchObject({
      code: 'EFAULT',
      address: end,
    });
    await dsa.fill(WINDOW, 8, 5n);
  });

  test('a pattern and a CRC go on where they stopped', async () => {
    const pages = new Map<bigint, Uint8Array>();
    const iommus: Iommu[] = [];
    const pageIn = (address: bigint, space: AddressSpace) => {
      const buffer = iommus[0].allocateDma(PAGE);
      for (let i = 0; i < PAGE; i++) buffer.bytes[i] = (i % 8) + 1;
      space.map(buffer, { iova: address });
      pages.set(address, buffer.bytes);
    };
    const { dsa, iommu } = await setUp({ pageIn, block });
    iommus.push(iommu);
    // The pattern from its fourth byte on.
    const [at, length] = [WINDOW + 3n, 2 * PAGE];
    expect(await dsa.comparePattern(at, length, 0x0302010807060504n)).toBeUndefined();
    (pages.get(WINDOW + 4096n) as Uint8Array)[1000] ^= 1;
    expect(await dsa.comparePattern(at, length, 0x0302010807060504n)).toBe(4096 + 1000 - 3);
    const other = WINDOW + 0x10000n;
    const crc = await dsa.crc(other + 5n, length);
    const whole = Uint8Array.from({ length }, (_, i) => ((i + 5) % 8) + 1);
    expect(crc).toBe(crc32c(whole, 0, ISCSI));
    expect(pages.size).toBe(6);
  });

  test('in batches', async () => {
    const lazy = lazily(new Random(seed));
    const { dsa, iommu } = await setUp({ pageIn: lazy.pageIn, block });
    lazy.use(iommu);
    await dsa.batch(
      [0, 1, 2].map((i) =>
        operations.fill(WINDOW + BigInt(i * PAGE + PAGE - 3), 6, BigInt(i + 1) * 0x0101_0101_0101_0101n),
      ),
    );
    const bytes = (address: bigint, at: number) => [
      ...(lazy.page(address) as Uint8Array).subarray(at, at + 3),
    ];
    for (const i of [0, 1, 2]) {
      expect(bytes(WINDOW + BigInt(i * PAGE), PAGE - 3)).toEqual([i + 1, i + 1, i + 1]);
      expect(bytes(WINDOW + BigInt((i + 1) * PAGE), 0)).toEqual([i + 1, i + 1, i + 1]);
    }
  });
});

test('without anybody who brings pages, an error says where', async () => {
  const { dsa } = await setUp();
  await expect(dsa.move(WINDOW, WINDOW, 8)).rejects.toMatchObject({ code: 'EFAULT', address: WINDOW });
});

// ---- Ends before the end

test('a request that takes too long, or is aborted, is taken back; others are done', async () => {
  const abort = new AbortController();
  const reason = new Error('enough');
  const asked: bigint[] = [];
  const never = (address: bigint) => {
    if (asked.push(address) === 2) abort.abort(reason);
    return new Promise<void>(() => {});
  };
  const { dsa } = await setUp({ pageIn: never });
  const memory = dsa.pool.allocate(PAGE);
  const late = dsa.fill(WINDOW, 8, 1n, { timeout: 50 });
  await expect(late).rejects.toMatchObject({ code: 'ETIMEDOUT' });
  const others = [1n, 2n].map((i) =>
    dsa.fill(WINDOW + i * 0x1000n, 8, 1n, { signal: abort.signal, timeout: 2 ** 30 }),
  );
  const fine = dsa.fill(memory.iova, 8, 0x22n);
  for (const stuck of others) await expect(stuck).rejects.toBe(reason);
  await fine;
  expect(memory.bytes[0]).toBe(0x22);
  await expect(dsa.drain({ signal: abort.signal })).rejects.toBe(reason);
  await dsa.drain();
});

test('a device that is reset under way is set up again, and what it had is done', async () => {
  const { dsa } = await setUp();
  const [from, to] = [randomBytes(dsa, 50_000, new Random(seed)), dsa.pool.allocate(50_000)];
  const move = dsa.move(from.iova, to.iova, 50_000);
  dsa.device.reset();
  await move;
  expect(Buffer.compare(from.bytes, to.bytes)).toBe(0);
});

test('bad input is an error, and does not reach the device', async () => {
  const { dsa, iommu } = await setUp();
  await expect(dsa.fill(0n, -1, 0n)).rejects.toThrow(RangeError);
  await expect(dsa.fill(0n, 2 ** 40, 0n)).rejects.toThrow(RangeError);
  const flush = { ...operations.drain(), opcode: 0x20 };
  await expect(dsa.run(flush)).rejects.toMatchObject({
    code: 'EIO',
    message: `${BDF} has no operation 0x20`,
  });
  await expect(dsa.fill(dsa.pool.allocate(64).iova, 0, 0n)).rejects.toThrow('size');
  await expect(DsaDriver.open(iommu, { bdf: '0000:00:1f.0' })).rejects.toMatchObject({ code: 'ENODEV' });
  await dsa.close();
  await expect(dsa.drain()).rejects.toMatchObject({ code: 'ECANCELED' });
});
