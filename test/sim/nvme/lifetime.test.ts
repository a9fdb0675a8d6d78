/** Who closes what, and when: the driver ends once, in order, and everybody hears of it. */
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { NvmeDriver, type NvmeOptions } from '../../../examples/drivers/nvme/driver';
import { Iommu, type Device } from '../../../lib';
import { Machine, NvmeController } from '../../../lib/sim';
import { BDF, pattern } from './bench';

const CC = 0x14;
const CSTS = 0x1c;

const iommus: Iommu[] = [];
afterEach(() => {
  for (const iommu of iommus.splice(0)) iommu.close();
});

function bind(): { iommu: Iommu; device: Device; controller: NvmeController } {
  const controller = new NvmeController();
  const iommu = Iommu.open({ backend: new Machine({ devices: { [BDF]: controller } }) });
  iommus.push(iommu);
  return { iommu, device: iommu.bind(BDF, { cookie: 1n }), controller };
}

async function open(options: NvmeOptions = {}) {
  const { iommu, device, controller } = bind();
  return { iommu, device, controller, disk: await NvmeDriver.open(iommu, device, options) };
}

/**
 * In a process of its own, as a promise that nobody waits for, or an error of a timer, ends the process. `program` has `disk`,
 * `iommu` and `controller`, and `outcome(promise)`. Returns what it printed; fails where it died, hung, or was warned.
 */
function inProcess(program: string): unknown {
  const root = join(__dirname, '../../..');
  const text = `
    const { Iommu } = require(${JSON.stringify(join(root, 'lib'))});
    const { Machine, NvmeController } = require(${JSON.stringify(join(root, 'lib/sim'))});
    const { NvmeDriver } = require(${JSON.stringify(join(root, 'examples/drivers/nvme/driver'))});
    const outcome = (promise) => promise.then(() => 'done', ({ code, message }) => [code, message]);
    async function main() {
      const controller = new NvmeController();
      const iommu = Iommu.open({ backend: new Machine({ devices: { '${BDF}': controller } }) });
      const disk = await NvmeDriver.open(iommu, '${BDF}');
      ${program}
    }
    main().then((found) => console.log(JSON.stringify(found)));`;
  const { status, stdout, stderr } = spawnSync(process.execPath, ['-e', text], {
    encoding: 'utf8',
    timeout: 20_000,
  });
  expect([status, stderr]).toEqual([0, '']);
  return JSON.parse(stdout);
}

const CLOSED = ['ECANCELED', 'the driver is closed'];

describe('close()', () => {
  test.each([0, 1, 2, 5, 10, 20])('during a reset, %i turns after it began', (turns) => {
    const found = inProcess(`
      const outcomes = [outcome(disk.read(0, 8)), outcome(disk.reset())];
      for (let i = 0; i < ${turns}; i++) await new Promise(setImmediate);
      await disk.close();
      outcomes.push(outcome(disk.reset()), outcome(disk.flush()), outcome(disk.read(0, 1)));
      return Promise.all(outcomes);`) as unknown[];
    // The turns may have been enough for the first two.
    for (const each of found.slice(0, 2)) expect(['done', CLOSED]).toContainEqual(each);
    expect(found.slice(2)).toEqual([CLOSED, CLOSED, CLOSED]);
    if (turns === 0) expect(found.slice(0, 2)).toEqual([CLOSED, CLOSED]);
  });

  test('twice at once: both wait for the end of the shutdown', async () => {
    const { disk, device } = await open();
    const first = disk.close();
    await disk.close();
    const bar = device.region('bar0');
    // Disabled; nothing of a shutdown that goes on.
    expect([bar.read32(CC) & 1, bar.read32(CSTS)]).toEqual([0, 0]);
    await first;
  });

  test('what it gave back: the device can sleep, and be used again', async () => {
    const { iommu, disk, device } = await open();
    await disk.close();
    device.powerState = 'd3hot';
    device.powerState = 'd0';
    const again = await NvmeDriver.open(iommu, device);
    await again.write(0, pattern(512));
    expect(await again.read(0, 1)).toEqual(pattern(512));
    await again.close();
  });
});

test('reset() twice at once: both wait for the same one', async () => {
  const { disk, device } = await open();
  const first = disk.reset();
  await disk.reset();
  expect(device.region('bar0').read32(CSTS)).toBe(1);
  await first;
  expect(disk.counters.resets).toBe(1);
  await disk.close();
});

describe('closed under the driver', () => {
  const SPACE = 'the address space was closed';
  test.each([
    ['the Iommu', 'iommu.close()', SPACE],
    ['the address space', 'disk.device.attached().close()', SPACE],
    ['the device', 'disk.device.close()', `${BDF} was closed`],
    ['its registers', `disk.device.region('bar0').close()`, `BAR 0 of ${BDF} was closed`],
  ])('%s: requests are rejected, and nothing goes on', (_name, close, message) => {
    const gone = ['ECANCELED', message];
    const found = inProcess(`
      const requests = [disk.read(0, 8), disk.flush(), disk.health()];
      for (let i = 0; i < 50; i++) requests.push(disk.write(8 * i, new Uint8Array(4096)));
      const outcomes = requests.map(outcome);
      ${close};
      outcomes.push(outcome(disk.flush()), outcome(disk.reset()));
      const ends = await Promise.all(outcomes);
      await disk.close();
      return ends;`) as unknown[];
    expect(found).toHaveLength(55);
    for (const each of found) expect(each).toEqual(gone);
  });

  test.each([0, 1, 3, 10])('during a reset, after %i turns', (turns) => {
    const found = inProcess(`
      const outcomes = [outcome(disk.reset())];
      for (let i = 0; i < ${turns}; i++) await new Promise(setImmediate);
      iommu.close();
      outcomes.push(outcome(disk.write(0, new Uint8Array(512))));
      const ends = await Promise.all(outcomes);
      await disk.close();
      return ends;`) as unknown[];
    if (found[0] !== 'done') expect(found[0]).toEqual(['ECANCELED', SPACE]);
    expect(found[1]).toEqual(['ECANCELED', SPACE]);
  });

  test('and then a signal aborts what was in flight', () => {
    const found = inProcess(`
      controller.loseCommands(2);
      const aborter = new AbortController();
      const lost = [disk.read(0, 1, { signal: aborter.signal }), disk.flush({ signal: aborter.signal })].map(outcome);
      await new Promise((resolve) => setTimeout(resolve, 5));
      disk.device.close();
      aborter.abort();
      return Promise.all(lost);`);
    expect(found).toEqual([
      ['ECANCELED', `${BDF} was closed`],
      ['ECANCELED', `${BDF} was closed`],
    ]);
  });
});

describe('open() that fails leaves nothing open', () => {
  test('an interrupt vector that somebody else has', async () => {
    const { iommu, device } = bind();
    const taken = device.interrupt('msix', 2);
    await expect(NvmeDriver.open(iommu, device)).rejects.toMatchObject({ code: 'EBUSY' });
    taken.close();
    expect(iommu.describe().spaces).toEqual([]);
    device.powerState = 'd3hot';
    device.powerState = 'd0';
    const disk = await NvmeDriver.open(iommu, device);
    await disk.flush();
    await disk.close();
  });

  test('a namespace that there is not', async () => {
    const { iommu, device } = bind();
    await expect(NvmeDriver.open(iommu, device, { namespace: 7 })).rejects.toMatchObject({ status: 0x00b });
    const disk = await NvmeDriver.open(iommu, device);
    expect(disk.blocks).toBe(131_072);
    await disk.close();
  });
});
