/**
 * Lengths and reserved fields of the structs that only VT-d's driver reads (iommu_hwpt_vtd_s1 and its invalidation): the
 * guest's unit has no nesting, so that Linux 7.3.4's source is the judge (drivers/iommu/intel/nested.c).
 */
import * as uapi from '../../../lib/uapi';
import { Bench } from './bench';

const TABLE = uapi.iommu_hwpt_vtd_s1;
const ENTRY = uapi.iommu_hwpt_vtd_s1_invalidate;

let bench: Bench;
let parent: number;
let memory: ReturnType<Bench['memory']>;

beforeEach(() => {
  bench = new Bench();
  bench.bind();
  parent = bench.hwpt(bench.ioas(), { flags: uapi.IOMMU_HWPT_ALLOC_NEST_PARENT });
  memory = bench.memory();
});

function allocate(data_len: number, data_type = uapi.IOMMU_HWPT_DATA_VTD_S1): string | number {
  const values = { dev_id: bench.device, pt_id: parent, data_type, data_len, data_uptr: memory.address };
  return bench.result(uapi.IOMMU_HWPT_ALLOC, values);
}

test('iommu_hwpt_vtd_s1 has one length', () => {
  memory.bytes.set(TABLE.encode({ addr_width: 48 }));
  for (let length = 0; length <= TABLE.size + 16; length++)
    expect([length, allocate(length)]).toEqual([length, length === TABLE.size ? 0 : 'EINVAL']);
  for (const type of [uapi.IOMMU_HWPT_DATA_ARM_SMMUV3, uapi.IOMMU_HWPT_DATA_AMD_GUEST, 0xffff_ffff])
    expect(allocate(TABLE.size, type)).toBe('EOPNOTSUPP');
});

test('and a reserved field that nobody looks at', () => {
  memory.bytes.set(TABLE.encode({ addr_width: 48, __reserved: 1 }));
  expect(allocate(TABLE.size)).toBe(0);
});

describe('iommu_hwpt_vtd_s1_invalidate', () => {
  let hwpt: number;
  beforeEach(() => {
    memory.bytes.set(TABLE.encode({ addr_width: 48 }));
    const data_uptr = memory.address;
    hwpt = bench.hwpt(parent, { data_type: uapi.IOMMU_HWPT_DATA_VTD_S1, data_len: TABLE.size, data_uptr });
    memory.bytes.fill(0);
  });

  const invalidate = (entry_len: number, entry_num = 1) =>
    bench.result(uapi.IOMMU_HWPT_INVALIDATE, {
      hwpt_id: hwpt,
      data_uptr: memory.address,
      data_type: uapi.IOMMU_HWPT_INVALIDATE_DATA_VTD_S1,
      entry_len,
      entry_num,
    });

  test('has one length too', () => {
    for (let length = 0; length <= ENTRY.size + 16; length++)
      expect([length, invalidate(length)]).toEqual([length, length === ENTRY.size ? 0 : 'EINVAL']);
  });

  test.each([
    ['flags', { flags: 2 }, 'EOPNOTSUPP'],
    ['the leaf flag', { flags: uapi.IOMMU_VTD_INV_FLAGS_LEAF }, 0],
    ['reserved', { __reserved: 1 }, 'EOPNOTSUPP'],
    ['an address inside a page', { addr: 1, npages: 1 }, 'EINVAL'],
    ['all pages from somewhere', { addr: 4096, npages: 2n ** 64n - 1n }, 'EINVAL'],
    ['all pages', { npages: 2n ** 64n - 1n }, 0],
  ])('%s', (_what, values, expected) => {
    memory.bytes.set(ENTRY.encode(values));
    expect(invalidate(ENTRY.size)).toBe(expected);
  });
});
