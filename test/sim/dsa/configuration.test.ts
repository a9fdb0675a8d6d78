/** What the accelerator says of itself, and how it is set up and switched on and off. */
import * as reg from '../../../lib/sim/devices/dsa/registers';
import { FLAG, OPCODE, STATUS } from '../../../lib/sim/devices/dsa/descriptor';
import { Bench, closeAll, COMMAND, HOLE, PASID } from './bench';

afterEach(closeAll);
const { COMMAND_ERROR: ERROR, STATE } = reg;

test('registers as Linux reads them', () => {
  const { device } = new Bench();
  const bar = device.region('bar0');
  expect(bar.read32(0x00)).toBe(0x100);
  const general = bar.read64(0x10);
  expect([general & 1n, (general >> 16n) & 31n, (general >> 21n) & 15n]).toEqual([1n, 31n, 10n]);
  const queues = bar.read64(0x20);
  expect([queues & 0xffffn, (queues >> 16n) & 0xffn, (queues >> 48n) & 3n]).toEqual([128n, 8n, 3n]);
  expect([bar.read64(0x30) & 0xffn, bar.read64(0x38) & 0xffn]).toEqual([4n, 4n]);
  expect(bar.read64(0x40)).toBe(0b11_0000_0010_0111_1111n);
  const offsets = bar.read64(0x60);
  expect([offsets & 0xffffn, (offsets >> 16n) & 0xffffn, (offsets >> 32n) & 0xffffn]).toEqual([4n, 5n, 6n]);
  expect(bar.read32(0xb0)).toBe(0x1ffe);
  expect([device.bars()[0].size, device.region('bar2').size]).toEqual([0x10000, 8 * 4 * 4096]);
  expect(device.interruptVectors('msix')).toBe(9);
});

test.each<[string, number, (bench: Bench) => void]>([
  ['all well', ERROR.SUCCESS, () => {}],
  ['no bus mastering', ERROR.BUS_MASTER, ({ device }) => device.enableBusMaster(false)],
  ['more entries than there are', ERROR.WQ_SIZES, (b) => b.queue(2).SIZE.write({ ENTRIES: 113 })],
  ['a work queue in two groups', ERROR.GROUP_WQ, (b) => groupOne(b, 2n, 2n)],
  ['an engine in two groups', ERROR.GROUP_ENGINE, (b) => groupOne(b, 4n, 1n)],
  ['a group without engines', ERROR.GROUP_HALF, (b) => groupOne(b, 4n, 0n)],
  ['a group without work queues', ERROR.GROUP_HALF, (b) => groupOne(b, 0n, 2n)],
  ['an engine that there is not', ERROR.GROUP_UNKNOWN, (b) => groupOne(b, 4n, 16n)],
  ['a work queue that there is not', ERROR.GROUP_UNKNOWN, (b) => groupOne(b, 256n, 2n)],
  ['a work queue far from those', ERROR.GROUP_UNKNOWN, (b) => b.group(0).WQS.at(3).write(1n)],
])('enabling the device: %s', (_name, error, prepare) => {
  const bench = new Bench().configure();
  prepare(bench);
  expect(bench.command(COMMAND.ENABLE_DEVICE)).toBe(error);
  expect(bench.registers.GENSTS.field('STATE')).toBe(error ? STATE.DISABLED : STATE.ENABLED);
});

function groupOne(bench: Bench, queues: bigint, engines: bigint): void {
  bench.group(1).WQS.at(0).write(queues);
  bench.group(1).ENGINES.write(engines);
}

test.each<[string, number, (bench: Bench) => void, number?]>([
  ['all well', ERROR.SUCCESS, () => {}],
  ['none of the number', ERROR.INVALID_WQ, () => {}, 8],
  ['no entries', ERROR.WQ_SIZE, () => {}, 2],
  ['no priority', ERROR.WQ_PRIORITY, (b) => b.queue(0).MODE.write({ DEDICATED: 1 })],
  ['shared, no threshold', ERROR.WQ_MODE, (b) => b.queue(1).THRESHOLD.write(0), 1],
  ['shared, too high a threshold', ERROR.WQ_MODE, (b) => b.queue(1).THRESHOLD.write(9), 1],
  ['shared, no PASIDs', ERROR.PASID_ENABLE, (b) => b.queue(1).MODE.write({ PRIORITY: 1 }), 1],
  [
    'privileged, no PASID',
    ERROR.PASID_ENABLE,
    (b) => b.queue(0).MODE.write({ DEDICATED: 1, PRIORITY: 1, PRIVILEGED: 1 }),
  ],
  ['batches too large', ERROR.MAX_BATCH, (b) => b.queue(0).LIMITS.write({ MAX_BATCH: 11 })],
])('enabling a work queue: %s', (_name, error, prepare, index = 0) => {
  const bench = new Bench().configure();
  prepare(bench);
  expect(bench.command(COMMAND.ENABLE_WQ, index)).toBe(
    index < 8 ? ERROR.DEVICE_NOT_ENABLED : ERROR.INVALID_WQ,
  );
  expect(bench.command(COMMAND.ENABLE_DEVICE)).toBe(0);
  expect(bench.command(COMMAND.ENABLE_WQ, index)).toBe(error);
  if (index < 8)
    expect(bench.queue(index).STATUS.field('STATE')).toBe(error ? STATE.DISABLED : STATE.ENABLED);
});

