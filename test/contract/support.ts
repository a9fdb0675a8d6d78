/**
 * The contract suite: one set of tests, run on the simulated kernel and on Linux (in the virtual machine). The
 * environment variable IOMMUFD_BACKEND chooses; simulated is the default.
 */
import { Iommu, type Device } from '../../lib';
import { openKernel, type Kernel } from '../../lib/open-kernel';

export const backend = process.env['IOMMUFD_BACKEND'] === 'linux' ? 'linux' : 'simulated';

/** QEMU's educational device, on both backends. */
export const EDU = '0000:00:04.0';
export const PAGE = 4096;

const opened: Iommu[] = [];

/** An Iommu that is closed when the test is over. */
export function open(): Iommu {
  const iommu = Iommu.open({ backend });
  opened.push(iommu);
  return iommu;
}

/** An Iommu with edu bound. */
export function openEdu(cookie: bigint | number = 0xed0): { iommu: Iommu; device: Device } {
  const iommu = open();
  return { iommu, device: iommu.bind(EDU, { cookie }) };
}

/** A kernel for raw calls. */
export function kernel(): Kernel {
  return openKernel(backend);
}

export function sleep(milliseconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

/** Waits until `done` says so; the test's own time limit ends it otherwise. */
export async function until(done: () => boolean): Promise<void> {
  while (!done()) await sleep(1);
}

/** Fills memory with bytes that differ from one another, from `seed` on. */
export function fill(bytes: Uint8Array, seed: number): Uint8Array {
  for (let i = 0; i < bytes.length; i++) bytes[i] = (i * 7 + (i >> 8) + seed) & 0xff;
  return bytes;
}

/** The error that `action` throws. */
export function errorOf(action: () => unknown): unknown {
  try {
    action();
  } catch (error) {
    return error;
  }
  throw new Error('nothing was thrown');
}

// A virtual machine under emulation is slow to start things.
jest.setTimeout(60_000);

afterEach(() => {
  for (const iommu of opened.splice(0)) iommu.close();
});
