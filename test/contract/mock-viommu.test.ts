/** Virtual IOMMUs of the selftest IOMMU, their devices and nested tables, by raw calls. */
import { PROT_READ, PROT_WRITE, type DeviceMapping } from '../../lib/kernel';
import * as uapi from '../../lib/uapi';
import { errno } from '../../lib/uapi';
import { RawIommu, useRawIommu, virtualIommu } from './mock';
import { errorOf, PAGE } from './support';

const iommu = useRawIommu();
const U64_MAX = 2n ** 64n - 1n;

describe('VIOMMU_ALLOC', () => {
  test('wants a known type, a device, and a nesting parent', () => {
    const { raw, ioas, device, stdev, hwpt, parent, viommu } = virtualIommu(iommu());
    expect(viommu).toBe(parent + 1);
    expect(raw.viommu(99, 99, { flags: 1 })).toBe(-errno.EOPNOTSUPP);
    expect(raw.viommu(99, 99, { type: uapi.IOMMU_VIOMMU_TYPE_DEFAULT })).toBe(-errno.EOPNOTSUPP);
    expect(raw.viommu(stdev, 99, { type: uapi.IOMMU_VIOMMU_TYPE_ARM_SMMUV3 })).toBe(-errno.ENOENT);
    expect(raw.viommu(device, 99, { type: uapi.IOMMU_VIOMMU_TYPE_ARM_SMMUV3 })).toBe(-errno.EOPNOTSUPP);
    expect(raw.viommu(device, 99)).toBe(-errno.ENOENT);
    expect(raw.viommu(device, ioas)).toBe(-errno.ENOENT);
    expect(raw.viommu(device, hwpt)).toBe(-errno.EINVAL);
    expect(raw.viommu(device, raw.nested(device, parent))).toBe(-errno.ENOENT);
    // Reserved, and not looked at.
    expect(raw.viommu(device, parent, { __reserved: 1 })).toBeGreaterThan(viommu);
  });

  test('takes data, and gives it back', () => {
    const { raw, device, parent } = virtualIommu(iommu());
    const memory = raw.memory(PAGE);
    const make = (data_len: number, data_uptr = memory.address) => {
      memory.bytes.fill(0xff);
      new DataView(memory.bytes.buffer).setUint32(0, 0xcafe_f00d, true);
      return raw.viommu(device, parent, { data_len, data_uptr });
    };
    for (const length of [1, 7, 25]) expect(make(length)).toBe(-errno.EINVAL);
    expect(make(24, 0n)).toBe(-errno.EFAULT);
    expect(make(24, 0x1000n)).toBe(-errno.EFAULT);
    // What is not asked for takes no place in the file.
    expect(make(0)).toBeGreaterThan(0);
    expect(make(24)).toBeGreaterThan(0);
    expect(uapi.iommu_viommu_selftest.decode(memory.bytes)).toEqual({
      in_data: 0xcafe_f00d,
      out_data: 0xcafe_f00d,
      out_mmap_offset: 4096n,
      out_mmap_length: 8192n,
    });
    expect(memory.bytes[24]).toBe(0xff);
    expect(make(12)).toBeGreaterThan(0);
    expect([...memory.bytes.subarray(4, 16)]).toEqual([13, 240, 254, 202, 0, 48, 0, 0, 255, 255, 255, 255]);
  });

  test('keeps its parent, and goes when nothing uses it', () => {
    const { raw, device, parent, viommu } = virtualIommu(iommu());
    expect(raw.destroy(parent)).toBe(-errno.EBUSY);
    const nested = raw.nested(device, viommu);
    const vdevice = raw.vdevice(viommu, device, 1);
    for (const user of [nested, vdevice]) {
      expect(user).toBeGreaterThan(0);
      expect(raw.destroy(viommu)).toBe(-errno.EBUSY);
      expect(raw.destroy(user)).toBe(0);
    }
    expect(raw.destroy(viommu)).toBe(0);
    expect(raw.destroy(viommu)).toBe(-errno.ENOENT);
    expect(raw.viommu(device, parent)).toBe(viommu);
    expect(raw.destroy(viommu)).toBe(0);
    expect(raw.destroy(parent)).toBe(0);
  });

  test('of a failed call no id is missing', () => {
    const { raw, device, parent, viommu } = virtualIommu(iommu());
    expect(raw.viommu(device, parent, { data_len: 24, data_uptr: 0n })).toBe(-errno.EFAULT);
    expect(raw.nested(device, viommu, { data_uptr: 0n })).toBe(-errno.EFAULT);
    expect(raw.ioas()).toBe(viommu + 1);
  });
});

