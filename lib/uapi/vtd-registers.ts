/**
 * The capability registers of a VT-d unit, field by field: Intel VT-d Architecture Specification rev. 4.1, sections
 * 11.4.2 (CAP_REG) and 11.4.3 (ECAP_REG). [highest bit, lowest bit].
 */
export const CAP_REG_FIELDS = {
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
  PI: [59, 59],
  /** First-stage 5-level paging. */
  FS5LP: [60, 60],
  ECMDS: [61, 61],
  ESIRTPS: [62, 62],
  /** Enhanced Set Root Table Pointer: SRTP drops every cached entry. */
  ESRTPS: [63, 63],
} as const;

export const ECAP_REG_FIELDS = {
  C: [0, 0],
  QI: [1, 1],
  DT: [2, 2],
  IR: [3, 3],
  EIM: [4, 4],
  PT: [6, 6],
  SC: [7, 7],
  /** IOTLB register offset, in 16-byte units. */
  IRO: [17, 8],
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
} as const;
