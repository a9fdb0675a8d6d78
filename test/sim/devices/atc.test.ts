import {
  ACCESS_EXECUTE,
  ACCESS_PRIVILEGED,
  ACCESS_READ,
  ACCESS_WRITE,
  NO_PASID,
  type TranslationCompletion,
} from '../../../lib/sim/bus';
import { pageHigh, pageLow, pageNumber, permits, TranslationCache } from '../../../lib/sim/devices/atc';

const completion = (change: Partial<TranslationCompletion> = {}): TranslationCompletion => ({
  success: true,
  high: 0,
  low: 0x50_0000,
  length: 4096,
  read: true,
  write: true,
  execute: false,
  privileged: false,
  global: false,
  untranslatedOnly: false,
  snooped: false,
  ...change,
});

test('page numbers are exact up to the last page of 64 bits', () => {
  for (const [high, low] of [
    [0, 0],
    [0, 0xfffff000],
    [1, 0],
    [0xffffffff, 0xfffff000],
    [0x80000000, 0x80000000],
  ]) {
    const page = pageNumber(high, low);
    expect([pageHigh(page), pageLow(page)]).toEqual([high, low]);
  }
  expect(pageNumber(0xffffffff, 0xffffffff)).toBe(2 ** 52 - 1);
});

test('a range is found by every page in it, and translated', () => {
  const cache = new TranslationCache();
  cache.insert(5, 0x1234, completion({ high: 2, low: 0x40_0000, length: 0x20_0000 }));
  const entry = cache.find(5, 0x1200, ACCESS_WRITE);
  expect(entry).toBeGreaterThanOrEqual(0);
  expect(cache.find(5, 0x13ff, ACCESS_WRITE)).toBe(entry);
  expect(cache.translate(entry, 0x1234)).toBe(2 * 2 ** 20 + 0x400 + 0x34);
  expect(cache.find(5, 0x11ff, ACCESS_READ)).toBe(-1);
  expect(cache.find(5, 0x1400, ACCESS_READ)).toBe(-1);
  expect(cache.find(6, 0x1234, ACCESS_READ)).toBe(-1);
  expect(cache.find(NO_PASID, 0x1234, ACCESS_READ)).toBe(-1);
});

test.each([
  [ACCESS_READ, { read: true, write: false }, true],
  [ACCESS_READ, { read: false, write: true }, false],
  [ACCESS_WRITE, { read: true, write: false }, false],
  [ACCESS_WRITE, { read: false, write: true }, true],
  [ACCESS_EXECUTE, { execute: false }, false],
  [ACCESS_EXECUTE, { execute: true }, true],
  [ACCESS_EXECUTE, { read: false, execute: true }, false],
  [ACCESS_PRIVILEGED, { privileged: false }, false],
  [ACCESS_PRIVILEGED | ACCESS_WRITE, { privileged: true }, true],
  [ACCESS_READ, { privileged: true }, false],
])('access %p of %p: %p', (access, change, expected) => {
  const cache = new TranslationCache();
  const answer = completion(change);
  cache.insert(1, 7, answer);
  expect(cache.find(1, 7, access) >= 0).toBe(expected);
  expect(permits(answer, access)).toBe(expected);
});

test('no permission at all is not kept', () => {
  const cache = new TranslationCache();
  cache.insert(1, 7, completion({ read: false, write: false }));
  cache.insert(1, 8, completion({ success: false }));
  expect(cache.size).toBe(0);
});

test('a new completion replaces the old ones of its range', () => {
  const cache = new TranslationCache();
  cache.insert(1, 7, completion({ write: false }));
  cache.insert(1, 7, completion({ low: 0x60_0000 }));
  expect(cache.size).toBe(1);
  expect(cache.translate(cache.find(1, 7, ACCESS_WRITE), 7)).toBe(0x600);
  cache.insert(1, 5, completion({ length: 0x1_0000, low: 0x70_0000 }));
  expect(cache.size).toBe(1);
});

test('an invalidation drops what overlaps, of its PASID', () => {
  const cache = new TranslationCache();
  const fill = (): void => {
    cache.clear();
    cache.insert(1, 0x10, completion());
    cache.insert(1, 0x11, completion());
    cache.insert(2, 0x10, completion());
    cache.insert(NO_PASID, 0x10, completion());
    cache.insert(1, 0x400, completion({ length: 0x20_0000, low: 0 }));
  };
  fill();
  expect(cache.invalidate(1, 0, 0x10000, 4096, false)).toBe(1);
  expect(cache.find(1, 0x10, ACCESS_READ)).toBe(-1);
  expect(cache.find(1, 0x11, ACCESS_READ)).not.toBe(-1);
  expect(cache.find(2, 0x10, ACCESS_READ)).not.toBe(-1);
  fill();
  expect(cache.invalidate(NO_PASID, 0, 0, 2 ** 64, false)).toBe(1);
  fill();
  expect(cache.invalidate(9, 0, 0, 2 ** 64, true)).toBe(4);
  expect(cache.find(NO_PASID, 0x10, ACCESS_READ)).not.toBe(-1);
  fill();
  // One page in the middle of a 2 MiB range.
  expect(cache.invalidate(1, 0, 0x450000, 4096, false)).toBe(1);
  expect(cache.find(1, 0x400, ACCESS_READ)).toBe(-1);
  fill();
  expect(cache.invalidate(1, 0, 0xf000, 4096, false)).toBe(0);
  expect(cache.invalidate(1, 0, 0x12000, 4096, false)).toBe(0);
});

test('a global translation serves every PASID, and falls with any', () => {
  const cache = new TranslationCache();
  cache.insert(1, 7, completion({ global: true }));
  expect(cache.find(2, 7, ACCESS_READ)).not.toBe(-1);
  expect(cache.find(NO_PASID, 7, ACCESS_READ)).toBe(-1);
  expect(cache.invalidate(2, 0, 0x7000, 4096, false)).toBe(1);
  expect(cache.size).toBe(0);
});

test('a full cache makes room', () => {
  const cache = new TranslationCache(4);
  for (let page = 0; page < 20; page++) {
    cache.insert(1, page, completion({ low: page * 4096 }));
    expect(cache.translate(cache.find(1, page, ACCESS_READ), page)).toBe(page);
    expect(cache.size).toBe(Math.min(page + 1, 4));
  }
  expect(() => new TranslationCache(0)).toThrow(RangeError);
});
