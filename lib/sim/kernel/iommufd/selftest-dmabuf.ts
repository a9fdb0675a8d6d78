/** Operations of IOMMU_TEST_CMD on DMA-bufs: memory behind a descriptor that its maker can take away. */
import { errno } from '../../../uapi/errno';
import * as test from '../../../uapi/iommufd-test';
import type { PhysicalMemory } from '../../memory';
import { DmaBuf } from '../dma-buf';
import { PAGE_SIZE } from '../user-memory';
import type { TestCommand } from './selftest';

const ACCESS_MODE = 3;
const MOST_BYTES = 512 * PAGE_SIZE;

/** A DMA-buf of the selftest. */
class TestDmaBuf extends DmaBuf {
  readonly #start: number;
  #revoked = false;

  /** `length` in bytes, whole pages. */
  constructor(
    readonly memory: PhysicalMemory,
    length: number,
  ) {
    super(length);
    this.#start = memory.adopt(new ArrayBuffer(length));
  }

  override get physical(): number {
    return this.#revoked ? -errno.ENODEV : this.#start;
  }

  /** Takes the memory back from those who have it, in either case; `revoked`: nobody else gets it from now on. */
  revoke(revoked: boolean): void {
    this.#revoked = revoked;
    this.invalidate();
  }

  protected override release(): void {
    this.memory.release(this.#start);
  }
}

function get({ file: { system }, process, values }: TestCommand): number {
  const length = Math.ceil(values.dmabuf_get.length / PAGE_SIZE) * PAGE_SIZE;
  if (length === 0 || length > MOST_BYTES) return -errno.EINVAL;
  const file = new TestDmaBuf(system.memory, length).get();
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
  if (!(file instanceof DmaBuf)) return -errno.EINVAL;
  if (!(file instanceof TestDmaBuf)) return -errno.EOPNOTSUPP;
  file.revoke(revoked !== 0);
  return 0;
}

export const dmabufOperations = [
  [test.IOMMU_TEST_OP_DMABUF_GET, get],
  [test.IOMMU_TEST_OP_DMABUF_REVOKE, revoke],
] as const;
