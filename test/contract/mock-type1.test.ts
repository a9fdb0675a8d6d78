/** VFIO's type1 on the selftest IOMMU: what cutting a mapping does to its pages, its table and whoever uses it. */
import * as layout from '../../lib/sim/kernel/mock/layout';
import { O_RDWR } from '../../lib/open-kernel';
import * as uapi from '../../lib/uapi';
import { errno } from '../../lib/uapi';
import { RawIommu, useRawIommu } from './mock';
import { PAGE } from './support';

const iommu = useRawIommu();
const IOVA = 0x100_0000n;
const P = BigInt(PAGE);

/** An IOAS of type1's first version, and memory to be mapped. */
function type1(raw: RawIommu, count: number) {
  const ioas = raw.ioas();
  expect(raw.run(uapi.IOMMU_VFIO_IOAS, { ioas_id: ioas, op: uapi.IOMMU_VFIO_IOAS_SET })).toBe(0);
  expect(raw.kernel.ioctl(raw.fd, uapi.VFIO_SET_IOMMU.request, uapi.VFIO_TYPE1_IOMMU)).toBe(0);
  const memory = raw.memory(count * PAGE);
  return { ioas, memory, address: memory.address };
}

function unmap(raw: RawIommu, iova: bigint, size: bigint): number {
  return raw.run(uapi.VFIO_IOMMU_UNMAP_DMA, { argsz: 24, iova, size });
}

/** An access that pins one page at IOVA: the descriptor, or the error. */
function pinOne(raw: RawIommu, ioas: number): number {
  const flags = layout.MOCK_FLAGS_ACCESS_CREATE_NEEDS_PIN_PAGES;
  const made = raw.test(uapi.IOMMU_TEST_OP_CREATE_ACCESS, ioas, { create_access: { flags } });
  const fd = raw.keep(made.out.create_access.out_access_fd);
  const { result } = raw.test(uapi.IOMMU_TEST_OP_ACCESS_PAGES, fd, {
    access_pages: { iova: IOVA, length: PAGE, uptr: 0n },
  });
  return result || fd;
}

