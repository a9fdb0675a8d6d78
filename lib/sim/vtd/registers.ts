/**
 * The register block: offsets, fields, and who may write which bit.
 * Intel VT-d Architecture Specification rev. 4.1, section 11.4 "Register Descriptions".
 *
 * 64-bit registers are two 32-bit words, low one first; a field's constant is within its word.
 */
import { layout } from './layout';

/** Size of the block, bytes. Offsets without a register read 0 and ignore writes (section 11.2). */
export const REGISTER_BYTES = 4096;

export const VER_REG = 0x00;
export const CAP_REG_OFFSET = 0x08;
export const ECAP_REG_OFFSET = 0x10;
export const GCMD_REG = 0x18;
export const GSTS_REG = 0x1c;
export const RTADDR_REG = 0x20;
export const CCMD_REG = 0x28;
export const FSTS_REG = 0x34;
export const FECTL_REG = 0x38;
export const FEDATA_REG = 0x3c;
export const FEADDR_REG = 0x40;
export const FEUADDR_REG = 0x44;
export const PMEN_REG = 0x64;
export const PLMBASE_REG = 0x68;
export const PLMLIMIT_REG = 0x6c;
export const PHMBASE_REG = 0x70;
export const PHMLIMIT_REG = 0x78;
export const IQH_REG = 0x80;
export const IQT_REG = 0x88;
export const IQA_REG = 0x90;
export const ICS_REG = 0x9c;
export const IECTL_REG = 0xa0;
export const IEDATA_REG = 0xa4;
export const IEADDR_REG = 0xa8;
export const IEUADDR_REG = 0xac;
export const IQERCD_REG = 0xb0;
export const IRTA_REG = 0xb8;
export const PQH_REG = 0xc0;
export const PQT_REG = 0xc8;
export const PQA_REG = 0xd0;
export const PRS_REG = 0xdc;
export const PECTL_REG = 0xe0;
export const PEDATA_REG = 0xe4;
export const PEADDR_REG = 0xe8;
export const PEUADDR_REG = 0xec;

/** VER_REG: major version 7:4, minor 3:0. From 6.0 on there is no register-based invalidation (section 6.5.1). */
export const VER_6_0 = 0x60;
export const VER_1_0 = 0x10;

// GCMD_REG and GSTS_REG have the same bits. SRTP and SIRTP are one-shots, the others are kept.
/** Translation Enable. */
export const GCMD_TE = 1 << 31;
/** Set Root Table Pointer. */
export const GCMD_SRTP = 1 << 30;
/** Write Buffer Flush. */
export const GCMD_WBF = 1 << 27;
/** Queued Invalidation Enable. */
export const GCMD_QIE = 1 << 26;
/** Interrupt Remapping Enable. */
export const GCMD_IRE = 1 << 25;
/** Set Interrupt Remap Table Pointer. */
export const GCMD_SIRTP = 1 << 24;
/** Compatibility Format Interrupts: 1 lets them pass, 0 blocks them; while interrupts are remapped. */
export const GCMD_CFI = 1 << 23;
export const GSTS_TES = GCMD_TE;
export const GSTS_RTPS = GCMD_SRTP;
export const GSTS_QIES = GCMD_QIE;
export const GSTS_IRES = GCMD_IRE;
export const GSTS_IRTPS = GCMD_SIRTP;
export const GSTS_CFIS = GCMD_CFI;

/** RTADDR_REG, low word: Translation Table Mode 11:10. */
export const RTADDR_TTM_SHIFT = 10;
export const TTM_LEGACY = 0;
export const TTM_SCALABLE = 1;
export const TTM_ABORT_DMA = 3;

// CCMD_REG, high word.
/** Invalidate Context-Cache; reads 1 until done. */
export const CCMD_ICC_HIGH = 1 << 31;
/** Context Invalidation Request Granularity 62:61, Actual Granularity 60:59. */
export const CCMD_CIRG_SHIFT_HIGH = 29;
export const CCMD_CAIG_SHIFT_HIGH = 27;

// FSTS_REG.
/** Primary Fault Overflow. */
export const FSTS_PFO = 1 << 0;
/** Primary Pending Fault: a fault-recording register has F = 1. */
export const FSTS_PPF = 1 << 1;
/** Invalidation Queue Error. */
export const FSTS_IQE = 1 << 4;
/** Invalidation Completion Error. */
export const FSTS_ICE = 1 << 5;
/** Invalidation Time-out Error. */
export const FSTS_ITE = 1 << 6;
/** Fault Record Index 15:8. */
export const FSTS_FRI_SHIFT = 8;
export const FSTS_FRI_MASK = 0xff00;

// FECTL_REG, IECTL_REG, PECTL_REG.
/** Interrupt Mask. */
export const ECTL_IM = 1 << 31;
/** Interrupt Pending. */
export const ECTL_IP = 1 << 30;

// PMEN_REG.
/** Enable Protected Memory. */
export const PMEN_EPM = 1 << 31;
/** Protected Region Status. */
export const PMEN_PRS = 1 << 0;
/** Protected memory regions begin and end at multiples of this: bits below read 0 in base and limit registers. */
export const PMR_GRANULE = 2 ** 21;

/** IQA_REG, low word: Queue Size 2:0 (2^QS pages), Descriptor Width (1 is 256 bits). */
export const IQA_QS_MASK = 7;
export const IQA_DW = 1 << 11;

