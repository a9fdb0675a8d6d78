/** Two simulated kernels beside each other, the second one altered. */
import { Comparison, Counts } from '../../scripts/conformance/compare';
import { LocalPeer } from '../../scripts/conformance/peer';
import { openSimulated } from '../../scripts/conformance/simulated';
import { suite } from '../../scripts/conformance/suite';
import { unsupported } from '../../scripts/conformance/unsupported';
import type { Kernel } from '../../lib/open-kernel';

/** System calls of another kernel, made on `inner`. */
export type Alteration = (inner: Kernel) => Partial<Kernel>;

function altered(inner: Kernel, alteration: Alteration): Kernel {
  const changes = alteration(inner);
  return new Proxy(inner, {
    get(target, name) {
      if (name in changes) return Reflect.get(changes, name) as unknown;
      const value: unknown = Reflect.get(target, name, target);
      return typeof value === 'function' ? (value.bind(target) as unknown) : value;
    },
  });
}

export function alteredPeer(alteration: Alteration): LocalPeer {
  const { kernel, settle } = openSimulated();
  return new LocalPeer('altered', { kernel: altered(kernel, alteration), settle });
}

/** A comparison of the simulated kernel with an altered one. */
export async function compareWith(
  alteration: Alteration,
  options: { sequences?: number; suite?: boolean; seed?: number } = {},
): Promise<Comparison> {
  const counts = new Counts();
  const simulated = new LocalPeer('simulated', openSimulated(), counts.observe);
  const excluded = unsupported(alteredPeer(() => ({})));
  const comparison = new Comparison(simulated, alteredPeer(alteration), counts, {
    generator: { seed: options.seed ?? 1, excluded, only: [] },
    sequences: options.sequences ?? 0,
    goOn: () => true,
    suite: options.suite ? suite(excluded) : [],
    shrink: 3,
    progress: () => {},
  });
  await comparison.run();
  return comparison;
}
