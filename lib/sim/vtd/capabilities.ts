/**
 * Capability registers. Intel VT-d Architecture Specification rev. 4.1, sections 11.4.2 (CAP_REG) and 11.4.3 (ECAP_REG).
 *
 * A unit's variants are this data: every field is the register's own, with the value the register reports.
 */
import { layout } from './layout';
import { FRCD_BYTES, REGISTER_BYTES } from './registers';

export const CAP_REG = layout(64, {
  /** Number of domains: 2^(4 + 2 * ND) domain ids. */
  ND: [2, 0],
  AFL: [3, 3],
  RWBF: [4, 4],
  PLMR: [5, 5],
  PHMR: [6, 6],
  /** Caching Mode. */
  CM: [7, 7],
  /** Supported adjusted widths of the second stage: bit 1 is 39, bit 2 is 48, bit 3 is 57. */
  SAGAW: [12, 8],
  /** Maximum guest address width - 1. */
  MGAW: [21, 16],
  ZLR: [22, 22],
  /** Fault-recording register offset, in 16-byte units. */
  FRO: [33, 24],
  /** Second-stage large pages: bit 0 is 2 MiB, bit 1 is 1 GiB. */
  SSLPS: [37, 34],
  /** Page-selective invalidation. */
  PSI: [39, 39],
  /** Number of fault-recording registers - 1. */
  NFR: [47, 40],
  /** Maximum address mask value. */
  MAMV: [53, 48],
  DWD: [54, 54],
  DRD: [55, 55],
  /** First-stage 1 GiB pages. */
  FS1GP: [56, 56],
  /** Posted interrupts. */
  PI: [59, 59],
  /** First-stage 5-level paging. */
  FS5LP: [60, 60],
  ECMDS: [61, 61],
  /** Enhanced Set Interrupt Remap Table Pointer: SIRTP drops every cached entry. */
  ESIRTPS: [62, 62],
  /** Enhanced Set Root Table Pointer: SRTP drops every cached entry. */
  ESRTPS: [63, 63],
});

export const ECAP_REG = layout(64, {
  C: [0, 0],
  QI: [1, 1],
  DT: [2, 2],
  /** Interrupt remapping. */
  IR: [3, 3],
  /** Extended interrupt mode: 32-bit destinations. */
  EIM: [4, 4],
  PT: [6, 6],
  SC: [7, 7],
  /** IOTLB register offset, in 16-byte units. */
  IRO: [17, 8],
  /** Maximum Handle Mask Value, of interrupt entry cache invalidation. */
  MHMV: [23, 20],
  MTS: [25, 25],
  NEST: [26, 26],
  PRS: [29, 29],
  ERS: [30, 30],
  SRS: [31, 31],
  NWFS: [33, 33],
  EAFS: [34, 34],
  /** PASID size - 1, in bits. */
  PSS: [39, 35],
  PASID: [40, 40],
  DIT: [41, 41],
  PDS: [42, 42],
  SMTS: [43, 43],
  VCS: [44, 44],
  SSADS: [45, 45],
  SSTS: [46, 46],
  FSTS: [47, 47],
  SMPWCS: [48, 48],
  RPS: [49, 49],
  PMS: [51, 51],
  ADMS: [52, 52],
  RPRIVS: [53, 53],
  SMS: [58, 58],
});

type CapName = keyof typeof CAP_REG.fields;
type EcapName = keyof typeof ECAP_REG.fields;

/** Every field of CAP_REG and ECAP_REG, and the platform's host address width (reported by the DMAR table). */
export type VtdCapabilities = Readonly<Record<CapName | EcapName, number>> & {
  /** Host address width in bits, 33 to 52. */
  readonly HAW: number;
};

/** A scalable-mode unit as in current servers, as far as this model goes. */
export const DEFAULT_CAPABILITIES: VtdCapabilities = {
  ...CAP_REG.decode([0, 0]),
  ...ECAP_REG.decode([0, 0]),
  ND: 6,
  SAGAW: 0b01110,
  MGAW: 56,
  ZLR: 1,
  FRO: 0x22,
  SSLPS: 0b0011,
  PSI: 1,
  NFR: 7,
  MAMV: 45,
  DWD: 1,
  DRD: 1,
  FS1GP: 1,
  FS5LP: 1,
  ESIRTPS: 1,
  ESRTPS: 1,
  C: 1,
  QI: 1,
  DT: 1,
  IR: 1,
  EIM: 1,
  PT: 1,
  SC: 1,
  IRO: 0xf,
  MHMV: 15,
  NEST: 1,
  PRS: 1,
  SRS: 1,
  NWFS: 1,
  EAFS: 1,
  PSS: 19,
  PASID: 1,
  PDS: 1,
  SMTS: 1,
  SSADS: 1,
  SSTS: 1,
  FSTS: 1,
  SMPWCS: 1,
  RPS: 1,
  HAW: 46,
};

/** The default with `changes`, each checked against its field's width. */
export function composeCapabilities(changes: Partial<VtdCapabilities> = {}): VtdCapabilities {
  const capabilities = { ...DEFAULT_CAPABILITIES, ...changes };
  encodeCap(capabilities);
  encodeEcap(capabilities);
  if (!(Number.isInteger(capabilities.HAW) && capabilities.HAW >= 33 && capabilities.HAW <= 52)) {
    throw new RangeError(`HAW must be 33 to 52, got ${capabilities.HAW}`);
  }
  const { FRO, NFR, IRO } = capabilities;
  if (FRO * 16 + (NFR + 1) * FRCD_BYTES > REGISTER_BYTES || IRO * 16 + 16 > REGISTER_BYTES) {
    throw new RangeError('FRO or IRO puts registers outside the register block');
  }
  return capabilities;
}

/** CAP_REG's value as [low, high] words. */
export const encodeCap = CAP_REG.encode;
/** ECAP_REG's value as [low, high] words. */
export const encodeEcap = ECAP_REG.encode;
export const decodeCap = CAP_REG.decode;
export const decodeEcap = ECAP_REG.decode;
