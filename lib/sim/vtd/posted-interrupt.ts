/**
 * Posted interrupt descriptor. Intel VT-d Architecture Specification rev. 4.1, sections 5.2 "Interrupt Posting" and
 * 9.12 "Posted Interrupt Descriptor (PID)". 64 bytes, aligned to their size.
 */
import { PhysicalMemory } from '../memory';
import { IR_POSTED_ACCESS, IR_POSTED_RESERVED } from './interrupt-fault-reasons';
import { anyBits, layout } from './layout';

/** What follows the 256 posted interrupt requests (PIR), one bit a vector. */
export const POSTED_DESCRIPTOR_CONTROL = layout(256, {
  /** Outstanding Notification. */
  ON: [0, 0],
  /** Suppress Notification, except for urgent interrupts. */
  SN: [1, 1],
  /** Notification Vector. */
  NV: [23, 16],
  /** Notification Destination; with IRTA_REG.EIME = 0 only its bits 15:8 are. */
  NDST: [63, 32],
});

/** Offset of {@link POSTED_DESCRIPTOR_CONTROL} in the descriptor. */
export const POSTED_DESCRIPTOR_CONTROL_AT = 32;

const NARROW_NDST_RESERVED = 0xffff_00ff | 0;
const ON = 1 << 0;

export interface Posting {
  /** 0, or the fault reason. */
  readonly fault: number;
  /** The notification to send, if any. */
  readonly notify: { readonly NV: number; readonly NDST: number } | null;
}

/** Posts `vector` into the descriptor at `at`. */
export function postInterrupt(
  memory: PhysicalMemory,
  at: number,
  vector: number,
  urgent: boolean,
  extended: boolean,
): Posting {
  const words = new Int32Array(POSTED_DESCRIPTOR_CONTROL.wordCount);
  const control = at + POSTED_DESCRIPTOR_CONTROL_AT;
  const request = at + (vector >>> 5) * 4;
  if (!memory.has(at, POSTED_DESCRIPTOR_CONTROL_AT) || !memory.readWords(control, words))
    return { fault: IR_POSTED_ACCESS, notify: null };
  const narrow = !extended && (words[1]! & NARROW_NDST_RESERVED) !== 0;
  if (narrow || anyBits(words, POSTED_DESCRIPTOR_CONTROL.reserved))
    return { fault: IR_POSTED_RESERVED, notify: null };
  memory.write32(request, memory.read32(request) | (1 << (vector & 31)));
  const descriptor = POSTED_DESCRIPTOR_CONTROL.decode(words);
  if (descriptor.ON !== 0 || (descriptor.SN !== 0 && !urgent)) return { fault: 0, notify: null };
  memory.write32(control, words[0]! | ON);
  return { fault: 0, notify: descriptor };
}
