import { extensionNames, type Extension } from '../../lib';
import { openMock } from './mock-objects';
import { open } from './support';

describe('checkExtension', () => {
  test('answers for what this kernel has, and changes nothing', () => {
    const iommu = open();
    const missing = extensionNames.filter((name) => !iommu.checkExtension(name));
    expect(missing).toContain('EXT_USER_PASID_TABLE');
    for (const name of [
      'EXT_MAP_TYPE1V2',
      'EXT_IOASID_NESTING',
      'EXT_USER_PAGE_TABLE',
      'EXT_MULTIDEV_GROUP',
      'EXT_DIRTY_TRACKING',
      'EXT_PAGE_FAULT',
      'EXT_PASID',
      'EXT_HARDWARE_QUEUE',
    ] as const)
      expect(missing).not.toContain(name);
    expect(iommu.createAddressSpace().ioasId).toBe(1);
  });

  test('mock devices are there where the kernel was built with them', () => {
    expect(openMock().checkExtension('EXT_MOCK_DEVICE')).toBe(true);
  });

  test.each(['EXT_NOTHING', '', 'toString', undefined, 7])('%p is no extension', (name) => {
    expect(() => open().checkExtension(name as Extension)).toThrow(TypeError);
  });

  test('a closed Iommu has none', () => {
    const iommu = open();
    iommu.close();
    expect(() => iommu.checkExtension('EXT_PASID')).toThrow('EBADF');
  });
});