test('what is on is not enabled again, nor changed', () => {
  const bench = new Bench().enable();
  expect(bench.command(COMMAND.ENABLE_DEVICE)).toBe(ERROR.DEVICE_ENABLED);
  expect(bench.command(COMMAND.ENABLE_WQ, 0)).toBe(ERROR.WQ_ENABLED);
  const { SIZE, MODE, LIMITS, THRESHOLD } = bench.queue(0);
  const before = [SIZE, MODE, LIMITS, THRESHOLD].map((register) => register.readRaw());
  for (const register of [SIZE, MODE, LIMITS, THRESHOLD]) register.write(0);
  expect([SIZE, MODE, LIMITS, THRESHOLD].map((register) => register.readRaw())).toEqual(before);
  bench.group(0).WQS.at(0).write(0n);
  bench.group(0).ENGINES.write(0n);
  expect([bench.group(0).WQS.at(0).read(), bench.group(0).ENGINES.read()]).toEqual([3n, 1n]);
  // A queue that is off may be set up anew, but for its size.
  expect(bench.command(COMMAND.DISABLE_WQ, 1)).toBe(0);
  for (const register of [SIZE, MODE]) register.write(0x7);
  expect([SIZE.readRaw(), MODE.readRaw()]).toEqual([8, 7]);
});

test.each([
  [COMMAND.DISABLE_DEVICE, ERROR.DISABLE_NOT_ENABLED],
  [COMMAND.DRAIN_ALL, ERROR.WQ_DEVICE_NOT_ENABLED],
  [COMMAND.ABORT_ALL, ERROR.WQ_DEVICE_NOT_ENABLED],
  [COMMAND.DRAIN_PASID, ERROR.WQ_DEVICE_NOT_ENABLED],
  [COMMAND.ABORT_PASID, ERROR.WQ_DEVICE_NOT_ENABLED],
  [COMMAND.DISABLE_WQ, ERROR.WQ_DEVICE_NOT_ENABLED],
  [COMMAND.RESET_WQ, ERROR.WQ_DEVICE_NOT_ENABLED],
  [COMMAND.RESET_DEVICE, ERROR.SUCCESS],
  [0, ERROR.INVALID_COMMAND],
  [13, ERROR.INVALID_COMMAND],
])('command %s, while the device is off, gives 0x%s', (command, error) => {
  expect(new Bench().command(command, 1)).toBe(error);
});

test('a command for a work queue that there is not', () => {
  const bench = new Bench().enable();
  expect(bench.command(COMMAND.DRAIN_WQ, 1 | (1 << 16))).toBe(ERROR.INVALID_WQ);
  expect(bench.command(COMMAND.DRAIN_WQ, 0x100)).toBe(ERROR.INVALID_WQ);
  expect(bench.command(COMMAND.DRAIN_WQ, 0x3)).toBe(0);
});

test('a command while another is under way is lost; an interrupt tells of the end', async () => {
  const bench = new Bench().configure();
  const interrupt = bench.device.interrupt('msix', 0);
  bench.registers.CMD.write({ COMMAND: COMMAND.ENABLE_DEVICE, INTERRUPT: 1 });
  bench.registers.CMD.write({ COMMAND: COMMAND.RESET_DEVICE });
  expect(bench.registers.CMDSTS.field('ACTIVE')).toBe(1);
  bench.machine.idle();
  expect(bench.registers.GENSTS.field('STATE')).toBe(STATE.ENABLED);
  expect(bench.registers.INTCAUSE.read()).toBe(reg.CAUSE.COMMAND);
  expect(await interrupt.next()).toBe(1);
  bench.registers.INTCAUSE.write(reg.CAUSE.COMMAND);
  expect(bench.registers.INTCAUSE.read()).toBe(0);
});

/** A descriptor that waits for a page. */
function stuck(bench: Bench) {
  const record = bench.record();
  const flags = FLAG.BLOCK_ON_FAULT | FLAG.REQUEST_RECORD;
  const fill = { opcode: OPCODE.FILL, destination: HOLE, size: 8 };
  bench.submit({ ...fill, flags, record: record.address });
  bench.machine.idle();
  return record;
}

