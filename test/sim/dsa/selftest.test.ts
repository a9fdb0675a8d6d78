/**
 * The accelerator as the driver of Linux's VFIO selftests sets it up and uses it (tools/testing/selftests/vfio/lib/drivers/
 * dsa/dsa.c of 7.3.4): whole words of the tables, reserved and read-only ones too; a descriptor's privileged bit set where
 * the queue has no PASID; batches of 1024 whose descriptors have one completion record that none of them asks for.
 */
import { FLAG, OPCODE, STATUS } from '../../../lib/sim/devices/dsa/descriptor';
import { Bench, closeAll, COMMAND, descriptor } from './bench';

afterEach(closeAll);

function setUp() {
  const bench = new Bench();
  const bar = bench.device.region('bar0');
  expect(bench.command(COMMAND.RESET_DEVICE)).toBe(0);
  const [general, queues, tables] = [bar.read64(0x10), bar.read64(0x20), bar.read64(0x60)];
  const queue = Number((tables >> 16n) & 0xffffn) * 256;
  const group = Number(tables & 0xffffn) * 256;
  const words = new Uint32Array(2 ** (Number((queues >> 24n) & 0xfn) + 5 - 2));
  words[0] = Number(queues & 0xffffn);
  words[2] = 1 | (Number((queues >> 50n) & 1n) << 2) | (1 << 4);
  words[3] = Number((general >> 16n) & 0x1ffn);
  words.forEach((word, i) => bar.write32(queue + 4 * i, word));
  bar.write64(group, 1n);
  bar.write64(group + 32, 1n);
  expect([bench.command(COMMAND.ENABLE_DEVICE), bench.command(COMMAND.ENABLE_WQ)]).toEqual([0, 0]);
  const memory = bench.pool.allocate(2 * 4096);
  memory.bytes.subarray(0, 4096).fill(0x5a);
  const copy = {
    opcode: OPCODE.MEMMOVE,
    source: memory.iova,
    destination: memory.iova + 4096n,
    privileged: true,
  };
  return { bench, memory, copy };
}

test('one copy, with an interrupt', async () => {
  const { bench, memory, copy } = setUp();
  const interrupt = bench.device.interrupt('msix', 1);
  expect(bench.do({ ...copy, size: 8, flags: FLAG.REQUEST_INTERRUPT, interrupt: 1 }).status).toBe(
    STATUS.SUCCESS,
  );
  expect(await interrupt.next()).toBe(1);
  expect([memory.bytes[4096 + 7], memory.bytes[4096 + 8]]).toEqual([0x5a, 0]);
  expect(bench.registers.SWERR.readRaw()).toBe(0n);
});

test('batches of 1024', () => {
  const { bench, memory, copy } = setUp();
  const list = bench.pool.allocate(1024 * 64);
  const each = bench.record();
  for (let i = 0; i < 1024; i++)
    list.bytes.set(descriptor({ ...copy, size: 4096, record: each.address }), 64 * i);
  const batch = { opcode: OPCODE.BATCH, source: list.iova, size: 1024, privileged: true };
  const quiet = bench.record();
  bench.submit({ ...batch, record: quiet.address });
  expect(bench.do(batch)).toMatchObject({ status: STATUS.SUCCESS, completed: 1024, result: 0 });
  expect([quiet.read().status, each.read().status]).toEqual([STATUS.NONE, STATUS.NONE]);
  expect(memory.bytes.every((byte) => byte === 0x5a)).toBe(true);
  expect(bench.registers.SWERR.readRaw()).toBe(0n);
});
