/** Hot reset, features and low power through objects. */
import { Iommu, type Device } from '../../lib';
import { EFD_NONBLOCK } from '../../lib/kernel';
import { kernelWithBuses, PAIR, SINGLE } from './edus';
import { EDU, errorOf } from './support';

const kernel = kernelWithBuses();
let iommu: Iommu;

beforeEach(() => (iommu = Iommu.open({ backend: kernel })));
afterEach(() => iommu.close());

const bind = (bdf: string, cookie: number): Device => iommu.bind(bdf, { cookie });

test('a device alone on its bus', () => {
  const device = bind(SINGLE, 1);
  expect(device.info().canReset).toBe(true);
  expect(device.hotResetDevices()).toEqual([{ bdf: SINGLE, id: device.id, owned: true }]);
  const space = iommu.createAddressSpace();
  device.attach(space);
  device.hotReset();
  expect(device.attached()).toBe(space);
  expect(device.region('bar0').read32(0)).toBe(0x010000ed);
});

test('two functions: both are reset, whoever is bound', () => {
  const second = bind(PAIR[1], 1);
  expect(second.hotResetDevices()).toEqual([
    { bdf: PAIR[0], id: undefined, owned: true },
    { bdf: PAIR[1], id: second.id, owned: true },
  ]);
  const first = bind(PAIR[0], 2);
  expect(first.hotResetDevices().map(({ id }) => id)).toEqual([first.id, second.id]);
  for (const device of [first, second]) device.hotReset();
  expect(errorOf(() => first.reset())).toMatchObject({ code: 'EINVAL', request: 'VFIO_DEVICE_RESET' });
});

test('the root bus has no hot reset, and the error says so', () => {
  const device = bind(EDU, 1);
  const refused = { code: 'ENODEV', syscall: 'ioctl', hint: expect.stringContaining('root bus') };
  expect(errorOf(() => device.hotResetDevices())).toMatchObject(refused);
  expect(errorOf(() => device.hotReset())).toMatchObject({
    ...refused,
    request: 'VFIO_DEVICE_PCI_HOT_RESET',
  });
  device.close();
  expect(errorOf(() => device.hotReset())).toMatchObject({ code: 'EBADF' });
  expect(errorOf(() => device.features())).toMatchObject({ code: 'EBADF' });
});

test('features of a plain PCI function', () => {
  expect(bind(EDU, 1).features()).toEqual({
    vfToken: false,
    migration: false,
    dmaLogging: false,
    lowPower: true,
    lowPowerWakeup: true,
    busMaster: false,
    dmaBuf: true,
  });
});

test('low power: not with mapped BARs, and none is mapped until it is over', () => {
  const device = bind(EDU, 1);
  const bar = device.region('bar0');
  expect(bar).toMatchObject({
    mapped: true,
    capabilities: { mappableAreas: undefined, msixMappable: false, type: undefined },
  });
  expect(errorOf(() => device.allowLowPower())).toMatchObject({
    code: 'EBUSY',
    hint: 'close the regions first',
  });
  bar.close();
  device.allowLowPower();
  expect(errorOf(() => device.allowLowPower())).toMatchObject({
    code: 'EINVAL',
    request: 'VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY',
    hint: 'low power is allowed already',
  });
  const resting = device.region('bar0');
  expect(resting.mapped).toBe(false);
  expect(resting.read32(0)).toBe(0x010000ed);
  resting.close();
  device.forbidLowPower();
  device.forbidLowPower();
  expect(device.region('bar0').mapped).toBe(true);
});

test('low power with an eventfd', () => {
  const device = bind(EDU, 1);
  const eventfd = kernel.eventfd(0, EFD_NONBLOCK);
  device.allowLowPower({ wakeup: eventfd });
  device.forbidLowPower();
  kernel.close(eventfd);
  expect(errorOf(() => device.allowLowPower({ wakeup: eventfd }))).toMatchObject({
    code: 'EBADF',
    request: 'VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY_WITH_WAKEUP',
  });
  expect(device.region('bar0').mapped).toBe(true);
});
