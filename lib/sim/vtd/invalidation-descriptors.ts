/**
 * Invalidation descriptors. Intel VT-d Architecture Specification rev. 4.1, section 6.5.2 "Queued Invalidation Interface".
 *
 * All are declared at 256 bits (IQA_REG.DW = 1, as scalable mode needs); the 128-bit form is the first four words.
 */
import { address, Layout, layout } from './layout';

export const TYPE_CONTEXT_CACHE = 1;
export const TYPE_IOTLB = 2;
export const TYPE_DEVICE_TLB = 3;
export const TYPE_INTERRUPT_ENTRY_CACHE = 4;
export const TYPE_WAIT = 5;
export const TYPE_PASID_IOTLB = 6;
export const TYPE_PASID_CACHE = 7;
export const TYPE_PASID_DEVICE_TLB = 8;
export const TYPE_PAGE_GROUP_RESPONSE = 9;

// G, granularity, of context-cache and IOTLB invalidation.
export const G_GLOBAL = 1;
export const G_DOMAIN = 2;
/** Context-cache invalidation: device-selective. */
export const G_DEVICE = 3;
/** IOTLB invalidation: page-selective within domain. */
export const G_PAGE = 3;

// G of PASID-cache invalidation.
export const PASID_CACHE_G_DOMAIN = 0;
export const PASID_CACHE_G_PASID = 1;
export const PASID_CACHE_G_GLOBAL = 3;

// G of PASID-based IOTLB invalidation.
export const PASID_IOTLB_G_PASID = 2;
export const PASID_IOTLB_G_PAGE = 3;

export const CONTEXT_CACHE_DESCRIPTOR = layout(256, {
  TYPE: [3, 0],
  G: [5, 4],
  DID: [31, 16],
  SID: [47, 32],
  /** Function mask: low bits of the function number to ignore (0, 2:2, 2:1, 2:0). */
  FM: [49, 48],
});

export const PASID_CACHE_DESCRIPTOR = layout(256, {
  TYPE: [3, 0],
  G: [5, 4],
  DID: [31, 16],
  PASID: [51, 32],
});

export const IOTLB_DESCRIPTOR = layout(256, {
  TYPE: [3, 0],
  G: [5, 4],
  /** Drain Writes. */
  DW: [6, 6],
  /** Drain Reads. */
  DR: [7, 7],
  DID: [31, 16],
  /** Address Mask: 2^AM pages. */
  AM: [69, 64],
  /** Invalidation Hint: 1 where only leaf entries were changed. */
  IH: [70, 70],
  ADDR: address(127, 76),
});

export const PASID_IOTLB_DESCRIPTOR = layout(256, {
  TYPE: [3, 0],
  G: [5, 4],
  DID: [31, 16],
  PASID: [51, 32],
  AM: [69, 64],
  IH: [70, 70],
  ADDR: address(127, 76),
});

export const DEVICE_TLB_DESCRIPTOR = layout(256, {
  TYPE: [3, 0],
  /** Physical-function source id 3:0. */
  PFSID_3_0: [15, 12],
  /** Max Invalidations Pending. */
  MIP: [20, 16],
  SID: [47, 32],
  /** Physical-function source id 15:4. */
  PFSID_15_4: [63, 52],
  /** Size: the lowest 0 bit of ADDR says how much. */
  S: [64, 64],
  ADDR: address(127, 76),
});

export const PASID_DEVICE_TLB_DESCRIPTOR = layout(256, {
  TYPE: [3, 0],
  MIP: [8, 4],
  PFSID_3_0: [15, 12],
  SID: [31, 16],
  PASID: [51, 32],
  PFSID_15_4: [63, 52],
  /** Global: every PASID. */
  G: [64, 64],
  S: [75, 75],
  ADDR: address(127, 76),
});

export const INTERRUPT_ENTRY_CACHE_DESCRIPTOR = layout(256, {
  TYPE: [3, 0],
  /** 0 global, 1 index-selective. */
  G: [4, 4],
  /** Index Mask: low bits of IIDX to ignore. */
  IM: [31, 27],
  /** Interrupt Index. */
  IIDX: [47, 32],
});

export const WAIT_DESCRIPTOR = layout(256, {
  TYPE: [3, 0],
  /** Interrupt Flag: ICS_REG.IWC and the invalidation event. */
  IF: [4, 4],
  /** Status Write. */
  SW: [5, 5],
  /** Fence. */
  FN: [6, 6],
  /** Page-request Drain. */
  PD: [7, 7],
  STATUS_DATA: [63, 32],
  /** Where the status goes, 4-byte aligned. */
  STATUS_ADDRESS: address(127, 66),
});

export const PAGE_GROUP_RESPONSE_DESCRIPTOR = layout(256, {
  TYPE: [3, 0],
  /** PASID present. */
  PP: [4, 4],
  /** Response code: 0 success, 1 invalid request, 15 failure. */
  RESPONSE_CODE: [15, 12],
  RID: [31, 16],
  PASID: [51, 32],
  /** Page Request Group Index. */
  PRGI: [75, 67],
});

