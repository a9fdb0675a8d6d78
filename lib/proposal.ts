/** Requests that only the RFC has: no Linux answers them, and the simulated kernel does. */
import { refusal } from './errors';
import { attempt, refused } from './ioctl';
import type { Kernel } from './kernel';
import { errno, type Ioctl, type Struct } from './uapi';

const HINT = "a simulated machine (backend: 'simulated', or a Machine of iommufd/sim) has it";

/** A call that mainline Linux does not have. Throws IommuError: EOPNOTSUPP from such a kernel, with `feature` named. */
export function propose<S extends Struct>(
  { kernel }: { readonly kernel: Kernel },
  fd: number,
  row: Ioctl<S>,
  values: Parameters<S['encode']>[0],
  { feature, hint = HINT }: { readonly feature: string; readonly hint?: string },
): ReturnType<S['decode']> {
  const { result, out } = attempt(kernel, fd, row, values);
  if (result === -errno.ENOTTY)
    throw refusal('EOPNOTSUPP', `mainline Linux has no ${feature}`, { request: row.name, hint });
  if (result < 0) throw refused(kernel, row, values, result);
  return out;
}
