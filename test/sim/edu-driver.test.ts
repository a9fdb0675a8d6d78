import { EduDriver } from '../../examples/drivers/edu/driver';
import { Iommu } from '../../lib';
import { DmaEngine, Edu, Machine, type FaultOptions } from '../../lib/sim';

function setUp(options: Omit<FaultOptions, 'seed'>) {
  const machine = new Machine({ devices: { '0000:00:04.0': new Edu() } });
  const iommu = Iommu.open({ backend: machine });
  const edu = EduDriver.open(iommu, 1n);
  const space = iommu.createAddressSpace();
  edu.device.attach(space);
  const faults = machine.injectFaults('0000:00:04.0', { seed: 20261128, ...options });
  return { iommu, edu, faults, pool: space.createPool() };
}

test('interrupts that are lost cost time only', async () => {
  const { iommu, edu, faults, pool } = setUp({ dropInterrupt: 1 });
  const [source, target] = [pool.allocate(64), pool.allocate(64)];
  source.bytes.fill(7);
  await edu.fetch(source.iova, 64);
  await edu.store(target.iova, 64);
  expect(await edu.factorial(4)).toBe(24);
  expect(target.bytes.every((byte) => byte === 7)).toBe(true);
  expect(faults.log.length).toBeGreaterThan(0);
  iommu.close();
});

test('a device that is pulled out is missed, at once and later', async () => {
  const { iommu, edu, faults, pool } = setUp({});
  const slice = pool.allocate(64);
  faults.once('remove');
  const gone = { code: 'ENODEV', message: expect.stringContaining('does not answer') };
  await expect(edu.store(slice.iova, 64)).rejects.toMatchObject(gone);
  await expect(edu.factorial(3)).rejects.toMatchObject(gone);
  expect(edu.alive()).toBe(false);
  iommu.close();
});

test('another device is told by its identification', () => {
  const machine = new Machine({ devices: { '0000:00:05.0': new DmaEngine() } });
  using iommu = Iommu.open({ backend: machine });
  expect(() => EduDriver.open(iommu, 1n)).toThrow('no edu device');
  expect(() => new EduDriver(iommu.bind('0000:00:05.0', { cookie: 1n }))).toThrow('is no edu device');
});

// Found by a review: the device ignored the second command, whose caller got what the first one had asked for.
test('what was given up and goes on is waited for, before the device is asked for more', async () => {
  const machine = new Machine({ manual: true, devices: { '0000:00:04.0': new Edu() } });
  const iommu = Iommu.open({ backend: machine });
  const edu = EduDriver.open(iommu, 1n);
  const space = iommu.createAddressSpace();
  edu.device.attach(space);
  const slice = space.createPool().allocate(64);
  slice.bytes.fill(9);
  const giveUp = async (work: Promise<unknown>) => {
    // Time goes on for the driver only.
    let calls = 0;
    const now = jest.spyOn(performance, 'now').mockImplementation(() => calls++ * 10_000);
    await expect(work).rejects.toMatchObject({ code: 'ETIMEDOUT' });
    now.mockRestore();
  };
  await giveUp(edu.factorial(5));
  await giveUp(edu.factorial(6));
  const next = edu.factorial(7);
  const turns = setInterval(() => machine.idle(), 1);
  expect(await next).toBe(5040);
  clearInterval(turns);
  iommu.close();
});
