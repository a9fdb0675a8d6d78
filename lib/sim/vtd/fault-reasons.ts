/**
 * Fault reason codes of DMA remapping, legacy mode first.
 * Intel VT-d Architecture Specification rev. 4.1, section 7.1.3, table 26. Names carry the specification's label.
 */

/** LRT.2: present bit of the root entry is clear. */
export const LRT_2_NOT_PRESENT = 0x01;
/** LCT.2: context entry not present. */
export const LCT_2_NOT_PRESENT = 0x02;
/** LCT.4: AW or TT that this unit does not support, or the top second-stage entry, through SSPTPTR, could not be read. */
export const LCT_4_INVALID = 0x03;
/** LGN.1: input address beyond min(MGAW, the entry's AW); pass-through: beyond the host address width. */
export const LGN_1_BEYOND_WIDTH = 0x04;
/** LGN.2: write or AtomicOp without write permission. */
export const LGN_2_WRITE = 0x05;
/** LGN.3: read or AtomicOp without read permission. */
export const LGN_3_READ = 0x06;
/** LSS.1: access to a second-stage entry below the top table failed. */
export const LSS_1_ACCESS = 0x07;
/** LRT.1: access to the root entry failed. */
export const LRT_1_ACCESS = 0x08;
/** LCT.1: access to the context entry failed. */
export const LCT_1_ACCESS = 0x09;
/** LRT.3: reserved bit set in a present root entry. */
export const LRT_3_RESERVED = 0x0a;
/** LCT.3: reserved bit set in a present context entry. */
export const LCT_3_RESERVED = 0x0b;
/** LSS.2: reserved bit set in a second-stage entry. */
export const LSS_2_RESERVED = 0x0c;
/** LCT.5: translation or translated request, and TT does not allow them. */
export const LCT_5_TT_BLOCKS = 0x0d;
/** LGN.4: the resulting address lies in the interrupt address range 0xFEEx_xxxx. */
export const LGN_4_INTERRUPT_RANGE = 0x0e;

/** RTA.1: the translation table mode (RTADDR_REG.TTM) is not one this unit can use. */
export const RTA_1_INVALID_MODE = 0x30;
/** RTA.2: request with PASID in legacy mode. */
export const RTA_2_PASID_IN_LEGACY = 0x31;
/** RTA.3: page request in legacy mode. */
export const RTA_3_PAGE_REQUEST_IN_LEGACY = 0x32;

/** SRT.1: access to the scalable root entry failed. */
export const SRT_1_ACCESS = 0x38;
/** SRT.2: present bit of the root entry's half is clear. */
export const SRT_2_NOT_PRESENT = 0x39;
/** SRT.3: reserved bit set in a present root entry. */
export const SRT_3_RESERVED = 0x3a;

/** SCT.1: access to the scalable context entry failed. */
export const SCT_1_ACCESS = 0x40;
/** SCT.2: context entry not present. */
export const SCT_2_NOT_PRESENT = 0x41;
/** SCT.3: reserved bit set in a present context entry. */
export const SCT_3_RESERVED = 0x42;
/** SCT.4: invalid programming: RID_PASID beyond the PASID directory. */
export const SCT_4_INVALID = 0x43;
/** SCT.5: translation or translated request, and DTE is clear. */
export const SCT_5_DTE_CLEAR = 0x44;
/** SCT.6: request with PASID, and PASIDE is clear. */
export const SCT_6_PASIDE_CLEAR = 0x45;
/** SCT.7: PASID beyond the PASID directory (PDTS). */
export const SCT_7_PASID_TOO_LARGE = 0x46;
/** SCT.8: page request, and PRE is clear. */
export const SCT_8_PRE_CLEAR = 0x47;

/** SPD.1: access to the PASID directory entry failed. */
export const SPD_1_ACCESS = 0x50;
/** SPD.2: PASID directory entry not present. */
export const SPD_2_NOT_PRESENT = 0x51;
/** SPD.3: reserved bit set in a present PASID directory entry. */
export const SPD_3_RESERVED = 0x52;

/** SPT.1: access to the PASID table entry failed. */
export const SPT_1_ACCESS = 0x58;
/** SPT.2: PASID table entry not present. */
export const SPT_2_NOT_PRESENT = 0x59;
/** SPT.3: reserved bit set in a present PASID table entry. */
export const SPT_3_RESERVED = 0x5a;
/** SPT.4: invalid programming: PGTT, AW or FSPM that this unit does not support. */
export const SPT_4_INVALID = 0x5b;
/** SPT.5: execute requested, and ERE is clear. */
export const SPT_5_ERE_CLEAR = 0x5c;
/** SPT.6: supervisor privilege requested, and SRE is clear. */
export const SPT_6_SRE_CLEAR = 0x5d;

