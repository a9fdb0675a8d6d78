/** Every kind of hardware information, decoded by the names of its fields. */
import { Iommu } from '../lib';
import { decodeHardwareData } from '../lib/hardware-info';
import { Machine } from '../lib/sim';
import * as uapi from '../lib/uapi';
import { errorOf } from './contract/support';

test('VT-d: CAP_REG and ECAP_REG', () => {
  // Linux's line of a desktop's graphics unit, "cap 1c0000c40660462 ecap 19e2ff0505e"; then the fields of scalable mode.
  const desktop = uapi.iommu_hw_info_vtd.encode({ cap_reg: 0x1c0000c40660462n, ecap_reg: 0x19e2ff0505en });
  expect(decodeHardwareData('intel-vtd', desktop).vtd).toMatchObject({
    noReadOnlyParents: false,
    capReg: 0x1c0000c40660462n,
    cap: { ND: 2, CM: 0, SAGAW: 4, MGAW: 38, FRO: 0x40, SSLPS: 3, NFR: 0, PSI: 0, DWD: 1, DRD: 1, FS1GP: 1 },
    ecap: {
      C: 0,
      QI: 1,
      IR: 1,
      EIM: 1,
      PT: 1,
      IRO: 0x50,
      NEST: 1,
      PRS: 1,
      ERS: 0,
      SRS: 0,
      PSS: 19,
      PASID: 1,
    },
  });
  const server = uapi.iommu_hw_info_vtd.encode({
    flags: uapi.IOMMU_HW_INFO_VTD_ERRATA_772415_SPR17,
    cap_reg: 0xd2008c40660462n,
    ecap_reg: (1n << 43n) | (1n << 40n) | (19n << 35n) | (1n << 26n),
  });
  expect(decodeHardwareData('intel-vtd', server).vtd).toMatchObject({
    noReadOnlyParents: true,
    ecap: { SMTS: 1, PASID: 1, PSS: 19, NEST: 1, SSTS: 0, FSTS: 0 },
  });
});

test('SMMUv3: the identification registers that user space may rely on', () => {
  const bits = (value: number, low: number) => value * 2 ** low;
  const bytes = uapi.iommu_hw_info_arm_smmuv3.encode({
    flags: uapi.IOMMU_HW_INFO_ARM_SMMUV3_ERRATA_REPEAT_TLBI_CFGI,
    idr: [
      bits(1, 27) + bits(1, 26) + bits(2, 24) + bits(2, 21) + bits(1, 19) + bits(1, 12) + bits(2, 2),
      bits(19, 21) + bits(20, 6) + 32,
      0,
      bits(2, 11) + bits(1, 10),
      0,
      bits(1, 10) + bits(1, 7) + bits(1, 6) + bits(1, 4),
    ],
    iidr: 0x4832_143b,
    aidr: 0x13,
  });
  expect(decodeHardwareData('arm-smmuv3', bytes).smmuv3).toEqual({
    flags: 1,
    repeatInvalidations: true,
    idr: expect.any(Array) as number[],
    idr0: { ST_LEVEL: 1, TERM_MODEL: 1, STALL_MODEL: 2, TTENDIAN: 2, CD2L: 1, ASID16: 1, TTF: 2 },
    idr1: { CMDQS: 19, SSIDSIZE: 20, SIDSIZE: 32 },
    idr3: { BBML: 2, RIL: 1 },
    idr5: { VAX: 1, DS: 1, GRAN64K: 1, GRAN16K: 0, GRAN4K: 1 },
    iidr: { ProductID: 0x483, Variant: 2, Revision: 1, Implementer: 0x43b },
    aidr: { ArchMajorRev: 1, ArchMinorRev: 3 },
  });
});

test('Tegra241 and AMD', () => {
  const tegra = uapi.iommu_hw_info_tegra241_cmdqv.encode({ version: 1, log2vcmdqs: 7, log2vsids: 4 });
  expect(decodeHardwareData('tegra241-cmdqv', tegra)).toEqual({
    tegra241: { version: 1, log2vcmdqs: 7, log2vsids: 4 },
  });
  // Linux's line of an AMD server, "Extended features (0x246577efa2254afa, 0x10)".
  const amd = uapi.iommu_hw_info_amd.encode({ efr: 0x246577efa2254afan, efr2: 0x10n });
  expect(decodeHardwareData('amd', amd).amd).toMatchObject({
    efr: 0x246577efa2254afan,
    efr2: 0x10n,
    features: { PPRSup: 1, XTSup: 0, NXSup: 1, GTSup: 1, IASup: 1, GASup: 1, HATS: 2, GATS: 0, GLXSup: 1 },
    features2: { GCR3TRPMode: 0, SNPAVICSup: 0, NumIntRemapSup: 0 },
  });
  expect(decodeHardwareData('unknown', new Uint8Array(8))).toEqual({});
  expect(decodeHardwareData('none', new Uint8Array(8))).toEqual({});
});

test('a kind that the IOMMU does not have is refused, one that it has is given', () => {
  using iommu = Iommu.open({ backend: new Machine() });
  const device = iommu.bind('0000:00:04.0', { cookie: 1 });
  const info = device.hardwareInfo('intel-vtd');
  expect(info.vtd).toEqual(device.hardwareInfo().vtd);
  expect(device.hardwareInfo('intel-vtd')).toBe(info);
  expect(info.vtd!.cap.SAGAW).toBe(0b01110);
  expect(errorOf(() => device.hardwareInfo('amd'))).toMatchObject({
    code: 'EOPNOTSUPP',
    request: 'IOMMU_GET_HW_INFO',
  });
  expect(() => device.hardwareInfo('none' as 'amd')).toThrow(TypeError);
});
