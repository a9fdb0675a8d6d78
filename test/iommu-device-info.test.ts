/** The parts of device information that no machine at hand shows. */
import { Iommu } from '../lib';
import { decodeHardwareData, type HardwareInfo, type HardwareType } from '../lib/hardware-info';
import { readReserved, subtract } from '../lib/iommu-device-info';
import { Machine } from '../lib/sim';
import { formatMismatch, formatsOf } from '../lib/table-formats';
import * as uapi from '../lib/uapi';
import { errorOf } from './contract/support';
import { ScriptedKernel } from './scripted-kernel';

function hardware(type: HardwareType): HardwareInfo {
  const capabilities = { dirtyTracking: false, pasidExecute: false, pasidPrivileged: false, ats: true };
  const data = new Uint8Array(128);
  return {
    ...{ type, dataType: 1, maxPasidLog2: 0, capabilities, data },
    ...decodeHardwareData(type, data),
  };
}

test('reserved regions come from sysfs; those that may be relaxed do not count', () => {
  const kernel = new ScriptedKernel();
  kernel.texts.set(
    '/sys/bus/pci/devices/0000:00:02.0/iommu_group/reserved_regions',
    [
      '0x0000000000000000 0x0000000000ffffff direct-relaxable',
      '0x000000008d800000 0x000000008fffffff direct',
      '0x00000000fee00000 0x00000000feefffff msi\n',
    ].join('\n'),
  );
  expect(readReserved(kernel, '0000:00:02.0')).toEqual([
    { start: 0x8d80_0000n, last: 0x8fff_ffffn },
    { start: 0xfee0_0000n, last: 0xfeef_ffffn },
  ]);
  expect(readReserved(kernel, '0000:00:03.0')).toEqual([]);
});

test.each([
  [[], [[0n, 100n]]],
  [
    [{ start: 10n, last: 19n }],
    [
      [0n, 10n],
      [20n, 80n],
    ],
  ],
  [
    [
      { start: 0n, last: 19n },
      { start: 90n, last: 200n },
    ],
    [[20n, 70n]],
  ],
  [[{ start: 100n, last: 200n }], [[0n, 100n]]],
  [[{ start: 0n, last: 99n }], []],
])('%p leaves %p', (reserved, left) => {
  expect(subtract([{ iova: 0n, length: 100n }], reserved)).toEqual(
    left.map(([iova, length]) => ({ iova, length })),
  );
});

test('each IOMMU takes its own format, and SMMUv3 and AMD whole PASID tables', () => {
  expect(formatsOf(hardware('intel-vtd'))).toEqual({ pageTables: ['vtd-s1'], pasidTables: [] });
  for (const [type, format] of [
    ['arm-smmuv3', 'arm-smmuv3'],
    ['amd', 'amd-guest'],
  ] as const)
    expect(formatsOf(hardware(type))).toEqual({ pageTables: [format], pasidTables: [format] });
  expect(formatsOf({ ...hardware('amd'), type: 'unknown' })).toEqual({ pageTables: [], pasidTables: [] });
  const text = 'its IOMMU takes an SMMUv3 stream table entry, and this is an AMD device table entry';
  expect(formatMismatch(hardware('arm-smmuv3'), uapi.IOMMU_HWPT_DATA_AMD_GUEST)).toBe(text);
  expect(formatMismatch(hardware('amd'), uapi.IOMMU_HWPT_DATA_AMD_GUEST)).toBeUndefined();
  expect(formatMismatch(hardware('amd'), 0xdead)).toBeUndefined();
});

test('a table of another format is refused at attach, which says why', () => {
  using iommu = Iommu.open({ backend: new Machine() });
  const device = iommu.bind('0000:00:05.0', { cookie: 1 });
  const parent = iommu.createAddressSpace({ nestParent: true });
  const space = iommu.createAddressSpace({ parent, pageTable: { ste: [1n, 2n] } });
  expect(errorOf(() => device.attach(space))).toMatchObject({
    code: 'EOPNOTSUPP',
    request: 'IOMMU_HWPT_ALLOC',
    hint: 'its IOMMU takes a VT-d first-stage table, and this is an SMMUv3 stream table entry',
  });
  expect([device.attached(), space.attachments]).toEqual([undefined, []]);
});
