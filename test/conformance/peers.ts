/** Two simulated kernels beside each other, the second one altered. */
import { Comparison, Counts } from '../../scripts/conformance/compare';
import { LocalPeer, simulatedPeer, type Peer } from '../../scripts/conformance/peer';
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

/** Breaks a rule of the simulated kernel; returns the way to mend it. */
export type Break = () => () => void;

type Method<O, K extends keyof O> = O[K] extends (...args: infer A) => infer R
  ? (this: O, ...args: A) => R
  : never;

/** A method of a prototype, or a static one, in the place of another, which it is given. */
export function replaced<O, K extends keyof O>(
  owner: O,
  name: K,
  make: (original: Method<O, K>) => Method<O, K>,
): Break {
  return () => {
    const original = owner[name];
    owner[name] = make(original as Method<O, K>) as O[K];
    return () => {
      owner[name] = original;
    };
  };
}

/** The simulated kernel with a rule broken, only while it is asked. */
function brokenPeer(breakIt: Break): Peer {
  const inner = simulatedPeer();
  const broken = <T>(ask: () => T): T => {
    const mend = breakIt();
    try {
      return ask();
    } finally {
      mend();
    }
  };
  return {
    name: 'broken',
    hashes: (batch) => broken(() => inner.hashes(batch)),
    run: (sequences) => broken(() => inner.run(sequences)),
    close: () => inner.close(),
  };
}

/** A comparison of the simulated kernel with itself, a rule broken. */
export function compareWithBroken(breakIt: Break): Promise<Comparison> {
  return comparePeers(brokenPeer(breakIt), { suite: true });
}

/** A comparison of the simulated kernel with an altered one. */
export function compareWith(alteration: Alteration, options: Extent = {}): Promise<Comparison> {
  return comparePeers(alteredPeer(alteration), options);
}

interface Extent {
  sequences?: number;
  suite?: boolean;
  seed?: number;
}

async function comparePeers(other: Peer, options: Extent): Promise<Comparison> {
  const counts = new Counts();
  const simulated = new LocalPeer('simulated', openSimulated(), counts.observe);
  const excluded = unsupported(alteredPeer(() => ({})));
  const comparison = new Comparison(simulated, other, counts, {
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
