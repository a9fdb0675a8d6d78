/** Portals, descriptors, completion records and SWERR of the accelerator. */
import { IA32_PASID_VALID } from '../../../lib/sim';
import {
  EXTENDED_CAPABILITY_PASID,
  PASID_CONTROL,
  PASID_PRIVILEGED,
} from '../../../lib/sim/devices/pci-registers';
import { FLAG, OPCODE, STATUS, STATUS_WRITE } from '../../../lib/sim/devices/dsa/descriptor';
import { Bench, bytesOf, closeAll, COMMAND, descriptor, HOLE, PASID, type Sketch } from './bench';

afterEach(closeAll);

function swerr({ registers }: Bench) {
  const { VALID, OVERFLOW, ERROR, WQ, OPERATION, BATCH, WRITE, PASID: pasid } = registers.SWERR.read();
  return { VALID, OVERFLOW, ERROR, WQ, OPERATION, BATCH, WRITE, PASID: pasid };
}

function clearError({ registers }: Bench): void {
  registers.SWERR.write({ VALID: 1, OVERFLOW: 1 });
  registers.INTCAUSE.write(registers.INTCAUSE.read());
}

describe('portals', () => {
  const NOOP: Sketch = { opcode: OPCODE.NOOP };

  test('only whole descriptors are taken', () => {
    const bench = new Bench().enable();
    const record = bench.record();
    const sketch = { ...NOOP, record: record.address, flags: FLAG.REQUEST_RECORD };
    const bytes = descriptor(sketch);
    const portals = bench.device.region('bar2');
    for (let at = 0; at < 64; at += 8) portals.write64(at, new DataView(bytes.buffer).getBigUint64(at, true));
    portals.write(0, bytes);
    bench.machine.idle();
    expect([record.read().status, bench.registers.SWERR.readRaw()]).toEqual([0, 0n]);
    bench.submit(sketch, { portal: 1 });
    bench.machine.idle();
    expect(record.read().status).toBe(STATUS.SUCCESS);
  });

  test.each<[string, { queue?: number; portal?: number }]>([
    ['a portal for interrupt messages of another kind', { portal: 2 }],
    ['a shared queue', { queue: 1 }],
    ['a queue that is off', { queue: 2 }],
  ])('a posted write to %s is an error', (_name, where) => {
    const bench = new Bench().enable();
    bench.submit({ ...NOOP, opcode: OPCODE.DRAIN }, where);
    const expected = { VALID: 1, ERROR: STATUS.NOT_ACCEPTED, WQ: where.queue ?? 0, OPERATION: OPCODE.DRAIN };
    expect(swerr(bench)).toMatchObject(expected);
    expect(bench.registers.INTCAUSE.read()).toBe(1);
  });

  test('a dedicated queue that is full takes no more; the first error stays, and tells of others', async () => {
    const bench = new Bench().enable();
    const interrupt = bench.device.interrupt('msix', 0);
    bench.registers.GENCTRL.write({ ERROR_INTERRUPT: 1 });
    // Four are taken out at once, eight wait.
    for (let i = 0; i < 12; i++) bench.submit(NOOP);
    expect(bench.queue(0).STATUS.field('OCCUPANCY')).toBe(8);
    expect(swerr(bench)).toMatchObject({ VALID: 0 });
    bench.submit(NOOP);
    expect(swerr(bench)).toMatchObject({ VALID: 1, OVERFLOW: 0, OPERATION: OPCODE.NOOP });
    bench.submit({ opcode: OPCODE.DRAIN });
    expect(swerr(bench)).toMatchObject({ VALID: 1, OVERFLOW: 1, OPERATION: OPCODE.NOOP });
    bench.machine.idle();
    expect(await interrupt.next()).toBe(2);
    clearError(bench);
    expect([bench.queue(0).STATUS.field('OCCUPANCY'), swerr(bench).VALID]).toEqual([0, 0]);
    bench.submit(NOOP);
    expect(swerr(bench).VALID).toBe(0);
  });

  test('a shared queue says retry: at its threshold on limited portals, when it is full on others', () => {
    const bench = new Bench().enable();
    for (let i = 0; i < 8; i++) expect(bench.enqueue(NOOP, { portal: 1 })).toBe(true);
    expect(bench.enqueue(NOOP, { portal: 1 })).toBe(false);
    for (let i = 0; i < 4; i++) expect(bench.enqueue(NOOP)).toBe(true);
    expect(bench.enqueue(NOOP)).toBe(false);
    bench.machine.idle();
    expect(bench.enqueue(NOOP, { portal: 1 })).toBe(true);
    for (const where of [{ queue: 0 }, { queue: 2 }, { portal: 3 }])
      expect(bench.enqueue(NOOP, where)).toBe(false);
    expect(swerr(bench).VALID).toBe(0);
  });

  test('a program in a virtual machine submits by ENQCMD, with its own PASID whatever it writes', () => {
    const bench = new Bench().enable();
    const vm = bench.machine.createVm();
    const PORTALS = 0x2000_0000;
    expect(vm.mapRegion(PORTALS, bench.device.fd, 2, 8 * 4096)).toBe(0);
    vm.vcpu.ia32Pasid = IA32_PASID_VALID + PASID;
    const record = bench.record();
    const sketch = { ...NOOP, flags: FLAG.REQUEST_RECORD, record: record.address, pasid: PASID + 1 };
    expect(vm.vcpu.enqcmd(PORTALS + 4 * 4096, descriptor(sketch))).toEqual({ kind: 'done', ZF: 0 });
    bench.machine.idle();
    expect(record.read().status).toBe(STATUS.SUCCESS);
    expect(vm.vcpu.enqcmd(PORTALS, descriptor(sketch))).toEqual({ kind: 'done', ZF: 1 });
  });

  test('a shared queue has the PASID of whoever submits', () => {
    const bench = new Bench().enable();
    const [own, other] = [bench.record(), bench.record()];
    const sketch = { opcode: OPCODE.NOOP, flags: FLAG.REQUEST_RECORD };
    expect(bench.enqueue({ ...sketch, record: own.address })).toBe(true);
    expect(bench.enqueue({ ...sketch, record: other.address, pasid: PASID + 1 })).toBe(true);
    bench.machine.idle();
    expect([own.read().status, other.read().status]).toEqual([STATUS.SUCCESS, STATUS.NONE]);
    expect(swerr(bench)).toMatchObject({ VALID: 1, PASID: PASID + 1, WQ: 1, WRITE: 1 });
  });
});

