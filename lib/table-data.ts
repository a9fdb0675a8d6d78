/** What the user of a page table of his own tells the IOMMU about it: the driver data of IOMMU_HWPT_ALLOC. */
import * as uapi from './uapi';

/** A table in VT-d first-stage format (Intel VT-d specification, section 3.6). */
export interface VtdTable {
  /** Address of its root in the parent's input space; a multiple of 4096. */
  readonly address: bigint | number;
  /** Input address width in bits: 48 (4 levels) or 57 (5 levels). */
  readonly width: 48 | 57;
  readonly flags?:
    | {
        /** Supervisor requests are allowed. */
        readonly sre?: boolean | undefined;
        /** The extended-accessed bit is set by hardware. */
        readonly eafe?: boolean | undefined;
        /** Supervisor writes honour read-only pages. */
        readonly wpe?: boolean | undefined;
      }
    | undefined;
}

/** The first two doublewords of an SMMUv3 stream table entry (Arm SMMUv3 specification, section 5.2). */
export interface SmmuTable {
  readonly ste: readonly [bigint, bigint];
}

/** An AMD guest device table entry (AMD I/O Virtualization Technology specification, section 2.2.2). */
export interface AmdTable {
  readonly dte: readonly [bigint, bigint, bigint, bigint];
}

/** Data of any driver: its enum iommu_hwpt_data_type and its struct. */
export interface RawTable {
  readonly type: number;
  readonly bytes: Uint8Array;
}

/** A page table that the user keeps, as its IOMMU wants it described. */
export type UserPageTable = VtdTable | SmmuTable | AmdTable | RawTable;

/**
 * A PASID table that the user keeps: an SMMUv3 stream table entry that points to context descriptors, or an AMD device table
 * entry that points to a GCR3 table. One address space stands for all its PASIDs (RFC, section 1.4, "delegated").
 */
export type UserPasidTable = SmmuTable | AmdTable | RawTable;

/** Checks and encodes. Throws TypeError, RangeError. */
export function encodeUserPageTable(table: UserPageTable): RawTable {
  if (typeof table !== 'object' || table === null)
    throw new TypeError(
      'a user-managed table is { address, width }, { ste }, { dte } or { type, bytes }: see UserPageTable',
    );
  if ('ste' in table)
    return {
      type: uapi.IOMMU_HWPT_DATA_ARM_SMMUV3,
      bytes: uapi.iommu_hwpt_arm_smmuv3.encode({ ste: words(table.ste, 2, 'ste') }),
    };
  if ('dte' in table)
    return {
      type: uapi.IOMMU_HWPT_DATA_AMD_GUEST,
      bytes: uapi.iommu_hwpt_amd_guest.encode({ dte: words(table.dte, 4, 'dte') }),
    };
  // A copy: what the caller writes later must not change what attaching makes.
  if ('bytes' in table) return { type: table.type, bytes: Uint8Array.from(table.bytes) };
  return { type: uapi.IOMMU_HWPT_DATA_VTD_S1, bytes: encodeVtd(table) };
}

function words(values: readonly bigint[], count: number, name: string): bigint[] {
  if (values.length !== count) throw new RangeError(`${name} has ${count} doublewords, not ${values.length}`);
  return values.map((value) => uapi.toU64(value, name));
}

function encodeVtd({ address, width, flags = {} }: VtdTable): Uint8Array {
  if (width !== 48 && width !== 57)
    throw new RangeError(`page table width ${String(width)} is neither 48 nor 57`);
  const root = uapi.toU64(address, 'page table address');
  if (root % 4096n !== 0n)
    throw new RangeError(`page table address 0x${root.toString(16)} is not a multiple of 4096`);
  return uapi.iommu_hwpt_vtd_s1.encode({
    flags:
      (flags.sre ? uapi.IOMMU_VTD_S1_SRE : 0) |
      (flags.eafe ? uapi.IOMMU_VTD_S1_EAFE : 0) |
      (flags.wpe ? uapi.IOMMU_VTD_S1_WPE : 0),
    pgtbl_addr: root,
    addr_width: width,
  });
}
