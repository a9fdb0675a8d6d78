/** What the accelerator does to memory, page faults and batches. */
import { FLAG, OPCODE, STATUS, STATUS_WRITE } from '../../../lib/sim/devices/dsa/descriptor';
import { Bench, bytesOf, closeAll, descriptor, HOLE, type Sketch } from './bench';

afterEach(closeAll);
const PAGE = 4096;
const BOF = FLAG.BLOCK_ON_FAULT;

/** A bench with two pages of memory that count up, and a page of nothing behind them. */
function withMemory(bench = new Bench().enable()) {
  const buffer = bench.iommu.allocateDma(2 * PAGE);
  bench.space.map(buffer, { iova: HOLE - BigInt(2 * PAGE) });
  for (let i = 0; i < buffer.length; i++) buffer.bytes[i] = i % 251;
  return { bench, bytes: buffer.bytes, start: HOLE - BigInt(2 * PAGE) };
}

/** Bytes completed is 0 of what is done as a whole. */
const done = (completed = 0) => ({
  ...{ status: STATUS.SUCCESS as number, result: 0, completed },
  ...{ address: 0n, invalidFlags: 0 },
});

test('copies that overlap, either way, over page bounds', () => {
  for (const [from, to, length] of [
    [0, 1, 5000],
    [1, 0, 5000],
    [100, 4196, 3900],
    [4196, 100, 3900],
    [7, 7, 20],
  ]) {
    const { bench, bytes, start } = withMemory();
    const expected = bytes.slice().copyWithin(to, from, from + length);
    const sketch = { opcode: OPCODE.MEMMOVE, source: start + BigInt(from), destination: start + BigInt(to) };
    expect(bench.do({ ...sketch, size: length })).toEqual(done());
    expect([from, to, Buffer.compare(bytes, expected)]).toEqual([from, to, 0]);
  }
});

test('dualcast: one source, two destinations', () => {
  const { bench, bytes, start } = withMemory();
  const [one, other] = [start + 0x700n, start + 0x1700n];
  const sketch = {
    opcode: OPCODE.DUALCAST,
    source: start,
    destination: one,
    more: bytesOf(other),
    size: 500,
  };
  expect(bench.do(sketch)).toEqual(done());
  for (const at of [0x700, 0x1700])
    expect(Buffer.compare(bytes.subarray(at, at + 500), bytes.subarray(0, 500))).toBe(0);
});

test('comparisons, with memory and with a pattern', () => {
  const { bench, bytes, start } = withMemory();
  const compare = { opcode: OPCODE.COMPARE, source: start, destination: start + 251n };
  expect(bench.do({ ...compare, size: 6000 })).toEqual(done());
  bytes[5000] ^= 1;
  expect(bench.do({ ...compare, size: 6000 })).toEqual({ ...done(4749), result: 1 });
  bytes.fill(0).set([1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3], 100);
  const pattern = { opcode: OPCODE.COMPARE_PATTERN, source: start + 100n, destination: 0x0807060504030201n };
  expect(bench.do({ ...pattern, size: 11 })).toEqual(done());
  expect(bench.do({ ...pattern, size: 12 })).toEqual({ ...done(11), result: 1 });
});

test.each([
  [0, STATUS.FALSE_PREDICATE],
  [1, STATUS.SUCCESS],
])('a result that is checked: expected %s of two that differ', (expected, status) => {
  const { bench, start } = withMemory();
  const more = Uint8Array.of(expected);
  const sketch = { opcode: OPCODE.COMPARE, source: start, destination: start + 1n, size: 4, more };
  expect(bench.do({ ...sketch, flags: FLAG.CHECK_RESULT })).toEqual({ ...done(0), status, result: 1 });
});

