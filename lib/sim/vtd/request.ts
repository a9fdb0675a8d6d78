/**
 * Requests to a bare unit as plain data, for people and tests: one object in, one out, any length. The machine's root complex
 * calls {@link VtdUnit.translate} and {@link VtdUnit.translationRequest} page by page; so does this.
 */
import {
  ACCESS_ATOMIC,
  ACCESS_EXECUTE,
  ACCESS_PRIVILEGED,
  ACCESS_READ,
  ACCESS_TRANSLATED,
  ACCESS_WRITE,
  NO_PASID,
  type TranslationCompletion,
} from '../bus';
import * as reasons from './fault-reasons';
import type { VtdUnit } from './unit';
import { isInterruptAddress } from './walk';

const PAGE = 4096n;
const U64 = 2n ** 64n;

export interface UnitRequest {
  /** Requester id: bus 15:8, device 7:3, function 2:0. */
  readonly rid: number;
  /** 0 to 0xfffff; absent: a request without PASID. */
  readonly pasid?: number | undefined;
  /** First byte, 64 bits. */
  readonly address: bigint | number;
  /** Bytes, 1 at least (default 1). A translation request is for the page of `address`. */
  readonly length?: number | undefined;
  readonly write?: boolean | undefined;
  /** An AtomicOp: reading and writing have to be permitted. */
  readonly atomic?: boolean | undefined;
  /** Execute and privileged mode requested; with a PASID only. */
  readonly execute?: boolean | undefined;
  readonly privileged?: boolean | undefined;
  /**
   * 'untranslated' (default): memory, by an address that the unit translates; 'translated': memory, by one from the device's own
   * cache; 'translation': asks for a translation (PCIe ATS), `write` and `execute` saying what for.
   */
  readonly kind?: 'untranslated' | 'translated' | 'translation' | undefined;
}

/** Where a part of a request goes. */
export interface HostRange {
  readonly address: bigint;
  readonly length: number;
}

/** Why a request ended. */
export interface RequestFault {
  /** As in FRCD_REG.FR; 0x100 (NOT_A_FAULT): blocked, and nothing recorded. */
  readonly reason: number;
  /** The reason's name in `vtd`, with the specification's label: 'SGN_6_WRITE'. */
  readonly name: string;
  /** First byte that was refused. */
  readonly address: bigint;
}

export interface RequestResult {
  /** Host physical ranges, in order, of the bytes up to the fault; neighbours are one. Empty for translation requests. */
  readonly ranges: readonly HostRange[];
  /** Absent where the whole request went through, and of translation requests: those are answered. */
  readonly fault?: RequestFault;
  /** The answer to a translation request. */
  readonly completion?: TranslationCompletion;
}

const NAMES = new Map<number, string>(
  Object.entries(reasons).flatMap(([name, value]) =>
    typeof value === 'number' ? [[value, name] as const] : [],
  ),
);

/** The name of a fault reason: 'LGN_2_WRITE' for 0x05; '0x..' for a number that is none. */
export function faultReasonName(reason: number): string {
  return NAMES.get(reason) ?? `0x${reason.toString(16)}`;
}

/**
 * Carries out a request: faults are recorded, caches filled, accessed and dirty bits set, as by a device's.
 *
 * Throws RangeError: `rid`, `pasid`, `address` or `length` out of range; execute or privileged mode without a PASID; an
 * untranslated request without PASID to 0xFEEx_xxxx, which is an interrupt message: {@link VtdUnit.interruptRequest}.
 */
export function submitRequest(unit: VtdUnit, request: UnitRequest): RequestResult {
  const { rid, kind = 'untranslated', length = 1 } = request;
  const pasid = request.pasid ?? NO_PASID;
  const address = BigInt(request.address);
  const access = accessOf(request);
  check(request, address, length);
  if (kind === 'translation') {
    return {
      ranges: [],
      completion: unit.translationRequest(rid, pasid, high(address), low(address), access),
    };
  }
  const ranges: { address: bigint; length: number }[] = [];
  for (let at = address; at < address + BigInt(length);) {
    if (kind === 'untranslated' && pasid === NO_PASID && isInterruptAddress(high(at), low(at))) {
      throw new RangeError(`${hex(at)} is where interrupt messages go: interruptRequest() takes those`);
    }
    const rest = address + BigInt(length) - at;
    const part = rest < PAGE - (at % PAGE) ? rest : PAGE - (at % PAGE);
    const physical = unit.translate(rid, pasid, high(at), low(at), access);
    if (physical < 0) {
      return { ranges, fault: { reason: -physical, name: faultReasonName(-physical), address: at } };
    }
    const last = ranges.at(-1);
    if (last !== undefined && last.address + BigInt(last.length) === BigInt(physical))
      last.length += Number(part);
    else ranges.push({ address: BigInt(physical), length: Number(part) });
    at += part;
  }
  return { ranges };
}

const high = (address: bigint): number => Number(address >> 32n);
const low = (address: bigint): number => Number(address & 0xffff_ffffn);
const hex = (address: bigint): string => `0x${address.toString(16)}`;

function accessOf({ write, atomic, execute, privileged, kind }: UnitRequest): number {
  return (
    (atomic ? ACCESS_ATOMIC : 0) |
    (write ? ACCESS_WRITE : ACCESS_READ) |
    (execute ? ACCESS_EXECUTE : 0) |
    (privileged ? ACCESS_PRIVILEGED : 0) |
    (kind === 'translated' ? ACCESS_TRANSLATED : 0)
  );
}

function check({ rid, pasid, execute, privileged }: UnitRequest, address: bigint, length: number): void {
  const isInteger = (value: number, limit: number): boolean =>
    Number.isInteger(value) && value >= 0 && value < limit;
  if (!isInteger(rid, 2 ** 16)) throw new RangeError(`rid ${rid} is not a requester id, 0 to 0xffff`);
  if (pasid !== undefined && !isInteger(pasid, 2 ** 20)) {
    throw new RangeError(`pasid ${pasid} is not a PASID, 0 to 0xfffff`);
  }
  if (pasid === undefined && (execute || privileged)) {
    throw new RangeError('execute and privileged mode are requested by the PASID prefix: give a pasid');
  }
  if (!Number.isSafeInteger(length) || length < 1)
    throw new RangeError(`length ${length} is not a size, 1 or more`);
  if (address < 0n || address + BigInt(length) > U64) {
    throw new RangeError(`${hex(address)} and ${length} bytes are not within 64 bits`);
  }
}
