/** Nested tables, PASIDs and page faults of the selftest IOMMU, by raw calls. */
import * as layout from '../../lib/sim/kernel/mock/layout';
import * as uapi from '../../lib/uapi';
import { errno } from '../../lib/uapi';
import { useRawIommu } from './mock';
import { PAGE } from './support';

const iommu = useRawIommu();
const IOTLB = layout.IOMMU_TEST_IOTLB_DEFAULT;

function nestedOn(
  device: number,
  parent: number,
  values: Parameters<typeof uapi.iommu_hwpt_alloc.encode>[0] = {},
) {
  return iommu().nested(device, parent, values);
}

function checkIotlb(hwpt: number, id: number, iotlb: number): number {
  return iommu().test(uapi.IOMMU_TEST_OP_MD_CHECK_IOTLB, hwpt, { check_iotlb: { id, iotlb } }).result;
}

describe('nested tables', () => {
  function setUp() {
    const raw = iommu();
    const ioas = raw.ioas();
    const ids = raw.device(ioas);
    const parent = raw.hwpt({
      dev_id: ids.device,
      pt_id: ioas,
      flags: uapi.IOMMU_HWPT_ALLOC_NEST_PARENT,
    });
    return { raw, ioas, ...ids, parent };
  }

  test('need a parent made for it and the right data', () => {
    const { ioas, device, hwpt, parent, raw } = setUp();
    expect(nestedOn(device, hwpt)).toBe(-errno.EINVAL);
    const flat = raw.hwpt({ dev_id: device, pt_id: ioas });
    expect(nestedOn(device, flat)).toBe(-errno.EINVAL);
    expect(nestedOn(device, parent, { data_type: 1 })).toBe(-errno.EOPNOTSUPP);
    expect(nestedOn(device, parent, { data_len: 3 })).toBe(-errno.EINVAL);
    expect(nestedOn(device, parent, { data_len: 9 })).toBe(-errno.EINVAL);
    expect(nestedOn(device, parent, { data_uptr: 0n })).toBe(-errno.EFAULT);
    expect(nestedOn(device, parent, { data_type: 0, data_len: 0 })).toBe(-errno.EOPNOTSUPP);
    expect(nestedOn(device, parent, { data_len: 0 })).toBe(-errno.EINVAL);
    expect(nestedOn(device, parent, { flags: 1 })).toBe(-errno.EOPNOTSUPP);
    const nested = nestedOn(device, parent, { data_len: 4 });
    expect(nested).toBeGreaterThan(0);
    expect(nestedOn(device, nested)).toBe(-errno.EINVAL);
    expect(raw.destroy(parent)).toBe(-errno.EBUSY);
    expect(raw.destroy(nested)).toBe(0);
    expect(raw.destroy(parent)).toBe(0);
  });

  test('hold what was last invalidated, and a device', () => {
    const { raw, stdev, device, parent, ioas } = setUp();
    const nested = nestedOn(device, parent);
    for (let id = 0; id < 4; id++) expect(checkIotlb(nested, id, IOTLB)).toBe(0);
    expect(checkIotlb(nested, 4, IOTLB)).toBe(-errno.EINVAL);
    expect(checkIotlb(nested, 0, 1)).toBe(-errno.EINVAL);
    expect(checkIotlb(parent, 0, IOTLB)).toBe(-errno.ENOENT);

    const entries = raw.memory(PAGE);
    const invalidate = (
      list: { flags?: number; iotlb_id?: number }[],
      values: Parameters<typeof uapi.iommu_hwpt_invalidate.encode>[0] = {},
    ) => {
      list.forEach((entry, i) =>
        entries.bytes.set(layout.iommu_hwpt_invalidate_selftest.encode(entry), 8 * i),
      );
      const { result, out } = raw.call(uapi.IOMMU_HWPT_INVALIDATE, {
        hwpt_id: nested,
        data_type: layout.IOMMU_HWPT_INVALIDATE_DATA_SELFTEST,
        data_uptr: entries.address,
        entry_len: 8,
        entry_num: list.length,
        ...values,
      });
      return [result, out.entry_num];
    };
    expect(invalidate([])).toEqual([0, 0]);
    expect(invalidate([], { data_type: 1 })).toEqual([-errno.EINVAL, 0]);
    expect(invalidate([{}], { data_type: 1 })).toEqual([-errno.EINVAL, 0]);
    expect(invalidate([{}], { entry_len: 4 })).toEqual([-errno.EINVAL, 0]);
    expect(invalidate([{}], { entry_len: 12 })).toEqual([-errno.EINVAL, 0]);
    expect(invalidate([{}], { data_uptr: 1n })).toEqual([-errno.EFAULT, 0]);
    expect(invalidate([{}], { data_uptr: 1n, entry_len: 4 })).toEqual([-errno.EINVAL, 0]);
    expect(invalidate([{}], { hwpt_id: parent })).toEqual([-errno.EINVAL, 0]);
    expect(invalidate([{}], { hwpt_id: 99 })).toEqual([-errno.ENOENT, 0]);
    expect(invalidate([{ iotlb_id: 1 }, { iotlb_id: 4 }])).toEqual([-errno.EINVAL, 1]);
    expect([0, 1, 2].map((id) => checkIotlb(nested, id, 0))).toEqual([-errno.EINVAL, 0, -errno.EINVAL]);
    expect(invalidate([{ flags: 2 }])).toEqual([-errno.EOPNOTSUPP, 0]);
    expect(invalidate([{ flags: 1, iotlb_id: 4 }])).toEqual([-errno.EINVAL, 0]);
    expect(invalidate([{ flags: 1, iotlb_id: 3 }, {}])).toEqual([0, 2]);
    for (let id = 0; id < 4; id++) expect(checkIotlb(nested, id, 0)).toBe(0);

    expect(raw.replace(stdev, nested)).toBe(nested);
    expect(raw.destroy(nested)).toBe(-errno.EBUSY);
    expect(raw.replace(stdev, ioas)).toBeGreaterThan(0);
    expect(raw.destroy(nested)).toBe(0);
  });
});

