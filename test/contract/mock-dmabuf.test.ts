/** DMA-bufs of the selftest, and what MAP_FILE makes of them. */
import { errno } from '../../lib/uapi';
import * as uapi from '../../lib/uapi';
import { APERTURE, useRawIommu, type RawIommu } from './mock';
import { PAGE } from './support';

const iommu = useRawIommu();
const IOVA = APERTURE;
const FREE = IOVA + 0x10_0000n;

test('are made without being named, and revoked by descriptor', () => {
  const raw = iommu();
  expect(raw.dmabuf(0)).toBe(-errno.EINVAL);
  expect(raw.dmabuf(512 * PAGE + 1)).toBe(-errno.EINVAL);
  expect(raw.revoke(9999)).toBe(-errno.EBADF);
  expect(raw.revoke(-1)).toBe(-errno.EBADF);
  expect(raw.revoke(raw.fd)).toBe(-errno.EINVAL);
  const fd = raw.dmabuf(512 * PAGE - 100, 0);
  expect(raw.revoke(fd, 1)).toBe(0);
  expect(raw.revoke(fd, 0)).toBe(0);
  expect(raw.kernel.read(fd, new Uint8Array(8))).toBe(-errno.EINVAL);
  expect(raw.kernel.write(fd, new Uint8Array(8))).toBe(-errno.EBADF);
  expect(raw.kernel.mmap(fd, 0, PAGE, 3)).toBe(-errno.EACCES);
  expect(raw.kernel.mmap(fd, 0, PAGE, 1)).toBe(-errno.EINVAL);
  expect(raw.kernel.poll(fd, 5)).toBe(5);
});

test('are mapped up to their end, which is looked at first', () => {
  const raw = iommu();
  const ioas = raw.ioas();
  const fd = raw.dmabuf(3 * PAGE);
  const map = (start: number | bigint, length: number | bigint, flags?: number) =>
    raw.mapFile(ioas, fd, start, length, IOVA, flags);
  expect(map(0, 0)).toBe(-errno.EINVAL);
  expect(map(3 * PAGE, 1)).toBe(-errno.EINVAL);
  expect(map(PAGE, 2 * PAGE + 1)).toBe(-errno.EINVAL);
  expect(map(2n ** 63n, 1)).toBe(-errno.EINVAL);
  expect(map(2n ** 64n - 1n, 2)).toBe(-errno.EOVERFLOW);
  expect(map(PAGE, 2 * PAGE)).toBe(IOVA);
  // Nobody is asked for leave to write.
  const readable = raw.dmabuf(PAGE, 0);
  raw.device(ioas);
  expect(raw.mapFile(ioas, readable, 0, PAGE, FREE)).toBe(FREE);
  expect(raw.mapFile(ioas, readable, 2048, 2048, FREE + 0x1_0800n)).toBe(FREE + 0x1_0800n);
});

test('are out of the reach of the kernel itself', () => {
  const raw = iommu();
  const ioas = raw.ioas();
  raw.mapFile(ioas, raw.dmabuf(PAGE), 0, PAGE, IOVA);
  const { out } = raw.test(uapi.IOMMU_TEST_OP_CREATE_ACCESS, ioas, { create_access: { flags: 1 } });
  const file = raw.keep(out.create_access.out_access_fd);
  const range = { iova: IOVA, length: PAGE, uptr: raw.memory(PAGE).address };
  expect(raw.test(uapi.IOMMU_TEST_OP_ACCESS_PAGES, file, { access_pages: range }).result).toBe(-errno.EINVAL);
  expect(raw.test(uapi.IOMMU_TEST_OP_ACCESS_RW, file, { access_rw: range }).result).toBe(-errno.EINVAL);
  const flags = { flags: 1 };
  raw.mapFile(ioas, raw.dmabuf(PAGE), 0, PAGE, FREE, 4);
  const other = { ...range, iova: FREE, ...flags };
  expect(raw.test(uapi.IOMMU_TEST_OP_ACCESS_RW, file, { access_rw: other }).result).toBe(-errno.EPERM);
});

