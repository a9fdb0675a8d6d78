import type { Context } from './context';
import { call } from './ioctl';
import * as uapi from './uapi';

/** What IOMMU_GET_HW_INFO says about the IOMMU in front of a device. */
export interface HardwareInfo {
  /** Which IOMMU: 'none' where the driver reports nothing; 'unknown' for a type this package has no name for. */
  readonly type: 'none' | 'intel-vtd' | 'arm-smmuv3' | 'tegra241-cmdqv' | 'amd' | 'unknown';
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
  /** With type 'intel-vtd': the registers of the unit (VT-d specification, sections 11.4.2 and 11.4.3). */
  readonly vtd?: { readonly flags: number; readonly capReg: bigint; readonly ecapReg: bigint };
  /** The type's own struct (iommu_hw_info_*), raw. */
  readonly data: Uint8Array;
}

/** Room for any driver's struct: the largest of Linux 7.3 is 40 bytes. */
const DATA_BYTES = 128;

const TYPES = ['none', 'intel-vtd', 'arm-smmuv3', 'tegra241-cmdqv', 'amd'] as const;

/** IOMMU_GET_HW_INFO. Throws IommuError. */
export function readHardwareInfo(context: Context, deviceId: number): HardwareInfo {
  const bytes = new Uint8Array(DATA_BYTES);
  const values = { dev_id: deviceId, data_len: bytes.length, data_uptr: context.kernel.addressOf(bytes) };
  const out = call(context.kernel, context.fd, uapi.IOMMU_GET_HW_INFO, values, bytes);
  const has = (bit: number) => (out.out_capabilities & BigInt(bit)) !== 0n;
  const info: HardwareInfo = {
    type: TYPES[out.out_data_type] ?? 'unknown',
    dataType: out.out_data_type,
    maxPasidLog2: out.out_max_pasid_log2,
    capabilities: {
      dirtyTracking: has(uapi.IOMMU_HW_CAP_DIRTY_TRACKING),
      pasidExecute: has(uapi.IOMMU_HW_CAP_PCI_PASID_EXEC),
      pasidPrivileged: has(uapi.IOMMU_HW_CAP_PCI_PASID_PRIV),
      ats: !has(uapi.IOMMU_HW_CAP_PCI_ATS_NOT_SUPPORTED),
    },
    data: bytes.subarray(0, Math.min(out.data_len, bytes.length)),
  };
  if (info.type !== 'intel-vtd') return info;
  const { flags, cap_reg, ecap_reg } = uapi.iommu_hw_info_vtd.decode(bytes);
  return { ...info, vtd: { flags, capReg: cap_reg, ecapReg: ecap_reg } };
}