describe('PASIDs', () => {
  function setUp(flags = uapi.MOCK_FLAGS_DEVICE_PASID) {
    const raw = iommu();
    const ioas = raw.ioas();
    const first = raw.device(ioas);
    const allocate = () =>
      raw.hwpt({ dev_id: first.device, pt_id: ioas, flags: uapi.IOMMU_HWPT_ALLOC_PASID });
    const [rid, one, two] = [allocate(), allocate(), allocate()];
    return { raw, ioas, rid, one, two, plain: first.hwpt, ...raw.device(rid, flags) };
  }

  test('have slots of their own', () => {
    const { raw, stdev, rid, one, two, ioas, plain } = setUp();
    expect(raw.attachPasid(stdev, 100, one)).toBe(one);
    expect(raw.checkPasid(stdev, 100, one)).toBe(0);
    expect(raw.checkPasid(stdev, 100, two)).toBe(-errno.EINVAL);
    expect(raw.checkPasid(stdev, 100, 0)).toBe(-errno.EINVAL);
    expect(raw.checkPasid(stdev, 101, 0)).toBe(0);
    expect(raw.checkPasid(stdev, 101, one)).toBe(-errno.EINVAL);
    expect(raw.checkPasid(stdev, 0, rid)).toBe(0);
    expect(raw.checkPasid(stdev, 100, ioas)).toBe(-errno.EINVAL);
    expect(raw.checkPasid(stdev, 100, 99)).toBe(-errno.ENOENT);

    expect(raw.attachPasid(stdev, 100, one)).toBe(-errno.EBUSY);
    expect(raw.attachPasid(stdev, 100, two)).toBe(-errno.EBUSY);
    expect(raw.attachPasid(stdev, 101, one, true)).toBe(-errno.EINVAL);
    expect(raw.attachPasid(stdev, 100, two, true)).toBe(two);
    expect(raw.attachPasid(stdev, 100, two, true)).toBe(two);
    expect(raw.destroy(one)).toBe(0);
    expect(raw.destroy(two)).toBe(-errno.EBUSY);
    expect(raw.attachPasid(stdev, 101, plain)).toBe(-errno.EINVAL);
    expect(raw.attachPasid(stdev, 101, ioas)).toBe(-errno.EINVAL);
    expect(raw.attachPasid(stdev, 101, 99)).toBe(-errno.ENOENT);
    expect(raw.replace(stdev, plain)).toBe(-errno.EINVAL);
    expect(raw.detachPasid(stdev, 100)).toBe(0);
    expect(raw.detachPasid(stdev, 100)).toBe(0);
    expect(raw.checkPasid(stdev, 100, 0)).toBe(0);
    expect(raw.replace(stdev, plain)).toBe(plain);
    expect(raw.attachPasid(stdev, 100, two)).toBe(-errno.EINVAL);
  });

  test('go up to 2^20, and PASID 0 is the device itself', () => {
    const { raw, stdev, rid, one } = setUp();
    expect(raw.attachPasid(stdev, 2 ** 20 - 1, one)).toBe(one);
    expect(raw.attachPasid(stdev, 2 ** 20, one)).toBe(-errno.EINVAL);
    expect(raw.detachPasid(stdev, 2 ** 20 - 1)).toBe(0);
    expect(raw.attachPasid(stdev, 0, rid)).toBe(-errno.EBUSY);
    expect(raw.attachPasid(stdev, 0, one, true)).toBe(one);
    expect(raw.checkPasid(stdev, 0, one)).toBe(0);
    expect(raw.detachPasid(stdev, 0)).toBe(0);
    expect(raw.checkPasid(stdev, 0, 0)).toBe(0);
    expect(raw.replace(stdev, rid)).toBe(-errno.EINVAL);
    expect(raw.attachPasid(stdev, 0, rid)).toBe(rid);
    expect(raw.destroy(stdev)).toBe(0);
  });

  test('a device made without them has none', () => {
    const { raw, stdev, one } = setUp(0);
    expect(raw.attachPasid(stdev, 1, one)).toBe(-errno.EINVAL);
    expect(raw.checkPasid(stdev, 1, 0)).toBe(0);
  });

  test('the reserved one fails every second time, and nothing changes', () => {
    const { raw, stdev, one, two } = setUp();
    const pasid = layout.IOMMU_TEST_PASID_RESERVED;
    expect(raw.attachPasid(stdev, pasid, one)).toBe(one);
    expect(raw.attachPasid(stdev, pasid, two, true)).toBe(-errno.ENOMEM);
    expect(raw.checkPasid(stdev, pasid, one)).toBe(0);
    expect(raw.attachPasid(stdev, pasid, two, true)).toBe(two);
    expect(raw.detachPasid(stdev, pasid)).toBe(0);
    expect(raw.attachPasid(stdev, pasid, one)).toBe(one);
    expect(raw.detachPasid(stdev, pasid)).toBe(0);
  });
});

