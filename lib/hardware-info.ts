import type { Context } from './context';
import * as registers from './hardware-registers';
import { attempt, refused } from './ioctl';
import * as uapi from './uapi';

/** Kinds of hardware information, in the order of enum iommu_hw_info_type. */
const TYPES = ['none', 'intel-vtd', 'arm-smmuv3', 'tegra241-cmdqv', 'amd'] as const;

/** A kind of hardware information that can be asked for. */
export type HardwareType = Exclude<(typeof TYPES)[number], 'none'>;

/** A VT-d unit (VT-d specification, sections 11.4.2 and 11.4.3). */
export interface VtdInfo {
  readonly flags: number;
  /** Erratum 772415: a parent table must have no read-only mappings. */
  readonly noReadOnlyParents: boolean;
  readonly capReg: bigint;
  readonly ecapReg: bigint;
  /** capReg and ecapReg by the names of their fields. */
  readonly cap: ReturnType<typeof registers.decodeVtdCap>;
  readonly ecap: ReturnType<typeof registers.decodeVtdEcap>;
}

/** An SMMUv3 (Arm SMMUv3 specification, section 6.3). What is not decoded, user space must not rely on. */
export interface SmmuInfo extends ReturnType<typeof registers.decodeSmmuIdr> {
  readonly flags: number;
  /** Erratum T264-SMMU-3: invalidations must be sent twice. */
  readonly repeatInvalidations: boolean;
  /** SMMU_IDR0 to SMMU_IDR5. */
  readonly idr: readonly number[];
  readonly iidr: ReturnType<typeof registers.decodeSmmuIidr>;
  readonly aidr: ReturnType<typeof registers.decodeSmmuAidr>;
}

/** The virtual command queues of NVIDIA Tegra241. */
export interface Tegra241Info {
  readonly version: number;
  /** 2^log2vcmdqs virtual command queues. */
  readonly log2vcmdqs: number;
  /** 2^log2vsids replacements of stream IDs. */
  readonly log2vsids: number;
}

/** An AMD IOMMU (AMD I/O Virtualization Technology specification, MMIO offsets 0030h and 01A0h). */
export interface AmdInfo {
  readonly efr: bigint;
  readonly efr2: bigint;
  /** efr and efr2 by the names of their fields. */
  readonly features: ReturnType<typeof registers.decodeAmdEfr>;
  readonly features2: ReturnType<typeof registers.decodeAmdEfr2>;
}

/** What IOMMU_GET_HW_INFO says about the IOMMU in front of a device. */
export interface HardwareInfo {
  /** Which IOMMU: 'none' where the driver reports nothing; 'unknown' for a type this package has no name for. */
  readonly type: 'none' | HardwareType | 'unknown';
  /** enum iommu_hw_info_type, as the kernel gave it. */
  readonly dataType: number;
  /** Width of the device's PASIDs in bits; 0: the device has none (or they are off). */
  readonly maxPasidLog2: number;
  /** enum iommufd_hw_capabilities. */
  readonly capabilities: {
    readonly dirtyTracking: boolean;
    readonly pasidExecute: boolean;
    readonly pasidPrivileged: boolean;
    /** Address Translation Services can be used for this device. */
    readonly ats: boolean;
  };
  /** With type 'intel-vtd'. */
  readonly vtd?: VtdInfo;
  /** With type 'arm-smmuv3'. */
  readonly smmuv3?: SmmuInfo;
  /** With type 'tegra241-cmdqv'. */
  readonly tegra241?: Tegra241Info;
  /** With type 'amd'. */
  readonly amd?: AmdInfo;
  /** The type's own struct (iommu_hw_info_*), raw. */
  readonly data: Uint8Array;
}

/** Room for any driver's struct: the largest of Linux 7.3 is 40 bytes. */
const DATA_BYTES = 128;

