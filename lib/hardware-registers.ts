/** The registers that IOMMU_GET_HW_INFO hands out, by the names of their fields. */
import { CAP_REG_FIELDS, ECAP_REG_FIELDS } from './uapi';

/** [highest bit, lowest bit], as specifications write "63:12". */
type BitRange = readonly [high: number, low: number];

type Fields = Readonly<Record<string, BitRange>>;

/** The value of each field. */
export type Decoded<F extends Fields> = { readonly [Name in keyof F]: number };

/** Fields of SMMU_IDR0 (Arm SMMUv3 specification, section 6.3.1): those that the kernel vouches for, as below. */
const SMMU_IDR0 = {
  ST_LEVEL: [28, 27],
  TERM_MODEL: [26, 26],
  STALL_MODEL: [25, 24],
  TTENDIAN: [22, 21],
  CD2L: [19, 19],
  ASID16: [12, 12],
  TTF: [3, 2],
} as const;

/** SMMU_IDR1, section 6.3.2. CMDQS: a hardware queue has at most 2^CMDQS commands of 16 bytes. */
const SMMU_IDR1 = { CMDQS: [25, 21], SSIDSIZE: [10, 6], SIDSIZE: [5, 0] } as const;

/** SMMU_IDR3, section 6.3.4. */
const SMMU_IDR3 = { BBML: [12, 11], RIL: [10, 10] } as const;

/** SMMU_IDR5, section 6.3.6. */
const SMMU_IDR5 = { VAX: [11, 10], DS: [7, 7], GRAN64K: [6, 6], GRAN16K: [5, 5], GRAN4K: [4, 4] } as const;

/** SMMU_IIDR, section 6.3.7. */
const SMMU_IIDR = {
  ProductID: [31, 20],
  Variant: [19, 16],
  Revision: [15, 12],
  Implementer: [11, 0],
} as const;

/** SMMU_AIDR, section 6.3.8. */
const SMMU_AIDR = { ArchMajorRev: [7, 4], ArchMinorRev: [3, 0] } as const;

/** AMD I/O Virtualization Technology specification, MMIO offset 0030h, Extended Feature Register. */
const AMD_EFR = {
  PreFSup: [0, 0],
  PPRSup: [1, 1],
  XTSup: [2, 2],
  NXSup: [3, 3],
  GTSup: [4, 4],
  IASup: [6, 6],
  GASup: [7, 7],
  HESup: [8, 8],
  PCSup: [9, 9],
  HATS: [11, 10],
  GATS: [13, 12],
  GLXSup: [15, 14],
  SmiFSup: [17, 16],
  SmiFRC: [20, 18],
  GAMSup: [23, 21],
  DualPprLogSup: [25, 24],
  DualEventLogSup: [29, 28],
  SATSSup: [31, 31],
  PASmax: [36, 32],
  USSup: [37, 37],
  DevTblSegSup: [39, 38],
  PprOvrflwEarlySup: [40, 40],
  PPRAutoRspSup: [41, 41],
  MarcSup: [43, 42],
  BlkStopMrkSup: [44, 44],
  PerfOptSup: [45, 45],
  MsiCapMmioSup: [46, 46],
  GIoSup: [48, 48],
  HASup: [49, 49],
  EPHSup: [50, 50],
  AttrFWSup: [51, 51],
  HDSup: [52, 52],
  InvIotlbTypeSup: [54, 54],
  GAUpdateDisSup: [61, 61],
  ForcePhyDestSup: [62, 62],
  SNPSup: [63, 63],
} as const;

/** MMIO offset 01A0h, Extended Feature 2 Register. */
const AMD_EFR2 = {
  GCR3TRPMode: [3, 3],
  SNPAVICSup: [7, 5],
  NumIntRemapSup: [9, 8],
  HTRangeIgnore: [11, 11],
} as const;

/** The value of every field of a register. */
function decode<F extends Fields>(fields: F, register: bigint | number): Decoded<F> {
  const wide = BigInt(register);
  const values = Object.entries(fields).map(([name, [high, low]]) => [
    name,
    Number((wide >> BigInt(low)) & ((1n << BigInt(high - low + 1)) - 1n)),
  ]);
  return Object.fromEntries(values) as Decoded<F>;
}

export const decodeVtdCap = (register: bigint) => decode(CAP_REG_FIELDS, register);
export const decodeVtdEcap = (register: bigint) => decode(ECAP_REG_FIELDS, register);

export const decodeSmmuIdr = (idr: readonly number[]) => ({
  idr0: decode(SMMU_IDR0, idr[0]),
  idr1: decode(SMMU_IDR1, idr[1]),
  idr3: decode(SMMU_IDR3, idr[3]),
  idr5: decode(SMMU_IDR5, idr[5]),
});
export const decodeSmmuIidr = (register: number) => decode(SMMU_IIDR, register);
export const decodeSmmuAidr = (register: number) => decode(SMMU_AIDR, register);

export const decodeAmdEfr = (register: bigint) => decode(AMD_EFR, register);
export const decodeAmdEfr2 = (register: bigint) => decode(AMD_EFR2, register);
