/** A kernel with other answers to some of its system calls. */
import type { Kernel } from '../lib/kernel';
import { SimulatedCallPage } from '../lib/sim/kernel/call-page';

/** Ioctls of the call page are asked of `changes.ioctl` too, where that is there. */
export function alteredKernel(inner: Kernel, changes: Partial<Kernel>): Kernel {
  const { ioctl } = changes;
  const page = ioctl && new SimulatedCallPage({ ioctl, addressOf: (bytes) => inner.addressOf(bytes) });
  const all: Partial<Kernel> = { ...(page && { callPage: () => page }), ...changes };
  return new Proxy(inner, {
    get(target, name) {
      if (name in all) return Reflect.get(all, name) as unknown;
      const value: unknown = Reflect.get(target, name);
      return typeof value === 'function' ? (value.bind(target) as unknown) : value;
    },
  });
}