describe('VDEVICE_ALLOC', () => {
  test('gives each device one id, and each id one device', () => {
    const { raw, ioas, device, parent, viommu } = virtualIommu(iommu());
    const other = raw.viommu(device, parent);
    const second = raw.device(ioas).device;
    expect(raw.vdevice(device, device, 1)).toBe(-errno.ENOENT);
    expect(raw.vdevice(99, 99, 1)).toBe(-errno.ENOENT);
    expect(raw.vdevice(viommu, parent, 1)).toBe(-errno.ENOENT);
    const first = raw.vdevice(viommu, device, U64_MAX);
    expect(first).toBe(second + 1);
    expect(raw.vdevice(viommu, device, 2)).toBe(-errno.EEXIST);
    expect(raw.vdevice(other, device, 2)).toBe(-errno.EEXIST);
    expect(raw.vdevice(viommu, second, U64_MAX)).toBe(-errno.EEXIST);
    expect(raw.vdevice(other, second, U64_MAX)).toBe(first + 1);
    expect(raw.destroy(first)).toBe(0);
    expect(raw.vdevice(viommu, device, 0)).toBe(first);
  });

  test('a device that goes leaves its id behind, which nobody gets again', () => {
    const { raw, device, stdev, viommu } = virtualIommu(iommu());
    const vdevice = raw.vdevice(viommu, device, 1);
    expect(raw.destroy(viommu)).toBe(-errno.EBUSY);
    expect(raw.destroy(stdev)).toBe(0);
    expect(raw.destroy(vdevice)).toBe(-errno.ENOENT);
    expect(raw.destroy(device)).toBe(-errno.ENOENT);
    const made = Array.from({ length: 4 }, () => raw.ioas());
    expect(made).toContain(device);
    expect(made).toContain(vdevice + 1);
    expect(made).not.toContain(vdevice);
    expect(raw.destroy(viommu)).toBe(0);
  });

  test('closing the iommufd takes everything with it', () => {
    const { raw, device, stdev, viommu } = virtualIommu(new RawIommu());
    raw.vdevice(viommu, device, 1);
    expect(raw.nested(device, viommu)).toBeGreaterThan(0);
    expect(raw.destroy(stdev)).toBe(0);
    const left = virtualIommu(new RawIommu());
    left.raw.vdevice(left.viommu, left.device, 1);
    raw.close();
    left.raw.close();
    expect(iommu().ioas()).toBe(1);
  });
});

describe('nested tables on a virtual IOMMU', () => {
  test('are made as those on a parent', () => {
    const { raw, device, viommu } = virtualIommu(iommu());
    expect(raw.nested(device, viommu, { flags: uapi.IOMMU_HWPT_ALLOC_NEST_PARENT })).toBe(-errno.EOPNOTSUPP);
    expect(raw.nested(device, viommu, { data_type: 0, data_len: 0 })).toBe(-errno.EOPNOTSUPP);
    expect(raw.nested(device, viommu, { data_type: 1 })).toBe(-errno.EOPNOTSUPP);
    expect(raw.nested(device, viommu, { data_len: 3 })).toBe(-errno.EINVAL);
    expect(raw.nested(device, viommu, { flags: uapi.IOMMU_HWPT_FAULT_ID_VALID })).toBe(-errno.ENOENT);
    const nested = raw.nested(device, viommu);
    expect(nested).toBe(viommu + 1);
    expect(raw.nested(device, nested)).toBe(-errno.EINVAL);
  });

  test('are for devices that the guest knows', () => {
    const { raw, ioas, device, stdev, viommu } = virtualIommu(iommu());
    const nested = raw.nested(device, viommu);
    expect(raw.replace(stdev, nested)).toBe(-errno.ENOENT);
    expect(raw.tryDevice(nested)).toBe(-errno.ENOENT);
    const vdevice = raw.vdevice(viommu, device, 3);
    expect(raw.replace(stdev, nested)).toBe(nested);
    expect(raw.destroy(nested)).toBe(-errno.EBUSY);
    // It stays where it is without one, and cannot come back.
    expect(raw.destroy(vdevice)).toBe(0);
    expect(raw.replace(stdev, nested)).toBe(nested);
    expect(raw.replace(stdev, raw.nested(device, viommu))).toBe(-errno.ENOENT);
    expect(raw.replace(stdev, ioas)).toBeGreaterThan(0);
    expect(raw.replace(stdev, nested)).toBe(-errno.ENOENT);
  });

  test('a PASID may be attached without', () => {
    const { raw, ioas, device, viommu } = virtualIommu(iommu());
    const flags = uapi.IOMMU_HWPT_ALLOC_PASID;
    const rid = raw.hwpt({ dev_id: device, pt_id: ioas, flags });
    const { stdev } = raw.device(rid, uapi.MOCK_FLAGS_DEVICE_PASID);
    const nested = raw.nested(device, viommu, { flags });
    expect(raw.attachPasid(stdev, 1, nested)).toBe(nested);
    expect(raw.detachPasid(stdev, 1)).toBe(0);
  });
});

