/** The selftest IOMMU's table against a model: one entry per 2 KiB, and pages found by trying every size. */
import { DEFAULT_FORMAT, HUGE_FORMAT, MockPagingDomain } from '../../../lib/sim/kernel/mock/domain';

const SEED = Number(process.env['SEED'] ?? Date.now() % 2 ** 31);
const GRANULE = 2048;
const START = 2 ** 24 / GRANULE;
const PAGES = 4096;

function generator(seed: number): (below: number) => number {
  let state = seed | 1;
  return (below) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % below;
  };
}

/** First page and size in pages of the leaf that holds `page` of a mapping, by the definition. */
function leafOf(page: number, mapping: { first: number; pages: number; physical: number }): [number, number] {
  for (let size = 2 ** 20; size > 1; size /= 2) {
    const first = Math.floor(page / size) * size;
    const frame = mapping.physical / GRANULE + (first - mapping.first);
    const fits = first >= mapping.first && first + size <= mapping.first + mapping.pages;
    if (fits && frame % size === 0) return [first, size];
  }
  return [page, 1];
}

const bytes = (page: number) => BigInt(page) * BigInt(GRANULE);

test(`random mappings translate and get dirty page by page (SEED=${SEED})`, () => {
  const random = generator(SEED);
  const domain = new MockPagingDomain(DEFAULT_FORMAT, true);
  const mappings: { first: number; pages: number; physical: number }[] = [];
  const dirty = new Set<number>();
  const find = (page: number) => mappings.find((m) => m.first <= page && page < m.first + m.pages);

  for (let round = 0; round < 3000; round++) {
    const page = START + random(PAGES);
    switch (random(4)) {
      case 0: {
        const pages = 1 + random(random(2) ? 8 : 600);
        if (mappings.some((m) => m.first < page + pages && page < m.first + m.pages)) break;
        const physical = (random(2) ? page : random(2 ** 20)) * GRANULE;
        expect(domain.map(page, physical, pages)).toBe(0);
        mappings.push({ first: page, pages, physical });
        break;
      }
      case 1: {
        const found = find(page);
        if (!found || random(3)) break;
        domain.unmap(found.first, found.pages);
        mappings.splice(mappings.indexOf(found), 1);
        for (let i = 0; i < found.pages; i++) dirty.delete(found.first + i);
        break;
      }
      case 2: {
        domain.dirty?.set(bytes(page) + BigInt(random(GRANULE)));
        const found = find(page);
        if (!found) break;
        const [first, size] = leafOf(page, found);
        for (let i = 0; i < size; i++) dirty.add(first + i);
        break;
      }
      default: {
        const found = find(page);
        const offset = random(GRANULE);
        const expected = found ? found.physical + (page - found.first) * GRANULE + offset : 0;
        expect(domain.translate(bytes(page) + BigInt(offset))).toBe(expected);
        if (!found) break;
        const keep = random(2) === 1;
        const seen: number[] = [];
        const last = bytes(found.first + found.pages) - 1n;
        domain.dirty?.read(bytes(found.first), last, keep, (start, length) => {
          for (let at = start; at < start + length; at += BigInt(GRANULE)) seen.push(Number(at) / GRANULE);
        });
        const all = Array.from({ length: found.pages }, (_, i) => found.first + i);
        expect(seen).toEqual(all.filter((each) => dirty.has(each)));
        if (!keep) for (const each of all) dirty.delete(each);
      }
    }
  }
});

test('memory that is contiguous and aligned is one dirty page, whatever is read of it', () => {
  const domain = new MockPagingDomain(DEFAULT_FORMAT, true);
  domain.map(START, 2 ** 32, 512);
  domain.dirty?.set(bytes(START + 300));
  const seen: [bigint, bigint][] = [];
  domain.dirty?.read(bytes(START + 5), bytes(START + 6) - 1n, false, (start, length) =>
    seen.push([start, length]),
  );
  expect(seen).toEqual([[bytes(START), 2n ** 20n]]);
});

test('the huge format has pages of 4 KiB and 1 MiB, and nothing between', () => {
  const domain = new MockPagingDomain(HUGE_FORMAT, true);
  const MEBIBYTE = 2 ** 20;
  domain.map(0, 2 ** 32, 256 + 128);
  const sizes: bigint[] = [];
  for (let at = 0; at < 1.5 * MEBIBYTE; at += 4096) domain.dirty?.set(BigInt(at));
  domain.dirty?.read(0n, BigInt(1.5 * MEBIBYTE) - 1n, true, (_start, length) => sizes.push(length));
  expect(sizes).toEqual([2n ** 20n, ...Array.from({ length: 128 }, () => 4096n)]);
});
