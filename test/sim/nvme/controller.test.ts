/** Registers, rings and interrupts of the simulated controller. NVM Express 1.4, chapters 3, 4 and 7. */
import { NvmeController } from '../../../lib/sim';
import { Bench, DEPTH, ENABLE, type Ring } from './bench';

const [CAP, VS, INTMS, INTMC, CC, AQA, ASQ] = [0x00, 0x08, 0x0c, 0x10, 0x14, 0x24, 0x28];
const READY = 1;
const FATAL = 2;
const FLUSH = { opcode: 0x00, namespace: 1 };

function submit(bench: Bench, ring: Ring, count: number): number[] {
  const ids = Array.from({ length: count }, () => bench.place(ring, FLUSH));
  bench.doorbell(ring.id, 'tail', ring.tail);
  bench.machine.idle();
  return ids;
}

describe('registers (chapter 3)', () => {
  test('what it can do, in one access or two', () => {
    const { bar } = new Bench({ entries: 128, stride: 2 }, { enable: 0 });
    const capabilities = bar.read64(CAP);
    expect(capabilities & 0xffffn).toBe(127n);
    expect((capabilities >> 32n) & 15n).toBe(2n);
    expect((capabilities >> 37n) & 1n).toBe(1n);
    expect((BigInt(bar.read32(CAP + 4)) << 32n) | BigInt(bar.read32(CAP))).toBe(capabilities);
    expect(bar.read32(VS)).toBe(0x0001_0400);
  });

  test('enabling takes time, and resets are complete; the admin queue registers stay (7.3.2)', () => {
    const bench = new Bench({}, { enable: 0 });
    expect(bench.status).toBe(0);
    bench.bar.write32(AQA, 0x000f_000f);
    bench.bar.write64(ASQ, bench.admin.sq.iova);
    bench.bar.write64(ASQ + 8, bench.admin.cq.iova);
    bench.bar.write32(CC, ENABLE);
    expect(bench.status).toBe(0);
    bench.machine.idle();
    expect(bench.status).toBe(READY);
    bench.createQueues(1);
    bench.bar.write32(CC, ENABLE & ~1);
    expect(bench.status).toBe(READY);
    bench.machine.idle();
    expect(bench.status).toBe(0);
    expect(bench.bar.read64(ASQ)).toBe(bench.admin.sq.iova);
    bench.enable();
    bench.createQueues(1);
  });

  test.each([
    ['pages of 128 KiB', 0x000f_000f, ENABLE | (5 << 7)],
    ['another command set', 0x000f_000f, ENABLE | (1 << 4)],
    ['another arbitration', 0x000f_000f, ENABLE | (1 << 11)],
    ['queues of one entry', 0x000f_0000, ENABLE],
  ])('it cannot be enabled with %s', (_name, sizes, configuration) => {
    const bench = new Bench({}, { enable: 0 });
    bench.bar.write32(AQA, sizes);
    bench.bar.write32(CC, configuration);
    bench.machine.idle();
    expect(bench.status).toBe(FATAL);
    bench.disable();
    bench.enable();
    expect(bench.status).toBe(READY);
  });

  test('shutdown, then a reset (7.6.2)', () => {
    const bench = new Bench();
    const ring = bench.createQueues(1);
    bench.bar.write32(CC, ENABLE | (1 << 14));
    expect(bench.status).toBe(READY | (1 << 2));
    bench.machine.idle();
    expect(bench.status).toBe(READY | (2 << 2));
    submit(bench, ring, 1);
    expect(bench.take(ring)).toBeUndefined();
    bench.disable();
    expect(bench.status).toBe(0);
  });

  test('a fatal error: nothing is done until the reset (9.5)', () => {
    const bench = new Bench();
    const ring = bench.createQueues(1);
    bench.controller.fail();
    expect(bench.status).toBe(READY | FATAL);
    submit(bench, ring, 1);
    expect(bench.take(ring)).toBeUndefined();
    bench.disable();
    bench.enable();
    expect(
      bench.run(bench.admin, { opcode: 0x06, prp1: bench.pool.allocate(4096).iova, dwords: [1] }).status,
    ).toBe(0);
  });

  test('queues that the device does not reach are a fatal error', () => {
    const bench = new Bench();
    const size = ((DEPTH - 1) << 16) | 1;
    const unmapped = 0xdead_0000n;
    bench.run(bench.admin, { opcode: 0x05, prp1: bench.pool.allocate(4096).iova, dwords: [size, 1] });
    bench.run(bench.admin, { opcode: 0x01, prp1: unmapped, dwords: [size, 0x1_0001] });
    bench.doorbell(1, 'tail', 1);
    bench.machine.idle();
    expect(bench.status).toBe(READY | FATAL);
  });

  test('commands do not outlive a reset', () => {
    const bench = new Bench();
    const ring = bench.createQueues(1);
    bench.place(ring, FLUSH);
    bench.doorbell(1, 'tail', ring.tail);
    bench.machine.step();
    bench.disable();
    bench.enable();
    bench.machine.idle();
    expect(bench.take(ring)).toBeUndefined();
    expect(ring.cq.bytes.every((byte) => byte === 0)).toBe(true);
  });
});

