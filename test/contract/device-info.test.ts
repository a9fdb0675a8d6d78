import { backend, EDU, errorOf, open, openEdu, PAGE } from './support';
import { lowestId, openMock } from './mock-objects';

describe('what a device says of address spaces, by its cookie', () => {
  test('is what an address space says once the device is attached', () => {
    const { iommu, device } = openEdu(0xed0n);
    const before = lowestId(iommu);
    const info = iommu.deviceInfo(0xed0);
    expect(lowestId(iommu)).toBe(before);
    const space = iommu.createAddressSpace();
    device.attach(space);
    expect(info.iovaRanges).toEqual(space.iovaRanges());
    expect(info.iovaRanges.length).toBeGreaterThan(1);
    expect(info).toMatchObject({ cookie: 0xed0n, name: EDU, pasidBits: 0, dirtyTracking: false });
    expect(info.pageSizes).toEqual([space.alignment, 2 ** 21, 2 ** 30]);
    // While it is attached, too.
    expect(iommu.deviceInfo(0xed0n)).toEqual(info);
  });

  test('says how nesting is done, and whose tables fit', () => {
    const { iommu } = openEdu();
    const { nesting, userPageTables, userPasidTables, enforceSnoop } = iommu.deviceInfo(0xed0);
    // QEMU's unit of the guest has no nested translation, and no snoop control.
    const nests = backend === 'simulated';
    expect({ nesting, userPageTables, userPasidTables, enforceSnoop }).toEqual({
      nesting: nests ? 'hardware' : 'software',
      userPageTables: nests ? ['vtd-s1'] : [],
      userPasidTables: [],
      enforceSnoop: nests,
    });
  });

  test('tells devices apart', () => {
    const iommu = openMock();
    for (const cookie of [1n, 2n ** 64n - 1n]) iommu.createMockDevice({ cookie });
    const info = iommu.deviceInfo(2n ** 64n - 1n);
    expect(info.iovaRanges).toEqual([{ iova: 0x100_0000n, length: 0x7f00_0000n }]);
    expect(info).toMatchObject({ cookie: 2n ** 64n - 1n, pageSizes: [PAGE / 2], nesting: 'hardware' });
    expect(info).toMatchObject({ enforceSnoop: undefined, dirtyTracking: true, userPageTables: [] });
    expect(info.name).not.toBe(iommu.deviceInfo(1).name);
  });

  test('a cookie that names nobody is ENODEV', () => {
    const { iommu, device } = openEdu();
    expect(errorOf(() => iommu.deviceInfo(7))).toMatchObject({
      code: 'ENODEV',
      reason: 'no device is bound with the cookie 0x7',
    });
    expect(() => iommu.deviceInfo('7' as never)).toThrow(TypeError);
    expect(() => iommu.deviceInfo(-1)).toThrow(RangeError);
    device.close();
    expect(errorOf(() => iommu.deviceInfo(0xed0))).toMatchObject({ code: 'ENODEV' });
    expect(() => open().deviceInfo(0xed0)).toThrow('ENODEV');
    iommu.close();
    expect(() => iommu.deviceInfo(0xed0)).toThrow('EBADF');
  });
});
