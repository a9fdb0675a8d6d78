// What QEMU keeps in its IOTLB, as far as it shows: which pages a scene has used, and for what.
import type { PhysicalMemory } from '../../lib/sim/memory';
import * as reasons from '../../lib/sim/vtd/fault-reasons';
import type { Outcome, Request } from './as-qemu';
import type { Quirks } from './quirks';
import { ACCESS_BYTES, type Scene } from './scene';
import { field, readWord, type Entry } from './tables';

interface Cached {
  readonly first: bigint;
  readonly last: bigint;
  readonly read: boolean;
  readonly write: boolean;
}

const PERMISSION = new Set([
  reasons.LGN_2_WRITE,
  reasons.LGN_3_READ,
  reasons.SGN_6_WRITE,
  reasons.SGN_7_READ,
]);

export class QemuCache {
  readonly #pages: Cached[] = [];

  constructor(private readonly quirks: Quirks) {}

  clear(): void {
    this.#pages.length = 0;
  }

  #find(address: bigint): Cached | undefined {
    return this.#pages.find(({ first, last }) => first <= address && address <= last);
  }

  /** hitDropsRequest: the request lacks a permission that the cached entry says it lacks. */
  drops({ address, write }: Request, ours: Outcome): boolean {
    const cached = this.#find(address);
    if (cached === undefined || !PERMISSION.has(ours.reason)) return false;
    return !(write ? cached.write : cached.read) && this.quirks.use('hitDropsRequest');
  }

  /** hitMarksNothing: the words our unit has marked and QEMU, which does not walk, has not. */
  marks({ address, path }: Request, ours: Outcome, memory: PhysicalMemory): Map<number, bigint> | undefined {
    if (this.#find(address) === undefined || ours.reason !== 0) return undefined;
    const marked = path.filter(({ at, value }) => readWord(memory, at) !== value);
    if (marked.length === 0 || !this.quirks.use('hitMarksNothing')) return new Map();
    return new Map(marked.toReversed().map(({ at, value }) => [at, value]));
  }

  /** After a walk that succeeded. wholeLargePages: `touch` makes our unit cache the rest of the page the scene uses. */
  insert(request: Request, touch: (address: bigint) => number, scene: Scene): void {
    const { address, path, stage } = request;
    const leaf = path.at(-1);
    if (leaf === undefined || stage.kind === 'pass-through' || this.#find(address) !== undefined) return;
    const size = 1n << BigInt(3 + 9 * leaf.level);
    const first = address - (address % size);
    const allows = (bit: number) => path.every(({ value }: Entry) => field(value, bit, bit) !== 0);
    const read = stage.kind === 'first' || allows(0);
    this.#pages.push({ first, last: first + size - 1n, read, write: allows(1) });
    if (leaf.level === 1) return;
    for (const step of scene.steps) {
      if (step.kind !== 'access') continue;
      for (const other of [step.address, step.address + BigInt(ACCESS_BYTES - 1)]) {
        if (other < first || other >= first + size || other >> 12n === address >> 12n) continue;
        if (this.quirks.use('wholeLargePages')) touch(other);
      }
    }
  }
}
