import { AddressSpace, IommuError, type DmaBuffer } from '../../lib';
import { errorOf, open, openEdu, PAGE } from './support';

const IOVA = 0x10_0000n;

function setUp() {
  const { iommu, device } = openEdu();
  const space = iommu.createAddressSpace();
  device.attach(space);
  return { iommu, device, space, buffer: iommu.allocateDma(4 * PAGE) };
}

describe('address space', () => {
  test('numbers are the lowest free from 1', () => {
    const iommu = open();
    const spaces = [1, 2, 3].map(() => iommu.createAddressSpace());
    expect(spaces.map(({ ioasid }) => ioasid)).toEqual([1, 2, 3]);
    spaces[1].close();
    expect(iommu.createAddressSpace().ioasid).toBe(2);
    expect(iommu.createAddressSpace().ioasid).toBe(4);
  });

  test('what is left undefined is not asked for', () => {
    const space = open().createAddressSpace({ parent: undefined, pageTable: undefined, faults: undefined });
    expect(space).toBeInstanceOf(AddressSpace);
  });

  test('knows its devices, and they know it', () => {
    const { device, space } = setUp();
    expect(space.attachments).toHaveLength(1);
    expect(space.attachments[0].device).toBe(device);
    expect(space.attachments[0].pasid).toBeUndefined();
    expect(device.attached()).toBe(space);
    device.detach();
    device.detach();
    expect(space.attachments).toEqual([]);
    expect(device.attached()).toBeUndefined();
  });

  test('closing it detaches its devices', () => {
    const { iommu, device, space, buffer } = setUp();
    const mapping = space.map(buffer);
    space.close();
    expect(device.attached()).toBeUndefined();
    expect(mapping.mapped).toBe(false);
    mapping.unmap();
    expect(() => space.map(buffer)).toThrow('IOMMU_IOAS_MAP: EBADF: address space 1 is closed');
    const next = iommu.createAddressSpace();
    device.attach(next);
    next.map(buffer);
  });

  test('a slot is not attached twice', () => {
    const { iommu, device, space } = setUp();
    const other = iommu.createAddressSpace();
    const error = errorOf(() => device.attach(other)) as IommuError;
    expect(error).toMatchObject({ code: 'EEXIST', request: 'VFIO_DEVICE_ATTACH_IOMMUFD_PT' });
    expect(error.message).toContain('device 0xed0');
    expect(error.message).toContain('address space 1');
    expect(error.message).toContain('address space 2');
    expect(device.attached()).toBe(space);
    device.attach(other, { replace: true });
    expect(device.attached()).toBe(other);
    expect(space.attachments).toEqual([]);
    device.attach(other, { replace: true });
    device.attach(other);
    expect(other.attachments).toHaveLength(1);
  });

  test('what cannot be attached is refused and changes nothing', () => {
    const { iommu, device, space } = setUp();
    const withFaults = iommu.createAddressSpace({ faults: iommu.createFaultQueue() });
    const noPri = errorOf(() => device.attach(withFaults, { replace: true })) as IommuError;
    expect(noPri).toMatchObject({ code: 'ENODEV', request: 'VFIO_DEVICE_ATTACH_IOMMUFD_PT' });
    expect(noPri.hint).toContain('Page Request Interface');
    const withPasids = iommu.createAddressSpace({ pasid: true });
    const noPasid = errorOf(() => device.attach(withPasids, { pasid: 3 })) as IommuError;
    expect(noPasid).toMatchObject({ code: 'EOPNOTSUPP', reason: '0000:00:04.0 has no PASIDs' });
    expect(device.attached()).toBe(space);
    expect(withFaults.attachments).toEqual([]);
    expect(() => device.attach(space, { pasid: 0 })).toThrow(RangeError);
    expect(() => device.attach(space, { pasid: 2 ** 20 })).toThrow(RangeError);
    expect(() => device.attach({} as never)).toThrow(TypeError);
    const stranger = open().createAddressSpace();
    expect(() => device.attach(stranger, { replace: true })).toThrow(TypeError);
  });

  test('a space for PASIDs takes a plain device too', () => {
    const { iommu, device, buffer } = setUp();
    const space = iommu.createAddressSpace({ pasid: true });
    device.attach(space, { replace: true });
    space.map(buffer, { iova: IOVA });
    device.detach();
    device.attach(space);
    expect(space.attachments).toHaveLength(1);
  });
});

