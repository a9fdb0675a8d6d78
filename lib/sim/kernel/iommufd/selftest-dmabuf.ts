/** Operations of IOMMU_TEST_CMD on DMA-bufs: memory behind a descriptor that its maker can take away. */
import { errno } from '../../../uapi/errno';
import * as test from '../../../uapi/iommufd-test';
import { DmaBufFile } from '../dma-buf';
import { PAGE_SIZE } from '../user-memory';
import type { TestCommand } from './selftest';

const ACCESS_MODE = 3;
const MOST_BYTES = 512 * PAGE_SIZE;

/** A DMA-buf of the selftest. */
export class TestDmaBuf extends DmaBufFile {
  /** `length` in bytes, whole pages. */
  constructor(readonly length: number) {
    super();
  }
}

function get({ process, values }: TestCommand): number {
  const length = Math.ceil(values.dmabuf_get.length / PAGE_SIZE) * PAGE_SIZE;
  if (length === 0 || length > MOST_BYTES) return -errno.EINVAL;
  const file = new TestDmaBuf(length).get();
  file.access = values.dmabuf_get.open_flags & ACCESS_MODE;
  const fd = process.install(file);
  file.put();
  // Linux 7.3 does not say which descriptor it made: the lowest that was free.
  return Math.min(fd, 0);
}

function revoke({ process, values }: TestCommand): number {
  const { dmabuf_fd, revoked } = values.dmabuf_revoke;
  const file = process.file(dmabuf_fd);
  if (!file) return -errno.EBADF;
  if (!(file instanceof TestDmaBuf)) return -errno.EINVAL;
  file.revoked = revoked !== 0;
  return 0;
}

export const dmabufOperations = [
  [test.IOMMU_TEST_OP_DMABUF_GET, get],
  [test.IOMMU_TEST_OP_DMABUF_REVOKE, revoke],
] as const;
