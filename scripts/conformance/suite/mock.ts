/** What only the kernel's mock IOMMU can do: nesting, dirty tracking, faults, access objects. */
import * as uapi from '../../../lib/uapi';
import { SELFTEST } from '../generate/hwpt';
import type { Sequence } from '../program';
import { data, MOCK_IOVA, PAGE, RW, script, scratch, u32 } from './world';

const { IOMMU_HWPT_ALLOC_NEST_PARENT: NEST, IOMMU_HWPT_ALLOC_PASID: PASID } = uapi;
const { IOMMU_HWPT_ALLOC_DIRTY_TRACKING: DIRTY, IOMMU_HWPT_FAULT_ID_VALID: FAULT } = uapi;

const flags = script('mock: flags of page tables', (s) => {
  const ioas = s.ioas();
  const { device, hwpt } = s.mock(ioas);
  const plain = s.mock(ioas, uapi.MOCK_FLAGS_DEVICE_NO_DIRTY);
  for (let bits = 0; bits < 16; bits++) s.hwpt(device, ioas, bits);
  s.hwpt(plain.device, ioas, DIRTY);
  const parent = s.hwpt(device, ioas, NEST);
  for (const bits of [0, NEST, PASID, DIRTY, FAULT]) s.nested(device, parent, bits);
  s.nested(device, hwpt);
  s.nested(device, ioas);
  s.nested(device, parent, 0, { data_type: 1 });
  s.nested(device, parent, 0, { data_len: 4 });
  s.nested(device, parent, 0, { data_uptr: 0x1000 });
  s.hwpt(device, parent);
});

const mapping = script('mock: what reaches the table', (s) => {
  const ioas = s.ioas();
  const { hwpt, stdev } = s.mock(ioas);
  const check = (iova: number, length: number, offset: number) =>
    s.test(uapi.IOMMU_TEST_OP_MD_CHECK_MAP, hwpt, {
      'check_map.iova': iova,
      'check_map.length': length,
      'check_map.uptr': data(offset),
    });
  s.map(ioas, 0x1000, PAGE);
  s.map(ioas, MOCK_IOVA + 1, 0x800);
  s.map(ioas, MOCK_IOVA, 0x800, { user_va: data(0x800) });
  s.map(ioas, MOCK_IOVA + 0x800, 3 * PAGE, { user_va: data(PAGE) });
  check(MOCK_IOVA, 0x800, 0x800);
  check(MOCK_IOVA, 0x800, 0);
  check(MOCK_IOVA + 0x800, 3 * PAGE, PAGE);
  check(MOCK_IOVA + 0x800, 0x801, PAGE);
  check(MOCK_IOVA + 0x800, 5 * PAGE, PAGE);
  s.map(ioas, 0, PAGE, { flags: RW, user_va: data(0x801) });
  s.map(ioas, 0x7fff_f000, 2 * PAGE);
  s.call('IOMMU_IOAS_IOVA_RANGES', { ioas_id: ioas, num_iovas: 4, allowed_iovas: scratch(0) });
  s.test(uapi.IOMMU_TEST_OP_ADD_RESERVED, ioas, {
    'add_reserved.start': MOCK_IOVA,
    'add_reserved.length': PAGE,
  });
  s.destroy(stdev);
  s.test(uapi.IOMMU_TEST_OP_ADD_RESERVED, ioas, {
    'add_reserved.start': 0x1000,
    'add_reserved.length': PAGE,
  });
  s.destroy(ioas);
});

const faults = script('mock: faults, cookies, responses', (s) => {
  const ioas = s.ioas();
  const { device, stdev } = s.mock(ioas);
  const { fd, id } = s.faultQueue();
  const hwpt = s.hwpt(device, ioas, FAULT, { fault_id: id });
  const trigger = (grpid: number) =>
    s.test(uapi.IOMMU_TEST_OP_TRIGGER_IOPF, 0, {
      'trigger_iopf.dev_id': device,
      'trigger_iopf.grpid': grpid,
      'trigger_iopf.perm': 3,
      'trigger_iopf.addr': MOCK_IOVA,
    });
  s.read(fd, 0, 40, 41);
  s.poll(fd);
  trigger(1);
  s.poll(fd);
  s.test(uapi.IOMMU_TEST_OP_MOCK_DOMAIN_REPLACE, stdev, { 'mock_domain_replace.pt_id': hwpt });
  for (const group of [1, 2, 2, 3]) trigger(group);
  s.poll(fd);
  s.read(fd, 0, 80, 40);
  s.write(fd, 8, 2, 2);
  s.write(fd, 24, 2, 0, 9, 0, 1, 0);
  s.write(fd, 7, 1);
  s.read(fd, 400);
  s.write(fd, 8, 1, 1);
  s.write(fd, 8, 1, 1);
  s.destroy(id);
  trigger(5);
  s.test(uapi.IOMMU_TEST_OP_MOCK_DOMAIN_REPLACE, stdev, { 'mock_domain_replace.pt_id': ioas });
  s.read(fd, 400);
  s.write(fd, 8, 2, 0);
  s.destroy(hwpt);
  s.destroy(id);
  s.close(fd);
  s.destroy(id);
  s.hwpt(device, ioas, FAULT, { fault_id: 99 });
});

