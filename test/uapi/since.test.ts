import { ADDITIONS, iommufdIoctls, newerThan, SINCE, vfioIoctls } from '../../lib/uapi';

test('every request has a version, and every version a request', () => {
  const names = [...iommufdIoctls, ...vfioIoctls].map(({ name }) => name);
  expect(Object.keys(SINCE).sort()).toEqual([...names].sort());
  for (const name of Object.keys(ADDITIONS)) expect(names).toContain(name);
  const versions = [
    ...Object.values(SINCE),
    ...Object.values(ADDITIONS)
      .flat()
      .map(({ since }) => since),
  ];
  for (const version of versions) expect(version).toMatch(/^\d\.\d+$/);
});

test('what was added to a request is newer than the request', () => {
  for (const [request, additions] of Object.entries(ADDITIONS))
    for (const { since, name } of additions) {
      const whole = newerThan(`Linux ${since}`, request, {});
      expect([name, whole, since === SINCE[request]]).toEqual([name, undefined, false]);
    }
});

test('the newest thing that a call uses decides', () => {
  const newer = (version: string, values: Record<string, unknown> = {}, request = 'IOMMU_HWPT_ALLOC') =>
    newerThan(version, request, values)?.name;
  expect(newer('Linux 6.5.0')).toBe('IOMMU_HWPT_ALLOC');
  expect(newer('Linux 6.6.0-rc1')).toBeUndefined();
  expect(newer('Linux 6.6', { flags: 1 })).toBe('IOMMU_HWPT_ALLOC_NEST_PARENT');
  expect(newer('Linux 6.10.3', { flags: 0b1100 })).toBe('IOMMU_HWPT_ALLOC_PASID');
  expect(newer('Linux 6.12.48+deb12-amd64', { flags: 0b0100, data_type: 2 })).toBe(
    'IOMMU_HWPT_DATA_ARM_SMMUV3',
  );
  expect(newer('Linux 6.19', { data_type: 3 })).toBe('IOMMU_HWPT_DATA_AMD_GUEST');
  expect(newer('Linux 7.3.4', { flags: 0xf, data_type: 3 })).toBeUndefined();
  expect(newer('something', { flags: 1 })).toBe('IOMMU_HWPT_ALLOC_NEST_PARENT');
  expect(newer('Linux 6.16', { type: 2 }, 'IOMMU_VIOMMU_ALLOC')).toBe('IOMMU_VIOMMU_TYPE_TEGRA241_CMDQV');
  expect(newer('Linux 2.6', {}, 'IOMMU_TEST_CMD')).toBeUndefined();
});
