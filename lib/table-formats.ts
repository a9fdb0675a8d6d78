/** The formats of tables that users keep, and which IOMMU takes which. */
import type { HardwareInfo, HardwareType } from './hardware-info';
import * as uapi from './uapi';

interface Format {
  /** enum iommu_hwpt_data_type. */
  readonly type: number;
  readonly hardware: HardwareType;
  /** For people. */
  readonly text: string;
}

/** By the name that this package gives them. */
const FORMATS = {
  'vtd-s1': {
    type: uapi.IOMMU_HWPT_DATA_VTD_S1,
    hardware: 'intel-vtd',
    text: 'a VT-d first-stage table',
  },
  'arm-smmuv3': {
    type: uapi.IOMMU_HWPT_DATA_ARM_SMMUV3,
    hardware: 'arm-smmuv3',
    text: 'an SMMUv3 stream table entry',
  },
  'amd-guest': {
    type: uapi.IOMMU_HWPT_DATA_AMD_GUEST,
    hardware: 'amd',
    text: 'an AMD device table entry',
  },
} as const satisfies Record<string, Format>;

/** Name of a table format. */
export type TableFormat = keyof typeof FORMATS;

/** What an IOMMU that nests takes as the user's: page tables, and whole PASID tables. */
export function formatsOf({ type }: HardwareInfo): { pageTables: TableFormat[]; pasidTables: TableFormat[] } {
  if (type === 'intel-vtd') return { pageTables: ['vtd-s1'], pasidTables: [] };
  // A stream or device table entry says whether it stands for one page table or for a table of them.
  if (type === 'arm-smmuv3') return { pageTables: ['arm-smmuv3'], pasidTables: ['arm-smmuv3'] };
  if (type === 'amd') return { pageTables: ['amd-guest'], pasidTables: ['amd-guest'] };
  return { pageTables: [], pasidTables: [] };
}

/** Why an IOMMU does not take a table of this enum iommu_hwpt_data_type; undefined where the format is not the reason. */
export function formatMismatch(hardware: HardwareInfo, dataType: number): string | undefined {
  const given = Object.values(FORMATS).find(({ type }) => type === dataType);
  const taken = Object.values(FORMATS).find((format) => format.hardware === hardware.type);
  if (!given || !taken || given === taken) return undefined;
  return `its IOMMU takes ${taken.text}, and this is ${given.text}`;
}
