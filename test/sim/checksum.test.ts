/** The example device with its driver, on a machine that works and on one that does not. */
import { crc32 } from 'node:zlib';
import { ChecksumDevice } from '../../examples/checksum/device';
import { ChecksumDriver } from '../../examples/checksum/driver';
import { Iommu } from '../../lib';
import { Machine, type FaultOptions } from '../../lib/sim';

const BDF = '0000:00:06.0';
const LENGTH = 100_000;

const opened: Iommu[] = [];
afterEach(() => {
  for (const iommu of opened.splice(0)) iommu.close();
});

function setUp() {
  const machine = new Machine({ devices: { [BDF]: new ChecksumDevice() } });
  const iommu = Iommu.open({ backend: machine });
  opened.push(iommu);
  const driver = ChecksumDriver.open(iommu, 6n);
  const space = iommu.createAddressSpace();
  driver.device.attach(space);
  const memory = space.createPool().allocate(LENGTH);
  for (let i = 0; i < LENGTH; i++) memory.bytes[i] = i * 7 + (i >> 8);
  return { machine, iommu, driver, space, memory };
}

function crc(bytes: Uint8Array): number {
  return crc32(bytes);
}

test('it computes what zlib does, whatever the alignment', async () => {
  const { driver, memory } = setUp();
  for (const [at, length] of [
    [0, LENGTH],
    [1, 1],
    [4095, 2],
    [17, 9000],
    [0, 0],
  ])
    expect([at, length, await driver.crc32(memory.iova + BigInt(at), length)]).toEqual([
      at,
      length,
      crc(memory.bytes.subarray(at, at + length)),
    ]);
});

test('memory that is not mapped is an error that says where', async () => {
  const { driver, memory, space } = setUp();
  const end = space.mappings[0].end;
  await expect(driver.crc32(end - 100n, 200)).rejects.toThrow(`no access to memory at 0x${end.toString(16)}`);
  expect(await driver.crc32(memory.iova, 10)).toBe(crc(memory.bytes.subarray(0, 10)));
});

test('pages that are missing are asked for, with a PASID', async () => {
  const { iommu, driver } = setUp();
  const faults = iommu.createFaultQueue();
  const lazy = iommu.createAddressSpace({ faults, pasid: true });
  driver.device.attach(lazy, { replace: true });
  driver.device.attach(lazy, { pasid: 5 });
  const buffer = iommu.allocateDma(3 * 4096);
  buffer.bytes.fill(0x33);
  const result = driver.crc32(0x100000n, buffer.length, { pasid: 5 });
  for (let page = 0; page < 3; page++) {
    const fault = await faults.next();
    expect(fault).toMatchObject({ cookie: 6n, pasid: 5, address: 0x100000n + BigInt(4096 * page) });
    lazy.map(buffer, { iova: fault.address, offset: 4096 * page, length: 4096 });
    fault.respond('success');
  }
  expect(await result).toBe(crc(buffer.bytes));
  const refused = driver.crc32(0x200000n, 1, { pasid: 5 });
  (await faults.next()).respond('invalid');
  await expect(refused).rejects.toThrow('no access to memory at 0x200000');
});

test('a reset in the middle: the device starts afresh, and works', async () => {
  const { driver, memory } = setUp();
  const lost = driver.crc32(memory.iova, LENGTH);
  driver.device.reset();
  await expect(lost).rejects.toThrow('does not say how it ended');
  expect(await driver.crc32(memory.iova, 5)).toBe(crc(memory.bytes.subarray(0, 5)));
});

test('interrupts that are lost cost time only', async () => {
  const { machine, driver, memory } = setUp();
  const faults = machine.injectFaults(BDF, { seed: 1 });
  faults.once('dropInterrupt', 2);
  for (let i = 0; i < 3; i++)
    expect(await driver.crc32(memory.iova, 5000)).toBe(crc(memory.bytes.subarray(0, 5000)));
  expect(faults.log).toEqual([
    { kind: 'dropInterrupt', request: 'interrupt' },
    { kind: 'dropInterrupt', request: 'interrupt' },
  ]);
});

test('a device that is pulled out is an error, and no hang', async () => {
  const { machine, driver, memory } = setUp();
  machine.injectFaults(BDF, { seed: 1 }).once('remove');
  await expect(driver.crc32(memory.iova, LENGTH)).rejects.toThrow(/does not answer|is gone, or broken/);
  expect(machine.device(BDF)).toBeUndefined();
});

/** Every run ends in the right result or in an error; a wrong result only where data was corrupted. */
async function torture(seed: number): Promise<string[]> {
  const { machine, driver, memory } = setUp();
  const options: FaultOptions = { seed, dropInterrupt: 0.1, dmaError: 0.02, delay: 0.2, corruptData: 0.02 };
  const faults = machine.injectFaults(BDF, options);
  const ends: string[] = [];
  for (let i = 0; i < 20; i++) {
    const before = faults.log.length;
    const end = await driver.crc32(memory.iova, 20_000).then(
      (sum) => (sum === crc(memory.bytes.subarray(0, 20_000)) ? 'right' : 'wrong'),
      (error: Error) => error.message.replace(/0x[0-9a-f]+/, 'address'),
    );
    ends.push(end);
    const kinds = faults.log.slice(before).map(({ kind }) => kind);
    expect([seed, i, end === 'wrong']).toEqual([
      seed,
      i,
      kinds.includes('corruptData') && !kinds.includes('dmaError'),
    ]);
    expect([seed, i, end === 'no access to memory at address']).toEqual([
      seed,
      i,
      kinds.includes('dmaError'),
    ]);
  }
  faults.stop();
  expect(await driver.crc32(memory.iova, 5)).toBe(crc(memory.bytes.subarray(0, 5)));
  return [...ends, ...faults.log.map(({ kind, request, address }) => `${kind} ${request} ${address}`)];
}

test('random faults, by a seed that repeats them', async () => {
  const seed = Number(process.env['FAULT_SEED'] ?? 20261128);
  const first = await torture(seed);
  expect(await torture(seed)).toEqual(first);
  expect(await torture(seed + 1)).not.toEqual(first);
  expect(new Set(first.slice(0, 20))).toEqual(new Set(['right', 'wrong', 'no access to memory at address']));
});
