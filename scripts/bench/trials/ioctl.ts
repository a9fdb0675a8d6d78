/** Trial: one cheap ioctl through the addon. Arguments: milliseconds. */
import { LinuxKernel } from '../../../lib/linux/kernel';
import { errno, IOMMU_IOAS_UNMAP } from '../../../lib/uapi';
import { measure, report, reportUnavailable } from './measure';

const CALLS = 512;

async function main(): Promise<void> {
  const kernel = LinuxKernel.load();
  if ('reason' in kernel) return reportUnavailable(kernel.reason);
  const fd = kernel.eventfd(0, 0);
  if (fd < 0) throw new Error(`eventfd: ${fd}`);
  // A hot call's request and struct, so that it is checked as one; an eventfd knows no request and says ENOTTY.
  const { request, struct } = IOMMU_IOAS_UNMAP;
  const bytes = struct.encode({ size: struct.size, ioas_id: 1, iova: 0x1000n, length: 0x1000n });
  let sum = 0;
  const value = await measure({ calls: CALLS }, () => {
    for (let i = 0; i < CALLS; i++) sum += kernel.ioctl(fd, request, bytes);
  });
  if (sum % errno.ENOTTY !== 0) throw new Error('the ioctl did something else');
  report(value, kernel.ioctl(fd, request, bytes));
}

void main();
