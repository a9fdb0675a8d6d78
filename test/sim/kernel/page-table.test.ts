/** The kernel's radix tables against a Map, in both formats, with and without large pages. */
import { FIRST_STAGE, PageTable, SECOND_STAGE, type Format } from '../../../lib/sim/kernel/intel/page-table';
import { PhysicalMemory } from '../../../lib/sim/memory';
import { errno } from '../../../lib/uapi';

const PAGE = 4096;
const MEMORY = 2 ** 24;
/** In pages. */
const GIBIBYTE = 512 * 512;
const seed = Number(process.env['SEED'] ?? Date.now() % 2 ** 31);

function random(state: number): (below: number) => number {
  return (below) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

/** Walks the table as the hardware does: the physical address and flags of a page, or undefined. */
function lookUp(memory: PhysicalMemory, table: PageTable, page: number): string | undefined {
  let at = table.root;
  for (let level = table.levels; level >= 1; level--) {
    const index = Math.floor(page / 512 ** (level - 1)) % 512;
    const low = memory.read32(at + 8 * index);
    const high = memory.read32(at + 8 * index + 4);
    if (!(low & table.format.present)) return undefined;
    const address = (high >>> 0) * 2 ** 32 + ((low & ~0xfff) >>> 0);
    if (level === 1 || low & table.format.large) {
      const within = page % 512 ** (level - 1);
      return `${address + within * PAGE}:${(low & table.format.leaf(3)).toString(16)}`;
    }
    at = address;
  }
  return undefined;
}

const variants: [string, Format, number, number][] = [
  ['second stage, 3 levels, 4 KiB pages', SECOND_STAGE, 3, 1],
  ['second stage, 4 levels, up to 2 MiB', SECOND_STAGE, 4, 2],
  ['second stage, 5 levels, up to 1 GiB', SECOND_STAGE, 5, 3],
  ['first stage, 4 levels, up to 1 GiB', FIRST_STAGE, 4, 3],
  ['first stage, 5 levels, up to 2 MiB', FIRST_STAGE, 5, 2],
];

describe('PageTable', () => {
  test.each(variants)(`%s agrees with a Map (SEED=${seed})`, (_name, format, levels, largest) => {
    const memory = new PhysicalMemory(MEMORY);
    const before = memory.allocatedPages;
    const table = PageTable.create(memory, format, levels, largest) as PageTable;
    const pick = random(seed);
    const model = new Map<number, string>();
    let ranges: { page: number; pages: number }[] = [];
    const sizes = [1, 2, 3, 511, 512, 513, 1024, 1500, GIBIBYTE];
    const starts = [0, 1, 511, 512, 1024, 5000, 2 ** 18, 2 ** 18 + 512, 2 ** 20, 2 ** 26];
    for (let step = 0; step < 50; step++) {
      if (pick(3) > 0) {
        const pages = sizes[pick(largest === 3 ? sizes.length : sizes.length - 1)];
        const near = starts[pick(starts.length)] + pick(3) * 512;
        const page = pages < GIBIBYTE ? near : near - (near % GIBIBYTE);
        if (ranges.some((r) => r.page < page + pages && r.page + r.pages > page)) continue;
        const physical = pages === GIBIBYTE || pick(2) ? page * PAGE : 2 ** 32 + pick(1000) * PAGE;
        const protection = 1 + pick(3);
        expect(table.map(page, physical, pages, protection)).toBe(0);
        ranges.push({ page, pages });
        const flags = format.leaf(protection).toString(16);
        for (let i = 0; i < pages; i += pages > 2000 ? 509 : 1)
          model.set(page + i, `${physical + i * PAGE}:${flags}`);
      } else if (ranges.length > 0) {
        const range = ranges[pick(ranges.length)];
        ranges = ranges.filter((other) => other !== range);
        for (const emptied of table.unmap(range.page, range.pages)) memory.freePage(emptied);
        for (const page of [...model.keys()])
          if (page >= range.page && page < range.page + range.pages) model.delete(page);
        expect(lookUp(memory, table, range.page)).toBeUndefined();
        expect(lookUp(memory, table, range.page + range.pages - 1)).toBeUndefined();
      }
    }
    for (const [page, expected] of model) expect(lookUp(memory, table, page)).toBe(expected);
    for (const range of ranges)
      for (const emptied of table.unmap(range.page, range.pages)) memory.freePage(emptied);
    // Nothing but the top table is left.
    expect(memory.allocatedPages).toBe(before + 1);
    table.free();
    expect(memory.allocatedPages).toBe(before);
  });

  test('free gives back a full table too', () => {
    const memory = new PhysicalMemory(MEMORY);
    const table = PageTable.create(memory, SECOND_STAGE, 4, 1) as PageTable;
    table.map(0, 2 ** 32, 2000, 3);
    table.map(2 ** 30, 2 ** 32, 1, 3);
    expect(memory.allocatedPages).toBeGreaterThan(6);
    table.free();
    expect(memory.allocatedPages).toBe(0);
  });

  test('without memory nothing is mapped, and everything can be freed', () => {
    const memory = new PhysicalMemory(8 * PAGE);
    const table = PageTable.create(memory, SECOND_STAGE, 4, 1) as PageTable;
    expect(table.map(0, 2 ** 32, 5 * 512, 3)).toBe(-errno.ENOMEM);
    for (const page of [0, 1, 511, 512, 2000]) expect(lookUp(memory, table, page)).toBeUndefined();
    expect(table.map(0, 2 ** 32, 512, 3)).toBe(0);
    expect(lookUp(memory, table, 511)).toBe(`${2 ** 32 + 511 * PAGE}:3`);
    table.free();
    expect(memory.allocatedPages).toBe(0);
    while (memory.allocatePage() >= 0);
    expect(PageTable.create(memory, SECOND_STAGE, 4, 1)).toBe(-errno.ENOMEM);
  });
});
