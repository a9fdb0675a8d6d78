/**
 * Trial: one cheap ioctl through the addon, on an eventfd. Arguments: the way, request, milliseconds.
 *
 * - hot: with a struct in the call page
 * - batch: as hot, 16 of them for each crossing into the addon
 * - struct: with a struct in a Uint8Array, as set-up calls pass it
 */
import { CALL_STRUCTS_AT, type Kernel } from '../../../lib/kernel';
import { LinuxKernel } from '../../../lib/linux/kernel';
import { IOMMU_IOAS_UNMAP } from '../../../lib/uapi';
import { measure, report, reportUnavailable } from './measure';

const CALLS = 512;
const BATCH = 16;

/** A hot call's struct: it is checked as one, whatever the file makes of it. */
const { struct } = IOMMU_IOAS_UNMAP;
const argument = struct.encode({ size: struct.size, ioas_id: 1, iova: 0x1000n, length: 0x1000n });

/** `CALLS` calls; the sum of what they return. */
type Calls = () => number;

function hot(kernel: Kernel, fd: number, request: number): Calls {
  const page = kernel.callPage();
  new Uint8Array(page.buffer).set(argument, CALL_STRUCTS_AT);
  return () => {
    let sum = 0;
    for (let i = 0; i < CALLS; i++) sum += page.ioctl(fd, request, CALL_STRUCTS_AT);
    return sum;
  };
}

function batch(kernel: Kernel, fd: number, request: number): Calls {
  const page = kernel.callPage();
  new Uint8Array(page.buffer).set(argument, CALL_STRUCTS_AT);
  return () => {
    for (let i = 0; i < CALLS; i += BATCH) {
      for (let call = 0; call < BATCH; call++) page.describe(call, fd, request, CALL_STRUCTS_AT);
      const done = page.run(BATCH);
      if (done !== BATCH) throw new Error(`call ${done} of a batch: ${page.result(done)}`);
    }
    return 0;
  };
}

function bytes(kernel: Kernel, fd: number, request: number): Calls {
  return () => {
    let sum = 0;
    for (let i = 0; i < CALLS; i++) sum += kernel.ioctl(fd, request, argument);
    return sum;
  };
}

const WAYS: Readonly<Record<string, (kernel: Kernel, fd: number, request: number) => Calls>> = {
  hot,
  batch,
  struct: bytes,
};

async function main(): Promise<void> {
  const [, , name, request] = process.argv;
  const way = WAYS[name];
  if (way === undefined) throw new Error(`there is no way ${name}`);
  const kernel = LinuxKernel.load();
  if ('reason' in kernel) return reportUnavailable(kernel.reason);
  const fd = kernel.eventfd(0, 0);
  if (fd < 0) throw new Error(`eventfd: ${fd}`);
  const calls = way(kernel, fd, Number(request));
  const result = kernel.ioctl(fd, Number(request), argument);
  const value = await measure({ calls: CALLS }, () => {
    if (calls() !== CALLS * result) throw new Error('an ioctl did something else');
  });
  report(value, result);
}

void main();