describe('rings (4.1)', () => {
  test('go round: phase tags alternate, and the head of the submission queue is told', () => {
    const bench = new Bench();
    const ring = bench.createQueues(1, { depth: 4 });
    const entries = Array.from({ length: 10 }, () => bench.run(ring, FLUSH));
    expect(entries.map(({ phase }) => phase)).toEqual([1, 1, 1, 1, 0, 0, 0, 0, 1, 1]);
    expect(entries.map(({ head }) => head)).toEqual([1, 2, 3, 0, 1, 2, 3, 0, 1, 2]);
    expect(new Set(entries.map(({ queue }) => queue))).toEqual(new Set([1]));
  });

  test('a full completion queue makes commands wait: nothing is overwritten', () => {
    const bench = new Bench();
    const ring = bench.createQueues(1, { depth: 4 });
    const ids = [...submit(bench, ring, 3), ...submit(bench, ring, 3)];
    const first = [bench.take(ring, false), bench.take(ring, false), bench.take(ring, false)];
    expect(bench.take(ring, false)).toBeUndefined();
    bench.doorbell(1, 'head', 3);
    bench.machine.idle();
    const rest = [bench.take(ring), bench.take(ring), bench.take(ring)];
    expect([...first, ...rest].map((entry) => entry?.id)).toEqual(ids);
    expect(bench.take(ring)).toBeUndefined();
  });

  test('two submission queues with one completion queue', () => {
    const bench = new Bench();
    const ring = bench.createQueues(1);
    const other = bench.ring(2);
    const size = ((DEPTH - 1) << 16) | 2;
    bench.run(bench.admin, { opcode: 0x01, prp1: other.sq.iova, dwords: [size, 0x1_0001] });
    bench.place(other, FLUSH, 9);
    bench.doorbell(2, 'tail', other.tail);
    bench.machine.idle();
    expect(bench.take(ring)).toMatchObject({ id: 9, queue: 2, status: 0, head: 1 });
  });

  test.each([
    ['a queue that there is not', 3, 'tail', 1, 0],
    ['a completion queue that there is not', 3, 'head', 1, 0],
    ['a tail beyond the queue', 1, 'tail', DEPTH, 1],
    ['a head beyond the queue', 1, 'head', DEPTH, 1],
    ['a head beyond what was written', 1, 'head', 1, 1],
    ['the same tail', 1, 'tail', 0, 1],
  ] as const)(
    'a doorbell of %s is an event, and changes nothing',
    (_name, queue, which, value, information) => {
      const bench = new Bench();
      const ring = bench.createQueues(1);
      const id = bench.place(bench.admin, { opcode: 0x0c });
      bench.doorbell(0, 'tail', bench.admin.tail);
      bench.doorbell(queue, which, value);
      bench.machine.idle();
      expect(bench.take(bench.admin)).toMatchObject({ id, result: (1 << 16) | (information << 8) });
      expect(bench.run(ring, FLUSH).status).toBe(0);
    },
  );

  test('more entries than there is room for are an event, and are not taken', () => {
    const bench = new Bench();
    const ring = bench.createQueues(1, { depth: 8 });
    const event = bench.place(bench.admin, { opcode: 0x0c });
    bench.doorbell(0, 'tail', bench.admin.tail);
    const ids = Array.from({ length: 5 }, () => bench.place(ring, FLUSH));
    // No time passes, so none of the five is fetched before two slots are to become five.
    bench.doorbell(1, 'tail', 5);
    bench.doorbell(1, 'tail', 2);
    bench.machine.idle();
    expect(bench.take(bench.admin)).toMatchObject({ id: event, result: (1 << 16) | (1 << 8) });
    expect(Array.from({ length: 6 }, () => bench.take(ring)?.id)).toEqual([...ids, undefined]);
  });
});