describe('map', () => {
  test('lists what is mapped', () => {
    const { space, buffer } = setUp();
    const one = space.map(buffer, { iova: IOVA, length: PAGE });
    const two = space.map(buffer, { offset: PAGE });
    // By name: a difference in the objects themselves would print the whole kernel.
    const names = () => space.mappings.map((mapping) => (mapping === one ? 'one' : 'two'));
    expect(names()).toEqual(one.iova < two.iova ? ['one', 'two'] : ['two', 'one']);
    expect(two.length).toBe(3 * PAGE);
    one.unmap();
    one.unmap();
    expect(names()).toEqual(['two']);
    expect(space.unmapAll()).toBe(3 * PAGE);
    expect(space.unmapAll()).toBe(0);
    expect(two.mapped).toBe(false);
  });

  test.each([
    ['a misaligned IOVA', { iova: IOVA + 1n }, 'EINVAL', '0x100001 must be a multiple of 4096 bytes'],
    ['a misaligned length', { iova: IOVA, length: 100 }, 'EINVAL', '100 must be a multiple of 4096 bytes'],
    ['a misaligned offset', { iova: IOVA, offset: 8, length: PAGE }, 'EINVAL', 'offset 8 must be a multiple'],
    [
      'an IOVA beyond the IOMMU',
      { iova: 1n << 62n },
      'EINVAL',
      'devices of this space reach: 0x0-0xfedfffff, ',
    ],
    ['the interrupt range', { iova: 0xfee0_0000n }, 'EINVAL', '0xfee00000-0xfee03fff is not within'],
    ['a range that ends there', { iova: 0xfedf_f000n }, 'EINVAL', '0xfedff000-0xfee02fff is not within'],
    ['no bytes', { length: 0 }, 'EINVAL', 'the length must not be 0'],
    ['no bytes at a place', { iova: 0xfee0_0001n, length: 0 }, 'EINVAL', 'the length must not be 0'],
    ['the end of the numbers', { iova: 2n ** 64n - 1n }, 'EOVERFLOW', 'below 2^64'],
  ])('%s', (_what, options, code, hint) => {
    const { space, buffer } = setUp();
    const error = errorOf(() => space.map(buffer, options)) as IommuError;
    expect(error).toMatchObject({ code, request: 'IOMMU_IOAS_MAP', syscall: 'ioctl' });
    expect(error.hint).toContain(hint);
    expect(space.mappings).toEqual([]);
  });

  test('a taken range is EEXIST', () => {
    const { space, buffer } = setUp();
    space.map(buffer, { iova: IOVA });
    const error = errorOf(() => space.map(buffer, { iova: IOVA + BigInt(PAGE) }));
    expect(error).toMatchObject({ code: 'EEXIST', errno: -17 });
  });

  test('wrong arguments never reach the kernel', () => {
    const { space, buffer } = setUp();
    expect(() => space.map(new Uint8Array(PAGE) as unknown as DmaBuffer)).toThrow('allocateDma');
    expect(() => space.map(buffer, { offset: PAGE, length: 4 * PAGE })).toThrow(RangeError);
    expect(() => space.map(buffer, { iova: -1n })).toThrow(RangeError);
    expect(() => space.map(buffer, { iova: 2 ** 60 })).toThrow(RangeError);
    expect(() => space.map(buffer, { read: false, write: false })).toThrow(RangeError);
    buffer.close();
    expect(() => space.map(buffer)).toThrow('the DMA buffer is closed');
  });

  test('without a device, alignment is free; attaching then refuses what does not fit', () => {
    const iommu = open();
    const space = iommu.createAddressSpace();
    const buffer = iommu.allocateDma(PAGE);
    expect(space.alignment).toBe(1);
    space.map(buffer, { iova: 0x801n, offset: 1, length: 10 });
    const device = iommu.bind('00:04.0', { cookie: 1 });
    expect(errorOf(() => device.attach(space))).toMatchObject({
      code: 'EADDRINUSE',
      errno: -98,
      request: 'VFIO_DEVICE_ATTACH_IOMMUFD_PT',
    });
    expect(device.attached()).toBeUndefined();
    space.unmapAll();
    device.attach(space);
    expect(space.alignment).toBe(PAGE);
  });

  test('closing a buffer unmaps it everywhere', () => {
    const { iommu, space, buffer } = setUp();
    const other = iommu.createAddressSpace();
    const mappings = [space.map(buffer), space.map(buffer), other.map(buffer)];
    buffer.close();
    buffer.close();
    expect(mappings.map(({ mapped }) => mapped)).toEqual([false, false, false]);
    expect(space.mappings).toEqual([]);
    expect(buffer.bytes.length).toBe(0);
    expect(space.unmapAll()).toBe(0);
  });
});