/** IOMMU_GET_HW_INFO. Throws TypeError, IommuError. */
export function readHardwareInfo(context: Context, deviceId: number, type?: HardwareType): HardwareInfo {
  const wanted = type === undefined ? uapi.IOMMU_HW_INFO_TYPE_DEFAULT : TYPES.indexOf(type);
  if (type !== undefined && wanted < 1)
    throw new TypeError(`hardware information is of type ${TYPES.slice(1).join(', ')}, not ${String(type)}`);
  const bytes = new Uint8Array(DATA_BYTES);
  const { kernel, fd } = context;
  const values = {
    flags: type === undefined ? 0 : uapi.IOMMU_HW_INFO_FLAG_INPUT_TYPE,
    dev_id: deviceId,
    data_len: bytes.length,
    data_uptr: kernel.addressOf(bytes),
    in_data_type: wanted,
  };
  const { result, out } = attempt(kernel, fd, uapi.IOMMU_GET_HW_INFO, values, bytes);
  if (result < 0) throw refused(kernel, uapi.IOMMU_GET_HW_INFO, values, result);
  const has = (bit: number) => (out.out_capabilities & BigInt(bit)) !== 0n;
  const name = TYPES[out.out_data_type] ?? 'unknown';
  return {
    type: name,
    dataType: out.out_data_type,
    maxPasidLog2: out.out_max_pasid_log2,
    capabilities: {
      dirtyTracking: has(uapi.IOMMU_HW_CAP_DIRTY_TRACKING),
      pasidExecute: has(uapi.IOMMU_HW_CAP_PCI_PASID_EXEC),
      pasidPrivileged: has(uapi.IOMMU_HW_CAP_PCI_PASID_PRIV),
      ats: !has(uapi.IOMMU_HW_CAP_PCI_ATS_NOT_SUPPORTED),
    },
    ...decodeHardwareData(name, bytes),
    data: bytes.subarray(0, Math.min(out.data_len, bytes.length)),
  };
}

type HardwareData = Pick<HardwareInfo, 'vtd' | 'smmuv3' | 'tegra241' | 'amd'>;

/** The struct of a type, by named fields. */
export function decodeHardwareData(type: HardwareInfo['type'], bytes: Uint8Array): HardwareData {
  switch (type) {
    case 'intel-vtd':
      return { vtd: decodeVtd(bytes) };
    case 'arm-smmuv3':
      return { smmuv3: decodeSmmu(bytes) };
    case 'tegra241-cmdqv': {
      const { version, log2vcmdqs, log2vsids } = uapi.iommu_hw_info_tegra241_cmdqv.decode(bytes);
      return { tegra241: { version, log2vcmdqs, log2vsids } };
    }
    case 'amd': {
      const { efr, efr2 } = uapi.iommu_hw_info_amd.decode(bytes);
      const features = registers.decodeAmdEfr(efr);
      return { amd: { efr, efr2, features, features2: registers.decodeAmdEfr2(efr2) } };
    }
    default:
      return {};
  }
}

function decodeVtd(bytes: Uint8Array): VtdInfo {
  const { flags, cap_reg: capReg, ecap_reg: ecapReg } = uapi.iommu_hw_info_vtd.decode(bytes);
  return {
    flags,
    noReadOnlyParents: (flags & uapi.IOMMU_HW_INFO_VTD_ERRATA_772415_SPR17) !== 0,
    capReg,
    ecapReg,
    cap: registers.decodeVtdCap(capReg),
    ecap: registers.decodeVtdEcap(ecapReg),
  };
}

function decodeSmmu(bytes: Uint8Array): SmmuInfo {
  const { flags, idr, iidr, aidr } = uapi.iommu_hw_info_arm_smmuv3.decode(bytes);
  return {
    flags,
    repeatInvalidations: (flags & uapi.IOMMU_HW_INFO_ARM_SMMUV3_ERRATA_REPEAT_TLBI_CFGI) !== 0,
    idr,
    ...registers.decodeSmmuIdr(idr),
    iidr: registers.decodeSmmuIidr(iidr),
    aidr: registers.decodeSmmuAidr(aidr),
  };
}