describe('interrupts (7.5)', () => {
  test('each queue has its vector; without one there is none', () => {
    const bench = new Bench();
    const [one, two, silent] = [
      bench.createQueues(1, { vector: 1 }),
      bench.createQueues(2, { vector: 2 }),
      bench.createQueues(3),
    ];
    bench.machine.idle();
    expect(bench.interrupts[0].take()).toBe(6);
    submit(bench, one, 1);
    submit(bench, two, 2);
    submit(bench, silent, 1);
    expect(bench.interrupts.map((interrupt) => interrupt.take())).toEqual([0, 1, 2]);
  });

  test('coalescing: as many as the threshold has, or until its time is over (5.21.1.8)', () => {
    const bench = new Bench();
    // THR 3 (0's based: four completions), TIME 200 µs.
    bench.run(bench.admin, { opcode: 0x09, dwords: [0x08, (2 << 8) | 3] });
    const ring = bench.createQueues(1, { vector: 1 });
    bench.interrupts[0].take();
    for (let i = 0; i < 4; i++) bench.place(ring, FLUSH);
    bench.doorbell(1, 'tail', ring.tail);
    bench.machine.idle();
    expect(bench.interrupts[1].take()).toBe(1);
    const before = bench.machine.now;
    submit(bench, ring, 2);
    expect(bench.interrupts[1].take()).toBe(1);
    expect(bench.machine.now - before).toBeGreaterThanOrEqual(200_000);
    // The admin queue is never held back.
    expect(bench.interrupts[0].take()).toBe(0);
    bench.run(bench.admin, { opcode: 0x0a, dwords: [0x08] });
    expect(bench.interrupts[0].take()).toBe(1);
    // Nor is a vector whose coalescing is disabled (5.21.1.9).
    bench.run(bench.admin, { opcode: 0x09, dwords: [0x09, 0x1_0001] });
    submit(bench, ring, 2);
    expect(bench.interrupts[1].take()).toBe(2);
  });

  test('the pin, with its mask: up while there is something to consume (3.1.3)', () => {
    const bench = new Bench({}, { vectors: 0 });
    const levels: boolean[] = [];
    const { controller, bar } = bench;
    const level = () => levels.push(controller.intxAsserted);
    const id = bench.place(bench.admin, { opcode: 0x0a, dwords: [7] });
    bench.doorbell(0, 'tail', bench.admin.tail);
    bench.machine.idle();
    level();
    bar.write32(INTMS, 1);
    expect([bar.read32(INTMS), bar.read32(INTMC)]).toEqual([1, 1]);
    level();
    bar.write32(INTMC, 1);
    expect(bar.read32(INTMS)).toBe(0);
    level();
    expect(bench.take(bench.admin)?.id).toBe(id);
    level();
    expect(levels).toEqual([true, false, true, false]);
  });
});

test('options that make no sense are refused', () => {
  for (const options of [
    { ioQueues: 0 },
    { entries: 1 },
    { stride: 9 },
    { vectors: 4096 },
    { maxTransfer: 5000 },
    { maxTransfer: 4096 },
    { serial: '' },
    { serial: 'x'.repeat(21) },
    { namespaces: [] },
  ])
    expect(() => new NvmeController(options)).toThrow(RangeError);
});
