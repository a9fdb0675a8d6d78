/** How requests end that the device does not complete: in time, with a clear error, and with nothing left behind. */
import { operations } from '../../../examples/drivers/dsa/descriptor';
import { DsaDriver, type DsaOptions } from '../../../examples/drivers/dsa/driver';
import { Iommu } from '../../../lib';
import { Dsa, Machine, type Process } from '../../../lib/sim';
import { settlesBefore } from '../../settles-before';

const BDF = '0000:00:06.0';
const OTHER = '0000:00:07.0';
const WINDOW = 0x7000_0000n;
const PAGE = 4096;

const opened: { iommu: Iommu; drivers: DsaDriver[] }[] = [];
const unhandled: unknown[] = [];
const note = (error: unknown) => unhandled.push(error);
beforeAll(() => process.on('unhandledRejection', note));
afterAll(() => process.off('unhandledRejection', note));
afterEach(async () => {
  for (const { iommu, drivers } of opened.splice(0)) {
    for (const driver of drivers) await driver.close();
    iommu.close();
  }
  // Whatever nobody caught is heard of when the event loop has turned.
  await new Promise(setImmediate);
  expect(unhandled.splice(0)).toEqual([]);
});

function setUpMachine(first = new Dsa()) {
  const machine = new Machine({ devices: { [BDF]: first, [OTHER]: new Dsa() } });
  const iommu = Iommu.open({ backend: machine });
  const drivers: DsaDriver[] = [];
  opened.push({ iommu, drivers });
  const open = async (options: DsaOptions = {}) => {
    const dsa = await DsaDriver.open(iommu, { bdf: BDF, timeout: 20_000, ...options });
    drivers.push(dsa);
    return dsa;
  };
  return { machine, iommu, open };
}

/** Pages that come when the gate is opened; `asked` has those that were asked for. */
function gate(iommu: () => Iommu) {
  const asked: bigint[] = [];
  const brought = new Map<bigint, Uint8Array>();
  let open = () => {};
  const opened = new Promise<void>((resolve) => (open = resolve));
  const pageIn: DsaOptions['pageIn'] = async (address, space) => {
    asked.push(address);
    await opened;
    // Asked for again, where a request for it was on its way when it came.
    if (brought.has(address)) return;
    const buffer = iommu().allocateDma(PAGE);
    space.map(buffer, { iova: address });
    brought.set(address, buffer.bytes);
  };
  const until = async (count: number) => {
    while (asked.length < count) await new Promise(setImmediate);
  };
  return { asked, brought, pageIn, open: () => open(), until };
}

const pageOf = (i: number) => WINDOW + BigInt(i * PAGE);

const waiting = [
  ['the device waits for', true],
  ['the driver brings', false],
] as const;

describe.each(waiting)('a page that %s never comes', (_name, block) => {
  async function setUp() {
    const { iommu, open } = setUpMachine();
    const pages = gate(() => iommu);
    const dsa = await open({ pageIn: pages.pageIn, block });
    const memory = dsa.pool.allocate(64);
    const works = async () => {
      memory.bytes.fill(0);
      await dsa.fill(memory.iova, 64, 0x1111_1111_1111_1111n);
      expect(memory.bytes.every((byte) => byte === 0x11)).toBe(true);
    };
    return { dsa, pages, works };
  }

  test.each<[string, (dsa: DsaDriver, timeout: number, signal?: AbortSignal) => Promise<unknown>]>([
    [
      'one operation',
      (dsa, timeout, signal) => dsa.fill(WINDOW, 8, 1n, { timeout, ...(signal && { signal }) }),
    ],
    [
      'a batch',
      (dsa, timeout, signal) =>
        dsa.batch(
          [1, 2].map((i) => operations.fill(pageOf(i), 8, 1n)),
          { timeout, ...(signal && { signal }) },
        ),
    ],
  ])('%s ends by its timeout, and by its signal', async (_what, start) => {
    const { dsa, pages, works } = await setUp();
    const short = start(dsa, 60);
    expect(await settlesBefore(short, 3000)).toBe(true);
    await expect(short).rejects.toMatchObject({ name: 'DsaError', code: 'ETIMEDOUT' });
    const abort = new AbortController();
    const stuck = start(dsa, 20_000, abort.signal);
    const reason = new Error('enough');
    setTimeout(() => abort.abort(reason), 30);
    await expect(stuck).rejects.toBe(reason);
    await works();
    // What comes too late harms nobody, and nobody writes there any more.
    pages.open();
    await new Promise((resolve) => setTimeout(resolve, 30));
    await works();
    expect(pages.brought.size).toBeGreaterThan(0);
    for (const bytes of pages.brought.values()) expect(bytes.every((byte) => byte === 0)).toBe(true);
  });

  test('one that comes after all is there for the next request, and is asked for once', async () => {
    const { dsa, pages } = await setUp();
    await expect(dsa.fill(WINDOW, 8, 1n, { timeout: 40 })).rejects.toMatchObject({ code: 'ETIMEDOUT' });
    const again = dsa.fill(WINDOW, 8, 1n);
    pages.open();
    await again;
    expect(pages.asked).toEqual([WINDOW]);
  });
});

