/** Devices and tables of the selftest IOMMU, by raw calls: the same answers on both backends. */
import * as layout from '../../lib/sim/kernel/mock/layout';
import * as uapi from '../../lib/uapi';
import { errno } from '../../lib/uapi';
import { APERTURE, MOCK_PAGE, useRawIommu } from './mock';
import { PAGE } from './support';

const iommu = useRawIommu();
const BEYOND = BigInt(uapi.MOCK_APERTURE_LAST) + 1n;

/** IOAS_IOVA_RANGES: the first 16 ranges and the alignment. */
function ranges(ioas_id: number): { ranges: [bigint, bigint][]; alignment: bigint } {
  const raw = iommu();
  const bytes = raw.memory(PAGE);
  const { result, out } = raw.call(uapi.IOMMU_IOAS_IOVA_RANGES, {
    ioas_id,
    num_iovas: 16,
    allowed_iovas: bytes.address,
  });
  expect(result).toBe(0);
  const found = Array.from({ length: out.num_iovas }, (_, i): [bigint, bigint] => {
    const { start, last } = uapi.iommu_iova_range.decode(bytes.bytes, 16 * i);
    return [start, last];
  });
  return { ranges: found, alignment: out.out_iova_alignment };
}

describe('mock devices', () => {
  test('take three ids, and are destroyed by the first', () => {
    const raw = iommu();
    const ioas = raw.ioas();
    expect(raw.device(ioas)).toEqual({ stdev: 2, device: 3, hwpt: 4 });
    expect(raw.device(ioas)).toEqual({ stdev: 5, device: 6, hwpt: 4 });
    expect([1, 3, 4].map((id) => raw.destroy(id))).toEqual([-errno.EBUSY, -errno.EBUSY, -errno.EBUSY]);
    expect(raw.destroy(2)).toBe(0);
    expect(raw.destroy(3)).toBe(-errno.ENOENT);
    expect(raw.destroy(4)).toBe(-errno.EBUSY);
    expect(raw.destroy(5)).toBe(0);
    expect(raw.destroy(4)).toBe(-errno.ENOENT);
    expect(raw.destroy(1)).toBe(0);
  });

  test('a failure leaves nothing behind', () => {
    const raw = iommu();
    const ioas = raw.ioas();
    expect(raw.tryDevice(99)).toBe(-errno.ENOENT);
    // Its own ids, while it is being made.
    expect(raw.tryDevice(2)).toBe(-errno.ENOENT);
    expect(raw.tryDevice(3)).toBe(-errno.EINVAL);
    expect(raw.tryDevice(ioas, 2)).toBe(-errno.EINVAL);
    expect(raw.tryDevice(ioas, 8)).toBe(-errno.EINVAL);
    expect(raw.device(ioas).stdev).toBe(2);
  });

  test('an operation that does not exist is EOPNOTSUPP, an id of another kind ENOENT', () => {
    const raw = iommu();
    const ioas = raw.ioas();
    const { device, hwpt } = raw.device(ioas);
    for (const op of [0, 24, 0xffff_ffff]) expect(raw.test(op, 0).result).toBe(-errno.EOPNOTSUPP);
    for (const id of [0, ioas, device, hwpt]) {
      expect(raw.replace(id, ioas)).toBe(-errno.ENOENT);
      expect(raw.checkPasid(id, 1, 0)).toBe(-errno.ENOENT);
      expect(raw.detachPasid(id, 1)).toBe(-errno.ENOENT);
    }
    expect(
      raw.test(uapi.IOMMU_TEST_OP_TRIGGER_VEVENT, 0, { trigger_vevent: { dev_id: device } }).result,
    ).toBe(-errno.ENOENT);
  });

  test('the length of the command is checked as that of any other', () => {
    const raw = iommu();
    const sized = (size: number, tail = 0) => {
      const bytes = new Uint8Array(80).fill(tail, 72);
      new DataView(bytes.buffer).setUint32(0, size, true);
      return raw.kernel.ioctl(raw.fd, uapi.IOMMU_TEST_CMD.request, bytes);
    };
    expect(sized(67)).toBe(-errno.EINVAL);
    expect(sized(68)).toBe(-errno.EOPNOTSUPP);
    expect(sized(80, 1)).toBe(-errno.E2BIG);
    expect(sized(80)).toBe(-errno.EOPNOTSUPP);
    // Numbers between the uAPI's last and this one are in the table, and empty.
    const unknown = uapi.requestNumber(';', 0x9f);
    expect(raw.kernel.ioctl(raw.fd, unknown, new Uint8Array(8))).toBe(-errno.ENOTTY);
    expect(raw.kernel.ioctl(raw.fd, unknown, 0)).toBe(-errno.EFAULT);
    expect(raw.kernel.ioctl(raw.fd, uapi.requestNumber(';', 0xa1), 0)).toBe(-errno.ENOTTY);
  });

  test('hardware information', () => {
    const raw = iommu();
    const ioas = raw.ioas();
    const info = (dev_id: number, length: number, type?: number) => {
      const data = raw.memory(PAGE);
      data.bytes.fill(0xa5);
      const { result, out } = raw.call(uapi.IOMMU_GET_HW_INFO, {
        dev_id,
        data_len: length,
        data_uptr: data.address,
        ...(type === undefined ? {} : { flags: uapi.IOMMU_HW_INFO_FLAG_INPUT_TYPE, in_data_type: type }),
      });
      return { result, out, data: data.bytes };
    };
    const plain = info(raw.device(ioas).device, 12);
    expect(plain.out).toMatchObject({
      data_len: 8,
      out_data_type: layout.IOMMU_HW_INFO_TYPE_SELFTEST,
      out_max_pasid_log2: 0,
      out_capabilities: BigInt(uapi.IOMMU_HW_CAP_DIRTY_TRACKING | uapi.IOMMU_HW_CAP_PCI_ATS_NOT_SUPPORTED),
    });
    expect([...plain.data.subarray(0, 13)]).toEqual([0, 0, 0, 0, 0xef, 0xbe, 0xad, 0xde, 0, 0, 0, 0, 0xa5]);
    const other = raw.device(ioas, uapi.MOCK_FLAGS_DEVICE_NO_DIRTY | uapi.MOCK_FLAGS_DEVICE_PASID).device;
    expect(info(other, 0, layout.IOMMU_HW_INFO_TYPE_SELFTEST).out).toMatchObject({
      data_len: 8,
      out_max_pasid_log2: layout.MOCK_PASID_WIDTH,
      out_capabilities: BigInt(uapi.IOMMU_HW_CAP_PCI_ATS_NOT_SUPPORTED),
    });
    expect(info(other, 8, uapi.IOMMU_HW_INFO_TYPE_INTEL_VTD).result).toBe(-errno.EOPNOTSUPP);
  });

  test('caches start with a known value', () => {
    const raw = iommu();
    const { device } = raw.device(raw.ioas());
    const check = (id: number, dev: number, cache: number) =>
      raw.test(uapi.IOMMU_TEST_OP_DEV_CHECK_CACHE, dev, { check_dev_cache: { id, cache } }).result;
    expect(check(3, device, uapi.IOMMU_TEST_DEV_CACHE_DEFAULT)).toBe(0);
    expect(check(3, device, 1)).toBe(-errno.EINVAL);
    expect(check(4, device, uapi.IOMMU_TEST_DEV_CACHE_DEFAULT)).toBe(-errno.EINVAL);
    expect(check(0, 99, 0)).toBe(-errno.ENOENT);
  });
});

