/** The IOVA map of an IOAS against a naive one, with domains that come, go and fail. */
import { PhysicalMemory } from '../../../lib/sim/memory';
import type { PagingDomain } from '../../../lib/sim/kernel/iommu/core';
import type { Slice } from '../../../lib/sim/kernel/iommufd/area';
import { IoPageTable } from '../../../lib/sim/kernel/iommufd/io-page-table';
import { Pages } from '../../../lib/sim/kernel/iommufd/pages';
import { User } from '../../../lib/sim/kernel/credentials';
import type { Task } from '../../../lib/sim/kernel/iommufd/accounting';
import { UserSource } from '../../../lib/sim/kernel/iommufd/page-source';
import { UserMemory } from '../../../lib/sim/kernel/user-memory';
import { errno } from '../../../lib/uapi';

const PAGE = 4096;
const READ_WRITE = 3;
const IOVA_PAGES = 40;
const BUFFER_PAGES = 16;

/** A page table that is a Map: IOVA page → physical page and protection. */
class MapDomain implements PagingDomain {
  readonly granule = PAGE;
  readonly pageSizes = BigInt(PAGE);
  readonly apertureStart = 0n;
  readonly apertureLast = 2n ** 48n - 1n;
  readonly pages = new Map<number, string>();
  /** Calls of `map` until one fails, or -1. */
  failAfter = -1;

  map(page: number, physical: number, pages: number, protection: number): number {
    if (this.failAfter >= 0 && this.failAfter-- === 0) return -errno.ENOMEM;
    for (let i = 0; i < pages; i++) {
      if (this.pages.has(page + i)) throw new Error(`page ${page + i} is mapped already`);
      this.pages.set(page + i, `${physical + i * PAGE}:${protection}`);
    }
    return 0;
  }
  unmap(page: number, pages: number): void {
    for (let i = 0; i < pages; i++)
      if (!this.pages.delete(page + i)) throw new Error(`page ${page + i} is not mapped`);
  }
  free(): void {}
}

