/** /dev/vfio/N: a group that is put into an iommufd as if that were a VFIO container. */
import { O_RDWR } from '../../lib/kernel';
import * as uapi from '../../lib/uapi';
import { Calls, code } from './calls';
import { EDU } from './support';

const VIABLE = uapi.VFIO_GROUP_FLAGS_VIABLE;
const SET = uapi.VFIO_GROUP_FLAGS_CONTAINER_SET;

const calls = new Calls();
const { kernel } = calls;

beforeEach(() => calls.open());
afterEach(() => calls.close());
afterAll(() => calls.free());

const link = kernel.readlink(`/sys/bus/pci/devices/${EDU}/iommu_group`);
const path = `/dev/vfio/${typeof link === 'number' ? 'none' : link.slice(link.lastIndexOf('/') + 1)}`;

const setContainer = (group: number, fd: number) =>
  calls.call(group, uapi.VFIO_GROUP_SET_CONTAINER, { fd }).code;
const unsetContainer = (group: number) => code(kernel.ioctl(group, uapi.VFIO_GROUP_UNSET_CONTAINER.request));

function status(group: number): number | string {
  const { code: result, out } = calls.call(group, uapi.VFIO_GROUP_GET_STATUS, {});
  return result === 0 ? out.flags : result;
}

function compatIoas(): number | string {
  const { code: result, out } = calls.call(calls.fd, uapi.IOMMU_VFIO_IOAS, { op: uapi.IOMMU_VFIO_IOAS_GET });
  return result === 0 ? out.ioas_id : result;
}

test('the group’s file is beside those of devices', () => {
  expect(kernel.readdir('/dev/vfio')).toEqual(expect.arrayContaining(['devices', path.slice(10)]));
});

test('the iommufd gets an IOAS for the ioctls of containers, if it has none', () => {
  const group = calls.file(path);
  expect(compatIoas()).toBe('ENODEV');
  expect(setContainer(group, calls.fd)).toBe(0);
  expect(compatIoas()).toBe(1);
  expect(calls.ioas()).toBe(2);
  expect(unsetContainer(group)).toBe(0);
  // What it was made for is gone, and it is not.
  expect(compatIoas()).toBe(1);
  expect(setContainer(group, calls.fd)).toBe(0);
  expect(calls.ioas()).toBe(3);
  expect(calls.destroy(1)).toBe(0);
  expect(compatIoas()).toBe('ENODEV');
  expect(setContainer(group, calls.fd)).toBe('EINVAL');
  expect(unsetContainer(group)).toBe(0);
  calls.call(calls.fd, uapi.IOMMU_VFIO_IOAS, { op: uapi.IOMMU_VFIO_IOAS_SET, ioas_id: 2 });
  expect(setContainer(group, calls.fd)).toBe(0);
  expect(compatIoas()).toBe(2);
  expect(calls.ioas()).toBe(1);
});

test('the order of complaints', () => {
  const group = calls.file(path);
  expect(unsetContainer(group)).toBe('EINVAL');
  expect(code(kernel.ioctl(group, uapi.VFIO_GROUP_SET_CONTAINER.request, 8))).toBe('EFAULT');
  expect(setContainer(group, -1)).toBe('EBADF');
  expect(setContainer(group, calls.eventfd())).toBe('EBADFD');
  expect(setContainer(group, group)).toBe('EBADFD');
  expect(setContainer(group, calls.fd)).toBe(0);
  expect(setContainer(group, -1)).toBe('EBADF');
  expect(setContainer(group, group)).toBe('EINVAL');
  expect(code(kernel.ioctl(group, uapi.VFIO_GROUP_GET_STATUS.request, 8))).toBe('EFAULT');
  expect(calls.call(group, uapi.VFIO_GROUP_GET_STATUS, { argsz: 7 }).code).toBe('EINVAL');
  expect(code(kernel.ioctl(group, uapi.VFIO_GET_API_VERSION.request))).toBe('ENOTTY');
});

test('what a group is', () => {
  const group = calls.file(path);
  expect(status(group)).toBe(VIABLE);
  expect(setContainer(group, calls.fd)).toBe(0);
  expect(status(group)).toBe(VIABLE | SET);
  expect(unsetContainer(group)).toBe(0);
  expect(status(group)).toBe(VIABLE);
});

test('the iommufd lives on while a group is in it', () => {
  const group = calls.file(path);
  expect(setContainer(group, calls.fd)).toBe(0);
  calls.shut(calls.fd);
  expect(status(group)).toBe(VIABLE | SET);
  expect(unsetContainer(group)).toBe(0);
});

test('one way to the device at a time', () => {
  const group = calls.file(path);
  expect(code(kernel.open(path, O_RDWR))).toBe('EBUSY');
  const vfio = calls.vfio();
  const bind = (iommufd: number) => calls.call(vfio, uapi.VFIO_DEVICE_BIND_IOMMUFD, { iommufd }).code;
  expect(bind(-1)).toBe('EINVAL');
  expect(bind(calls.fd)).toBe('EBUSY');
  expect(bind(group)).toBe('EBUSY');
  calls.shut(group);
  expect(bind(calls.fd)).toBe(0);
  expect(code(kernel.open(path, O_RDWR))).toBe('EBUSY');
  calls.shut(vfio);
  calls.file(path);
});
