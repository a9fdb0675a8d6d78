/** Admin commands of the simulated controller. NVM Express 1.4, chapter 5. */
import { Bench, DEPTH } from './bench';

const IDENTIFY = 0x06;

function sizeOf(id: number, entries = DEPTH): number {
  return ((entries - 1) << 16) | id;
}

/** A data page, and its identify command. */
function identify(bench: Bench, cns: number, namespace = 0) {
  const page = bench.pool.allocate(4096);
  const status = bench.outcome(bench.admin, { opcode: IDENTIFY, namespace, prp1: page.iova, dwords: [cns] });
  return { status, bytes: page.bytes, view: new DataView(page.bytes.buffer, page.bytes.byteOffset, 4096) };
}

describe('queues (5.3 to 5.6)', () => {
  const create = { cq: 0x05, sq: 0x01 };

  test.each([
    ['queue 0', { dwords: [sizeOf(0), 1] }, 0x101],
    ['a queue beyond the last', { dwords: [sizeOf(5), 1] }, 0x101],
    ['one entry', { dwords: [sizeOf(1, 1), 1] }, 0x102],
    ['more entries than CAP.MQES', { dwords: [sizeOf(1, 65), 1] }, 0x102],
    ['a vector beyond the last', { dwords: [sizeOf(1), (5 << 16) | 3] }, 0x108],
    ['memory that is not contiguous', { dwords: [sizeOf(1), 0] }, 0x002],
  ])('a completion queue cannot be made: %s', (_name, words, status) => {
    const bench = new Bench();
    const { iova } = bench.pool.allocate(4096);
    const entry = bench.run(bench.admin, { opcode: create.cq, prp1: iova, ...words });
    expect(entry).toMatchObject({ status, doNotRetry: true });
  });

  test('a queue in the middle of a page, and one that exists', () => {
    const bench = new Bench();
    const { iova } = bench.pool.allocate(4096);
    const words = { opcode: create.cq, dwords: [sizeOf(1), 1] };
    expect(bench.outcome(bench.admin, { ...words, prp1: iova + 64n })).toBe(0x013);
    expect(bench.outcome(bench.admin, { ...words, prp1: iova })).toBe(0);
    expect(bench.outcome(bench.admin, { ...words, prp1: iova })).toBe(0x101);
  });

  test('before CC.IOCQES and CC.IOSQES are set, there is no right size', () => {
    const bench = new Bench({}, { enable: 1 });
    const { iova } = bench.pool.allocate(4096);
    expect(bench.outcome(bench.admin, { opcode: create.cq, prp1: iova, dwords: [sizeOf(1), 1] })).toBe(0x102);
  });

  test('a submission queue needs its completion queue', () => {
    const bench = new Bench();
    const { iova } = bench.pool.allocate(4096);
    const make = (id: number, target: number) =>
      bench.outcome(bench.admin, { opcode: create.sq, prp1: iova, dwords: [sizeOf(id), (target << 16) | 1] });
    expect(make(1, 0)).toBe(0x101);
    expect(make(1, 5)).toBe(0x101);
    expect(make(1, 2)).toBe(0x100);
    bench.createQueues(2);
    expect(make(2, 2)).toBe(0x101);
    expect(make(0, 2)).toBe(0x101);
    expect(make(1, 2)).toBe(0);
  });

  test('deleting: the completion queue last, and what does not exist never', () => {
    const bench = new Bench();
    bench.createQueues(1);
    const remove = (opcode: number, id: number) => bench.outcome(bench.admin, { opcode, dwords: [id] });
    expect(remove(0x04, 1)).toBe(0x10c);
    expect([remove(0x00, 0), remove(0x04, 0), remove(0x00, 2), remove(0x04, 2)]).toEqual([
      0x101, 0x101, 0x101, 0x101,
    ]);
    expect([remove(0x00, 1), remove(0x04, 1), remove(0x00, 1)]).toEqual([0, 0, 0x101]);
    bench.createQueues(1);
  });

  test('deleting a submission queue ends its commands first', () => {
    const bench = new Bench();
    const ring = bench.createQueues(1);
    bench.controller.loseCommands(1);
    const id = bench.place(ring, { opcode: 0x00, namespace: 1 });
    bench.doorbell(1, 'tail', ring.tail);
    bench.machine.idle();
    expect(bench.take(ring)).toBeUndefined();
    expect(bench.outcome(bench.admin, { opcode: 0x00, dwords: [1] })).toBe(0);
    expect(bench.take(ring)).toMatchObject({ id, status: 0x008, doNotRetry: false });
  });
});