describe('a page that is missing', () => {
  test.each<[string, (start: bigint) => Sketch, number, object]>([
    [
      'to be filled',
      (start) => ({ opcode: OPCODE.FILL, destination: start + 10n, size: 3 * PAGE }),
      STATUS_WRITE,
      { completed: 2 * PAGE - 10, address: HOLE },
    ],
    [
      'to be read',
      (start) => ({ opcode: OPCODE.MEMMOVE, source: HOLE - 5n, destination: start, size: 10 }),
      0,
      { completed: 5, address: HOLE },
    ],
    [
      'to be written from the end on',
      () => ({ opcode: OPCODE.MEMMOVE, source: HOLE - 5n, destination: HOLE - 1n, size: 9 }),
      0,
      { completed: 0, result: 1 },
    ],
    [
      'to be compared',
      (start) => ({ opcode: OPCODE.COMPARE, source: start + 251n, destination: start, size: 2 * PAGE }),
      0,
      { completed: 2 * PAGE - 251, address: HOLE },
    ],
  ])('%s ends the operation where it is', (_name, sketch, write, expected) => {
    const { bench, start } = withMemory();
    const record = bench.do(sketch(start));
    expect(record).toMatchObject({ status: STATUS.PAGE_FAULT | write, ...expected });
    expect(bench.faults.pending).toEqual([]);
  });

  test('is waited for, while others go on', async () => {
    const { bench, bytes, start } = withMemory();
    const record = bench.record();
    const move = { opcode: OPCODE.MEMMOVE, source: start, destination: HOLE - 10n, size: 20 };
    bench.submit({ ...move, flags: BOF | FLAG.REQUEST_RECORD, record: record.address });
    bench.machine.idle();
    expect(record.read().status).toBe(STATUS.NONE);
    expect(bench.do({ opcode: OPCODE.NOOP }).status).toBe(STATUS.SUCCESS);
    const fault = await bench.faults.next();
    expect(fault).toMatchObject({ address: HOLE, permissions: { write: true }, pasid: undefined });
    const more = bench.iommu.allocateDma(PAGE);
    bench.space.map(more, { iova: HOLE });
    fault.respond('success');
    bench.machine.idle();
    expect(record.read()).toEqual(done());
    expect([...more.bytes.subarray(0, 11)]).toEqual([10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 0]);
    expect(bytes[2 * PAGE - 1]).toBe(9);
  });

  test('and refused ends the operation', async () => {
    const { bench, start } = withMemory();
    const record = bench.record();
    const move = { opcode: OPCODE.MEMMOVE, source: start, destination: HOLE - 10n, size: 20 };
    bench.submit({ ...move, flags: BOF, record: record.address });
    bench.machine.idle();
    (await bench.faults.next()).respond('invalid');
    bench.machine.idle();
    const status = STATUS.PAGE_FAULT_REFUSED | STATUS_WRITE;
    expect(record.read()).toMatchObject({ status, completed: 10, address: HOLE });
  });
});

