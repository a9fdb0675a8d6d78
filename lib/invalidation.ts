/** IOMMU_HWPT_INVALIDATE: forgetting what an IOMMU has cached of user-managed tables. */
import type { Context } from './context';
import { refusal, type IommuError } from './errors';
import { MOST_ENTRY_BYTES } from './hot-calls';
import { attempt, refused } from './ioctl';
import type { IovaRangeInput } from './iova';
import { checkOptions } from './options';
import * as uapi from './uapi';

const U64_MAX = 2n ** 64n - 1n;

/** Part of a VT-d first-stage table: `pages` pages of 4096 bytes from `iova`; `leaf`: only their last-level entries. */
export interface VtdInvalidation {
  readonly iova: bigint | number;
  readonly pages: bigint | number;
  readonly leaf?: boolean | undefined;
}

/** Commands of the SMMUv3 command queue, two doublewords each (Arm SMMUv3 specification, section 4). */
export interface SmmuInvalidation {
  readonly commands: readonly (readonly [bigint, bigint])[];
}

/** Entries of any driver: enum iommu_hwpt_invalidate_data_type, and its structs. */
export interface RawInvalidation {
  readonly type: number;
  readonly entries: readonly Uint8Array[];
}

/** What to invalidate. 'all' and VtdInvalidation are for tables in VT-d format. */
export type Invalidation =
  'all' | VtdInvalidation | readonly VtdInvalidation[] | SmmuInvalidation | RawInvalidation;

/** Caches of an IOMMU, and of devices with ATS. */
export type CacheType = 'iotlb' | 'device-tlb' | 'pasid';

/**
 * What to forget, as the RFC has it (section 2: IOMMU_INVALIDATE_CACHE). What is left out means all. More may be forgotten
 * than was asked for, never less: the kernel takes ranges of a table, and drops them from the IOTLB and from the device
 * TLBs of all devices that use it.
 */
export interface CacheInvalidation {
  /** The cookie of a device: only what was translated for it. */
  readonly device?: bigint | number | undefined;
  /** Only what was translated for this PASID. */
  readonly pasid?: number | undefined;
  /** Only these addresses; `iova` a multiple of 4096. */
  readonly range?: IovaRangeInput | undefined;
  /** Of the range only the last-level entries have changed. */
  readonly leaf?: boolean | undefined;
  /** Which caches. Default: 'iotlb' and 'device-tlb'. */
  readonly caches?: readonly CacheType[] | undefined;
}

const CACHES: readonly unknown[] = ['iotlb', 'device-tlb', 'pasid'] satisfies CacheType[];
const FIELDS: readonly string[] = [
  'device',
  'pasid',
  'range',
  'leaf',
  'caches',
] satisfies (keyof CacheInvalidation)[];

export function isCacheInvalidation(what: Invalidation | CacheInvalidation): what is CacheInvalidation {
  if (what !== 'all') checkOptions(what, 'invalidate', "'all', or what to forget");
  return (
    typeof what === 'object' && !Array.isArray(what) && Object.keys(what).every((key) => FIELDS.includes(key))
  );
}

/** For a user's table of this enum iommu_hwpt_data_type. Throws TypeError, RangeError; IommuError EOPNOTSUPP. */
export function encodeCaches(what: CacheInvalidation, dataType: number): RawInvalidation {
  const { range, leaf = false, caches = ['iotlb'] } = what;
  if (!Array.isArray(caches)) throw new TypeError(`caches are an array of ${CACHES.join(', ')}`);
  const unknown = caches.find((cache) => !CACHES.includes(cache));
  if (unknown !== undefined || caches.length === 0)
    throw new TypeError(`caches are ${CACHES.join(', ')}, at least one, not ${String(unknown)}`);
  const request = 'IOMMU_HWPT_INVALIDATE';
  if (dataType !== uapi.IOMMU_HWPT_DATA_VTD_S1)
    throw refusal('EOPNOTSUPP', 'only tables in VT-d format are invalidated by range', {
      request,
      hint: "send the IOMMU's own commands through a virtual IOMMU: viommu.invalidate()",
    });
  if (caches.includes('pasid'))
    throw refusal('EOPNOTSUPP', 'the kernel has no invalidation of the PASID cache', {
      request,
      hint: 'none is needed: the kernel keeps the PASID table, and drops what is cached of it when it changes',
    });
  if (!range) return encodeVtd([{ iova: 0n, pages: U64_MAX, leaf }]);
  const length = uapi.toU64(range.length, 'length');
  if (length === 0n) throw new RangeError('a range has at least one byte');
  return encodeVtd([{ iova: range.iova, pages: (length + 4095n) / 4096n, leaf }]);
}