describe('identify (5.15)', () => {
  test('the controller', () => {
    const { status, bytes, view } = identify(new Bench({ serial: 'S 1', maxTransfer: 65536 }), 1);
    expect(status).toBe(0);
    expect(String.fromCharCode(...bytes.subarray(4, 24))).toBe('S 1'.padEnd(20));
    expect(bytes[77]).toBe(4); // MDTS
    expect(view.getUint32(80, true)).toBe(0x10400); // VER
    expect([bytes[512], bytes[513]]).toEqual([0x66, 0x44]); // SQES, CQES
    expect(view.getUint32(516, true)).toBe(1); // NN
    expect(view.getUint16(520, true)).toBe(0b1100); // ONCS: dataset management, write zeroes
  });

  test('a namespace, the list of them, and its descriptors', () => {
    const bench = new Bench();
    const { view, bytes } = identify(bench, 0, 1);
    expect([view.getBigUint64(0, true), view.getBigUint64(8, true)]).toEqual([2048n, 2048n]);
    expect(bytes[130]).toBe(9); // LBADS of format 0
    expect(identify(bench, 2, 0).view.getUint32(0, true)).toBe(1);
    expect(identify(bench, 2, 1).view.getUint32(0, true)).toBe(0);
    const list = identify(bench, 3, 1).bytes;
    expect([...list.subarray(0, 4), list[20]]).toEqual([2, 16, 0, 0, 0]);
    expect(list.subarray(4, 20)).toEqual(bytes.subarray(104, 120)); // NGUID in both
  });

  test('what there is not', () => {
    const bench = new Bench();
    expect(identify(bench, 0, 2).status).toBe(0x00b);
    expect(identify(bench, 0, 0).status).toBe(0x00b);
    expect(identify(bench, 3, 2).status).toBe(0x00b);
    expect(identify(bench, 2, 0xffff_ffff).status).toBe(0x00b);
    expect(identify(bench, 0x10).status).toBe(0x002);
  });
});

describe('features (5.9, 5.21)', () => {
  const get = (bench: Bench, id: number, value = 0) =>
    bench.run(bench.admin, { opcode: 0x0a, dwords: [id, value] });
  const set = (bench: Bench, id: number, value: number) =>
    bench.run(bench.admin, { opcode: 0x09, dwords: [id, value] });

  test('the number of queues: before there are any', () => {
    const bench = new Bench();
    expect(set(bench, 7, 0x0009_0009)).toMatchObject({ status: 0, result: 0x0003_0003 });
    expect(get(bench, 7)).toMatchObject({ status: 0, result: 0x0003_0003 });
    expect(set(bench, 7, 0xffff).status).toBe(0x002);
    bench.createQueues(1);
    expect(set(bench, 7, 0).status).toBe(0x00c);
  });

  test('values are kept until the controller is reset', () => {
    const bench = new Bench();
    expect(get(bench, 0x08).result).toBe(0);
    expect(set(bench, 0x08, 0x0403).status).toBe(0);
    expect(get(bench, 0x08).result).toBe(0x0403);
    expect(set(bench, 0x09, 0x1_0002).status).toBe(0);
    expect([get(bench, 0x09, 1).result, get(bench, 0x09, 2).result]).toEqual([1, 0x1_0002]);
    bench.disable();
    bench.enable();
    expect([get(bench, 0x08).result, get(bench, 0x09, 2).result]).toEqual([0, 2]);
  });

  test('wrong ones are refused', () => {
    const bench = new Bench();
    expect(get(bench, 0x7f).status).toBe(0x002);
    expect(set(bench, 0x7f, 0).status).toBe(0x002);
    expect(set(bench, 0x06, 2).status).toBe(0x002);
    expect(set(bench, 0x09, 5).status).toBe(0x002);
    expect(set(bench, 0x8000_0006, 1).status).toBe(0x10d);
    expect(get(bench, 0x106).status).toBe(0x002);
  });
});

