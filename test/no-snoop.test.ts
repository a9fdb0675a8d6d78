/** No-snoop DMA as a program sees it: spaces that enforce snooping, hints at attach, and the question that KVM asks. */
import { Iommu, type AddressSpace, type IommuError } from '../lib';
import { dmaEngine, Machine } from '../lib/sim';
import * as engine from '../lib/sim/devices/dma-engine-registers';
import { errorOf } from './contract/support';
import { bindNew, machineWith } from './sim/mdev/parent';

const ENGINE = '0000:00:05.0';
const EDU = '0000:00:04.0';

/** An Iommu with the DMA engine, which can leave caches alone, and edu, which cannot. */
function open(SC: 0 | 1) {
  const machine = new Machine({ iommu: { capabilities: { SC } }, selftest: true });
  const iommu = Iommu.open({ backend: machine });
  return { machine, iommu, device: iommu.bind(ENGINE, { cookie: 1 }) };
}

/** Lets the engine fill a page of the space with the No Snoop attribute; how many of its accesses did not snoop. */
async function fill({ machine, iommu, device }: ReturnType<typeof open>, ats = false): Promise<number> {
  const { iova } = (device.attached() as AddressSpace).map(iommu.allocateDma(4096));
  device.enableBusMaster();
  const bar = device.region('bar0');
  bar.write64(dmaEngine.DESTINATION, iova);
  bar.write32(dmaEngine.LENGTH, 4096);
  const flags = engine.CONTROL_NO_SNOOP | (ats ? engine.CONTROL_ATS : 0);
  bar.write32(dmaEngine.CONTROL, engine.CONTROL_START | engine.OPERATION_FILL | flags);
  const before = machine.unsnoopedDma.length;
  while ((bar.read32(dmaEngine.STATUS) & engine.STATUS_BUSY) !== 0);
  expect(bar.read32(dmaEngine.STATUS) >>> engine.STATUS_ERROR_SHIFT).toBe(0);
  return machine.unsnoopedDma.length - before;
}

describe('enforceSnoop', () => {
  test.each([
    [1, undefined, 0],
    [1, 'auto', 0],
    [1, 'enable', 0],
    [1, 'disable', 1],
    [0, 'auto', 1],
    [0, 'disable', 1],
  ] as const)('SC %i, %s: %i accesses do not snoop', async (SC, enforceSnoop, expected) => {
    const world = open(SC);
    const space = world.iommu.createAddressSpace({ enforceSnoop });
    expect(space.enforceSnoop).toBe(enforceSnoop ?? 'auto');
    world.device.attach(space);
    expect(await fill(world)).toBe(expected);
    // A device with translated addresses goes by what the translation said.
    expect(await fill(world, true)).toBe(expected);
    expect(world.iommu.needsNoSnoop()).toBe(expected > 0);
  });

  test('a device whose IOMMU cannot is refused by a space that enforces, and nothing is attached', () => {
    const { iommu, device } = open(0);
    const space = iommu.createAddressSpace({ enforceSnoop: 'enable' });
    const error = errorOf(() => device.attach(space)) as IommuError;
    expect(error).toMatchObject({ code: 'EINVAL', request: 'VFIO_DEVICE_ATTACH_IOMMUFD_PT' });
    expect(error.message).toContain(`the IOMMU of ${ENGINE} cannot enforce snooping`);
    expect(error.hint).toContain("'auto' or 'disable'");
    expect(errorOf(() => iommu.createPageTable(device, { parent: space }))).toMatchObject({ code: 'EINVAL' });
    expect(device.attached()).toBeUndefined();
    expect(space.attachments).toEqual([]);
    // Software nesting: the shadow is what devices use.
    const parent = iommu.createAddressSpace();
    const child = iommu.createAddressSpace({ parent, enforceSnoop: 'enable' });
    expect(errorOf(() => device.attach(child))).toMatchObject({ code: 'EINVAL' });
    device.attach(parent);
  });

  test('where an IOMMU does not tell, the kernel decides', () => {
    const { iommu } = open(1);
    const mock = iommu.createMockDevice({ cookie: 2 });
    const error = errorOf(() =>
      mock.attach(iommu.createAddressSpace({ enforceSnoop: 'enable' })),
    ) as IommuError;
    expect(error).toMatchObject({ code: 'EINVAL' });
    expect(error.hint).toContain('cannot enforce snooping');
    mock.attach(iommu.createAddressSpace({ enforceSnoop: 'disable' }));
    expect(iommu.needsNoSnoop()).toBe(true);
  });

  test('is checked, and is the parent’s where the table is the user’s', () => {
    const { iommu } = open(1);
    expect(() => iommu.createAddressSpace({ enforceSnoop: 'yes' as 'auto' })).toThrow(TypeError);
    const parent = iommu.createAddressSpace({ nestParent: true });
    const pageTable = { address: 0n, width: 48 as const };
    const options = { parent, pageTable, enforceSnoop: 'auto' as const };
    expect(() => iommu.createAddressSpace(options)).toThrow(/as its parent does/);
  });
});

