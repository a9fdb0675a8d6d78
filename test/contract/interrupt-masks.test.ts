import fc from 'fast-check';
import type { Interrupt, InterruptKind } from '../../lib';
import { Edu, INTERRUPT_ACKNOWLEDGE, INTERRUPT_RAISE, INTERRUPT_STATUS } from './edu';
import { errorOf, openEdu, sleep, until } from './support';

function openInterrupt(kind: InterruptKind) {
  const { device } = openEdu();
  const { bar } = new Edu(device);
  const interrupt = device.interrupt(kind);
  const raise = (cause = 1) => bar.write32(INTERRUPT_RAISE, cause);
  const acknowledge = () => bar.write32(INTERRUPT_ACKNOWLEDGE, bar.read32(INTERRUPT_STATUS));
  return { device, interrupt, raise, acknowledge };
}

/** Waits until something is counted. */
async function taken(interrupt: Interrupt): Promise<number> {
  let count = 0;
  await until(() => (count = interrupt.take()) > 0);
  return count;
}

test('a masked vector counts, and delivers when it is unmasked', async () => {
  const { interrupt, raise, acknowledge } = openInterrupt('msi');
  const heard: number[] = [];
  interrupt.on('interrupt', (count) => heard.push(count));
  raise();
  await until(() => heard.length > 0);
  interrupt.mask();
  expect(interrupt.masked).toBe(true);
  for (let i = 0; i < 3; i++) interrupt.trigger();
  acknowledge();
  raise();
  await sleep(20);
  expect(heard).toEqual([1]);
  interrupt.unmask();
  await until(() => interrupt.total === 5);
  expect(heard.reduce((sum, count) => sum + count)).toBe(5);
  expect(interrupt.masked).toBe(false);
});

test('a wait on a masked vector goes on, and ends by its timeout or by unmasking', async () => {
  const { interrupt } = openInterrupt('msi');
  interrupt.mask();
  interrupt.mask();
  interrupt.trigger();
  await expect(interrupt.next({ timeout: 10 })).rejects.toMatchObject({ code: 'ETIMEDOUT' });
  const waiting = interrupt.next();
  interrupt.unmask();
  expect(await waiting).toBe(1);
  expect(interrupt.total).toBe(1);
});

test('INTx is masked by the kernel, also from inside its handler, and comes again', async () => {
  const { interrupt, raise, acknowledge } = openInterrupt('intx');
  let heard = 0;
  interrupt.on('interrupt', () => {
    heard++;
    acknowledge();
    interrupt.mask();
  });
  raise();
  await until(() => heard === 1);
  raise();
  await sleep(20);
  expect(heard).toBe(1);
  interrupt.unmask();
  await until(() => heard === 2);
  expect(interrupt.total).toBeGreaterThanOrEqual(2);
});

test('what fired is taken without waiting, masked or not', async () => {
  const { interrupt, raise, acknowledge } = openInterrupt('msi');
  expect(interrupt.take()).toBe(0);
  raise();
  expect(await taken(interrupt)).toBe(1);
  interrupt.mask();
  interrupt.trigger();
  interrupt.trigger();
  expect(interrupt.take()).toBe(2);
  expect([interrupt.take(), interrupt.total]).toEqual([0, 3]);
  acknowledge();
});

test('INTx that was taken is masked until it is asked for again', async () => {
  const { interrupt, raise, acknowledge } = openInterrupt('intx');
  for (let round = 0; round < 3; round++) {
    raise();
    expect(await taken(interrupt)).toBeGreaterThanOrEqual(1);
    acknowledge();
  }
});

// Each left INTx masked for good: a listener beside what unmasks by asking for the next.
describe('INTx reaches its listener again', () => {
  function setUp() {
    const { interrupt, raise, acknowledge } = openInterrupt('intx');
    let heard = 0;
    interrupt.on('interrupt', () => {
      heard++;
      acknowledge();
    });
    const again = async () => {
      const before = heard;
      raise();
      await until(() => heard > before);
      expect(heard).toBeGreaterThan(before);
    };
    return { interrupt, raise, acknowledge, again };
  }

  test('after a wait', async () => {
    const { interrupt, raise, again } = setUp();
    const waiting = interrupt.next();
    raise();
    expect(await waiting).toBeGreaterThanOrEqual(1);
    await again();
    await again();
  });

  test('after take()', async () => {
    const { interrupt, raise, acknowledge, again } = setUp();
    interrupt.mask();
    raise();
    interrupt.unmask();
    if (interrupt.take() > 0) acknowledge();
    await again();
    await again();
    expect(interrupt.total).toBeGreaterThanOrEqual(3);
  });

  test('after a loop over deliveries that was left', async () => {
    const { interrupt, raise, again } = setUp();
    const loop = (async () => {
      for await (const count of interrupt.deliveries({ timeout: 10_000 })) return count;
      return 0;
    })();
    raise();
    expect(await loop).toBeGreaterThanOrEqual(1);
    await again();
    await again();
  });
});

