/**
 * Fault reason codes of interrupt remapping.
 * Intel VT-d Architecture Specification rev. 4.1, section 7.1.2 "Interrupt Remapping Fault Conditions". FPD of the entry
 * keeps those from being recorded that an entry has been read for: all but 0x20, 0x21, 0x23 and 0x25.
 */

/** Reserved bits of a message in remappable format are set. */
export const IR_REQUEST_RESERVED = 0x20;
/** The interrupt_index is beyond the table (IRTA_REG.S). */
export const IR_INDEX_TOO_LARGE = 0x21;
/** The entry is not present. */
export const IR_NOT_PRESENT = 0x22;
/** Access to the entry failed. */
export const IR_ACCESS = 0x23;
/** Reserved bit set in a present entry; posted, and the unit cannot (CAP_REG.PI). */
export const IR_RESERVED = 0x24;
/** A message in compatibility format, and these are blocked. */
export const IR_COMPATIBILITY_BLOCKED = 0x25;
/** The requester is not the one the entry is for (SID, SQ, SVT). */
export const IR_SOURCE = 0x26;
/** Access to the posted interrupt descriptor failed. */
export const IR_POSTED_ACCESS = 0x27;
/** Reserved bit set in the posted interrupt descriptor. */
export const IR_POSTED_RESERVED = 0x28;
