import { Iommu, type BoundDevice } from '../lib';
import type { Context } from '../lib/context';
import { Machine } from '../lib/sim';
import { errorOf } from './contract/support';

/** What is inside a device, and no user's. */
const contextOf = (device: BoundDevice) => (device as unknown as { context: Context }).context;

test('a routing slot that another device has is refused before the kernel is asked, by both cookies', () => {
  using iommu = Iommu.open({ backend: new Machine() });
  const device = iommu.bind('0000:00:04.0', { cookie: 0xed0 });
  const space = iommu.createAddressSpace();
  const { attachData } = contextOf(device);
  const other = { ...device.iommuDev, cookie: 0xa11a5n };
  attachData.add(other, undefined, 7);
  const called = jest.spyOn(iommu.kernel, 'ioctl');
  expect(errorOf(() => device.attach(space))).toMatchObject({
    code: 'EEXIST',
    reason:
      'device 0xed0 would fill the routing slot of device 0xa11a5, and their faults could not be told apart',
  });
  expect(called).not.toHaveBeenCalled();
  expect([device.attached(), space.attachments]).toEqual([undefined, []]);
  attachData.remove(other, undefined);
  device.attach(space);
  expect(attachData.resolve({ rid: device.id, pasid: 0, addr: 5n })).toEqual({
    ...{ ioasid: space.ioasid, cookie: 0xed0n, addr: 5n },
  });
  device.detach();
  expect(attachData.resolve({ rid: device.id, pasid: 0, addr: 5n })).toBeUndefined();
});
