/** Software nesting where a kernel refuses what it never should, and over random histories against a simple model. */
import * as fc from 'fast-check';
import { Iommu, type KernelManagedSpace, type MappedRange } from '../lib';
import type { Kernel } from '../lib/kernel';
import { intersect, NestedMapping } from '../lib/nested-mapping';
import { Machine } from '../lib/sim';
import * as uapi from '../lib/uapi';
import { alteredKernel } from './altered-kernel';
import { errorOf, PAGE } from './contract/support';

const IOVA = BigInt(uapi.MOCK_APERTURE_START);
const page = (number: number) => IOVA + BigInt(number * PAGE);

/** A kernel that answers EBUSY to unmapping in one IOAS, while that is set. */
function stubborn(inner: Kernel): { kernel: Kernel; busy: { ioas: number | undefined } } {
  const busy: { ioas: number | undefined } = { ioas: undefined };
  const ioctl: Kernel['ioctl'] = (fd, request, bytes) => {
    const refuse =
      request === uapi.IOMMU_IOAS_UNMAP.request &&
      uapi.iommu_ioas_unmap.decode(bytes as Uint8Array).ioas_id === busy.ioas;
    return refuse ? -uapi.errno.EBUSY : inner.ioctl(fd, request, bytes);
  };
  const kernel = alteredKernel(inner, { ioctl });
  return { kernel, busy };
}

test.each(['parent', 'second'] as const)(
  'unmapping that the kernel refuses in the %s undoes the rest',
  (who) => {
    const { kernel, busy } = stubborn(new Machine({ iommu: 'mock' }).process());
    using iommu = Iommu.open({ backend: kernel });
    const parent = iommu.createAddressSpace();
    const [first, second] = [1, 2].map((cookie) => {
      const space = iommu.createAddressSpace({ parent });
      iommu.createMockDevice({ cookie }).attach(space);
      return space;
    });
    const memory = parent.map(iommu.allocateDma(2 * PAGE), { iova: 0n });
    for (const space of [first, second]) space.map(memory, { iova: IOVA });
    busy.ioas = who === 'parent' ? parent.ioasId : second.ioasId;
    expect(errorOf(() => memory.unmap())).toMatchObject({ code: 'EBUSY' });
    expect([memory.mapped, first.shadow.length, second.shadow.length]).toEqual([true, 1, 1]);
    busy.ioas = undefined;
    memory.unmap();
    expect([memory.mapped, first.shadow.length, second.shadow.length]).toEqual([false, 0, 0]);
  },
);

describe('intersect', () => {
  const mapping = new NestedMapping({} as never, {
    ...{ iova: 0x10_0000n, parentIova: 0x5000n, length: 0x3000, read: true, write: true },
  });
  const source = (iova: bigint, length: number): MappedRange => ({
    ...{ iova, length, end: iova + BigInt(length), read: true, write: false },
  });

  test.each([
    ['at the start', source(0x4000n, 0x2000), { iova: 0x10_0000n, offset: 0x1000, length: 0x1000 }],
    ['in the middle', source(0x6000n, 0x1000), { iova: 0x10_1000n, offset: 0, length: 0x1000 }],
    ['at the end', source(0x7000n, 0x4000), { iova: 0x10_2000n, offset: 0, length: 0x1000 }],
    ['all of it', source(0x1000n, 0x9000), { iova: 0x10_0000n, offset: 0x4000, length: 0x3000 }],
  ])('%s', (_where, from, expected) => {
    expect(intersect(mapping, from)).toMatchObject({ ...expected, read: true, write: false });
  });

  test('before and after it there is nothing', () => {
    expect(intersect(mapping, source(0x4000n, 0x1000))).toBeUndefined();
    expect(intersect(mapping, source(0x8000n, 0x1000))).toBeUndefined();
  });
});

const LEVELS = 3;
const PAGES = 12;

interface Step {
  readonly map: boolean;
  readonly level: number;
  readonly at: number;
  readonly length: number;
  readonly target: number;
  readonly read: boolean;
}

const steps = fc.array(
  fc.record({
    map: fc.boolean(),
    level: fc.nat(LEVELS - 1),
    at: fc.nat(PAGES - 1),
    length: fc.integer({ min: 1, max: 4 }),
    target: fc.nat(PAGES - 1),
    read: fc.boolean(),
  }),
  { minLength: 10, maxLength: 40 },
);

/** The model: one entry for each page of each level: the page below it (of the buffer, at level 0), and its rights. */
type Entry = { readonly to: number; readonly write: boolean } | undefined;

/** Where a page of a level leads, by walking the levels below it. */
function walk(levels: readonly Entry[][], level: number, at: number): Entry {
  const entry = levels[level][at];
  if (!entry || level === 0) return entry;
  const below = walk(levels, level - 1, entry.to);
  const write = entry.write && below?.write === true;
  return below && { to: below.to, write };
}

test('random histories: each level reaches what a walk of all levels below it does', () => {
  const run = (history: readonly Step[]) => {
    using iommu = Iommu.open({ backend: new Machine({ iommu: 'mock' }) });
    const buffer = iommu.allocateDma(2 * PAGES * PAGE);
    const root = iommu.createAddressSpace();
    const middle = iommu.createAddressSpace({ parent: root });
    const top = iommu.createAddressSpace({ parent: middle });
    const spaces = [root, middle, top];
    const devices = spaces.map((space, cookie) => {
      const device = iommu.createMockDevice({ cookie });
      device.attach(space);
      return device;
    });
    const model: Entry[][] = spaces.map(() => Array.from({ length: PAGES + 4 }, () => undefined));
    const mapped = spaces.map(() => new Map<number, number>());
    for (const { map, level, at, length, target, read } of history) {
      const taken = model[level].slice(at, at + length).some(Boolean);
      if (map && !taken) {
        const [iova, bytes, write] = [page(at), length * PAGE, !read];
        if (level === 0) root.map(buffer, { iova, offset: target * PAGE, length: bytes, write });
        else [middle, top][level - 1].map({ iova: page(target), length: bytes }, { iova, write });
        for (let i = 0; i < length; i++) model[level][at + i] = { to: target + i, write };
        mapped[level].set(at, length);
      }
      const old = mapped[level].get(at);
      if (!map && old) {
        spaces[level].unmap(page(at), old * PAGE);
        model[level].fill(undefined, at, at + old);
        mapped[level].delete(at);
      }
      spaces.forEach((space, i) => {
        for (let at = 0; at < PAGES + 4; at++) {
          const expected = walk(model, i, at);
          expect(writable(space, page(at))).toBe(expected?.write);
          if (expected)
            expect(
              devices[i].translates(page(at), buffer, { offset: expected.to * PAGE, length: PAGE }),
            ).toBe(true);
        }
      });
    }
  };
  fc.assert(fc.property(steps, run), { numRuns: 40 });
});

/** Undefined: nothing is there. */
function writable(space: KernelManagedSpace, iova: bigint): boolean | undefined {
  return space.overlapping(iova, iova + 1n)[0]?.write;
}