const dirty = script('mock: dirty tracking', (s) => {
  const ioas = s.ioas();
  const { device, stdev } = s.mock(ioas);
  s.map(ioas, MOCK_IOVA, 16 * PAGE);
  const hwpt = s.hwpt(device, ioas, DIRTY);
  s.test(uapi.IOMMU_TEST_OP_MOCK_DOMAIN_REPLACE, stdev, { 'mock_domain_replace.pt_id': hwpt });
  const track = (bits: number) => s.call('IOMMU_HWPT_SET_DIRTY_TRACKING', { hwpt_id: hwpt, flags: bits });
  const soil = () =>
    s.test(
      uapi.IOMMU_TEST_OP_DIRTY,
      hwpt,
      {
        'dirty.iova': MOCK_IOVA,
        'dirty.length': 16 * PAGE,
        'dirty.page_size': 2048,
        'dirty.uptr': scratch(0),
      },
      { scratch: [u32(0, [0x8142_0f01])] },
    );
  const bitmap = (iova: number, pages: number, page_size: number, bits = 0) =>
    s.call('IOMMU_HWPT_GET_DIRTY_BITMAP', {
      hwpt_id: hwpt,
      flags: bits,
      iova,
      length: pages * PAGE,
      page_size,
      data: scratch(512),
    });
  soil();
  bitmap(MOCK_IOVA, 16, 2048);
  track(1);
  track(2);
  soil();
  bitmap(MOCK_IOVA, 16, 2048, 1);
  bitmap(MOCK_IOVA, 16, 4096, 1);
  bitmap(MOCK_IOVA + 0x800, 8, 2048);
  bitmap(MOCK_IOVA, 16, 3000);
  bitmap(MOCK_IOVA, 32, 2048);
  bitmap(MOCK_IOVA, 0, 2048);
  bitmap(MOCK_IOVA, 16, 0);
  bitmap(0, 16, 2048);
  track(0);
  bitmap(MOCK_IOVA, 16, 2048);
});

const invalidation = script('mock: INVALIDATE', (s) => {
  const ioas = s.ioas();
  const { device } = s.mock(ioas);
  const parent = s.hwpt(device, ioas, NEST);
  const nested = s.nested(device, parent);
  const check = (id: number, iotlb: number) =>
    s.test(uapi.IOMMU_TEST_OP_MD_CHECK_IOTLB, nested, { 'check_iotlb.id': id, 'check_iotlb.iotlb': iotlb });
  const invalidate = (words: number[], more = {}) =>
    s.call(
      'IOMMU_HWPT_INVALIDATE',
      {
        hwpt_id: nested,
        data_uptr: scratch(0),
        data_type: SELFTEST.invalidate,
        entry_len: 8,
        entry_num: words.length / 2,
        ...more,
      },
      { scratch: [u32(0, words)] },
    );
  check(0, 7);
  invalidate([0, 0, 0, 1]);
  check(0, 0);
  check(2, 7);
  invalidate([2, 0]);
  invalidate([0, 4]);
  invalidate([0, 2, 0, 9, 0, 3]);
  invalidate([1, 9]);
  check(3, 0);
  check(4, 0);
  invalidate([0, 0], { entry_len: 4097 });
  invalidate([0, 0], { data_uptr: 0 });
  invalidate([0, 0], { entry_num: 0 });
  invalidate([0, 0], { entry_num: 0, data_type: 1 });
  invalidate([0, 0], { entry_num: 2 ** 19 + 1 });
  invalidate([0, 0], { hwpt_id: parent });
  invalidate([0, 0], { hwpt_id: 99 });
  invalidate([0, 0], { data_uptr: 0x1000 });
});