describe('taken back', () => {
  /** 1 if anything is at an IOVA, else 0: a page that is there can be dirty. */
  function present(raw: RawIommu, hwpt: number, iova: bigint): number {
    const bits = raw.memory(PAGE);
    const range = { iova, length: PAGE, page_size: PAGE };
    bits.bytes[0] = 1;
    raw.run(uapi.IOMMU_HWPT_SET_DIRTY_TRACKING, { hwpt_id: hwpt, flags: 1 });
    raw.test(uapi.IOMMU_TEST_OP_DIRTY, hwpt, { dirty: { ...range, uptr: bits.address } });
    bits.bytes[0] = 0;
    expect(raw.run(uapi.IOMMU_HWPT_GET_DIRTY_BITMAP, { hwpt_id: hwpt, ...range, data: bits.address })).toBe(
      0,
    );
    // An entry of several pages has a bit for each.
    return bits.bytes[0] & 1;
  }

  /** Two tables with a DMA-buf in them. */
  function setUp(raw: RawIommu) {
    const ioas = raw.ioas();
    const { device } = raw.device(ioas);
    const flags = uapi.IOMMU_HWPT_ALLOC_DIRTY_TRACKING;
    const hwpts = [0, 1].map(() => raw.hwpt({ dev_id: device, pt_id: ioas, flags }));
    const fd = raw.dmabuf(2 * PAGE);
    expect(raw.mapFile(ioas, fd, 0, 2 * PAGE, IOVA)).toBe(IOVA);
    return { ioas, device, hwpts, fd };
  }

  test.each([1, 0])('with %d, they leave every table for good', (revoked) => {
    const raw = iommu();
    const { ioas, device, hwpts, fd } = setUp(raw);
    for (const hwpt of hwpts) expect(present(raw, hwpt, IOVA)).toBe(1);
    expect(raw.revoke(fd, revoked)).toBe(0);
    for (const hwpt of hwpts) expect(present(raw, hwpt, IOVA)).toBe(0);
    expect(raw.revoke(fd, 0)).toBe(0);
    const flags = uapi.IOMMU_HWPT_ALLOC_DIRTY_TRACKING;
    const later = raw.hwpt({ dev_id: device, pt_id: ioas, flags });
    for (const hwpt of [...hwpts, later]) expect(present(raw, hwpt, IOVA)).toBe(0);
    for (const hwpt of hwpts) expect(raw.destroy(hwpt)).toBe(0);
    expect(raw.mapFile(ioas, fd, 0, PAGE, IOVA)).toBe(-errno.EEXIST);
    expect(raw.unmap(ioas, IOVA, 2 * PAGE)).toBe(0);
    expect(raw.mapFile(ioas, fd, 0, PAGE, IOVA)).toBe(IOVA);
    expect(present(raw, later, IOVA)).toBe(1);
  });

  test('they are ENODEV, and what was mapped can be copied and unmapped', () => {
    const raw = iommu();
    const { ioas, hwpts, fd } = setUp(raw);
    const copy = (dst_iova: bigint) => {
      const ids = { dst_ioas_id: ioas, src_ioas_id: ioas };
      return raw.run(uapi.IOMMU_IOAS_COPY, { flags: 7, ...ids, length: PAGE, src_iova: IOVA, dst_iova });
    };
    expect(copy(FREE)).toBe(0);
    expect(present(raw, hwpts[0], FREE)).toBe(1);
    expect(raw.revoke(fd)).toBe(0);
    expect(raw.mapFile(ioas, fd, 0, PAGE, FREE + 0x10_0000n)).toBe(-errno.ENODEV);
    // A mapping that nobody has yet is taken back too.
    expect(copy(FREE + 0x10_0000n)).toBe(0);
    for (const iova of [FREE, FREE + 0x10_0000n]) {
      expect(present(raw, hwpts[0], iova)).toBe(0);
      expect(raw.unmap(ioas, iova, PAGE)).toBe(0);
    }
    expect(raw.unmap(ioas, IOVA, 2 * PAGE)).toBe(0);
  });

  test('before there is a table, they do not come into one', () => {
    const raw = iommu();
    const ioas = raw.ioas();
    const fd = raw.dmabuf(PAGE);
    expect(raw.mapFile(ioas, fd, 0, PAGE, IOVA)).toBe(IOVA);
    expect(raw.revoke(fd, 0)).toBe(0);
    const { device } = raw.device(ioas);
    const flags = uapi.IOMMU_HWPT_ALLOC_DIRTY_TRACKING;
    const hwpt = raw.hwpt({ dev_id: device, pt_id: ioas, flags });
    expect(present(raw, hwpt, IOVA)).toBe(0);
    expect(raw.unmap(ioas, IOVA, PAGE)).toBe(0);
  });
});
