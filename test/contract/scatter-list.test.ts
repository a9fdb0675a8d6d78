import { Edu } from './edu';
import { errorOf, fill, openEdu, PAGE } from './support';

function setUp() {
  const { iommu, device } = openEdu();
  const space = iommu.createAddressSpace();
  device.attach(space);
  return { iommu, space, edu: new Edu(device) };
}

test('bytes of several buffers, in order, mapped while the list is open', async () => {
  const { iommu, space, edu } = setUp();
  const [one, other] = [iommu.allocateDma(2 * PAGE), iommu.allocateDma(PAGE)];
  fill(one.bytes, 1);
  fill(other.bytes, 2);
  const list = space.mapScatter([
    { buffer: one, offset: PAGE - 100, length: 300 },
    { buffer: other, offset: 8, length: 16 },
    { buffer: other, length: 1 },
  ]);
  expect(list.length).toBe(317);
  expect(list.segments.map(({ length }) => length)).toEqual([300, 16, 1]);
  expect(list.segments.map(({ iova }) => Number(iova % BigInt(PAGE)))).toEqual([PAGE - 100, 8, 0]);
  expect(space.mappings.map(({ length }) => length).sort((one, other) => one - other)).toEqual([
    PAGE,
    PAGE,
    2 * PAGE,
  ]);
  let at = 0;
  for (const { iova, length } of list.segments) {
    await edu.fetch(iova, length, at);
    at += length;
  }
  const target = space.createPool().allocate(317);
  await edu.store(target.iova, 317);
  expect([...target.bytes]).toEqual([
    ...one.bytes.subarray(PAGE - 100, PAGE + 200),
    ...other.bytes.subarray(8, 24),
    other.bytes[0],
  ]);
  list.close();
  list.close();
  expect(space.mappings.map(({ buffer }) => buffer)).not.toContain(one);
});

test("the program's own arrays, wherever they lie, are pinned where they are", async () => {
  const { space, edu } = setUp();
  const whole = fill(Buffer.alloc(3 * PAGE), 4);
  const small = Buffer.from('a few bytes out of the middle of a slab');
  const source = [whole.subarray(PAGE - 7, PAGE + 500), small];
  const list = space.mapScatter(source, { write: false });
  expect(list.length).toBe(507 + small.length);
  const target = new Uint8Array(2 * PAGE).fill(0xee);
  const into = space.mapScatter([target.subarray(1001, 1001 + list.length)], { read: false });
  let at = 0;
  for (const { iova, length } of list.segments) {
    await edu.fetch(iova, length, at);
    at += length;
  }
  at = 0;
  for (const { iova, length } of into.segments) {
    await edu.store(iova, length, at);
    at += length;
  }
  const expected = new Uint8Array(2 * PAGE).fill(0xee);
  expected.set(Buffer.concat(source), 1001);
  expect(Buffer.compare(target, expected)).toBe(0);
  const [{ iova }] = into.segments;
  list.close();
  into.close();
  expect(space.mappings.length).toBe(0);
  await edu.store(iova, 100);
  expect(Buffer.compare(target, expected)).toBe(0);
});

test('what devices reach already is not mapped again; neighbours are one segment', () => {
  const { iommu, space } = setUp();
  const slice = space.createPool().allocate(100);
  const mapping = space.map(iommu.allocateDma(PAGE), { iova: 0x100000n });
  const next = space.map(iommu.allocateDma(PAGE), { iova: 0x101000n });
  using list = space.mapScatter([slice, mapping, next]);
  expect(list.segments).toEqual([
    { iova: slice.iova, length: 100 },
    { iova: 0x100000n, length: 2 * PAGE },
  ]);
  expect(space.mappings.length).toBe(3);
  list.close();
  expect([mapping.mapped, slice.freed]).toEqual([true, false]);
});

test('a list that cannot be made leaves nothing mapped', () => {
  const { iommu, space } = setUp();
  const buffer = iommu.allocateDma(PAGE);
  const gone = space.createPool().allocate(64);
  gone.free();
  const unmapped = space.map(buffer);
  unmapped.unmap();
  const elsewhere = iommu.createAddressSpace();
  const foreign = elsewhere.map(buffer);
  const closed = iommu.allocateDma(PAGE);
  closed.close();
  const shared = new Uint8Array(new SharedArrayBuffer(64));
  const before = space.mappings.length;
  for (const bad of [gone, unmapped, foreign, elsewhere.createPool().allocate(1), shared, 5, {}])
    expect(() => space.mapScatter([buffer, bad as typeof buffer])).toThrow(TypeError);
  expect(() => space.mapScatter([buffer, { buffer, offset: PAGE, length: 1 }])).toThrow(RangeError);
  const detached = new Uint8Array(64);
  structuredClone(detached.buffer, { transfer: [detached.buffer] });
  for (const none of [new Uint8Array(0), detached])
    expect(() => space.mapScatter([new Uint8Array(10), none])).toThrow(RangeError);
  expect(() => space.mapScatter([])).toThrow(TypeError);
  expect(errorOf(() => space.mapScatter([buffer, closed]))).toMatchObject({ code: 'EBADF' });
  expect(space.mappings.length).toBe(before);
});

test('memory goes with its buffer, and the list does not mind', () => {
  const { iommu, space } = setUp();
  const buffer = iommu.allocateDma(PAGE);
  const list = space.mapScatter([buffer], { write: false });
  expect(space.mappings[0]).toMatchObject({ read: true, write: false });
  buffer.close();
  expect(space.mappings.length).toBe(0);
  list.close();
});