/** Values for a descriptor's encoder: all fields but TYPE, absent ones 0. */
type Values<L> = L extends Layout<infer Name> ? Partial<Record<Exclude<Name, 'TYPE'>, number>> : never;

function encoder<Name extends string>(type: number, of: Layout<Name>) {
  return (values: Values<Layout<Name>>): Int32Array => {
    const words = of.encode(values as Partial<Record<Name, number>>);
    words[0]! |= type;
    return words;
  };
}

// Each returns the 8 words of a 256-bit descriptor.
export const encodeContextCacheInvalidate = encoder(TYPE_CONTEXT_CACHE, CONTEXT_CACHE_DESCRIPTOR);
export const encodePasidCacheInvalidate = encoder(TYPE_PASID_CACHE, PASID_CACHE_DESCRIPTOR);
export const encodeIotlbInvalidate = encoder(TYPE_IOTLB, IOTLB_DESCRIPTOR);
export const encodePasidIotlbInvalidate = encoder(TYPE_PASID_IOTLB, PASID_IOTLB_DESCRIPTOR);
export const encodeInterruptEntryCacheInvalidate = encoder(
  TYPE_INTERRUPT_ENTRY_CACHE,
  INTERRUPT_ENTRY_CACHE_DESCRIPTOR,
);
export const encodeInvalidationWait = encoder(TYPE_WAIT, WAIT_DESCRIPTOR);
export const encodePageGroupResponse = encoder(TYPE_PAGE_GROUP_RESPONSE, PAGE_GROUP_RESPONSE_DESCRIPTOR);

/** `order` 52 or more, from 0: everything. */
export const DEVICE_TLB_ALL_ORDER = 52;

/**
 * Device-TLB invalidation of the 2^`order` pages at `high`:`low` (an address aligned to their size) for requests without
 * PASID of `sid`. `mip`: invalidations the function can have pending, 0 is 32.
 */
export function encodeDeviceTlbInvalidate(
  sid: number,
  high: number,
  low: number,
  order: number,
  mip = 0,
  pfsid = sid,
): Int32Array {
  const words = DEVICE_TLB_DESCRIPTOR.encode({
    TYPE: TYPE_DEVICE_TLB,
    SID: sid,
    MIP: mip,
    PFSID_3_0: pfsid & 0xf,
    PFSID_15_4: pfsid >>> 4,
    S: order > 0 ? 1 : 0,
  });
  return putSizedAddress(words, high, low, order);
}

/** The same for requests with `pasid`; `global` reaches every PASID's global translations. */
export function encodePasidDeviceTlbInvalidate(
  sid: number,
  pasid: number,
  high: number,
  low: number,
  order: number,
  global = false,
  mip = 0,
  pfsid = sid,
): Int32Array {
  const words = PASID_DEVICE_TLB_DESCRIPTOR.encode({
    TYPE: TYPE_PASID_DEVICE_TLB,
    SID: sid,
    PASID: pasid,
    MIP: mip,
    PFSID_3_0: pfsid & 0xf,
    PFSID_15_4: pfsid >>> 4,
    G: Number(global),
    S: order > 0 ? 1 : 0,
  });
  return putSizedAddress(words, high, low, order);
}

/** ADDR with S = 1 (PCIe ATS): bits below the size's top one are 1, that one is 0. */
function putSizedAddress(words: Int32Array, high: number, low: number, order: number): Int32Array {
  const bits = 12 + Math.min(order, DEVICE_TLB_ALL_ORDER) - 1;
  if (order > 0) {
    // bits 12 .. bits-1 set, bit `bits` clear
    for (let bit = 12; bit < bits; bit++) {
      if (bit < 32) low |= 1 << bit;
      else high |= 1 << (bit - 32);
    }
    if (bits < 32) low &= ~(1 << bits);
    else high &= ~(1 << (bits - 32));
  }
  words[2]! |= low & ~0xfff;
  words[3]! |= high;
  return words;
}

/** The range a device-TLB descriptor (words 2 and 3 at `at`) names. */
export function decodeSizedAddress(
  words: ArrayLike<number>,
  at: number,
  sized: boolean,
): { high: number; low: number; length: number } {
  const high = words[at + 3]!;
  const low = words[at + 2]! & ~0xfff;
  if (!sized) return { high: high >>> 0, low: low >>> 0, length: 4096 };
  let bit = 12;
  while (bit < 63 && ((bit < 32 ? low >>> bit : high >>> (bit - 32)) & 1) === 1) bit++;
  // Bits `bit`:12 say how much: they are no part of the address.
  const lowMask = bit >= 31 ? 0 : -1 << (bit + 1);
  const highMask = bit < 32 ? -1 : bit === 63 ? 0 : -1 << (bit - 31);
  return { high: (high & highMask) >>> 0, low: (low & lowMask) >>> 0, length: 2 ** (bit + 1) };
}