describe('batches', () => {
  /** Does a batch; its record, and those of its descriptors. */
  function batch(bench: Bench, sketches: readonly Sketch[]) {
    const list = bench.pool.allocate(64 * sketches.length);
    const records = sketches.map(() => bench.record());
    sketches.forEach((sketch, i) => {
      const whole = {
        record: records[i].address,
        ...sketch,
        flags: FLAG.REQUEST_RECORD | (sketch.flags ?? 0),
      };
      list.bytes.set(descriptor(whole), 64 * i);
    });
    const own = bench.do({ opcode: OPCODE.BATCH, source: list.iova, size: sketches.length });
    return { own, each: records.map((record) => record.read().status) };
  }

  test('all of it is done', () => {
    const { bench, bytes, start } = withMemory();
    const fill = (i: number) => ({
      opcode: OPCODE.FILL,
      source: BigInt(i),
      destination: start + BigInt(8 * i),
      size: 8,
    });
    const { own, each } = batch(
      bench,
      Array.from({ length: 16 }, (_, i) => fill(i)),
    );
    expect(own).toEqual(done(16));
    expect(each).toEqual(each.map(() => STATUS.SUCCESS));
    expect(Array.from({ length: 16 }, (_, i) => bytes[8 * i])).toEqual(each.map((_, i) => i));
  });

  test('what fails does not stop the others, but for those behind a fence', () => {
    const { bench, start } = withMemory();
    const fill = { opcode: OPCODE.FILL, destination: start, size: 8 };
    const bad = { ...fill, destination: HOLE };
    const free = batch(bench, [bad, fill, { opcode: OPCODE.BATCH }, { opcode: OPCODE.DRAIN }]);
    expect(free.own).toMatchObject({ status: STATUS.BATCH_FAILED, completed: 4, result: 1 });
    const { BAD_OPCODE, SUCCESS, PAGE_FAULT, NONE } = STATUS;
    expect(free.each).toEqual([PAGE_FAULT | STATUS_WRITE, SUCCESS, BAD_OPCODE, BAD_OPCODE]);
    const fenced = batch(bench, [fill, bad, { ...fill, flags: FLAG.FENCE }, fill]);
    expect(fenced.own).toMatchObject({ status: STATUS.BATCH_FAILED, completed: 2, result: 1 });
    expect(fenced.each).toEqual([SUCCESS, PAGE_FAULT | STATUS_WRITE, NONE, NONE]);
  });

  test('a fence waits for what is before it', () => {
    const { bench, bytes, start } = withMemory();
    const long = { opcode: OPCODE.MEMMOVE, source: start, destination: start + 4096n, size: 4096 };
    const short = { opcode: OPCODE.FILL, source: 0x77n, destination: start + 4096n, size: 1 };
    expect(batch(bench, [long, { ...short, flags: FLAG.FENCE }]).own).toEqual(done(2));
    expect([bytes[4096], bytes[4097]]).toEqual([0x77, 1]);
    bytes[0] = 0x55;
    // Without one, the short one is first.
    expect(batch(bench, [long, short]).own).toEqual(done(2));
    expect(bytes[4096]).toBe(0x55);
  });

  test('a false predicate is a failure, at which a fence stops', () => {
    const { bench, start } = withMemory();
    const check = {
      opcode: OPCODE.COMPARE,
      source: start,
      destination: start + 1n,
      size: 4,
      flags: FLAG.CHECK_RESULT,
    };
    const { own, each } = batch(bench, [check, { opcode: OPCODE.NOOP, flags: FLAG.FENCE }]);
    expect(own).toMatchObject({ status: STATUS.BATCH_FAILED, completed: 1 });
    expect(each).toEqual([STATUS.FALSE_PREDICATE, STATUS.NONE]);
  });

  test('a page of the list is asked for, whatever the queue says of operands', async () => {
    const { bench, start } = withMemory(new Bench().enable(1n, { BLOCK_ON_FAULT: 0 }));
    const record = bench.record();
    bench.submit({ opcode: OPCODE.BATCH, source: HOLE, size: 2, record: record.address });
    bench.machine.idle();
    const fault = await bench.faults.next();
    expect(fault.address).toBe(HOLE);
    fault.respond('invalid');
    bench.machine.idle();
    expect(record.read()).toMatchObject({ status: STATUS.BATCH_PAGE_FAULT, completed: 0, address: HOLE });
    const operand = bench.do({ opcode: OPCODE.FILL, destination: HOLE, size: 1 });
    expect(operand).toMatchObject({ status: STATUS.PAGE_FAULT | STATUS_WRITE, address: HOLE });
    expect(bench.do({ opcode: OPCODE.FILL, destination: start, size: 1 })).toEqual(done());
  });

  test('a list that is not there, and no page requests', () => {
    const { bench } = withMemory(new Bench().enable(1n, { PRS_DISABLE: 1 }));
    const record = bench.do({ opcode: OPCODE.BATCH, source: HOLE, size: 2 });
    expect(record).toMatchObject({ status: STATUS.BATCH_PAGE_FAULT, completed: 0, address: HOLE });
    expect(bench.faults.pending).toEqual([]);
  });

  test.each([
    [0, 'nothing'],
    [1, 'a failure'],
  ])('a list whose second page is missing: what is on the first is done, with result %s for %s', (bad) => {
    const { bench, bytes, start } = withMemory(new Bench().enable(1n, { PRS_DISABLE: 1 }));
    const fill = (i: number) => ({
      ...{ opcode: OPCODE.FILL, source: BigInt(7 + i), size: 1 },
      destination: i === 1 && bad ? HOLE : start + BigInt(i),
    });
    for (const i of [0, 1]) bytes.set(descriptor(fill(i)), 2 * PAGE - 128 + 64 * i);
    const record = bench.do({ opcode: OPCODE.BATCH, source: HOLE - 128n, size: 4 });
    const expected = { status: STATUS.BATCH_PAGE_FAULT, completed: 2, address: HOLE, result: bad };
    expect(record).toMatchObject(expected);
    expect([bytes[0], bytes[1]]).toEqual([7, bad ? 1 : 8]);
  });

  test('an error that no record tells of names its place', () => {
    const { bench } = withMemory();
    const { own } = batch(bench, [{ opcode: OPCODE.NOOP }, { opcode: 0x3f, record: 1n }]);
    expect(own).toMatchObject({ status: STATUS.BATCH_FAILED, completed: 2 });
    const { BATCH, ERROR } = bench.registers.SWERR.read();
    expect([BATCH, ERROR, bench.registers.SWERR_MORE.field('BATCH_INDEX')]).toEqual([
      1,
      STATUS.BAD_OPCODE,
      1,
    ]);
  });
});

test('a drain ends after what was before it, and not after what is behind', async () => {
  const { bench } = withMemory();
  const [early, drain, late] = [bench.record(), bench.record(), bench.record()];
  const flags = BOF | FLAG.REQUEST_RECORD;
  const fill = { opcode: OPCODE.FILL, size: 8, flags };
  bench.submit({ ...fill, destination: HOLE, record: early.address });
  bench.submit({ opcode: OPCODE.DRAIN, flags: FLAG.REQUEST_RECORD, record: drain.address });
  bench.submit({ ...fill, destination: HOLE + 0x1000n, record: late.address });
  bench.machine.idle();
  expect(drain.read().status).toBe(STATUS.NONE);
  const first = await bench.faults.next();
  expect(first.address).toBe(HOLE);
  first.respond('invalid');
  bench.machine.idle();
  expect([drain.read().status, late.read().status]).toEqual([STATUS.SUCCESS, STATUS.NONE]);
});