/** ICS_REG: Invalidation Wait descriptor Complete. */
export const ICS_IWC = 1 << 0;

// IQERCD_REG, low word: Invalidation Queue Error Information, 3:0. ITESID is bits 47:32, ICESID bits 63:48.
export const IQEI_NONE = 0;
export const IQEI_INVALID_TAIL = 1;
export const IQEI_FETCH_ERROR = 2;
export const IQEI_INVALID_TYPE = 3;
export const IQEI_RESERVED_FIELD = 4;
export const IQEI_INVALID_WIDTH = 5;
export const IQEI_TAIL_MISALIGNED = 6;
export const IQEI_INVALID_TTM = 7;

/** IRTA_REG, low word: Size 3:0 (2^(S + 1) entries), Extended Interrupt Mode Enable. */
export const IRTA_S_MASK = 0xf;
export const IRTA_EIME = 1 << 11;

/** PQA_REG, low word: Page Request Queue Size 2:0 (2^PQS pages). */
export const PQA_PQS_MASK = 7;

// PRS_REG.
/** Pending Page Request. */
export const PRS_PPR = 1 << 0;
/** Page Request Overflow. */
export const PRS_PRO = 1 << 1;

// Registers at ECAP.IRO * 16.
export const IVA_REG = 0x0;
/** IVA_REG, low word: Invalidation Hint: only leaf entries have changed. */
export const IVA_IH = 1 << 6;
export const IOTLB_REG = 0x8;
// IOTLB_REG, high word.
/** Invalidate IOTLB; reads 1 until done. */
export const IOTLB_IVT_HIGH = 1 << 31;
/** Invalidation Request Granularity 61:60, Actual Granularity 58:57; DID is bits 47:32. */
export const IOTLB_IIRG_SHIFT_HIGH = 28;
export const IOTLB_IAIG_SHIFT_HIGH = 25;

/** Bytes of a fault-recording register; the first is at CAP.FRO * 16. */
export const FRCD_BYTES = 16;

/** Fault-recording register, section 11.4.14. */
export const FRCD_REG = layout(128, {
  /** Fault Info: page address of the faulting access. */
  FI: { address: [63, 12] },
  /** Source id. */
  SID: [79, 64],
  /** Type bit 2; with T1: 00 write, 10 read, 01 page request, 11 AtomicOp. */
  T2: [92, 92],
  /** Privilege mode requested. */
  PRIV: [93, 93],
  /** Execute permission requested. */
  EXE: [94, 94],
  /** PASID present. */
  PP: [95, 95],
  /** Fault reason. */
  FR: [103, 96],
  /** PASID value. */
  PV: [123, 104],
  /** Address type of the request: 0 untranslated, 1 translation, 2 translated. */
  AT: [125, 124],
  /** Type bit 1. */
  T1: [126, 126],
  /** Fault: the register holds a fault; write 1 to clear. */
  F: [127, 127],
});

/** F in a fault-recording register's highest word, at byte 12. */
export const FRCD_F = 1 << 31;

/** [offset, bits software can write, bits cleared by writing 1, value after reset] of a writable word. */
export type WritableWord = readonly [offset: number, writable: number, clearedByOne: number, reset: number];

const ALL = 0xffff_ffff;

/** Of every unit. */
export const COMMON_REGISTERS: readonly WritableWord[] = [
  [RTADDR_REG, 0xffff_fc00, 0, 0],
  [RTADDR_REG + 4, ALL, 0, 0],
  [FSTS_REG, 0, FSTS_PFO | FSTS_IQE | FSTS_ICE | FSTS_ITE, 0],
  [FECTL_REG, ECTL_IM, 0, ECTL_IM],
  [FEDATA_REG, ALL, 0, 0],
  [FEADDR_REG, 0xffff_fffc, 0, 0],
  [FEUADDR_REG, ALL, 0, 0],
];

/** With queued invalidation (ECAP_REG.QI). */
export const QUEUE_REGISTERS: readonly WritableWord[] = [
  [IQT_REG, 0x0007_fff0, 0, 0],
  [IQA_REG, 0xffff_f807, 0, 0],
  [IQA_REG + 4, ALL, 0, 0],
  [ICS_REG, 0, ICS_IWC, 0],
  [IECTL_REG, ECTL_IM, 0, ECTL_IM],
  [IEDATA_REG, ALL, 0, 0],
  [IEADDR_REG, 0xffff_fffc, 0, 0],
  [IEUADDR_REG, ALL, 0, 0],
];

/** With page requests (ECAP_REG.PRS). */
export const PAGE_REQUEST_REGISTERS: readonly WritableWord[] = [
  [PQH_REG, 0x0007_ffe0, 0, 0],
  [PQT_REG, 0x0007_ffe0, 0, 0],
  [PQA_REG, 0xffff_f007, 0, 0],
  [PQA_REG + 4, ALL, 0, 0],
  [PRS_REG, 0, PRS_PPR | PRS_PRO, 0],
  [PECTL_REG, ECTL_IM, 0, ECTL_IM],
  [PEDATA_REG, ALL, 0, 0],
  [PEADDR_REG, 0xffff_fffc, 0, 0],
  [PEUADDR_REG, ALL, 0, 0],
];

/** With register-based context-cache invalidation (before version 6). */
export const CONTEXT_COMMAND_REGISTERS: readonly WritableWord[] = [
  [CCMD_REG, ALL, 0, 0],
  [CCMD_REG + 4, 0xe000_0003, 0, 0],
];