describe('INVALIDATE of a virtual IOMMU', () => {
  type Entry = Parameters<typeof uapi.iommu_viommu_invalidate_selftest.encode>[0];

  function setUp() {
    const world = virtualIommu(iommu());
    const { raw, device, viommu } = world;
    raw.vdevice(viommu, device, 7);
    const memory = raw.memory(PAGE);
    const invalidate = (
      list: Entry[],
      values: Parameters<typeof uapi.iommu_hwpt_invalidate.encode>[0] = {},
    ) => {
      memory.bytes.fill(0);
      list.forEach((entry, i) =>
        memory.bytes.set(uapi.iommu_viommu_invalidate_selftest.encode(entry), 12 * i),
      );
      const { result, out } = raw.call(uapi.IOMMU_HWPT_INVALIDATE, {
        hwpt_id: viommu,
        data_type: uapi.IOMMU_VIOMMU_INVALIDATE_DATA_SELFTEST,
        data_uptr: memory.address,
        entry_len: 12,
        entry_num: list.length,
        ...values,
      });
      return [result, out.entry_num];
    };
    const caches = () =>
      [0, 1, 2, 3].map(
        (id) =>
          raw.test(uapi.IOMMU_TEST_OP_DEV_CHECK_CACHE, device, { check_dev_cache: { id, cache: 0 } })
            .result === 0,
      );
    return { ...world, invalidate, caches };
  }

  test('reaches the caches of its devices, until an entry is wrong', () => {
    const { invalidate, caches } = setUp();
    expect(caches()).toEqual([false, false, false, false]);
    expect(
      invalidate([
        { vdev_id: 7, cache_id: 1 },
        { vdev_id: 8, cache_id: 2 },
        { vdev_id: 7, cache_id: 3 },
      ]),
    ).toEqual([-errno.EINVAL, 1]);
    expect(caches()).toEqual([false, true, false, false]);
    expect(invalidate([{ vdev_id: 7, cache_id: 4 }])).toEqual([-errno.EINVAL, 0]);
    expect(invalidate([{ flags: 2, vdev_id: 7, cache_id: 4 }])).toEqual([-errno.EOPNOTSUPP, 0]);
    expect(invalidate([{ flags: 1, vdev_id: 7, cache_id: 4 }])).toEqual([-errno.EINVAL, 0]);
    expect(invalidate([{ vdev_id: 7 }, { flags: 1, vdev_id: 7 }])).toEqual([0, 2]);
    expect(caches()).toEqual([true, true, true, true]);
  });

  test('copies all entries before it looks at one', () => {
    const { invalidate, caches, raw, device, viommu } = setUp();
    const good = { vdev_id: 7, cache_id: 1 };
    expect(invalidate([good, good], { data_uptr: 0x1000n })).toEqual([-errno.EFAULT, 0]);
    // Shorter entries are filled up with zeros, longer ones must be zero there.
    expect(invalidate([good], { entry_len: 16 })).toEqual([0, 1]);
    expect(invalidate([good, good], { entry_len: 16, entry_num: 1 })).toEqual([0, 1]);
    expect(invalidate([good, { flags: 1 }], { entry_len: 16, entry_num: 1 })).toEqual([-errno.E2BIG, 0]);
    expect(caches()).toEqual([false, true, false, false]);
    expect(invalidate([good], { entry_len: 8 })).toEqual([0, 1]);
    expect(caches()).toEqual([true, true, false, false]);
    expect(invalidate([good], { entry_len: 4 })).toEqual([-errno.EINVAL, 0]);
    const other = raw.nested(device, viommu);
    expect(invalidate([good], { hwpt_id: other })).toEqual([-errno.EINVAL, 0]);
  });

  test('asks for the type with no entry, and takes 4 MiB of them at most', () => {
    const { invalidate } = setUp();
    expect(invalidate([])).toEqual([0, 0]);
    expect(invalidate([], { data_type: 1 })).toEqual([-errno.EINVAL, 0]);
    expect(invalidate([{}], { data_type: 1 })).toEqual([-errno.EINVAL, 0]);
    expect(invalidate([], { entry_num: 349_525, data_uptr: 0x1000n })).toEqual([-errno.EFAULT, 0]);
    // The one failure after which the count is not that of the entries handled.
    expect(invalidate([], { entry_num: 349_526, data_uptr: 0x1000n })).toEqual([-errno.ENOMEM, 349_526]);
    expect(invalidate([], { entry_num: 524_289, data_uptr: 0x1000n })).toEqual([-errno.EINVAL, 0]);
  });
});