test('INTx reaches everybody who waits, and who waits beside take()', async () => {
  const { interrupt, raise, acknowledge } = openInterrupt('intx');
  const waits = [interrupt.next(), interrupt.next(), interrupt.next()];
  let served = 0;
  for (const wait of waits) {
    raise();
    expect(await wait).toBeGreaterThanOrEqual(1);
    acknowledge();
    served++;
  }
  expect(served).toBe(3);
  for (let round = 0; round < 3; round++) {
    const wait = interrupt.next();
    raise();
    if (interrupt.take() > 0) acknowledge();
    raise();
    expect(await wait).toBeGreaterThanOrEqual(1);
    acknowledge();
  }
});

test('deliveries end by a signal, by the timeout of a wait, and with the interrupt', async () => {
  const { device, interrupt } = openInterrupt('msi');
  const controller = new AbortController();
  const counts: number[] = [];
  const loop = async (options: { signal?: AbortSignal; timeout?: number }) => {
    for await (const count of interrupt.deliveries(options)) counts.push(count);
  };
  interrupt.trigger();
  const aborted = loop({ signal: controller.signal });
  await until(() => counts.length === 1);
  controller.abort();
  await expect(aborted).rejects.toMatchObject({ name: 'AbortError' });
  interrupt.trigger();
  await expect(loop({ timeout: 5 })).rejects.toMatchObject({ code: 'ETIMEDOUT' });
  expect(counts).toEqual([1, 1]);
  const ended = loop({});
  device.close();
  await ended;
  const closed = { code: 'EBADF', reason: 'msi interrupt 0 is closed' };
  for (const use of [() => interrupt.mask(), () => interrupt.unmask(), () => interrupt.take()])
    expect(errorOf(use)).toMatchObject(closed);
});

/** What a program may do with an interrupt, one step after the other. */
const steps = fc.array(
  fc.constantFrom('trigger', 'mask', 'unmask', 'take', 'next', 'abort', 'listen', 'leave', 'turn'),
  { maxLength: 30 },
);

async function play(interrupt: Interrupt, sequence: readonly string[]): Promise<number> {
  let triggered = 0;
  const heard = () => {};
  const waits: Promise<unknown>[] = [];
  const controller = new AbortController();
  const next = (signal: AbortSignal) => waits.push(interrupt.next({ signal }).catch(() => 0));
  for (const step of sequence) {
    if (step === 'trigger') triggered++;
    if (step === 'trigger' || step === 'mask' || step === 'unmask' || step === 'take') interrupt[step]();
    if (step === 'listen') interrupt.on('interrupt', heard);
    if (step === 'leave') interrupt.off('interrupt', heard);
    if (step === 'next') next(controller.signal);
    if (step === 'abort') {
      const short = new AbortController();
      next(short.signal);
      short.abort();
    }
    if (step === 'turn') await sleep(0);
  }
  interrupt.removeAllListeners();
  interrupt.unmask();
  controller.abort();
  await Promise.all(waits);
  interrupt.take();
  return triggered;
}

test('whatever a program does, no interrupt is lost, and none is counted twice', async () => {
  const { interrupt } = openInterrupt('msi');
  let triggered = 0;
  await fc.assert(
    fc.asyncProperty(steps, async (sequence) => {
      triggered += await play(interrupt, sequence);
      expect(interrupt.total).toBe(triggered);
    }),
    { numRuns: 40 },
  );
});

test('vectors are counted', () => {
  const { device } = openEdu();
  const kinds = ['intx', 'msi', 'msix'] as const;
  expect(kinds.map((kind) => device.interruptVectors(kind))).toEqual([1, 1, 0]);
});