const FILL = { opcode: OPCODE.FILL, destination: HOLE, size: 8 };
const BOF = FLAG.BLOCK_ON_FAULT;
const CRC = { opcode: OPCODE.CRC, source: 0n, size: 8 };
const SEEDED = { ...CRC, flags: FLAG.READ_SEED };
/** Bytes from 40 on: no seed, but where it is. */
const seedAt = (address: bigint) => Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 0, ...bytesOf(address));

describe('what is wrong with a descriptor', () => {
  test.each<[string, Sketch, number, number?]>([
    ['no operation', { opcode: 0x3f }, STATUS.BAD_OPCODE],
    ['an operation that is optional', { opcode: 0x07 }, STATUS.BAD_OPCODE],
    ['a flag that is not the operation’s', { ...FILL, flags: FLAG.CHECK_RESULT }, STATUS.INVALID_FLAGS, 0x80],
    ['several', { opcode: OPCODE.NOOP, flags: 0x820182 }, STATUS.INVALID_FLAGS, 0x820182],
    ['block on fault of a batch', { opcode: OPCODE.BATCH, size: 2, flags: BOF }, STATUS.INVALID_FLAGS, 2],
    ['a traffic class of no address', { ...FILL, flags: FLAG.ADDRESS_1_TC }, STATUS.INVALID_FLAGS, 0x200],
    ['flags of a CRC', { ...FILL, flags: FLAG.READ_SEED }, STATUS.INVALID_FLAGS, 0x10000],
    ['a fence outside of a batch', { ...FILL, flags: FLAG.FENCE }, STATUS.INVALID_FLAGS, 1],
    ['reserved bytes', { ...FILL, dirty: 40 }, STATUS.RESERVED],
    ['reserved bytes at the end', { ...FILL, dirty: 63 }, STATUS.RESERVED],
    ['reserved bytes in the middle', { ...FILL, dirty: 38 }, STATUS.RESERVED],
    ['no bytes', { ...FILL, size: 0 }, STATUS.TRANSFER_SIZE],
    ['more bytes than the queue takes', { ...FILL, size: 2 ** 20 + 1 }, STATUS.TRANSFER_SIZE],
    ['a batch of one', { opcode: OPCODE.BATCH, size: 1 }, STATUS.DESCRIPTOR_COUNT],
    ['a batch too large', { opcode: OPCODE.BATCH, size: 17 }, STATUS.DESCRIPTOR_COUNT],
    ['a list that is not aligned', { opcode: OPCODE.BATCH, size: 2, source: 32n }, STATUS.LIST_ALIGNMENT],
    [
      'destinations at different offsets',
      { opcode: OPCODE.DUALCAST, size: 1, destination: 0x1000n, more: bytesOf(0x2001n) },
      STATUS.DUALCAST_ALIGNMENT,
    ],
    [
      'a source in a destination',
      { opcode: OPCODE.DUALCAST, size: 9, source: 0x1008n, destination: 0x1000n, more: bytesOf(0x3000n) },
      STATUS.OVERLAP,
    ],
    ['a seed that is not aligned', { ...SEEDED, more: seedAt(2n) }, STATUS.ADDRESS_ALIGNMENT],
    ['a seed, and the address of one', { ...CRC, more: seedAt(4n) }, STATUS.RESERVED],
    ['the address of a seed, and one', { ...SEEDED, more: Uint8Array.of(1) }, STATUS.RESERVED],
    ['a copy with CRC that overlaps', { ...CRC, opcode: OPCODE.COPY_CRC, destination: 7n }, STATUS.OVERLAP],
    [
      'no such vector',
      { opcode: OPCODE.NOOP, flags: FLAG.REQUEST_INTERRUPT, interrupt: 9 },
      STATUS.INTERRUPT_HANDLE,
    ],
  ])('%s', (_name, sketch, status, invalidFlags = 0) => {
    const bench = new Bench().enable();
    expect(bench.do(sketch)).toEqual({ status, invalidFlags, result: 0, completed: 0, address: 0n });
    expect(swerr(bench).VALID).toBe(0);
    expect(bench.machine.refusedDma).toEqual([]);
  });

  test('without a place for the record, SWERR tells', () => {
    const bench = new Bench().enable();
    bench.submit({ opcode: 0x3f });
    bench.machine.idle();
    expect(swerr(bench)).toMatchObject({ VALID: 1, ERROR: STATUS.BAD_OPCODE, OPERATION: 0x3f, BATCH: 0 });
    clearError(bench);
    bench.submit({ opcode: OPCODE.NOOP, flags: FLAG.REQUEST_RECORD });
    bench.machine.idle();
    expect(swerr(bench)).toMatchObject({ VALID: 1, ERROR: STATUS.INVALID_FLAGS });
    expect(bench.registers.SWERR_MORE.field('INVALID_FLAGS')).toBe(FLAG.REQUEST_RECORD);
    clearError(bench);
    bench.submit({ opcode: OPCODE.NOOP, record: bench.record().address + 8n });
    bench.machine.idle();
    expect(swerr(bench)).toMatchObject({ VALID: 1, ERROR: STATUS.RECORD_ALIGNMENT });
  });

  test('a record whose page is missing, and does not come', async () => {
    const bench = new Bench().enable();
    bench.submit({ opcode: OPCODE.NOOP, record: HOLE, flags: FLAG.REQUEST_RECORD });
    bench.machine.idle();
    (await bench.faults.next()).respond('invalid');
    bench.machine.idle();
    expect(swerr(bench)).toMatchObject({ VALID: 1, ERROR: STATUS.RECORD_PAGE_FAULT, WRITE: 1 });
    expect(bench.registers.SWERR_ADDRESS.read()).toBe(HOLE);
  });

  test('block on fault, where the queue has it off', async () => {
    const bench = new Bench().configure();
    bench.queue(0).MODE.update({ BLOCK_ON_FAULT: 0 });
    bench.command(COMMAND.ENABLE_DEVICE);
    bench.command(COMMAND.ENABLE_WQ, 0);
    const refused = bench.do({ ...FILL, flags: FLAG.BLOCK_ON_FAULT });
    expect(refused).toMatchObject({ status: STATUS.INVALID_FLAGS, invalidFlags: FLAG.BLOCK_ON_FAULT });
    // Of the operands alone: the record's page is asked for.
    bench.submit({ opcode: OPCODE.NOOP, record: HOLE, flags: FLAG.REQUEST_RECORD });
    bench.machine.idle();
    expect(await bench.faults.next()).toMatchObject({ address: HOLE });
  });

  test('a record whose page is missing, where the queue asks for none', () => {
    const bench = new Bench().enable(1n, { PRS_DISABLE: 1 });
    bench.submit({ opcode: OPCODE.NOOP, record: HOLE, flags: FLAG.REQUEST_RECORD });
    bench.machine.idle();
    expect(swerr(bench)).toMatchObject({ VALID: 1, ERROR: STATUS.RECORD_PAGE_FAULT });
    expect(bench.faults.pending).toEqual([]);
    // Block on fault is overridden.
    expect(bench.do({ ...FILL, flags: FLAG.BLOCK_ON_FAULT }).status).toBe(STATUS.PAGE_FAULT | STATUS_WRITE);
  });

  test('privileged, through a shared queue, while software has that off', () => {
    const bench = new Bench().enable();
    const attempt = () => {
      const record = bench.record();
      const flags = FLAG.REQUEST_RECORD;
      bench.enqueue({ opcode: OPCODE.NOOP, record: record.address, flags, privileged: true });
      bench.machine.idle();
      return record.read().status;
    };
    const control = bench.dsa.config.extendedCapability(EXTENDED_CAPABILITY_PASID) + PASID_CONTROL;
    const value = bench.dsa.config.read(control, 2);
    bench.dsa.config.write(control, 2, value & ~PASID_PRIVILEGED);
    expect(attempt()).toBe(STATUS.NONE);
    expect(swerr(bench)).toMatchObject({ VALID: 1, ERROR: STATUS.PRIVILEGE });
  });
});