describe('memory of a virtual IOMMU', () => {
  const both = PROT_READ | PROT_WRITE;

  function setUp() {
    const world = virtualIommu(iommu());
    const { raw, device, parent } = world;
    const memory = raw.memory(PAGE);
    const make = (value: number) => {
      new DataView(memory.bytes.buffer).setUint32(0, value, true);
      const id = raw.viommu(device, parent, { data_len: 24, data_uptr: memory.address });
      const { out_mmap_offset } = uapi.iommu_viommu_selftest.decode(memory.bytes);
      return { id, offset: Number(out_mmap_offset) };
    };
    const map = (offset: number, length = 8192, protection = both): DeviceMapping => {
      const mapping = raw.kernel.mmap(raw.fd, offset, length, protection);
      if (typeof mapping === 'number') throw new Error(`mmap gave ${mapping}`);
      return mapping;
    };
    return { ...world, make, map };
  }

  test('is mapped whole, and holds what it was made with', () => {
    const { raw, make, map } = setUp();
    const { offset } = make(0x89ab_cdef);
    for (const [at, length] of [
      [0, 8192],
      [offset, 4096],
      [offset, 8193],
      [offset + PAGE, 4096],
      [offset + 2 * PAGE, 8192],
    ])
      expect(raw.kernel.mmap(raw.fd, at, length, both)).toBe(-errno.ENXIO);
    expect(raw.kernel.mmap(raw.fd, offset, 0, both)).toBe(-errno.EINVAL);
    const mapping = map(offset);
    expect(mapping.length).toBe(8192);
    expect(mapping.load(0, 4)).toBe(0x89ab_cdef);
    expect([mapping.load(0, 1), mapping.load(2, 2)]).toEqual([0xef, 0x89ab]);
    expect(mapping.load64(8184)).toBe(0n);
    const second = map(offset, 8191);
    second.store64(8, 0x1122_3344_5566_7788n);
    second.store(4096, 4, 5);
    second.store(4100, 2, 6);
    second.store(4102, 1, 7);
    expect(mapping.load64(8)).toBe(0x1122_3344_5566_7788n);
    expect(mapping.load64(4096)).toBe(0x0007_0006_0000_0005n);
    expect(errorOf(() => mapping.load(8192, 1))).toMatchObject({ name: 'RangeError' });
    expect(errorOf(() => mapping.load(2, 4))).toMatchObject({ name: 'RangeError' });
    mapping.unmap();
    second.unmap();
    expect(errorOf(() => mapping.load(0, 4))).toMatchObject({ name: 'TypeError' });
  });

  test('allows what it was mapped for', () => {
    const { make, map } = setUp();
    const { offset } = make(1);
    const [readable, writable] = [map(offset, 8192, PROT_READ), map(offset, 8192, PROT_WRITE)];
    expect(errorOf(() => readable.store(0, 4, 1))).toMatchObject({ name: 'TypeError' });
    expect(errorOf(() => writable.load(0, 4))).toMatchObject({ name: 'TypeError' });
    writable.store(0, 4, 9);
    expect(readable.load(0, 4)).toBe(9);
    readable.unmap();
    writable.unmap();
  });

  test('keeps the virtual IOMMU, and the iommufd', () => {
    const { raw, make, map } = setUp();
    const { id, offset } = make(3);
    const [first, second] = [map(offset), map(offset)];
    expect(raw.destroy(id)).toBe(-errno.EBUSY);
    first.unmap();
    first.unmap();
    expect(raw.destroy(id)).toBe(-errno.EBUSY);
    second.unmap();
    expect(raw.destroy(id)).toBe(0);
    expect(raw.kernel.mmap(raw.fd, offset, 8192, both)).toBe(-errno.ENXIO);
    const last = map(make(4).offset);
    expect(raw.drop(raw.fd)).toBe(0);
    expect(last.load(0, 4)).toBe(4);
    last.unmap();
  });

  test('lies at the lowest place that is free', () => {
    const { raw, make, map } = setUp();
    const made = [make(0), make(1), make(2)];
    expect(made.map(({ offset }) => offset)).toEqual([0x1000, 0x3000, 0x5000]);
    expect(raw.destroy(made[1].id)).toBe(0);
    expect(make(7).offset).toBe(0x3000);
    expect(make(8).offset).toBe(0x7000);
    const mapping = map(0x3000);
    expect(mapping.load(0, 4)).toBe(7);
    mapping.unmap();
  });
});