describe('the hint at attach', () => {
  test('says what the device is really used for', () => {
    const { iommu, device } = open(0);
    const [one, two] = [iommu.createAddressSpace(), iommu.createAddressSpace()];
    device.attach(one, { noSnoop: false });
    expect([device.noSnoop, iommu.needsNoSnoop()]).toEqual([false, false]);
    device.attach(two, { replace: true });
    expect(iommu.needsNoSnoop()).toBe(false);
    device.attach(two, { noSnoop: true });
    expect([device.noSnoop, iommu.needsNoSnoop()]).toEqual([true, true]);
    expect(() => device.attach(one, { noSnoop: 1 as unknown as boolean })).toThrow(TypeError);
  });

  test('is as before where attaching fails', () => {
    const { iommu, device } = open(0);
    device.attach(iommu.createAddressSpace());
    const enforcing = iommu.createAddressSpace({ enforceSnoop: 'enable' });
    const attach = () => device.attach(enforcing, { replace: true, noSnoop: false });
    expect(errorOf(attach)).toMatchObject({ code: 'EINVAL' });
    expect([device.noSnoop, iommu.needsNoSnoop()]).toEqual([undefined, true]);
  });

  test('is nothing for a device that cannot', () => {
    const { iommu } = open(0);
    const edu = iommu.bind(EDU, { cookie: 2 });
    edu.attach(iommu.createAddressSpace(), { noSnoop: true });
    expect(iommu.needsNoSnoop()).toBe(false);
    const mock = iommu.createMockDevice({ cookie: 3 });
    const attach = () => mock.attach(iommu.createAddressSpace(), { noSnoop: false });
    expect(errorOf(attach)).toMatchObject({ code: 'EOPNOTSUPP' });
    expect(mock.attached()).toBeUndefined();
  });
});

test('mediated devices are what their engine is; one in software has no DMA of its own', () => {
  const machine = machineWith({ iommu: { capabilities: { SC: 0 } } });
  const iommu = Iommu.open({ backend: machine });
  const software = bindNew(iommu, 'software', 1n);
  software.attach(iommu.createAddressSpace());
  expect(iommu.needsNoSnoop()).toBe(false);
  const hint = () => software.attach(software.attached()!, { noSnoop: true });
  expect(errorOf(hint)).toMatchObject({ code: 'EOPNOTSUPP', hint: 'leave noSnoop out' });
  const channel = bindNew(iommu, 'channel', 2n);
  channel.attach(iommu.createAddressSpace());
  expect(iommu.needsNoSnoop()).toBe(true);
  channel.attach(channel.attached()!, { noSnoop: false });
  expect(iommu.needsNoSnoop()).toBe(false);
  const enforcing = iommu.createAddressSpace({ enforceSnoop: 'enable' });
  expect(errorOf(() => channel.attach(enforcing, { replace: true }))).toMatchObject({ code: 'EINVAL' });
});

describe('watchNoSnoop', () => {
  test('tells each change', async () => {
    const { iommu, device } = open(0);
    const watch = iommu.watchNoSnoop();
    expect(watch.needed).toBe(false);
    const space = iommu.createAddressSpace();
    device.attach(space);
    expect(await watch.next({ timeout: 1000 })).toBe(true);
    setImmediate(() => device.detach());
    for await (const needed of watch) {
      expect(needed).toBe(false);
      watch.close();
    }
    await expect(watch.next()).rejects.toMatchObject({ code: 'EBADF' });
    expect(errorOf(() => watch.needed)).toMatchObject({ code: 'EBADF' });
  });

  test('one at a time, and it goes with its Iommu', async () => {
    const { iommu } = open(0);
    const watch = iommu.watchNoSnoop();
    expect(errorOf(() => iommu.watchNoSnoop())).toMatchObject({ code: 'EBUSY' });
    await expect(watch.next({ timeout: 1 })).rejects.toMatchObject({ code: 'ETIMEDOUT' });
    watch.close();
    const waits = iommu.watchNoSnoop().next();
    iommu.close();
    await expect(waits).rejects.toMatchObject({ code: 'EBADF' });
  });
});

test('the whole of it is an extension', () => {
  expect(open(1).iommu.checkExtension('EXT_DMA_NO_SNOOP')).toBe(true);
});
