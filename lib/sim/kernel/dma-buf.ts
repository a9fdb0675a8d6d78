/** DMA-bufs: memory behind a descriptor, for the DMA of devices, that its maker can take away. */
import { POLLIN, POLLOUT } from '../../kernel';
import { errno } from '../../uapi/errno';
import { OpenFile } from './file';

/** Programs cannot read or map it; IOMMU_IOAS_MAP_FILE is what it is for. */
export abstract class DmaBufFile extends OpenFile {
  revoked = false;

  override mmap(): number {
    return -errno.EINVAL;
  }
  override poll(): number {
    return POLLIN | POLLOUT;
  }
  override get pollable(): boolean {
    return true;
  }
  override get seekable(): boolean {
    return false;
  }
}
