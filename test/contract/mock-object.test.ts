/** MockDevice, the object on top of IOMMU_TEST_CMD, on both backends; and machines that have no such thing. */
import { Iommu } from '../../lib';
import { Machine } from '../../lib/sim';
import { mockKernel } from './mock';
import { errorOf, fill, open, PAGE, backend } from './support';

const COOKIE = 0xc0c0n;
const IOVA = 0x200_0000n;

let iommu: Iommu;
beforeEach(() => {
  iommu = Iommu.open({ backend: mockKernel() });
});
afterEach(() => iommu.close());

test('attach, map, translate, detach', () => {
  const device = iommu.createMockDevice({ cookie: COOKIE });
  const space = iommu.createAddressSpace();
  const buffer = iommu.allocateDma(2 * PAGE);
  device.attach(space);
  const mapping = space.map(buffer, { iova: IOVA });
  expect(device.translates(IOVA, buffer)).toBe(true);
  expect(device.translates(IOVA, buffer, { offset: 2048, length: 2048 })).toBe(false);
  mapping.unmap();
  expect(device.translates(IOVA, buffer)).toBe(false);
  device.detach();
  expect(device.translates(IOVA, buffer)).toBe(false);
  device.close();
});

test('faults come with cookie, IOASID and PASID, and are answered', async () => {
  const device = iommu.createMockDevice({ cookie: COOKIE, pasid: true });
  const queue = iommu.createFaultQueue();
  const space = iommu.createAddressSpace({ faults: queue, pasid: true });
  const other = iommu.createAddressSpace({ faults: queue, pasid: true });
  const buffer = iommu.allocateDma(PAGE);
  fill(buffer.bytes, 9);
  device.attach(space);
  device.attach(other, { pasid: 17 });
  device.triggerFault({ address: IOVA, pasid: 17, permissions: { write: false } });
  const { value: fault } = await queue[Symbol.asyncIterator]().next();
  expect(fault).toMatchObject({ cookie: COOKIE, ioasid: other.ioasid, pasid: 17, address: IOVA });
  expect(fault?.permissions).toMatchObject({ read: true, write: false });
  other.map(buffer, { iova: IOVA });
  expect(fault?.respond('success')).toBe(true);
  expect(device.translates(IOVA, buffer, { pasid: 17 })).toBe(true);
  expect(device.translates(IOVA, buffer)).toBe(false);
  device.triggerFault({ address: IOVA });
  device.detach({ pasid: 17 });
  expect(queue.drain()).toMatchObject([{ ioasid: space.ioasid, pasid: undefined }]);
});

test('beside it, the machine has the devices it always has', () => {
  expect(iommu.devices().map(({ bdf }) => bdf)).toContain('0000:00:04.0');
  const device = iommu.createMockDevice({ cookie: COOKIE });
  const edu = iommu.bind('0000:00:04.0', { cookie: 1 });
  const space = iommu.createAddressSpace();
  device.attach(space);
  // One IOAS, a table for each IOMMU.
  edu.attach(space);
  const buffer = iommu.allocateDma(PAGE);
  space.map(buffer, { iova: IOVA });
  expect(device.translates(IOVA, buffer)).toBe(true);
});

test('a kernel without CONFIG_IOMMUFD_TEST does not know the command', () => {
  if (backend === 'linux') {
    // The guest's kernel has it, whatever this program does.
    open().createMockDevice({ cookie: COOKIE }).close();
    return;
  }
  for (const options of [{}, { selftest: false }, { iommu: 'mock', selftest: false }] as const)
    expect(
      errorOf(() => Iommu.open({ backend: new Machine(options) }).createMockDevice({ cookie: COOKIE })),
    ).toMatchObject({ code: 'ENOTTY' });
  const both = new Machine({ selftest: true, iommu: { interruptRemapping: false } });
  expect(Iommu.open({ backend: both }).createMockDevice({ cookie: COOKIE }).cookie).toBe(COOKIE);
});
