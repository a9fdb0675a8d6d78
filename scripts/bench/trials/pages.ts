/** What every side of the translate figures maps and asks for; translate.c has the same numbers. */

/** Halves of the first page's I/O virtual address. */
export const IOVA_HIGH = 0x7f;
export const IOVA_LOW = 0x4000_0000;
/** Host address of the last page: the first I/O page is mapped to the highest. */
export const TARGET = 0x5_0000_0000;
/** Translations in a timed batch. */
export const CALLS = 1024;

const SEED = 0x2545_f491;

/** xorshift32 (Marsaglia, 2003). */
function random(seed: number): () => number {
  let state = seed;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state >>> 0;
  };
}

/**
 * Low halves of the addresses to ask for, signed: every page once in random order, again and again until there is a
 * batch of them. The offset in the page grows from one to the next. Odd pages are written, even ones read.
 */
export function addressOrder(pages: number): Int32Array {
  // So that batches and rounds through the pages fit into each other.
  if (!(pages >= 1 && Number.isInteger(Math.log2(pages))))
    throw new RangeError(`${pages} is no power of two`);
  const next = random(SEED);
  const order = new Int32Array(Math.max(pages, CALLS));
  for (let from = 0; from < order.length; from += pages) {
    for (let i = 0; i < pages; i++) order[from + i] = i;
    for (let i = pages - 1; i > 0; i--) {
      const j = next() % (i + 1);
      [order[from + i], order[from + j]] = [order[from + j], order[from + i]];
    }
  }
  return order.map((page, i) => IOVA_LOW + page * 4096 + ((i * 64) & 0xfff));
}

/** Host address of page `index` of `pages`. */
export function targetOf(index: number, pages: number): number {
  return TARGET + 4096 * (pages - 1 - index);
}

/** Folds one result, as halves, into a check of all of them (FNV-1a over words). */
export function fold(check: number, high: number, low: number): number {
  return Math.imul(Math.imul(check ^ low, 0x0100_0193) ^ high, 0x0100_0193) >>> 0;
}