/** Checks and encodes. Throws TypeError, RangeError. */
export function encodeInvalidation(what: Invalidation): RawInvalidation {
  if (what === 'all') return encodeVtd([{ iova: 0n, pages: U64_MAX }]);
  if ('entries' in what && 'type' in what) {
    const { entries } = what;
    if (entries.some(({ length }) => length !== entries[0].length))
      throw new RangeError('the entries of one invalidation are of one length');
    return what;
  }
  if ('commands' in what)
    return {
      type: uapi.IOMMU_VIOMMU_INVALIDATE_DATA_ARM_SMMUV3,
      entries: what.commands.map((cmd) => uapi.iommu_viommu_arm_smmuv3_invalidate.encode({ cmd })),
    };
  if ('iova' in what) return encodeVtd([what]);
  if (Array.isArray(what)) return encodeVtd(what as readonly VtdInvalidation[]);
  throw new TypeError(`${Object.keys(what).join(', ')} says nothing of what to forget: ${FIELDS.join(', ')}`);
}

function encodeVtd(list: readonly VtdInvalidation[]): RawInvalidation {
  return {
    type: uapi.IOMMU_HWPT_INVALIDATE_DATA_VTD_S1,
    entries: list.map((item) => {
      const addr = uapi.toU64(item.iova, 'iova');
      if (addr % 4096n !== 0n) throw new RangeError(`iova 0x${addr.toString(16)} is not a multiple of 4096`);
      return uapi.iommu_hwpt_vtd_s1_invalidate.encode({
        addr,
        npages: uapi.toU64(item.pages, 'pages'),
        flags: item.leaf ? uapi.IOMMU_VTD_INV_FLAGS_LEAF : 0,
      });
    }),
  };
}

/**
 * Invalidates on a nested table or a virtual IOMMU, by its object ID. Throws IommuError; where entries before the refused
 * one were carried out, its hint says how many.
 */
export function invalidate(context: Context, id: number, what: RawInvalidation): void {
  const { type, entries } = what;
  const { hot } = context;
  const bytes = entries.length > 0 ? entries.length * entries[0].length : 0;
  if (bytes > MOST_ENTRY_BYTES) return invalidateMany(context, id, what);
  const result = hot.make(hot.writeInvalidate(id, type, entries));
  if (result < 0) throw invalidateFailure(context, type, result, hot.invalidated);
}

/** What the call page has no room for: from memory of its own. */
function invalidateMany(context: Context, id: number, { type, entries }: RawInvalidation): void {
  const { kernel, fd } = context;
  const { length } = entries[0];
  const bytes = new Uint8Array(length * entries.length);
  entries.forEach((entry, i) => bytes.set(entry, i * length));
  const values = {
    hwpt_id: id,
    data_uptr: kernel.addressOf(bytes),
    data_type: type,
    entry_len: length,
    entry_num: entries.length,
  };
  const { result, out } = attempt(kernel, fd, uapi.IOMMU_HWPT_INVALIDATE, values, bytes);
  if (result < 0) throw invalidateFailure(context, type, result, out.entry_num);
}

function invalidateFailure(context: Context, type: number, result: number, done: number): IommuError {
  const hint = done > 0 ? `entry ${done} was refused; the ${done} before it were carried out` : undefined;
  return refused(
    context.kernel,
    uapi.IOMMU_HWPT_INVALIDATE,
    { data_type: type },
    result,
    hint ? { hint } : {},
  );
}