const access = script('mock: access objects', (s) => {
  const [ioas, other] = [s.ioas(), s.ioas()];
  s.map(ioas, 0x10_0000, 4 * PAGE);
  const file = s.test(uapi.IOMMU_TEST_OP_CREATE_ACCESS, ioas, { 'create_access.flags': 1 });
  const id = { fd: file };
  const pages = (iova: number, length: number, offset: number, bits = 0) =>
    s.test(uapi.IOMMU_TEST_OP_ACCESS_PAGES, id, {
      'access_pages.iova': iova,
      'access_pages.length': length,
      'access_pages.uptr': data(offset),
      'access_pages.flags': bits,
    });
  const readWrite = (bits: number, iova: number, length: number) =>
    s.test(
      uapi.IOMMU_TEST_OP_ACCESS_RW,
      id,
      {
        'access_rw.iova': iova,
        'access_rw.length': length,
        'access_rw.uptr': scratch(0),
        'access_rw.flags': bits,
      },
      { scratch: [u32(0, [0x1122_3344])] },
    );
  for (const bits of [0, 1, 2, 4, 5]) readWrite(bits, 0x10_0ffe, 4);
  readWrite(0, 0x10_3ffe, 4);
  readWrite(0, 0x10_0000, 0);
  const pinned = pages(0x10_0000, 2 * PAGE, 0, 1);
  pages(0x10_0000, 2 * PAGE, PAGE);
  pages(0x10_0001, 1, 1);
  pages(0x20_0000, PAGE, 0);
  pages(0x10_0000, 0, 0);
  s.test(uapi.IOMMU_TEST_OP_ACCESS_REPLACE_IOAS, id, { 'access_replace_ioas.ioas_id': other });
  s.test(uapi.IOMMU_TEST_OP_DESTROY_ACCESS_PAGES, id, {
    'destroy_access_pages.access_pages_id': { of: pinned, field: 'access_pages.out_access_pages_id' },
  });
  s.unmap(ioas, 0x10_0000, 4 * PAGE);
  s.destroy(ioas);
  s.close(file);
  s.destroy(ioas);
});

const pasids = script('mock: PASIDs', (s) => {
  const ioas = s.ioas();
  const { device, stdev } = s.mock(ioas, uapi.MOCK_FLAGS_DEVICE_PASID);
  const [withPasid, without, second] = [
    s.hwpt(device, ioas, PASID),
    s.hwpt(device, ioas),
    s.hwpt(device, ioas, PASID),
  ];
  const operate = (member: string, op: number, pasid: number, target?: typeof ioas) =>
    s.test(op, stdev, {
      [`${member}.pasid`]: pasid,
      ...(target === undefined
        ? {}
        : { [member === 'pasid_check' ? 'pasid_check.hwpt_id' : `${member}.pt_id`]: target }),
    });
  const attach = (pasid: number, target: typeof ioas) =>
    operate('pasid_attach', uapi.IOMMU_TEST_OP_PASID_ATTACH, pasid, target);
  attach(100, withPasid);
  s.test(uapi.IOMMU_TEST_OP_MOCK_DOMAIN_REPLACE, stdev, { 'mock_domain_replace.pt_id': withPasid });
  for (const pasid of [100, 0, 1024, 0xf_ffff, 0x10_0000]) attach(pasid, withPasid);
  attach(101, without);
  attach(102, ioas);
  attach(100, second);
  operate('pasid_check', uapi.IOMMU_TEST_OP_PASID_CHECK_HWPT, 100, withPasid);
  operate('pasid_replace', uapi.IOMMU_TEST_OP_PASID_REPLACE, 100, second);
  operate('pasid_replace', uapi.IOMMU_TEST_OP_PASID_REPLACE, 100, without);
  operate('pasid_check', uapi.IOMMU_TEST_OP_PASID_CHECK_HWPT, 100, second);
  s.test(uapi.IOMMU_TEST_OP_MOCK_DOMAIN_REPLACE, stdev, { 'mock_domain_replace.pt_id': without });
  operate('pasid_detach', uapi.IOMMU_TEST_OP_PASID_DETACH, 100);
  operate('pasid_detach', uapi.IOMMU_TEST_OP_PASID_DETACH, 100);
  operate('pasid_check', uapi.IOMMU_TEST_OP_PASID_CHECK_HWPT, 100, 0);
});

export const mockSemantics: readonly Sequence[] = [
  ...[flags, mapping, faults, dirty, invalidation, access, pasids],
];