describe('the mock table', () => {
  test('has 2 KiB pages and a small aperture, for as long as it is there', () => {
    const raw = iommu();
    const ioas = raw.ioas();
    expect(ranges(ioas)).toEqual({ ranges: [[0n, 2n ** 64n - 1n]], alignment: 1n });
    const { stdev } = raw.device(ioas);
    expect(ranges(ioas)).toEqual({ ranges: [[APERTURE, BEYOND - 1n]], alignment: BigInt(MOCK_PAGE) });
    expect(raw.destroy(stdev)).toBe(0);
    expect(ranges(ioas)).toEqual({ ranges: [[0n, 2n ** 64n - 1n]], alignment: 1n });
  });

  test('maps at 2 KiB, and MD_CHECK_MAP sees where each page leads', () => {
    const raw = iommu();
    const ioas = raw.ioas();
    const { hwpt } = raw.device(ioas);
    const { address } = raw.memory(4 * PAGE);
    const iova = APERTURE + 3n * BigInt(MOCK_PAGE);
    const shifted = address + BigInt(MOCK_PAGE);
    expect(raw.map(ioas, shifted, 3 * MOCK_PAGE, iova)).toBe(iova);
    expect(raw.checkMap(hwpt, iova, shifted, 3 * MOCK_PAGE)).toBe(0);
    expect(raw.checkMap(hwpt, iova, address, MOCK_PAGE)).toBe(-errno.EINVAL);
    expect(raw.checkMap(hwpt, iova, shifted, 4 * MOCK_PAGE)).toBe(-errno.EINVAL);
    expect(raw.checkMap(hwpt, iova - BigInt(MOCK_PAGE), address, MOCK_PAGE)).toBe(-errno.EINVAL);
    expect(raw.checkMap(hwpt, iova, shifted, 0)).toBe(0);
    expect(raw.checkMap(hwpt, iova, shifted, 1024)).toBe(-errno.EINVAL);
    expect(raw.checkMap(hwpt, iova + 1n, shifted, MOCK_PAGE)).toBe(-errno.EINVAL);
    expect(raw.checkMap(hwpt, iova, 0n, MOCK_PAGE)).toBe(-errno.EFAULT);
    expect(raw.checkMap(hwpt, iova, 2n ** 64n - 2048n, 2048)).toBe(-errno.EINVAL);
    expect(raw.checkMap(ioas, iova, shifted, MOCK_PAGE)).toBe(-errno.ENOENT);
    expect(raw.unmap(ioas, iova, 3 * MOCK_PAGE)).toBe(0);
    expect(raw.checkMap(hwpt, iova, shifted, MOCK_PAGE)).toBe(-errno.EINVAL);
  });

  test('rules on where a mapping may be', () => {
    const raw = iommu();
    const ioas = raw.ioas();
    raw.device(ioas);
    const { address } = raw.memory(2 * PAGE);
    expect(raw.map(ioas, address, PAGE, APERTURE - BigInt(PAGE))).toBe(-errno.EINVAL);
    expect(raw.map(ioas, address, PAGE, BEYOND)).toBe(-errno.EINVAL);
    expect(raw.map(ioas, address, PAGE, BEYOND - BigInt(MOCK_PAGE))).toBe(-errno.EINVAL);
    expect(raw.map(ioas, address, PAGE, APERTURE + 1024n)).toBe(-errno.EINVAL);
    expect(raw.map(ioas, address, 1024, APERTURE)).toBe(-errno.EINVAL);
    expect(raw.map(ioas, address + 1024n, MOCK_PAGE, APERTURE)).toBe(-errno.EINVAL);
    expect(raw.map(ioas, address, PAGE, BEYOND - BigInt(PAGE))).toBe(BEYOND - BigInt(PAGE));
    expect(raw.map(ioas, address, PAGE)).toBe(APERTURE);
    expect(raw.map(ioas, 0n, PAGE)).toBe(-errno.EFAULT);
  });

  test('is filled with what is mapped already, or refused', () => {
    const raw = iommu();
    const ioas = raw.ioas();
    const { address } = raw.memory(2 * PAGE);
    expect(raw.map(ioas, address, PAGE, APERTURE)).toBe(APERTURE);
    const { stdev, hwpt } = raw.device(ioas);
    expect(raw.checkMap(hwpt, APERTURE, address, PAGE)).toBe(0);
    expect(raw.destroy(stdev)).toBe(0);

    expect(raw.map(ioas, address + 1024n, 1024, APERTURE + BigInt(PAGE))).toBe(APERTURE + BigInt(PAGE));
    expect(raw.tryDevice(ioas)).toBe(-errno.EADDRINUSE);
    expect(raw.unmap(ioas, APERTURE + BigInt(PAGE), 1024)).toBe(0);
    expect(raw.map(ioas, address, PAGE, 0n)).toBe(0n);
    expect(raw.tryDevice(ioas)).toBe(-errno.EADDRINUSE);
    expect(raw.unmap(ioas, 0n, PAGE)).toBe(0);
    const bad = raw.map(ioas, 0n, PAGE, APERTURE + BigInt(PAGE));
    expect(bad).toBe(APERTURE + BigInt(PAGE));
    expect(raw.tryDevice(ioas)).toBe(-errno.EFAULT);
    expect(raw.unmap(ioas, APERTURE + BigInt(PAGE), PAGE)).toBe(0);
    expect(typeof raw.tryDevice(ioas)).toBe('object');
  });

  test('memory is pinned while a table is there, once for what is copied, again for what is mapped again', () => {
    const raw = iommu();
    const [ioas, other] = [raw.ioas(), raw.ioas()];
    const { address } = raw.memory(4 * PAGE);
    expect(raw.map(ioas, address, 2 * PAGE, APERTURE)).toBe(APERTURE);
    expect(raw.checkRefs(address, 4 * PAGE, 0)).toBe(0);
    const { stdev } = raw.device(ioas);
    expect(raw.checkRefs(address, 2 * PAGE, 1)).toBe(0);
    expect(raw.checkRefs(address, 3 * PAGE, 1)).toBe(-errno.EIO);
    expect(raw.checkRefs(address + BigInt(2 * PAGE), 2 * PAGE, 0)).toBe(0);
    const copy = raw.run(uapi.IOMMU_IOAS_COPY, {
      flags: 7,
      src_ioas_id: ioas,
      dst_ioas_id: other,
      src_iova: APERTURE,
      dst_iova: APERTURE,
      length: PAGE,
    });
    expect(copy).toBe(0);
    const second = raw.device(other);
    expect(raw.checkMap(second.hwpt, APERTURE, address, PAGE)).toBe(0);
    expect(raw.checkRefs(address, 2 * PAGE, 1)).toBe(0);
    expect(raw.map(other, address, PAGE, APERTURE + BigInt(PAGE))).toBe(APERTURE + BigInt(PAGE));
    expect(raw.checkRefs(address, PAGE, 2)).toBe(0);
    expect(raw.destroy(second.stdev)).toBe(0);
    expect(raw.checkRefs(address, PAGE, 1)).toBe(0);
    expect(raw.destroy(stdev)).toBe(0);
    expect(raw.checkRefs(address, PAGE, 0)).toBe(0);
    expect(raw.checkRefs(address + 8n, PAGE, 0)).toBe(-errno.EINVAL);
    expect(raw.checkRefs(address, 100, 0)).toBe(-errno.EINVAL);
    expect(raw.checkRefs(0n, PAGE, 0)).toBe(-errno.EFAULT);
    expect(raw.checkRefs(2n ** 64n - 4096n, 4096, 0)).toBe(-errno.EINVAL);
  });

  test('with MOCK_IOMMUPT_HUGE: 4 KiB and 1 MiB pages, and a large aperture', () => {
    const raw = iommu();
    const [ioas, spare] = [raw.ioas(), raw.ioas()];
    const { device } = raw.device(spare);
    const data = raw.memory(PAGE);
    const allocate = (pagetable_type: number, data_len = 8, data_type = layout.IOMMU_HWPT_DATA_SELFTEST) => {
      data.bytes.set(layout.iommu_hwpt_selftest.encode({ iotlb: 7, pagetable_type }));
      return raw.hwpt({ dev_id: device, pt_id: ioas, data_type, data_len, data_uptr: data.address });
    };
    expect(allocate(2)).toBe(-errno.EOPNOTSUPP);
    expect(allocate(0, 3)).toBe(-errno.EINVAL);
    expect(allocate(0, 12)).toBe(-errno.EINVAL);
    expect(allocate(0, 8, 1)).toBe(-errno.EOPNOTSUPP);
    expect(allocate(1, 8)).toBeGreaterThan(0);
    expect(ranges(ioas)).toEqual({ ranges: [[0n, 2n ** 38n - 1n]], alignment: 4096n });
    // Both at once: what both can.
    expect(allocate(1, 4)).toBeGreaterThan(0);
    expect(ranges(ioas)).toEqual({ ranges: [[APERTURE, BEYOND - 1n]], alignment: 4096n });
  });
});