function random(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

interface Mapped {
  iova: number;
  length: number;
  offset: number;
  protection: number;
}

class Model {
  areas: Mapped[] = [];

  overlapping(iova: number, length: number): Mapped[] {
    return this.areas.filter((area) => area.iova < iova + length && area.iova + area.length > iova);
  }

  /** What every domain must hold; `physical` is where the buffer is. */
  pages(physical: number): Map<number, string> {
    const pages = new Map<number, string>();
    for (const { iova, length, offset, protection } of this.areas)
      for (let i = 0; i < length; i++) pages.set(iova + i, `${physical + (offset + i) * PAGE}:${protection}`);
    return pages;
  }
}

class Trial {
  readonly physical = new PhysicalMemory(2 ** 20);
  readonly memory = new UserMemory(this.physical);
  readonly buffer = this.memory.allocate(BUFFER_PAGES * PAGE, false);
  readonly task: Task = {
    memory: this.memory,
    credentials: { uid: 0 },
    user: new User(0),
    memlock: Infinity,
  };
  readonly source = new UserSource(this.memory, BigInt(this.buffer.address));
  readonly pages = new Pages(this.source, true, this.task, 'user');
  readonly table = new IoPageTable();
  readonly model = new Model();
  domains: MapDomain[] = [];

  constructor(readonly pick: (below: number) => number) {}

  slice(offset: number, length: number): Slice {
    return { pages: this.pages, startByte: BigInt(offset * PAGE), length: BigInt(length * PAGE) };
  }

  map(): void {
    const length = 1 + this.pick(4);
    const iova = this.pick(IOVA_PAGES - length);
    const offset = this.pick(BUFFER_PAGES - length);
    const protection = 1 + this.pick(READ_WRITE);
    const failing = this.domains.length > 0 && this.pick(5) === 0;
    if (failing) this.domains[this.pick(this.domains.length)].failAfter = 0;
    const taken = this.model.overlapping(iova, length).length > 0;
    const result = this.table.map(
      [this.slice(offset, length)],
      BigInt(length * PAGE),
      BigInt(iova * PAGE),
      protection,
    );
    for (const domain of this.domains) domain.failAfter = -1;
    if (taken) expect(result).toBe(BigInt(-errno.EEXIST));
    else if (failing) expect(result).toBe(BigInt(-errno.ENOMEM));
    else {
      expect(result).toBe(BigInt(iova * PAGE));
      this.model.areas.push({ iova, length, offset, protection });
    }
  }

  unmap(): void {
    const length = 1 + this.pick(10);
    const iova = this.pick(IOVA_PAGES);
    const hit = this.model.overlapping(iova, length).sort((a, b) => a.iova - b.iova);
    const cut = hit.findIndex((area) => area.iova < iova || area.iova + area.length > iova + length);
    const gone = cut < 0 ? hit : hit.slice(0, cut);
    const start = BigInt(iova * PAGE);
    const { result, unmapped } = this.table.unmap(start, start + BigInt(length * PAGE) - 1n);
    expect(result).toBe(cut < 0 ? 0 : -errno.ENOENT);
    expect(unmapped).toBe(BigInt(gone.reduce((sum, area) => sum + area.length, 0) * PAGE));
    this.model.areas = this.model.areas.filter((area) => !gone.includes(area));
  }

  /** Copies what is at one IOVA to another, if there is something all along. */
  copy(): void {
    const length = 1 + this.pick(5);
    const source = this.pick(IOVA_PAGES);
    const target = this.pick(IOVA_PAGES);
    const slices = this.table.slices(BigInt(source * PAGE), BigInt(length * PAGE));
    const parts = this.model.overlapping(source, length).sort((a, b) => a.iova - b.iova);
    const clipped = parts.map((area) => {
      const from = Math.max(area.iova, source);
      const end = Math.min(area.iova + area.length, source + length);
      return { iova: target + from - source, length: end - from, offset: area.offset + from - area.iova };
    });
    if (clipped.reduce((sum, part) => sum + part.length, 0) < length) {
      expect(slices).toBe(-errno.ENOENT);
      return;
    }
    const result = this.table.map(
      slices as Slice[],
      BigInt(length * PAGE),
      BigInt(target * PAGE),
      READ_WRITE,
    );
    if (this.model.overlapping(target, length).length > 0) expect(result).toBe(BigInt(-errno.EEXIST));
    else {
      expect(result).toBe(BigInt(target * PAGE));
      this.model.areas.push(...clipped.map((part) => ({ ...part, protection: READ_WRITE })));
    }
  }

  addDomain(): void {
    if (this.domains.length === 3) return;
    const domain = new MapDomain();
    const fails = this.model.areas.length > 0 && this.pick(4) === 0;
    if (fails) domain.failAfter = this.pick(this.model.areas.length);
    expect(this.table.addDomain(domain)).toBe(fails ? -errno.ENOMEM : 0);
    domain.failAfter = -1;
    if (fails) expect(domain.pages.size).toBe(0);
    else this.domains.push(domain);
  }

  removeDomain(): void {
    if (this.domains.length === 0) return;
    const [domain] = this.domains.splice(this.pick(this.domains.length), 1);
    this.table.removeDomain(domain);
    expect(domain.pages.size).toBe(0);
  }

  check(): void {
    const { areas } = this.model;
    expect([...this.table.areas].map(({ start, last }) => [start, last])).toEqual(
      areas
        .map(({ iova, length }) => [BigInt(iova * PAGE), BigInt((iova + length) * PAGE) - 1n])
        .sort((a, b) => (a[0] < b[0] ? -1 : 1)),
    );
    if (this.domains.length === 0 || areas.length === 0) return;
    const pin = this.memory.pin(BigInt(this.buffer.address), BigInt(PAGE))!;
    const expected = this.model.pages(pin.physical);
    pin.unpin();
    for (const domain of this.domains) expect(domain.pages).toEqual(expected);
  }
}

describe('IoPageTable', () => {
  const seed = Number(process.env['SEED'] ?? Date.now() % 2 ** 31);

  test(`agrees with a naive map (SEED=${seed})`, () => {
    for (let trial = 0; trial < 30; trial++) {
      const pick = random(seed + trial);
      const run = new Trial(pick);
      for (let step = 0; step < 150; step++) {
        const action = pick(12);
        if (action < 5) run.map();
        else if (action < 7) run.unmap();
        else if (action < 9) run.copy();
        else if (action < 11) run.addDomain();
        else run.removeDomain();
        run.check();
      }
      while (run.domains.length > 0) run.removeDomain();
      run.table.unmap(0n, 2n ** 64n - 1n);
      // Nothing is pinned any more: the physical addresses are free again.
      const pin = run.memory.pin(BigInt(run.buffer.address), 1n)!;
      expect(run.physical.has(pin.physical, PAGE)).toBe(true);
      pin.unpin();
      expect(run.physical.has(pin.physical, PAGE)).toBe(false);
    }
  });
});