/** Requests of all kinds: on the device, waiting for pages, and more than the device holds. */
function start(dsa: DsaDriver, pages: number): Promise<unknown>[] {
  const memory = dsa.pool.allocate(PAGE);
  const fills = Array.from({ length: pages }, (_, i) => dsa.fill(pageOf(i), 8, BigInt(i)));
  const batch = dsa.batch([0, 1, 2].map((i) => operations.fill(pageOf(pages + i), 8, 1n)));
  const others = [dsa.move(memory.iova, memory.iova + 1000n, 500), dsa.drain(), dsa.crc(memory.iova, PAGE)];
  return [...fills, batch, ...others];
}

async function endsOf(requests: readonly Promise<unknown>[]): Promise<string[]> {
  const settled = await Promise.allSettled(requests);
  const codes = settled.map((each) =>
    each.status === 'fulfilled' ? 'done' : String((each.reason as { code?: string }).code ?? each.reason),
  );
  return [...new Set(codes)].toSorted();
}

describe.each(waiting)('requests for pages that %s, and others', (_name, block) => {
  async function setUp(entries: number) {
    const { machine, iommu, open } = setUpMachine();
    const pages = gate(() => iommu);
    const dsa = await open({ pageIn: pages.pageIn, block, entries });
    return { machine, iommu, pages, dsa, open };
  }

  test.each([1, 3, 32])('close() ends all of them (%s entries)', async (entries) => {
    const { machine, dsa, pages } = await setUp(entries);
    const ends = endsOf(start(dsa, 6));
    await pages.until(1);
    await dsa.close();
    expect((await ends).filter((end) => end !== 'done')).toEqual(['ECANCELED']);
    await expect(dsa.batch([operations.drain()])).rejects.toMatchObject({ code: 'ECANCELED' });
    pages.open();
    await new Promise(setImmediate);
    expect(machine.refusedDma).toEqual([]);
    await dsa.close();
  });

  test.each([1, 3, 32])('a device that is pulled out ends all of them (%s entries)', async (entries) => {
    const { machine, dsa, pages } = await setUp(entries);
    const ends = endsOf(start(dsa, 6));
    await pages.until(1);
    machine.unplug(BDF);
    expect((await ends).filter((end) => end !== 'done')).toEqual(['ENODEV']);
    await expect(dsa.drain()).rejects.toMatchObject({ code: 'ENODEV' });
    pages.open();
  });

  test.each([1, 3, 32])(
    'a reset delays them: all are done when the pages come (%s entries)',
    async (entries) => {
      const { dsa, pages } = await setUp(entries);
      const ends = endsOf(start(dsa, 6));
      await pages.until(1);
      dsa.device.reset();
      await new Promise((resolve) => setTimeout(resolve, 50));
      pages.open();
      expect(await ends).toEqual(['done']);
      for (let i = 0; i < 6; i++) expect(await dsa.comparePattern(pageOf(i), 8, BigInt(i))).toBeUndefined();
    },
  );

  test('close() while it recovers from a reset', async () => {
    const { dsa, pages } = await setUp(3);
    const ends = endsOf(start(dsa, 6));
    await pages.until(1);
    dsa.device.reset();
    const abort = new AbortController();
    const cancelled = endsOf([dsa.fill(pageOf(30), 8, 1n, { signal: abort.signal })]);
    await new Promise((resolve) => setTimeout(resolve, 25));
    abort.abort(new Error('enough'));
    await dsa.close();
    for (const end of [...(await ends), ...(await cancelled)])
      expect(['done', 'ECANCELED', 'Error: enough']).toContain(end);
  });

  test('another device’s requests go on', async () => {
    const { dsa, pages, open } = await setUp(3);
    const other = await open({ bdf: OTHER, cookie: 2n });
    const memory = other.pool.allocate(PAGE);
    const ends = endsOf(start(dsa, 6));
    await pages.until(1);
    const fills = Array.from({ length: 40 }, (_, i) => other.fill(memory.iova + BigInt(8 * i), 8, BigInt(i)));
    await dsa.close();
    await Promise.all(fills);
    await ends;
    expect([memory.bytes[8], memory.bytes[39 * 8]]).toEqual([1, 39]);
  });
});