describe('log pages (5.14)', () => {
  function log(bench: Bench, page: number, { dwords = 128, offset = 0, retain = 0 } = {}) {
    const data = bench.pool.allocate(4096);
    const words = [((dwords - 1) << 16) | (retain << 15) | page, 0, offset];
    const status = bench.outcome(bench.admin, { opcode: 0x02, prp1: data.iova, dwords: words });
    return { status, bytes: data.bytes, view: new DataView(data.bytes.buffer, data.bytes.byteOffset) };
  }

  test('errors: the newest first, with queue, command and status', () => {
    const bench = new Bench();
    bench.run(bench.admin, { opcode: 0x7f });
    const failed = bench.run(bench.admin, { opcode: IDENTIFY, namespace: 9, dwords: [0] });
    const { view } = log(bench, 1);
    expect(view.getBigUint64(0, true)).toBe(2n);
    expect([view.getUint16(8, true), view.getUint16(10, true)]).toEqual([0, failed.id]);
    expect(view.getUint16(12, true)).toBe((0x00b << 1) | 0x8000);
    expect(view.getUint32(24, true)).toBe(9);
    expect(view.getBigUint64(64, true)).toBe(1n);
    expect(log(bench, 1, { offset: 64 }).view.getBigUint64(0, true)).toBe(1n);
  });

  test('health, firmware, and no other', () => {
    const bench = new Bench();
    expect(log(bench, 2).view.getUint16(1, true)).toBe(310);
    expect(String.fromCharCode(...log(bench, 3).bytes.subarray(8, 11))).toBe('1.0');
    expect(log(bench, 9).status).toBe(0x109);
    expect(log(bench, 2, { offset: 2 }).status).toBe(0x002);
    expect(log(bench, 2, { offset: 1024 }).status).toBe(0x002);
  });

  test('events: a threshold that is passed is told once, until the page is read (5.2)', () => {
    const bench = new Bench();
    const { admin } = bench;
    const request = () => {
      const id = bench.place(admin, { opcode: 0x0c });
      bench.doorbell(0, 'tail', admin.tail);
      bench.machine.idle();
      return id;
    };
    bench.run(admin, { opcode: 0x09, dwords: [0x0b, 2] });
    const first = request();
    expect(bench.take(admin)).toBeUndefined();
    bench.controller.temperature = 350;
    bench.machine.idle();
    // SMART / health; temperature threshold; log page 2.
    expect(bench.take(admin)).toMatchObject({ id: first, status: 0, result: 0x02_01_01 });
    request();
    bench.controller.temperature = 351;
    bench.machine.idle();
    expect(bench.take(admin)).toBeUndefined();
    expect(log(bench, 2, { retain: 1 }).bytes[0]).toBe(2);
    bench.controller.temperature = 352;
    bench.machine.idle();
    expect(bench.take(admin)).toBeUndefined();
    log(bench, 2);
    bench.controller.temperature = 353;
    bench.machine.idle();
    expect(bench.take(admin)).toMatchObject({ result: 0x02_01_01 });
  });

  test('requests for events: four wait, a fifth is too many', () => {
    const bench = new Bench();
    for (let i = 0; i < 5; i++) bench.place(bench.admin, { opcode: 0x0c });
    bench.doorbell(0, 'tail', bench.admin.tail);
    bench.machine.idle();
    expect(bench.take(bench.admin)).toMatchObject({ status: 0x105 });
    expect(bench.take(bench.admin)).toBeUndefined();
  });
});

describe('abort (5.1)', () => {
  const abort = (bench: Bench, queue: number, command: number) =>
    bench.run(bench.admin, { opcode: 0x08, dwords: [(command << 16) | queue] });

  test('a command in flight, and one that is not', () => {
    const bench = new Bench();
    const ring = bench.createQueues(1);
    bench.controller.loseCommands(1);
    const id = bench.place(ring, { opcode: 0x00, namespace: 1 });
    bench.doorbell(1, 'tail', ring.tail);
    bench.machine.idle();
    expect(abort(bench, 1, id + 1)).toMatchObject({ status: 0, result: 1 });
    expect(abort(bench, 3, id)).toMatchObject({ status: 0, result: 1 });
    expect(abort(bench, 1, id)).toMatchObject({ status: 0, result: 0 });
    expect(bench.take(ring)).toMatchObject({ id, status: 0x007, doNotRetry: false });
  });

  test('a request for an event', () => {
    const bench = new Bench();
    const id = bench.place(bench.admin, { opcode: 0x0c });
    bench.doorbell(0, 'tail', bench.admin.tail);
    bench.machine.idle();
    bench.place(bench.admin, { opcode: 0x08, dwords: [id << 16] });
    bench.doorbell(0, 'tail', bench.admin.tail);
    bench.machine.idle();
    const ends = [bench.take(bench.admin), bench.take(bench.admin)];
    expect(ends.find((entry) => entry?.id === id)).toMatchObject({ status: 0x007 });
    expect(ends.find((entry) => entry?.id !== id)).toMatchObject({ status: 0, result: 0 });
  });
});

test.each([
  ['an opcode that there is not', { opcode: 0x7f }, 0x001],
  ['half of a fused operation', { opcode: IDENTIFY, flags: 1, dwords: [1] }, 0x002],
  ['an SGL', { opcode: IDENTIFY, flags: 0x40, dwords: [1] }, 0x002],
  ['memory that is not mapped', { opcode: IDENTIFY, prp1: 0xdead_0000n, dwords: [1] }, 0x004],
])('refused: %s', (_name, words, status) => {
  const bench = new Bench();
  expect(bench.outcome(bench.admin, words)).toBe(status);
});
