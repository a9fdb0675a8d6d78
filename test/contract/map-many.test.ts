/** Many mappings at once. */
import type { IommuError, Mapping } from '../../lib';
import * as uapi from '../../lib/uapi';
import { IOVA, openMock } from './mock-objects';
import { errorOf, PAGE } from './support';

function setUp() {
  const iommu = openMock();
  const space = iommu.createAddressSpace();
  const device = iommu.createMockDevice({ cookie: 1 });
  device.attach(space);
  return { iommu, space, device, buffer: iommu.allocateDma(4 * PAGE) };
}

const at = (page: number) => IOVA + BigInt(page * PAGE);
/** More than a batch has room for, twice. */
const MANY = 600;

/** IOAS_UNMAP behind the back of the space. */
function unmapRaw({ iommu, space }: ReturnType<typeof setUp>, { iova, length }: Mapping): void {
  const { struct, request } = uapi.IOMMU_IOAS_UNMAP;
  const bytes = struct.encode({ size: struct.size, ioas_id: space.ioasId, iova, length });
  expect(iommu.kernel.ioctl(iommu.fd, request, bytes)).toBe(0);
}

describe('mapMany', () => {
  test('maps as map() does, in that order', () => {
    const { iommu, space, device, buffer } = setUp();
    const file = iommu.allocateDma(2 * PAGE, { memfd: true });
    const other = iommu.createAddressSpace().map(buffer, { write: false });
    const mappings = space.mapMany([
      { source: buffer, iova: at(9), offset: PAGE, length: PAGE },
      { source: file },
      { source: other, iova: at(2), offset: 2 * PAGE },
      { source: buffer, length: PAGE, write: false },
    ]);
    expect(mappings.map(({ iova, offset, length, write }) => [iova, offset, length, write])).toEqual([
      [at(9), PAGE, PAGE, true],
      [at(0), 0, 2 * PAGE, true],
      [at(2), 2 * PAGE, 2 * PAGE, false],
      [at(4), 0, PAGE, false],
    ]);
    for (const { iova, buffer: memory, offset, length } of mappings)
      expect(device.translates(iova, memory, { offset, length })).toBe(true);
    expect(space.mappings).toHaveLength(4);
    buffer.close();
    expect(mappings.map(({ mapped }) => mapped)).toEqual([false, true, false, false]);
    expect(space.mapMany([])).toEqual([]);
  });

  test('takes more than a batch has room for', () => {
    const { space, device, buffer } = setUp();
    const mappings = space.mapMany(
      Array.from({ length: MANY }, (_, i) => ({ source: buffer, offset: (i % 4) * PAGE, length: PAGE })),
    );
    expect(mappings.map(({ iova }) => iova)).toEqual(Array.from({ length: MANY }, (_, i) => at(i)));
    for (const i of [0, 254, 255, 256, 510, MANY - 1])
      expect(device.translates(at(i), buffer, { offset: (i % 4) * PAGE, length: PAGE })).toBe(true);
    expect(space.unmapAll()).toBe(MANY * PAGE);
  });

  test.each([0, 1, 300, MANY - 1])('maps nothing where entry %i is refused', (index) => {
    const { space, device, buffer } = setUp();
    const taken = space.map(buffer, { iova: at(index), length: PAGE });
    const error = errorOf(() =>
      space.mapMany(Array.from({ length: MANY }, (_, i) => ({ source: buffer, iova: at(i), length: PAGE }))),
    ) as IommuError;
    expect(error).toMatchObject({ code: 'EEXIST', request: 'IOMMU_IOAS_MAP' });
    expect(error.hint).toContain('unmap it first');
    expect(error.hint).toContain(`entry ${index}, from 0, of those to map`);
    expect(space.mappings).toEqual([taken]);
    expect(device.translates(at(index), buffer, { length: PAGE })).toBe(true);
    expect(space.unmapAll()).toBe(PAGE);
  });

  test('maps nothing where an entry makes no sense', () => {
    const { space, buffer } = setUp();
    const good = { source: buffer, iova: at(0) };
    expect(() => space.mapMany([good, { source: buffer, offset: 5 * PAGE }])).toThrow(RangeError);
    expect(() => space.mapMany([good, {} as typeof good])).toThrow(TypeError);
    expect(() => space.mapMany([good, undefined as unknown as typeof good])).toThrow(TypeError);
    expect(() => space.mapMany(5 as unknown as (typeof good)[])).toThrow(TypeError);
    expect(space.mappings).toEqual([]);
  });

  test('reaches nested spaces, or nothing does', () => {
    const { iommu, space, buffer } = setUp();
    const nested = iommu.createAddressSpace({ parent: space });
    const device = iommu.createMockDevice({ cookie: 2 });
    device.attach(nested);
    nested.map({ iova: at(0), length: 8 * PAGE }, { iova: at(100) });
    const entries = [0, 1, 2].map((i) => ({ source: buffer, iova: at(i), length: PAGE }));
    const mappings = space.mapMany(entries);
    expect(nested.shadow.map(({ iova }) => iova)).toEqual([at(100), at(101), at(102)]);
    space.unmapMany(mappings.slice(1));
    expect(nested.shadow.map(({ iova }) => iova)).toEqual([at(100)]);
    expect(device.translates(at(100), buffer, { length: PAGE })).toBe(true);
    expect(errorOf(() => space.mapMany([{ ...entries[2] }, entries[0]]))).toMatchObject({ code: 'EEXIST' });
    expect(nested.shadow.map(({ iova }) => iova)).toEqual([at(100)]);
  });
});

describe('unmapMany', () => {
  test('unmaps those, passes over what is gone, and is over with each', () => {
    const { space, device, buffer } = setUp();
    const mappings = space.mapMany(Array.from({ length: MANY }, () => ({ source: buffer, length: PAGE })));
    mappings[3].unmap();
    space.unmapMany([mappings[0], mappings[0], ...mappings.slice(2)]);
    expect(space.mappings).toEqual([mappings[1]]);
    expect(mappings.filter(({ mapped }) => mapped)).toEqual([mappings[1]]);
    expect(device.translates(at(1), buffer, { length: PAGE })).toBe(true);
    space.unmapMany([]);
  });

  test('stops where the kernel refuses, and says how far it got', () => {
    const world = setUp();
    const { space, buffer } = world;
    const mappings = space.mapMany(Array.from({ length: MANY }, () => ({ source: buffer, length: PAGE })));
    unmapRaw(world, mappings[400]);
    const error = errorOf(() => space.unmapMany(mappings)) as IommuError;
    expect(error).toMatchObject({ code: 'ENOENT', request: 'IOMMU_IOAS_UNMAP' });
    expect(error.hint).toContain(`the first 400 of the ${MANY} mappings are gone`);
    expect(mappings.map(({ mapped }) => mapped)).toEqual(mappings.map((_, i) => i >= 400));
    space.unmapMany(mappings.slice(401));
    expect(space.mappings).toEqual([mappings[400]]);
  });

  test('takes mappings of this space only, and then unmaps none', () => {
    const { iommu, space, buffer } = setUp();
    const [own, stranger] = [space.map(buffer), iommu.createAddressSpace().map(buffer)];
    for (const wrong of [stranger, undefined, {}])
      expect(() => space.unmapMany([own, wrong as Mapping])).toThrow(TypeError);
    expect(own.mapped).toBe(true);
  });
});