test.each([
  ['disabling the queue', COMMAND.DISABLE_WQ, 1],
  ['disabling the device', COMMAND.DISABLE_DEVICE, 0],
  ['draining the queue', COMMAND.DRAIN_WQ, 1],
  ['draining all', COMMAND.DRAIN_ALL, 0],
])('%s waits for what is under way', async (_name, command, operand) => {
  const bench = new Bench().enable();
  const record = stuck(bench);
  expect(bench.command(command, operand)).toBe(-1);
  const closing = command === COMMAND.DISABLE_WQ || command === COMMAND.DISABLE_DEVICE;
  expect(bench.queue(0).STATUS.field('STATE')).toBe(closing ? STATE.DRAIN : STATE.ENABLED);
  (await bench.faults.next()).respond('invalid');
  bench.machine.idle();
  expect(bench.registers.CMDSTS.read()).toEqual({ ACTIVE: 0, ERROR: 0, RESULT: 0 });
  expect(record.read()).toMatchObject({ status: STATUS.PAGE_FAULT_REFUSED | 0x80, address: HOLE });
  expect(bench.queue(0).STATUS.field('STATE')).toBe(closing ? STATE.DISABLED : STATE.ENABLED);
});

test.each([
  ['aborting the queue', COMMAND.ABORT_WQ, 1],
  ['aborting all', COMMAND.ABORT_ALL, 0],
  ['resetting the device', COMMAND.RESET_DEVICE, 0],
])('%s gives up what is under way, and no record is written', async (_name, command, operand) => {
  const bench = new Bench().enable();
  const record = stuck(bench);
  expect(bench.command(command, operand)).toBe(0);
  (await bench.faults.next()).respond('success');
  bench.machine.idle();
  expect(record.read().status).toBe(STATUS.NONE);
  if (command === COMMAND.RESET_DEVICE) {
    expect(bench.queue(0).SIZE.readRaw()).toBe(0);
    expect(bench.group(0).WQS.at(0).read()).toBe(0n);
    bench.enable();
  }
  expect(bench.do({ opcode: OPCODE.NOOP }).status).toBe(STATUS.SUCCESS);
});

test('a PASID is drained and aborted without those of others', () => {
  const bench = new Bench().enable();
  stuck(bench);
  expect(bench.command(COMMAND.DRAIN_PASID, PASID)).toBe(0);
  const record = bench.record();
  const fill = { opcode: OPCODE.FILL, destination: HOLE + 0x1000n, size: 8 };
  const flags = FLAG.BLOCK_ON_FAULT | FLAG.REQUEST_RECORD;
  expect(bench.enqueue({ ...fill, flags, record: record.address })).toBe(true);
  bench.machine.idle();
  expect(bench.command(COMMAND.ABORT_PASID, PASID)).toBe(0);
  expect(bench.command(COMMAND.DRAIN_WQ, 2)).toBe(0);
  expect(bench.command(COMMAND.DRAIN_WQ, 1)).toBe(-1);
});

test('resetting a queue takes its configuration but for its size', () => {
  const bench = new Bench().enable();
  expect(bench.command(COMMAND.RESET_WQ, 1)).toBe(0);
  const { SIZE, MODE, LIMITS, STATUS: STATE_REGISTER } = bench.queue(0);
  expect([SIZE.readRaw(), MODE.readRaw(), LIMITS.readRaw()]).toEqual([8, 0, 0]);
  expect(STATE_REGISTER.field('STATE')).toBe(STATE.DISABLED);
});

test('a function level reset forgets everything', () => {
  const bench = new Bench().enable();
  const record = stuck(bench);
  bench.device.reset();
  bench.machine.idle();
  expect(bench.registers.GENSTS.read()).toEqual({ STATE: STATE.DISABLED, RESET_TYPE: 1 });
  expect(bench.queue(0).SIZE.readRaw()).toBe(0);
  expect(record.read().status).toBe(STATUS.NONE);
  expect(bench.enable().do({ opcode: OPCODE.NOOP }).status).toBe(STATUS.SUCCESS);
});

test.each<[string, (bench: Bench) => void]>([
  ['a function level reset', ({ device }) => device.reset()],
  ['the command', (bench) => expect(bench.command(COMMAND.RESET_DEVICE)).toBe(0)],
])('several queues full of work that waits for pages: %s forgets all of it', (_name, reset) => {
  const bench = new Bench().enable();
  const flags = FLAG.BLOCK_ON_FAULT | FLAG.REQUEST_RECORD;
  const records = Array.from({ length: 16 }, () => bench.record());
  records.forEach(({ address: record }, i) => {
    const fill = { opcode: OPCODE.FILL, destination: HOLE + BigInt(0x1000 * i), size: 8, flags, record };
    if (i % 2) expect(bench.enqueue(fill)).toBe(true);
    else bench.submit(fill);
    bench.machine.step();
  });
  bench.machine.idle();
  const asked = bench.faults.drain();
  expect(asked).toHaveLength(4);
  reset(bench);
  const buffer = bench.iommu.allocateDma(0x10000);
  bench.space.map(buffer, { iova: HOLE });
  for (const fault of asked) fault.respond('success');
  bench.machine.idle();
  expect(records.map((record) => record.read().status)).toEqual(records.map(() => STATUS.NONE));
  bench.enable();
  expect(bench.do({ opcode: OPCODE.FILL, destination: HOLE, source: 5n, size: 8 }).status).toBe(
    STATUS.SUCCESS,
  );
  expect(buffer.bytes.filter((byte) => byte !== 0)).toEqual(Uint8Array.of(5));
});