describe('unmap', () => {
  test('takes whole mappings, holes between them included', () => {
    const { space, buffer } = setUp();
    const page = BigInt(PAGE);
    const [a, b, c] = [0n, 2n, 4n].map((n) => space.map(buffer, { iova: IOVA + n * page, length: PAGE }));
    expect(space.unmap(IOVA, 3n * page)).toBe(2 * PAGE);
    expect([a, b, c].map(({ mapped }) => mapped)).toEqual([false, false, true]);
  });

  test('a range that cuts a mapping removes nothing', () => {
    const { space, buffer } = setUp();
    const page = BigInt(PAGE);
    const first = space.map(buffer, { iova: IOVA, length: PAGE });
    const second = space.map(buffer, { iova: IOVA + page, length: 2 * PAGE });
    const error = errorOf(() => space.unmap(IOVA, 2n * page)) as IommuError;
    expect(error).toMatchObject({ code: 'ENOENT', request: 'IOMMU_IOAS_UNMAP' });
    expect(error.message).toContain('cuts the mapping at 0x101000');
    expect([first.mapped, second.mapped]).toEqual([true, true]);
    expect(space.unmap(IOVA, 3n * page)).toBe(3 * PAGE);
  });

  test('nothing there is ENOENT, no length EINVAL', () => {
    const { space } = setUp();
    expect(errorOf(() => space.unmap(IOVA, PAGE))).toMatchObject({ code: 'ENOENT' });
    expect(errorOf(() => space.unmap(IOVA, 0))).toMatchObject({ code: 'EINVAL' });
    expect(() => space.unmap(-1, 1)).toThrow(RangeError);
  });
});

describe('ranges', () => {
  test('attaching narrows what can be mapped', () => {
    const { iommu, space } = setUp();
    const everything = iommu.createAddressSpace();
    expect(everything.iovaRanges()).toEqual([{ iova: 0n, length: 2n ** 64n }]);
    const ranges = space.iovaRanges();
    expect(ranges.length).toBeGreaterThanOrEqual(2);
    expect(ranges[0]).toEqual({ iova: 0n, length: 0xfee0_0000n });
    expect(ranges[1].iova).toBe(0xfef0_0000n);
  });

  test('allow() confines automatic IOVAs, and only those', () => {
    const { space, buffer } = setUp();
    space.allow([{ iova: 0x4000_0000n, length: 4 * PAGE }]);
    const inside = space.map(buffer);
    expect(inside.iova).toBe(0x4000_0000n);
    expect(errorOf(() => space.map(buffer))).toMatchObject({ code: 'ENOSPC' });
    space.map(buffer, { iova: IOVA });
    expect(errorOf(() => space.allow([{ iova: 0xfee0_0000n, length: PAGE }]))).toMatchObject({
      code: 'EADDRINUSE',
      request: 'IOMMU_IOAS_ALLOW_IOVAS',
    });
    expect(() => space.allow([{ iova: 0, length: 0 }])).toThrow(RangeError);
    expect(() => space.allow([{ iova: 2n ** 64n - 1n, length: 2 }])).toThrow(RangeError);
    space.allow([]);
    space.map(buffer);
  });
});