describe('HWPTs of a mock device', () => {
  test('take any of the paging flags, and fail as the kernel does', () => {
    const raw = iommu();
    const ioas = raw.ioas();
    const { device } = raw.device(ioas);
    const simple = raw.device(ioas, uapi.MOCK_FLAGS_DEVICE_NO_DIRTY).device;
    for (const flags of [0, 1, 2, 3, 8, 9, 10, 11]) {
      const hwpt = raw.hwpt({ dev_id: device, pt_id: ioas, flags });
      expect(hwpt).toBeGreaterThan(0);
      expect(raw.destroy(hwpt)).toBe(0);
    }
    expect(raw.hwpt({ dev_id: device, pt_id: ioas, flags: 16 })).toBe(-errno.EOPNOTSUPP);
    expect(raw.hwpt({ dev_id: simple, pt_id: ioas, flags: uapi.IOMMU_HWPT_ALLOC_DIRTY_TRACKING })).toBe(
      -errno.EOPNOTSUPP,
    );
    expect(raw.hwpt({ dev_id: device, pt_id: ioas, flags: 4, fault_id: 99 })).toBe(-errno.ENOENT);
    expect(raw.hwpt({ dev_id: device, pt_id: ioas, flags: 5, fault_id: 99 })).toBe(-errno.EOPNOTSUPP);
    expect(raw.hwpt({ dev_id: ioas, pt_id: ioas })).toBe(-errno.ENOENT);
    expect(raw.hwpt({ dev_id: device, pt_id: 99 })).toBe(-errno.EINVAL);
  });

  test('replace moves a device, and an automatic table goes with its last', () => {
    const raw = iommu();
    const [ioas, other] = [raw.ioas(), raw.ioas()];
    const { stdev, hwpt, device } = raw.device(ioas);
    const made = raw.hwpt({ dev_id: device, pt_id: other });
    expect(raw.replace(stdev, made)).toBe(made);
    expect(raw.destroy(hwpt)).toBe(-errno.ENOENT);
    expect(raw.destroy(made)).toBe(-errno.EBUSY);
    // The id of the old table is free before a new one is made for the IOAS.
    const again = raw.replace(stdev, ioas);
    expect(again).toBe(hwpt);
    expect(raw.replace(stdev, ioas)).toBe(again);
    expect(raw.destroy(made)).toBe(0);
    expect(raw.replace(stdev, 99)).toBe(-errno.ENOENT);
    expect(raw.replace(stdev, device)).toBe(-errno.EINVAL);
    expect(raw.checkPasid(stdev, 0, again)).toBe(0);
  });

  test('a device without dirty tracking does not go on a table that has it', () => {
    const raw = iommu();
    const ioas = raw.ioas();
    const { device } = raw.device(ioas);
    const hwpt = raw.hwpt({ dev_id: device, pt_id: ioas, flags: uapi.IOMMU_HWPT_ALLOC_DIRTY_TRACKING });
    expect(raw.tryDevice(hwpt, uapi.MOCK_FLAGS_DEVICE_NO_DIRTY)).toBe(-errno.EINVAL);
    expect(typeof raw.tryDevice(hwpt, 0)).toBe('object');
  });

  test('ADD_RESERVED takes IOVAs away for good', () => {
    const raw = iommu();
    const ioas = raw.ioas();
    const { address } = raw.memory(PAGE);
    const reserve = (id: number, start: bigint, length: bigint | number) =>
      raw.test(uapi.IOMMU_TEST_OP_ADD_RESERVED, id, { add_reserved: { start, length } }).result;
    expect(reserve(99, 0n, 0)).toBe(-errno.EINVAL);
    expect(reserve(99, 2n ** 64n - 1n, 2)).toBe(-errno.EOVERFLOW);
    expect(reserve(99, 0n, PAGE)).toBe(-errno.ENOENT);
    expect(reserve(ioas, 0x1000n, 0x1000)).toBe(0);
    expect(reserve(ioas, 0x1800n, 0x1000)).toBe(0);
    expect(raw.map(ioas, address, PAGE, 0x1000n)).toBe(-errno.EINVAL);
    expect(raw.map(ioas, address, PAGE)).toBe(0x3000n);
    expect(reserve(ioas, 0x3fffn, 1)).toBe(-errno.EADDRINUSE);
    expect(ranges(ioas).ranges).toEqual([
      [0n, 0xfffn],
      [0x2800n, 2n ** 64n - 1n],
    ]);
    expect(raw.unmap(ioas, 0n, 2n ** 64n - 1n)).toBe(0);
    expect(raw.destroy(ioas)).toBe(0);
  });

  test('the memory limit has a floor', () => {
    const raw = iommu();
    const limit = (value: number) =>
      raw.test(uapi.IOMMU_TEST_OP_SET_TEMP_MEMORY_LIMIT, 0, { memory_limit: { limit: value } }).result;
    expect(limit(11)).toBe(-errno.EINVAL);
    expect(limit(12)).toBe(0);
    const ioas = raw.ioas();
    const { hwpt } = raw.device(ioas);
    const { address } = raw.memory(16 * PAGE);
    expect(raw.map(ioas, address, 16 * PAGE, APERTURE)).toBe(APERTURE);
    expect(raw.checkMap(hwpt, APERTURE, address, 16 * PAGE)).toBe(0);
    expect(limit(65536)).toBe(0);
  });
});
