/** The seam itself: the same bytes, the same errno on both backends. */
import { O_RDWR } from '../../lib/kernel';
import * as uapi from '../../lib/uapi';
import { errno } from '../../lib/uapi';
import { kernel, PAGE } from './support';

const raw = kernel();
let fd: number;

beforeEach(() => {
  fd = raw.open('/dev/iommu', O_RDWR);
  expect(fd).toBeGreaterThanOrEqual(0);
});

afterEach(() => {
  expect(raw.close(fd)).toBe(0);
});

/** ioctl with `size` bytes of which those past the struct are `tail`. */
function sized(row: uapi.Ioctl, size: number, tail = 0): number {
  const bytes = new Uint8Array(Math.max(size, row.struct.size)).fill(tail, row.struct.size);
  new DataView(bytes.buffer).setUint32(0, size, true);
  return raw.ioctl(fd, row.request, bytes);
}

describe('raw calls', () => {
  test('an ioctl that does not exist is ENOTTY', () => {
    expect(raw.ioctl(fd, uapi.requestNumber(';', 0x9f), new Uint8Array(64))).toBe(-errno.ENOTTY);
    expect(raw.ioctl(fd, uapi.requestNumber('x', 0x80), new Uint8Array(64))).toBe(-errno.ENOTTY);
  });

  test.each([
    uapi.IOMMU_DESTROY,
    uapi.IOMMU_IOAS_ALLOC,
    uapi.IOMMU_IOAS_MAP,
    uapi.IOMMU_IOAS_UNMAP,
    uapi.IOMMU_IOAS_IOVA_RANGES,
    uapi.IOMMU_HWPT_ALLOC,
    uapi.IOMMU_HWPT_INVALIDATE,
    uapi.IOMMU_GET_HW_INFO,
    uapi.IOMMU_FAULT_QUEUE_ALLOC,
  ])('$name: too short is EINVAL, a nonzero tail E2BIG, a zero tail the same as none', (row) => {
    const each = row as unknown as uapi.Ioctl;
    expect(sized(each, each.minimumSize - 1)).toBe(-errno.EINVAL);
    expect(sized(each, each.struct.size + 8, 1)).toBe(-errno.E2BIG);
    expect(sized(each, each.struct.size + 8)).toBe(sized(each, each.struct.size));
  });

  test('object IDs are the lowest free from 1', () => {
    const allocate = () => {
      const bytes = uapi.iommu_ioas_alloc.encode({ size: 12 });
      expect(raw.ioctl(fd, uapi.IOMMU_IOAS_ALLOC.request, bytes)).toBe(0);
      return uapi.iommu_ioas_alloc.decode(bytes).out_ioas_id;
    };
    const destroy = (id: number) =>
      raw.ioctl(fd, uapi.IOMMU_DESTROY.request, uapi.iommu_destroy.encode({ size: 8, id }));
    expect([allocate(), allocate(), allocate()]).toEqual([1, 2, 3]);
    expect(destroy(2)).toBe(0);
    expect(destroy(2)).toBe(-errno.ENOENT);
    expect([allocate(), allocate()]).toEqual([2, 4]);
  });

  test('the order of complaints of MAP', () => {
    const bytes = uapi.iommu_ioas_alloc.encode({ size: 12 });
    raw.ioctl(fd, uapi.IOMMU_IOAS_ALLOC.request, bytes);
    const ioas_id = uapi.iommu_ioas_alloc.decode(bytes).out_ioas_id;
    const memory = raw.allocate(PAGE);
    if (typeof memory === 'number') throw new Error(`allocate gave ${memory}`);
    const map = (values: Parameters<typeof uapi.iommu_ioas_map.encode>[0]) =>
      raw.ioctl(
        fd,
        uapi.IOMMU_IOAS_MAP.request,
        uapi.iommu_ioas_map.encode({
          size: 40,
          flags: 7,
          ioas_id,
          user_va: memory.address,
          length: PAGE,
          iova: 0x10_0000n,
          ...values,
        }),
      );
    expect(map({ flags: 8, ioas_id: 99 })).toBe(-errno.EOPNOTSUPP);
    expect(map({ __reserved: 1, ioas_id: 99 })).toBe(-errno.EOPNOTSUPP);
    expect(map({ iova: 2n ** 64n - 1n, flags: 1 })).toBe(-errno.EOVERFLOW);
    expect(map({ flags: 1, ioas_id: 99 })).toBe(-errno.EINVAL);
    expect(map({ ioas_id: 99, length: 0 })).toBe(-errno.ENOENT);
    expect(map({ length: 0 })).toBe(-errno.EINVAL);
    expect(map({ user_va: 2n ** 64n - 1n })).toBe(-errno.EOVERFLOW);
    expect(map({})).toBe(0);
    expect(map({})).toBe(-errno.EEXIST);
    memory.free();
  });

  test('an empty fault queue reads 0 bytes, its file comes before its object', () => {
    const bytes = uapi.iommu_fault_alloc.encode({ size: 16 });
    expect(raw.ioctl(fd, uapi.IOMMU_FAULT_QUEUE_ALLOC.request, bytes)).toBe(0);
    const { out_fault_id: id, out_fault_fd: queue } = uapi.iommu_fault_alloc.decode(bytes);
    expect(raw.read(queue, new Uint8Array(80))).toBe(0);
    expect(raw.read(queue, new Uint8Array(41))).toBe(-errno.ESPIPE);
    expect(raw.write(queue, new Uint8Array(7))).toBe(-errno.ESPIPE);
    const respond = (cookie: number, code: number) =>
      raw.write(queue, uapi.iommu_hwpt_page_response.encode({ cookie, code }));
    expect(respond(1, 0)).toBe(-errno.EINVAL);
    expect(respond(1, 2)).toBe(-errno.EINVAL);
    const destroy = () =>
      raw.ioctl(fd, uapi.IOMMU_DESTROY.request, uapi.iommu_destroy.encode({ size: 8, id }));
    expect(destroy()).toBe(-errno.EBUSY);
    expect(raw.close(queue)).toBe(0);
    expect(destroy()).toBe(0);
  });

  test('sysfs says where the device is', () => {
    const folder = '/sys/bus/pci/devices/0000:00:04.0';
    expect(raw.readFile(`${folder}/vendor`)).toBe('0x1234\n');
    expect(raw.readFile(`${folder}/no-such-file`)).toBe(-errno.ENOENT);
    expect(raw.readdir(`${folder}/vfio-dev`)).toEqual([expect.stringMatching(/^vfio\d+$/)]);
    expect(raw.readlink(`${folder}/driver`)).toMatch(/\/vfio-pci$/);
  });
});