describe('completion', () => {
  test('a record is written if it is asked for, or if something is wrong', () => {
    const bench = new Bench().enable();
    const [quiet, wrong] = [bench.record(), bench.record()];
    bench.submit({ opcode: OPCODE.NOOP, record: quiet.address });
    bench.submit({ opcode: 0x3f, record: wrong.address });
    bench.machine.idle();
    expect([quiet.read().status, wrong.read().status]).toEqual([STATUS.NONE, STATUS.BAD_OPCODE]);
  });

  test('an interrupt comes on the vector that is named, after the record', async () => {
    const bench = new Bench().enable();
    const interrupt = bench.device.interrupt('msix', 3);
    const flags = FLAG.REQUEST_INTERRUPT;
    expect(bench.do({ opcode: OPCODE.NOOP, flags, interrupt: 3 }).status).toBe(STATUS.SUCCESS);
    expect(await interrupt.next()).toBe(1);
  });

  test('a vector is for the PASID that its permission names', async () => {
    const bench = new Bench().enable();
    const interrupt = bench.device.interrupt('msix', 2);
    const attempt = (permission: object) => {
      bench.permissions.PERMISSION.at(2).write(permission);
      const record = bench.record();
      const flags = FLAG.REQUEST_RECORD | FLAG.REQUEST_INTERRUPT;
      bench.enqueue({ opcode: OPCODE.NOOP, flags, interrupt: 2, record: record.address });
      bench.machine.idle();
      return [record.read().status, interrupt.take()];
    };
    expect(attempt({})).toEqual([STATUS.INTERRUPT_HANDLE, 0]);
    expect(attempt({ PASID_ENABLE: 1, PASID: PASID + 1 })).toEqual([STATUS.INTERRUPT_HANDLE, 0]);
    expect(attempt({ PASID_ENABLE: 1, PASID, IGNORE: 1 })).toEqual([STATUS.INTERRUPT_HANDLE, 0]);
    expect(attempt({ PASID_ENABLE: 1, PASID })).toEqual([STATUS.SUCCESS, 1]);
  });

  test('the queue of the higher priority goes first; within one, in order', () => {
    const bench = new Bench().configure();
    bench.queue(1).MODE.update({ PRIORITY: 15 });
    for (const [command, operand] of [
      [1, 0],
      [6, 0],
      [6, 1],
    ])
      bench.command(command, operand);
    const target = bench.pool.allocate(64);
    const fill = (pattern: bigint) => ({
      opcode: OPCODE.FILL,
      source: pattern,
      destination: target.iova,
      size: 8,
    });
    // Four are begun; of the others the shared queue's are first, and the last of the dedicated one stays in memory.
    for (let i = 1n; i <= 6n; i++) bench.submit(fill(i));
    for (let i = 11n; i <= 14n; i++) bench.enqueue(fill(i));
    while (bench.queue(0).STATUS.field('OCCUPANCY') === 2) bench.machine.step();
    expect(bench.queue(1).STATUS.field('OCCUPANCY')).toBe(0);
    bench.machine.idle();
    expect(target.bytes[0]).toBe(6);
  });
});
