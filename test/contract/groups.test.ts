/** IOMMU groups as Linux derives them from where devices sit, and as a program sees and takes them. */
import { Iommu, type IommuError, type IommuGroup } from '../../lib';
import { kernelWithBuses, PAIR, PORTS, SINGLE } from './edus';
import { EDU, errorOf } from './support';

const kernel = kernelWithBuses();
let iommu: Iommu;
beforeEach(() => (iommu = Iommu.open({ backend: kernel })));
afterEach(() => iommu.close());

function groupOf(bdf: string): IommuGroup {
  const found = iommu.groups().filter(({ members }) => members.some((member) => member.bdf === bdf));
  expect(found).toHaveLength(1);
  return found[0];
}

const uses = ({ members }: IommuGroup) => members.map(({ bdf, use }) => [bdf, use]);

test('devices behind ports with ACS are alone; functions of one device without are together', () => {
  for (const bdf of [EDU, SINGLE]) expect(uses(groupOf(bdf))).toEqual([[bdf, 'vfio']]);
  expect(uses(groupOf(PAIR[0]))).toEqual(PAIR.map((bdf) => [bdf, 'vfio']));
  expect(groupOf(PAIR[0])).toMatchObject({ viable: true, blockers: [] });
  const numbers = iommu.groups().map(({ id }) => id);
  expect(numbers).toEqual([...new Set(numbers)].sort((one, other) => one - other));
});

test('a port is a device, in a group of its own, whose driver does no DMA', () => {
  for (const bdf of PORTS) {
    const group = groupOf(bdf);
    expect(group).toMatchObject({ viable: true, members: [{ bdf, driver: 'pcieport', use: 'no-dma' }] });
    expect(group.members[0].classCode).toBe(0x060400);
  }
  const link = kernel.readlink(`/sys/bus/pci/devices/${SINGLE}`);
  expect(link).toBe(`../../../devices/pci0000:00/${PORTS[0]}/${SINGLE}`);
});

test('what is bound here is bound', () => {
  const device = iommu.bind(PAIR[1], { cookie: 1 });
  expect(device.iommuGroup).toBe(groupOf(PAIR[1]).id);
  expect(uses(groupOf(PAIR[0]))).toEqual([
    [PAIR[0], 'vfio'],
    [PAIR[1], 'bound'],
  ]);
});

test('another Iommu cannot have the rest of the group', () => {
  iommu.bind(PAIR[0], { cookie: 1 });
  const other = Iommu.open({ backend: kernel });
  const error = errorOf(() => other.bind(PAIR[1], { cookie: 1 })) as IommuError;
  other.close();
  expect(error).toMatchObject({ code: 'EPERM', request: 'VFIO_DEVICE_BIND_IOMMUFD' });
  expect(error.hint).toContain("owns a device of this device's IOMMU group");
  iommu.bind(PAIR[1], { cookie: 2 });
});

test('all members are in one space: the error says who is in another', () => {
  const [left, right] = PAIR.map((bdf, cookie) => iommu.bind(bdf, { cookie }));
  const [one, two] = [iommu.createAddressSpace(), iommu.createAddressSpace()];
  left.attach(one);
  const error = errorOf(() => right.attach(two)) as IommuError;
  expect(error).toMatchObject({ code: 'EINVAL', request: 'VFIO_DEVICE_ATTACH_IOMMUFD_PT' });
  expect(error.hint).toContain(`${PAIR[0]} is in the same IOMMU group`);
  expect(error.hint).toContain(one.label);
  right.attach(one);
  // One member moves all of them.
  left.attach(two, { replace: true });
  expect(right.attached()).toBe(two);
  expect(one.attachments).toEqual([]);
  expect(two.attachments.map(({ device }) => device)).toEqual([left, right]);
  expect(iommu.describe().devices.map(({ attached }) => attached)).toEqual(
    [left, right].map(() => [{ pasid: null, ioasid: two.ioasid }]),
  );
  left.detach();
  right.detach();
  right.attach(two);
});

const DRIVERS = '/sys/bus/pci/drivers/vfio-pci';

test('a member without a driver is in nobody’s way', () => {
  expect(kernel.writeFile(`${DRIVERS}/unbind`, PAIR[1])).toBe(PAIR[1].length);
  try {
    expect(uses(groupOf(PAIR[1]))).toEqual([
      [PAIR[0], 'vfio'],
      [PAIR[1], 'no-driver'],
    ]);
    expect(groupOf(PAIR[1]).viable).toBe(true);
    iommu.bind(PAIR[0], { cookie: 1 }).attach(iommu.createAddressSpace());
  } finally {
    expect(kernel.writeFile(`${DRIVERS}/bind`, PAIR[1])).toBe(PAIR[1].length);
  }
});
