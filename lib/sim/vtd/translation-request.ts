/**
 * Completions of translation requests (PCIe ATS).
 * Intel VT-d Architecture Specification rev. 4.1, sections 4.1.3 "Address Translation Requests" and 7.1.3, table 26.
 */
import { ACCESS_EXECUTE, ACCESS_PRIVILEGED, ACCESS_WRITE, NOT_MAPPED, TranslationCompletion } from '../bus';
import {
  LGN_1_BEYOND_WIDTH,
  LGN_2_WRITE,
  LGN_3_READ,
  LGN_4_INTERRUPT_RANGE,
  SFS_2_NOT_PRESENT,
  SFS_5_NESTED_WIDTH,
  SFS_8_NESTED_WRITE,
  SGN_1_NOT_CANONICAL,
  SGN_2_USER,
  SGN_3_EXECUTE,
  SGN_6_WRITE,
  SGN_7_READ,
  SGN_8_INTERRUPT_RANGE,
  SSS_2_NOT_PRESENT,
} from './fault-reasons';
import { CachedPasid } from './pasid-cache';
import { Translator } from './translator';
import { PAGE_OFFSET, pageMaskLow, Walk } from './walk';

/** Interrupt messages are never translated: the device may write there, with untranslated requests only. */
export function interruptRange(low: number): TranslationCompletion {
  return { ...NOT_MAPPED, low: (low & ~PAGE_OFFSET) >>> 0, write: true, untranslatedOnly: true };
}

/** What may be given up to get a translation at all, in this order. */
const CONCESSIONS = [0, ACCESS_WRITE, ACCESS_EXECUTE, ACCESS_WRITE | ACCESS_EXECUTE];

/** Translates, giving up write or execute where not permitted: the kind that was found, or minus the fault reason. */
export function findBest(
  translator: Translator,
  entry: CachedPasid,
  asked: number,
  high: number,
  low: number,
): number {
  let first = 0;
  for (const given of CONCESSIONS) {
    if ((asked & given) !== given) continue;
    const reason = translator.find(entry, asked & ~given, high, low, true);
    if (reason === 0) return asked & ~given;
    if (given === 0) first = reason;
    if (!isPermission(reason)) break;
  }
  return -first;
}

/** The completion for the page in `walk`. Priv answers a PASID's privileged mode requested, never RID_PRIV. */
export function complete(walk: Walk, asked: number, found: number, pasid: number): TranslationCompletion {
  const plain = asked & ~(ACCESS_WRITE | ACCESS_EXECUTE);
  return {
    success: true,
    high: walk.high >>> 0,
    low: (walk.low & pageMaskLow(walk.shift)) >>> 0,
    length: 2 ** walk.shift,
    read: ((walk.allowed >>> plain) & 1) !== 0,
    write: (found & ACCESS_WRITE) !== 0,
    execute: (found & ACCESS_EXECUTE) !== 0,
    privileged: pasid >= 0 && (asked & ACCESS_PRIVILEGED) !== 0,
    global: false,
    untranslatedOnly: false,
    snooped: walk.snoop !== 0,
  };
}

const PERMISSION = new Set([LGN_2_WRITE, LGN_3_READ, SGN_2_USER, SGN_3_EXECUTE, SGN_6_WRITE, SGN_7_READ]);

function isPermission(reason: number): boolean {
  return PERMISSION.has(reason);
}

/** Conditions that answer a translation request with R = W = 0, and can be mended by a page request. */
export function isRecoverable(reason: number): boolean {
  return (
    isPermission(reason) ||
    reason === LGN_1_BEYOND_WIDTH ||
    reason === LGN_4_INTERRUPT_RANGE ||
    reason === SFS_2_NOT_PRESENT ||
    reason === SSS_2_NOT_PRESENT ||
    (reason >= SFS_5_NESTED_WIDTH && reason <= SFS_8_NESTED_WRITE) ||
    (reason >= SGN_1_NOT_CANONICAL && reason <= SGN_8_INTERRUPT_RANGE)
  );
}
