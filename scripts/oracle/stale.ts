// Scenes in which software changes tables that hardware has cached, and invalidates what it should, or something else.
import type { Random } from '../conformance/random';
import * as inv from '../../lib/sim/vtd/invalidation-descriptors';
import { Builder } from './builder';
import * as at from './scene';

const ACCESSES = 24;

/**
 * All accesses of a scene are of one kind: whether one that a cached entry does not permit walks again is hardware's own
 * affair. Which pages are large does not change.
 */
export function staleScene(random: Random, mode: at.Mode): at.Scene {
  const builder = new Builder(random, mode, { broken: false, large: random.oneIn(2) });
  const words = at.withoutZeros(builder.words);
  const pool = at.distinct(Array.from({ length: 4 }, () => withNeighbour(builder)).flat());
  const write = random.oneIn(2);
  // Register-based invalidation is legacy mode's, and takes the place of the queue (section 6.5.1).
  const queue = mode !== 'legacy' || !random.oneIn(4);
  const steps: at.Step[] = [];
  const now = new Map(words);
  for (let accesses = 0; accesses < ACCESSES;) {
    const what = random.weighted([
      ['access', 6],
      ['poke', 2],
      ['invalidate', 2],
    ]);
    if (what === 'access') {
      steps.push({ kind: 'access', address: random.pick(pool), write });
      accesses++;
    } else if (what === 'poke') {
      const poke = changeEntry(builder, now, random.pick(pool));
      now.set(poke.at, poke.value);
      steps.push(poke);
    } else if (queue) steps.push(invalidation(builder, random.pick(pool)));
    else steps.push(command(builder, random.pick(pool)));
  }
  return { mode, root: at.rootAddress(mode), queue, words, steps };
}

/** An address, and one in another page of the same 2 MiB. */
function withNeighbour(builder: Builder): bigint[] {
  const address = builder.address();
  const index = BigInt(builder.random.pick(at.DATA_INDICES));
  const neighbour = (address & ~0x1f_f000n) | (index << 12n);
  return at.isUsable(neighbour) ? [address, neighbour] : [address];
}

/** Another page, other permissions, another table, or nothing. */
function changeEntry(builder: Builder, words: ReadonlyMap<number, bigint>, address: bigint): at.Poke {
  const { random } = builder;
  const path = builder.path(words, address);
  const last = path.at(-1)!;
  if (random.oneIn(4) && !builder.options.large) {
    const upper = random.pick(path);
    const table = upper.leaf ? undefined : builder.tableOf(upper.level - 1);
    if (table !== undefined) return { kind: 'poke', at: upper.at, value: builder.pointerTo(table) };
  }
  if (last.leaf) {
    const value = random.oneIn(6) ? 0n : builder.leaf(last.level);
    return { kind: 'poke', at: last.at, value };
  }
  const table = builder.tableOf(last.level - 1);
  return { kind: 'poke', at: last.at, value: table === undefined ? 0n : builder.pointerTo(table) };
}

/** The right domain, most of the time. */
function domain({ random, did }: Builder): number {
  return random.oneIn(5) ? did + 1 : did;
}

/** The page of an address, most of the time, and how many around it. */
function range({ random }: Builder, address: bigint): { page: bigint; AM: number } {
  const page = (address >> 12n) ^ (random.oneIn(6) ? 1n : 0n);
  return { page: page << 12n, AM: random.pick([0, 0, 0, 1, 9, 18]) };
}

function invalidation(builder: Builder, address: bigint): at.Invalidation {
  const { random, mode } = builder;
  const DID = domain(builder);
  const { page, AM } = range(builder, address);
  const IH = random.below(2);
  const withAddress = (words: Int32Array): Int32Array => {
    words[2]! |= Number(page & 0xffff_f000n);
    words[3] = Number(page >> 32n) | 0;
    return words;
  };
  const plain = [
    () => inv.encodeIotlbInvalidate({ G: inv.G_GLOBAL }),
    () => inv.encodeIotlbInvalidate({ G: inv.G_DOMAIN, DID }),
    () => withAddress(inv.encodeIotlbInvalidate({ G: inv.G_PAGE, DID, AM, IH })),
    () => withAddress(inv.encodeIotlbInvalidate({ G: inv.G_PAGE, DID, AM, IH })),
    () => inv.encodeContextCacheInvalidate({ G: inv.G_GLOBAL }),
    () => inv.encodeContextCacheInvalidate({ G: inv.G_DOMAIN, DID }),
    () => inv.encodeContextCacheInvalidate({ G: inv.G_DEVICE, DID, SID: at.RID }),
  ];
  const scalable = [
    () => inv.encodePasidCacheInvalidate({ G: inv.PASID_CACHE_G_GLOBAL }),
    () => inv.encodePasidCacheInvalidate({ G: inv.PASID_CACHE_G_PASID, DID }),
    () => inv.encodePasidIotlbInvalidate({ G: inv.PASID_IOTLB_G_PASID, DID }),
    () => withAddress(inv.encodePasidIotlbInvalidate({ G: inv.PASID_IOTLB_G_PAGE, DID, AM, IH })),
    () => withAddress(inv.encodePasidIotlbInvalidate({ G: inv.PASID_IOTLB_G_PAGE, DID, AM, IH })),
  ];
  const words = random.pick(mode === 'legacy' ? plain : [...plain, ...scalable])();
  return { kind: 'invalidate', words: [...words].slice(0, mode === 'legacy' ? 4 : 8) };
}

/** The same through IOTLB_REG. */
function command(builder: Builder, address: bigint): at.Command {
  const { page, AM } = range(builder, address);
  const granularity = builder.random.pick([inv.G_GLOBAL, inv.G_DOMAIN, inv.G_PAGE, inv.G_PAGE]);
  return { kind: 'command', address: page | BigInt(AM), high: (granularity << 28) | domain(builder) };
}