describe('page faults', () => {
  function setUp(flags = 0) {
    const raw = iommu();
    const ioas = raw.ioas();
    const spare = raw.device(ioas);
    const queue = raw.faultQueue();
    const allocate = (fault: boolean) =>
      raw.hwpt({
        dev_id: spare.device,
        pt_id: ioas,
        flags: uapi.IOMMU_HWPT_ALLOC_PASID | (fault ? uapi.IOMMU_HWPT_FAULT_ID_VALID : 0) | flags,
        fault_id: queue.id,
      });
    return { raw, ioas, spare, queue, allocate };
  }

  test('reach the queue of the slot they happened in', () => {
    const { raw, ioas, queue, allocate, spare } = setUp();
    const [faulting, silent] = [allocate(true), allocate(false)];
    const { stdev, device } = raw.device(faulting, uapi.MOCK_FLAGS_DEVICE_PASID);
    expect(raw.triggerFault(device, { grpid: 3, perm: 0xff, addr: 0xfedc_ba98_7654_3210n })).toBe(0);
    expect(raw.triggerFault(device, { pasid: 7, addr: 1n })).toBe(0);
    expect(raw.attachPasid(stdev, 7, faulting)).toBe(faulting);
    expect(raw.triggerFault(device, { pasid: 7, grpid: 0xffff_ffff, addr: 2n })).toBe(0);
    expect(raw.attachPasid(stdev, 7, silent, true)).toBe(silent);
    expect(raw.triggerFault(device, { pasid: 7, addr: 3n })).toBe(0);
    expect(raw.triggerFault(device, { addr: 4n })).toBe(0);
    // Those of PASID 7 went with its attachment.
    expect(raw.faults(queue.fd)).toEqual([
      {
        flags: uapi.IOMMU_PGFAULT_FLAGS_LAST_PAGE,
        dev_id: device,
        pasid: 0,
        grpid: 3,
        perm: 0xff,
        __reserved: 0,
        addr: 0xfedc_ba98_7654_3210n,
        length: 0,
        cookie: 1,
      },
      expect.objectContaining({ flags: uapi.IOMMU_PGFAULT_FLAGS_LAST_PAGE, addr: 4n, cookie: 2 }),
    ]);
    const answer = (cookie: number) =>
      raw.kernel.write(queue.fd, uapi.iommu_hwpt_page_response.encode({ cookie, code: 0 }));
    expect(answer(1)).toBe(8);
    expect(answer(1)).toBe(-errno.EINVAL);
    expect(raw.detachPasid(stdev, 7)).toBe(0);
    expect(raw.replace(stdev, ioas)).toBeGreaterThan(0);
    expect(answer(2)).toBe(-errno.EINVAL);
    expect(raw.triggerFault(device, { addr: 5n })).toBe(0);
    expect(raw.triggerFault(spare.device, { addr: 6n })).toBe(0);
    expect(raw.faults(queue.fd)).toEqual([]);
    expect(raw.triggerFault(99, {})).toBe(-errno.ENOENT);
    expect(raw.triggerFault(stdev, {})).toBe(-errno.ENOENT);
  });

  test('of PASIDs nobody attached go to a nested table of the device, whose user has the PASID table', () => {
    const { raw, ioas, queue, spare } = setUp();
    const parent = raw.hwpt({ dev_id: spare.device, pt_id: ioas, flags: uapi.IOMMU_HWPT_ALLOC_NEST_PARENT });
    const nested = nestedOn(spare.device, parent, {
      flags: uapi.IOMMU_HWPT_FAULT_ID_VALID,
      fault_id: queue.id,
    });
    const { device } = raw.device(nested, uapi.MOCK_FLAGS_DEVICE_PASID);
    expect(raw.triggerFault(device, { pasid: 55, addr: 9n })).toBe(0);
    expect(raw.faults(queue.fd)).toEqual([
      expect.objectContaining({
        flags: uapi.IOMMU_PGFAULT_FLAGS_LAST_PAGE | uapi.IOMMU_PGFAULT_FLAGS_PASID_VALID,
        pasid: 55,
        addr: 9n,
        dev_id: device,
      }),
    ]);
  });
});