/** SFS.1: access to a first-stage entry below the top table failed. */
export const SFS_1_ACCESS = 0x70;
/** SFS.2: first-stage entry not present. */
export const SFS_2_NOT_PRESENT = 0x71;
/** SFS.3: reserved bit set in a present first-stage entry. */
export const SFS_3_RESERVED = 0x72;
/** SFS.4: access to the top first-stage entry, through FSPTPTR, failed. */
export const SFS_4_TOP_ACCESS = 0x73;
/** SFS.5: nested: an address in a first-stage entry is beyond the second stage's input width. */
export const SFS_5_NESTED_WIDTH = 0x74;
/** SFS.6: nested: second stage denies reading the top first-stage entry. */
export const SFS_6_NESTED_TOP_READ = 0x75;
/** SFS.7: nested: second stage denies reading a lower first-stage entry. */
export const SFS_7_NESTED_READ = 0x76;
/** SFS.8: nested: second stage denies writing A or D to a first-stage entry. */
export const SFS_8_NESTED_WRITE = 0x77;
/** SFS.9: A or D must be set in a first-stage entry, and page walks do not snoop (PWSNP = 0). */
export const SFS_9_AD_NO_SNOOP = 0x90;

/** SSS.1: access to a second-stage entry below the top table failed. */
export const SSS_1_ACCESS = 0x78;
/** SSS.2: R = W = 0 in a second-stage entry, or in the entries of the walk taken together. */
export const SSS_2_NOT_PRESENT = 0x79;
/** SSS.3: reserved bit set in a present second-stage entry. */
export const SSS_3_RESERVED = 0x7a;
/** SSS.4: access to the top second-stage entry, through SSPTPTR, failed. */
export const SSS_4_TOP_ACCESS = 0x7b;
/** SSS.5: A or D must be set in a second-stage entry, and page walks do not snoop (PWSNP = 0). */
export const SSS_5_AD_NO_SNOOP = 0x7c;

/** SGN.1: first-stage input address not canonical. */
export const SGN_1_NOT_CANONICAL = 0x80;
/** SGN.2: user-privilege request to a supervisor page (U/S = 0). */
export const SGN_2_USER = 0x81;
/** SGN.3: execute requested from a page that forbids it. */
export const SGN_3_EXECUTE = 0x82;
/** SGN.4: pass-through or translated address beyond the host address width. */
export const SGN_4_BEYOND_HAW = 0x83;
/** SGN.5: second-stage input address beyond min(MGAW, the entry's AW). */
export const SGN_5_BEYOND_AW = 0x84;
/** SGN.6: write or AtomicOp without write permission. */
export const SGN_6_WRITE = 0x85;
/** SGN.7: read or AtomicOp without read permission. */
export const SGN_7_READ = 0x86;
/** SGN.8: the resulting address lies in the interrupt address range 0xFEEx_xxxx. */
export const SGN_8_INTERRUPT_RANGE = 0x87;

/** No fault reason: the request is blocked, and nothing is recorded (abort-DMA mode, protected memory). */
export const NOT_A_FAULT = 0x100;

/** What refuses a translation is called differently in the two modes. First-stage reasons are scalable mode's alone. */
export interface TranslationReasons {
  /** The top second-stage entry, and one below it, could not be read. */
  readonly topAccess: number;
  readonly access: number;
  /** 0: a second-stage entry without R and W is one that denies both. */
  readonly notPresent: number;
  readonly reserved: number;
  /** Second-stage input, and pass-through or translated, address too wide. */
  readonly beyondWidth: number;
  readonly beyondHost: number;
  readonly write: number;
  readonly read: number;
  readonly interruptRange: number;
  /** Translation and translated requests are not allowed. */
  readonly noDeviceTlb: number;
}

export const LEGACY_REASONS: TranslationReasons = {
  topAccess: LCT_4_INVALID,
  access: LSS_1_ACCESS,
  notPresent: 0,
  reserved: LSS_2_RESERVED,
  beyondWidth: LGN_1_BEYOND_WIDTH,
  beyondHost: LGN_1_BEYOND_WIDTH,
  write: LGN_2_WRITE,
  read: LGN_3_READ,
  interruptRange: LGN_4_INTERRUPT_RANGE,
  noDeviceTlb: LCT_5_TT_BLOCKS,
};

export const SCALABLE_REASONS: TranslationReasons = {
  topAccess: SSS_4_TOP_ACCESS,
  access: SSS_1_ACCESS,
  notPresent: SSS_2_NOT_PRESENT,
  reserved: SSS_3_RESERVED,
  beyondWidth: SGN_5_BEYOND_AW,
  beyondHost: SGN_4_BEYOND_HAW,
  write: SGN_6_WRITE,
  read: SGN_7_READ,
  interruptRange: SGN_8_INTERRUPT_RANGE,
  noDeviceTlb: SCT_5_DTE_CLEAR,
};
