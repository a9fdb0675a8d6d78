// Where QEMU 11.1.3 leaves the specification: one flag each, so that a QEMU that no longer does shows as one flag.
// Nothing here is about our unit. as-qemu.ts applies these to what our unit did; sections are those of the Intel VT-d
// specification, rev. 4.1.

export const QUIRKS = {
  legacyCodes:
    'Table 26 gives scalable mode its own reasons for root, context and second-stage faults; QEMU records those of legacy mode.',
  partialMarks:
    'Section 3.6.3: each of A and D that is clear and wanted is set; QEMU writes an entry only if none of them is set yet.',
  marksOnFault:
    'Section 3.6.3: entries are marked once the request is permitted; QEMU marks the entries above the one that faults.',
  hitMarksNothing:
    'Section 6.2.4: a write that hits an entry cached without D must still set D in the table; QEMU does not.',
  hitDropsRequest:
    'Section 7.1.3: a request that lacks permission is recorded; QEMU drops one that hits a cached entry, without a record.',
  bothRootHalves:
    'Section 9.2: each half of a scalable root entry has a P of its own; QEMU checks the reserved bits of both for either.',
  typeBeforePresent:
    'Section 9.6: the other fields of a PASID table entry count if P is 1; QEMU checks PGTT and AW first.',
  reservedInPasidTables:
    'Sections 9.5 and 9.6: reserved bits are checked in PASID directory and table entries; QEMU checks none.',
  capabilityFields:
    'Section 9.4: DTE, PASIDE, PRE, RID_PASID and RID_PRIV are reserved without their capabilities; QEMU ignores them.',
  unrecordedReserved:
    'Table 26: reserved bits in a context entry are a qualified fault, which FPD keeps from being recorded; QEMU records it.',
  pasidFpdIgnored:
    'Sections 9.5 and 9.6: FPD of PASID tables counts for their own faults too; QEMU looks at the context entry alone.',
  permissionsFirst:
    'Section 7.1.3: permissions are those of the whole walk; QEMU checks them level by level, before reserved bits.',
  passThroughWidth:
    'Section 3.9: pass-through addresses beyond the host address width are blocked; QEMU lets them pass.',
  narrowCanonical:
    'Section 3.6.1: with 4 levels an address is canonical if bits 63:47 are equal; QEMU takes the width of the AW field.',
  snoopAllowed:
    'Section 9.9: SNP is reserved in a leaf where ECAP_REG.SC is 0; QEMU ignores it in scalable mode.',
  wholePageInRange:
    'Section 3.15: a result in the interrupt address range is blocked; QEMU blocks the whole page that reaches into it.',
  wholeLargePages:
    'Section 6.2.4 leaves it open in which pieces a large page is cached; QEMU caches it whole, our unit by 4 KiB.',
} as const;

/** The same, of interrupt remapping. */
export const INTERRUPT_QUIRKS = {
  busRangeSwapped:
    'Section 9.10: with SVT 10 the first bus is in SID 15:8 and the last in SID 7:0; QEMU takes them the other way round.',
  compatibilityPasses:
    'Section 5.1.4: messages in compatibility format are blocked with EIME, and without CFI; QEMU lets them pass.',
  indexWraps:
    'Section 5.1.5: handle and subhandle added give an index that can lie beyond any table; QEMU adds them in 16 bits.',
  interruptModeIgnored: 'Section 9.10: IM is reserved in an entry where CAP_REG.PI is 0; QEMU ignores it.',
  narrowDestination:
    'Section 9.10: without EIME all of DST but bits 15:8 is reserved; QEMU ignores those bits.',
} as const;

export type QuirkName = keyof typeof QUIRKS | keyof typeof INTERRUPT_QUIRKS;

/** Which deviations are allowed for, and which of them made a difference. */
export class Quirks {
  readonly used = new Set<QuirkName>();
  readonly #without: ReadonlySet<QuirkName>;

  constructor(without: readonly QuirkName[] = []) {
    this.#without = new Set(without);
  }

  /** For deviations that are allowed for in advance. */
  allows(name: QuirkName): boolean {
    return !this.#without.has(name);
  }

  /** True if the deviation is allowed for; it has then made a difference. */
  use(name: QuirkName): boolean {
    if (this.#without.has(name)) return false;
    this.used.add(name);
    return true;
  }
}
