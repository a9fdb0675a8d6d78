/** DMA-bufs of the selftest. */
import { useRawIommu } from './mock';
import * as uapi from '../../lib/uapi';
import { errno } from '../../lib/uapi';
import { PAGE } from './support';

const iommu = useRawIommu();

test('are made without being named, and revoked by descriptor', () => {
  const raw = iommu();
  const get = (length: number) =>
    raw.test(uapi.IOMMU_TEST_OP_DMABUF_GET, 0, { dmabuf_get: { length, open_flags: 0 } }).result;
  const revoke = (dmabuf_fd: number, revoked: number) =>
    raw.test(uapi.IOMMU_TEST_OP_DMABUF_REVOKE, 0, { dmabuf_revoke: { dmabuf_fd, revoked } }).result;
  expect(get(0)).toBe(-errno.EINVAL);
  expect(get(512 * PAGE + 1)).toBe(-errno.EINVAL);
  expect(revoke(9999, 1)).toBe(-errno.EBADF);
  expect(revoke(-1, 1)).toBe(-errno.EBADF);
  expect(revoke(raw.fd, 1)).toBe(-errno.EINVAL);
  // The next descriptor is the lowest free one: the DMA-buf's.
  const free = raw.kernel.open('/dev/iommu', 2);
  raw.kernel.close(free);
  expect(get(512 * PAGE - 100)).toBe(0);
  raw.keep(free);
  expect(revoke(free, 1)).toBe(0);
  expect(revoke(free, 0)).toBe(0);
  expect(raw.kernel.read(free, new Uint8Array(8))).toBe(-errno.EINVAL);
  expect(raw.kernel.write(free, new Uint8Array(8))).toBe(-errno.EBADF);
  expect(raw.kernel.mmap(free, 0, PAGE, 3)).toBe(-errno.EACCES);
  expect(raw.kernel.mmap(free, 0, PAGE, 1)).toBe(-errno.EINVAL);
  expect(raw.kernel.poll(free, 5)).toBe(5);
});