/** Takes commands and descriptors, and does nothing more from some time on, resets or not. */
class Dead extends Dsa {
  dead = false;

  protected override start(process: Process): void {
    if (!this.dead) super.start(process);
  }
}

test.each<[string, (dsa: DsaDriver) => Promise<unknown>, string]>([
  ['a timeout', (dsa) => dsa.drain({ timeout: 30 }), 'ENODEV'],
  ['close()', (dsa) => dsa.close(), 'ECANCELED'],
])('a device that answers no command any more, after %s: it reaches no memory', async (_name, act, code) => {
  const device = new Dead();
  const { open } = setUpMachine(device);
  const dsa = await open();
  const memory = dsa.pool.allocate(PAGE);
  device.dead = true;
  const ends = endsOf([dsa.fill(memory.iova, PAGE, 1n), dsa.crc(memory.iova, PAGE)]);
  const soon = settlesBefore(ends, 4000);
  await act(dsa).catch((error: unknown) => expect(error).toMatchObject({ code }));
  expect(await ends).toEqual([code]);
  expect(await soon).toBe(true);
  expect(device.config.busMasterEnabled).toBe(false);
});

/** Counts descriptors that come after the driver has begun to close. */
class Watched extends Dsa {
  closing = false;
  late = 0;

  override writeBarBlock(bar: number, offset: number, bytes: Uint8Array): void {
    if (this.closing) this.late++;
    super.writeBarBlock(bar, offset, bytes);
  }
}

test.each([false, true])(
  'nothing is submitted while close() takes descriptors back (reset: %s)',
  async (reset) => {
    const device = new Watched();
    const { open } = setUpMachine(device);
    const dsa = await open({ entries: 2, polling: true });
    const memory = dsa.pool.allocate(PAGE);
    const ends = endsOf(Array.from({ length: 40 }, (_, i) => dsa.fill(memory.iova + BigInt(8 * i), 8, 1n)));
    if (reset) {
      dsa.device.reset();
      // The driver has noticed, and sets it up again.
      await new Promise((resolve) => setTimeout(resolve, 21));
    }
    device.closing = true;
    await dsa.close();
    expect((await ends).filter((end) => end !== 'done')).toEqual(['ECANCELED']);
    expect(device.late).toBe(0);
  },
);

test('a device that is pulled out while its only request waits for a page in the program', async () => {
  const { machine, iommu, open } = setUpMachine();
  const pages = gate(() => iommu);
  const dsa = await open({ pageIn: pages.pageIn, block: false });
  const stuck = dsa.fill(WINDOW, 8, 1n);
  await pages.until(1);
  machine.unplug(BDF);
  await expect(stuck).rejects.toMatchObject({ code: 'ENODEV' });
});

test('an open that fails leaves nothing behind', async () => {
  const { iommu, open } = setUpMachine();
  await expect(open({ entries: 1000, pageIn: () => {} })).rejects.toThrow('refuses command');
  const dsa = await open();
  await dsa.close();
  iommu.close();
});

test.each([-1, Number.NaN, 2 ** 31])('a timeout of %s ms is refused', async (timeout) => {
  const { open } = setUpMachine();
  const dsa = await open();
  await expect(dsa.drain({ timeout })).rejects.toThrow(RangeError);
  await dsa.drain({ timeout: 2 ** 31 - 1 });
});
