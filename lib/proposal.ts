/** Requests that only the RFC has: no Linux answers them, and the simulated kernel does. */
import { refusal } from './errors';
import { attempt, refused } from './ioctl';
import type { Kernel } from './kernel';
import { errno, type Ioctl, type Struct } from './uapi';

const SIMULATED = "a simulated machine (backend: 'simulated', or a Machine of iommufd/sim) has it";

/**
 * Makes such a request on a file and returns its struct as the kernel left it.
 * Throws IommuError, EOPNOTSUPP where the kernel does not know it; `feature` is for that message, `hint` what to do.
 */
export function propose<S extends Struct>(
  kernel: Kernel,
  fd: number,
  row: Ioctl<S>,
  values: Parameters<S['encode']>[0],
  feature: string,
  hint = SIMULATED,
): ReturnType<S['decode']> {
  const { result, out } = attempt(kernel, fd, row, values);
  if (result >= 0) return out;
  if (result !== -errno.ENOTTY) throw refused(kernel, row, {}, result);
  throw refusal('EOPNOTSUPP', `${feature}: the RFC has it, ${kernel.version} does not`, {
    request: row.name,
    hint,
  });
}