describe('type1 on a table', () => {
  test('pages are let go one by one, and the others stay where they are', () => {
    const raw = iommu();
    const { ioas, address } = type1(raw, 8);
    const { hwpt, stdev } = raw.device(ioas);
    expect(raw.map(ioas, address, 8 * PAGE, IOVA)).toBe(IOVA);
    expect(unmap(raw, IOVA + 2n * P, 2n * P)).toBe(0);
    expect(raw.checkRefs(address, 2 * PAGE, 1)).toBe(0);
    expect(raw.checkRefs(address + 2n * P, 2 * PAGE, 0)).toBe(0);
    expect(raw.checkRefs(address + 4n * P, 4 * PAGE, 1)).toBe(0);
    expect(raw.checkMap(hwpt, IOVA, address, 2 * PAGE)).toBe(0);
    expect(raw.checkMap(hwpt, IOVA + 2n * P, address + 2n * P, PAGE)).toBe(-errno.EINVAL);
    expect(raw.checkMap(hwpt, IOVA + 4n * P, address + 4n * P, 4 * PAGE)).toBe(0);
    expect(raw.destroy(stdev)).toBe(0);
    expect(raw.checkRefs(address, 8 * PAGE, 0)).toBe(0);
    expect(raw.device(ioas).hwpt).toBe(hwpt);
    expect(raw.checkMap(hwpt, IOVA + 4n * P, address + 4n * P, 4 * PAGE)).toBe(0);
    expect(unmap(raw, IOVA, 5n * P)).toBe(0);
    expect(raw.checkRefs(address, 5 * PAGE, 0)).toBe(0);
    expect(raw.checkRefs(address + 5n * P, 3 * PAGE, 1)).toBe(0);
  });

  test('a copy shares the pages of what it was made from, however that is cut', () => {
    const raw = iommu();
    const { ioas, address } = type1(raw, 4);
    raw.device(ioas);
    expect(raw.map(ioas, address, 4 * PAGE, IOVA)).toBe(IOVA);
    const target = IOVA + 16n * P;
    const ids = { dst_ioas_id: ioas, src_ioas_id: ioas };
    const range = { src_iova: IOVA, dst_iova: target, length: 2 * PAGE };
    expect(raw.run(uapi.IOMMU_IOAS_COPY, { flags: 7, ...ids, ...range })).toBe(0);
    expect(unmap(raw, IOVA + P, 2n * P)).toBe(0);
    for (const [page, refs] of [1, 1, 0, 1].entries())
      expect(raw.checkRefs(address + BigInt(page) * P, PAGE, refs)).toBe(0);
    expect(unmap(raw, target + P, P)).toBe(0);
    for (const [page, refs] of [1, 0, 0, 1].entries())
      expect(raw.checkRefs(address + BigInt(page) * P, PAGE, refs)).toBe(0);
  });

  test('a dirty bit stands for one page', () => {
    const raw = iommu();
    const { ioas, memory } = type1(raw, 16);
    const { stdev, device } = raw.device(ioas);
    const hwpt = raw.hwpt({ dev_id: device, pt_id: ioas, flags: uapi.IOMMU_HWPT_ALLOC_DIRTY_TRACKING });
    expect(raw.replace(stdev, hwpt)).toBe(hwpt);
    expect(raw.map(ioas, memory.address, 16 * PAGE, IOVA)).toBe(IOVA);
    expect(raw.run(uapi.IOMMU_HWPT_SET_DIRTY_TRACKING, { hwpt_id: hwpt, flags: 1 })).toBe(0);
    const bits = raw.memory(PAGE);
    bits.bytes[0] = 1;
    const range = { iova: IOVA, length: 16 * PAGE, page_size: PAGE };
    const soiled = raw.test(uapi.IOMMU_TEST_OP_DIRTY, hwpt, { dirty: { ...range, uptr: bits.address } });
    expect(soiled.out.dirty.out_nr_dirty).toBe(1n);
    bits.bytes.fill(0);
    const read = { hwpt_id: hwpt, ...range, data: bits.address };
    expect(raw.run(uapi.IOMMU_HWPT_GET_DIRTY_BITMAP, read)).toBe(0);
    expect([...bits.bytes.subarray(0, 2)]).toEqual([1, 0]);
  });

  test('a DMA-buf is mapped and unmapped as a whole', () => {
    const raw = iommu();
    const { ioas } = type1(raw, 1);
    // DMABUF_GET does not say which descriptor it made: the lowest that is free.
    const fd = raw.kernel.open('/dev/iommu', O_RDWR);
    raw.kernel.close(fd);
    const length = 4 * PAGE;
    expect(raw.test(uapi.IOMMU_TEST_OP_DMABUF_GET, 0, { dmabuf_get: { length } }).result).toBe(0);
    raw.keep(fd);
    const mapping = { ioas_id: ioas, flags: 7, fd, iova: IOVA, length };
    expect(raw.run(uapi.IOMMU_IOAS_MAP_FILE, mapping)).toBe(0);
    expect(unmap(raw, IOVA + P, 1n)).toBe(-errno.EOPNOTSUPP);
    expect(unmap(raw, IOVA, P)).toBe(-errno.EOPNOTSUPP);
    expect(unmap(raw, IOVA, 4n * P)).toBe(0);
  });

  test('what an access has pinned stays whole', () => {
    const raw = iommu();
    const { ioas, address } = type1(raw, 8);
    expect(raw.map(ioas, address, 8 * PAGE, IOVA)).toBe(IOVA);
    const fd = pinOne(raw, ioas);
    expect(fd).toBeGreaterThan(0);
    expect(unmap(raw, IOVA + 4n * P, P)).toBe(-errno.EINVAL);
    expect(raw.checkRefs(address, PAGE, 1)).toBe(0);
    // As a whole it goes: the access lets go of it.
    raw.drop(fd);
    expect(unmap(raw, IOVA + 4n * P, P)).toBe(0);
    expect(raw.checkRefs(address, 8 * PAGE, 0)).toBe(0);
  });

  test('the smallest page that VFIO is told of is the processor’s', () => {
    const raw = iommu();
    const { ioas } = type1(raw, 1);
    raw.device(ioas);
    const bytes = uapi.vfio_iommu_type1_info.encode({ argsz: 24 });
    expect(raw.kernel.ioctl(raw.fd, uapi.VFIO_IOMMU_GET_INFO.request, bytes)).toBe(0);
    expect(uapi.vfio_iommu_type1_info.decode(bytes).iova_pgsizes).toBe(0x1f_ffff_f000n);
  });
});
