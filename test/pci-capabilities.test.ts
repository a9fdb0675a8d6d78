import type { Region } from '../lib';
import { findCapability, listCapabilities } from '../lib/pci-capabilities';

/** Configuration space of these 32-bit words, by offset. */
function config(words: Record<number, number>, size = 4096): Region {
  const view = new DataView(new ArrayBuffer(size));
  for (const [offset, word] of Object.entries(words)) view.setUint32(Number(offset), word, true);
  const fake = {
    size,
    read8: (offset: number) => view.getUint8(offset),
    read16: (offset: number) => view.getUint16(offset, true),
    read32: (offset: number) => view.getUint32(offset, true),
  };
  return fake as unknown as Region;
}

const LIST = { 0x04: 1 << 20, 0x34: 0x40 };
const ids = (region: Region) =>
  listCapabilities(region).map(({ id, offset }) => `${id}@${offset.toString(16)}`);

test('both lists, with names and versions', () => {
  const region = config({
    ...LIST,
    0x40: 0x5001,
    0x50: 0x6011,
    0x60: 0x00fe,
    0x100: 0x2001000f,
    0x200: 0x00020003,
  });
  expect(listCapabilities(region)).toEqual([
    { id: 1, name: 'power-management', offset: 0x40, extended: false, version: 0 },
    { id: 0x11, name: 'msix', offset: 0x50, extended: false, version: 0 },
    { id: 0xfe, name: undefined, offset: 0x60, extended: false, version: 0 },
    { id: 0x0f, name: 'ats', offset: 0x100, extended: true, version: 1 },
    { id: 0x03, name: 'serial-number', offset: 0x200, extended: true, version: 2 },
  ]);
  // 3 is another capability in the first list.
  expect(findCapability(region, 'vital-product-data')).toBeUndefined();
  expect(findCapability(region, 'serial-number')?.offset).toBe(0x200);
});

test('the first extended capability may be hidden', () => {
  expect(ids(config({ 0x100: 0x14000000, 0x140: 0x0001001b }))).toEqual(['27@140']);
});

test('lists that lead back, out or nowhere end', () => {
  expect(ids(config({ ...LIST, 0x40: 0x5005, 0x50: 0x4011 }))).toEqual(['5@40', '17@50']);
  expect(ids(config({ ...LIST, 0x40: 0x4005 }))).toEqual(['5@40']);
  expect(ids(config({ ...LIST, 0x40: 0x1005 }))).toEqual(['5@40']);
  expect(ids(config({ 0x100: 0x1000000f }))).toEqual(['15@100']);
  expect(ids(config({ 0x100: 0x0040000f }))).toEqual(['15@100']);
  expect(ids(config({ 0x100: 0xffc0000f, 0xffc: 0x0001000b }))).toEqual(['15@100', '11@ffc']);
});

test('a function without lists, without extended space, or that is gone', () => {
  expect(ids(config({ 0x34: 0x40, 0x40: 0x0005 }))).toEqual([]);
  expect(ids(config({ ...LIST, 0x40: 0x0005 }, 256))).toEqual(['5@40']);
  const ones = { size: 4096, read8: () => 0xff, read16: () => 0xffff, read32: () => 0xffffffff };
  expect(ids(ones as unknown as Region)).toEqual([]);
});
