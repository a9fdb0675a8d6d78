/** Requests that only the RFC has: no Linux answers them, and the simulated kernel does. */
import { refusal } from './errors';
import { attempt, refused } from './ioctl';
import type { Kernel } from './kernel';
import { errno, type Ioctl, type Struct } from './uapi';

const SIMULATED = "a simulated machine (backend: 'simulated', or a Machine of iommufd/sim) has it";

/** For the error where the kernel does not know the request: what it lacks, and what to do. */
interface Missing {
  readonly feature: string;
  readonly hint?: string;
}

/** Makes a request that only the RFC has, and returns its struct as the kernel left it. Throws IommuError; EOPNOTSUPP on Linux. */
export function propose<S extends Struct>(
  { kernel }: { readonly kernel: Kernel },
  fd: number,
  row: Ioctl<S>,
  values: Parameters<S['encode']>[0],
  { feature, hint = SIMULATED }: Missing,
): ReturnType<S['decode']> {
  const { result, out } = attempt(kernel, fd, row, values);
  if (result === -errno.ENOTTY) {
    const reason = `${feature}: the RFC has it, ${kernel.version} does not`;
    throw refusal('EOPNOTSUPP', reason, { request: row.name, hint });
  }
  if (result < 0) throw refused(kernel, row, values, result);
  return out;
}
