/** Where the two kernels differ and both are right. Everything here is reported with the result. */
import { layouts } from './layouts';
import type { IoctlCall } from './program';

/** Bytes that are not compared. */
export interface KnownDifference {
  readonly request: string;
  /** In the argument: the field. In the scratch memory: bytes counted from what the field points to. */
  readonly field: string;
  readonly pointee?: { readonly from: number; readonly to: number };
  /** Why, as a sentence. */
  readonly because: string;
}

const physicalMemory = 'where memory lies, and how much of it is in one piece, is chance on Linux';

/** Everything else is the same as long as the simulated machine can be made like the guest. */
export const knownDifferences: readonly KnownDifference[] = [
  { request: 'IOMMU_IOAS_NOIOMMU_GET_PA', field: 'out_phys', because: physicalMemory },
  { request: 'IOMMU_IOAS_NOIOMMU_GET_PA', field: 'length', because: physicalMemory },
];

/** Whether byte `offset` of an area is one that is known to differ after `call`. */
export function masked(
  call: IoctlCall,
  area: 'argument' | 'scratch',
  offset: number,
  known: readonly KnownDifference[] = knownDifferences,
): boolean {
  return known.some(({ request, field, pointee }) => {
    if (call.request !== request) return false;
    if (area === 'argument') {
      const leaf = pointee ? undefined : layouts.get(request)?.byPath.get(field);
      return leaf !== undefined && offset >= leaf.offset && offset < leaf.offset + leaf.size;
    }
    const pointer = call.fields[field];
    if (!pointee || typeof pointer !== 'object' || !('at' in pointer) || pointer.at !== 'scratch')
      return false;
    return offset >= pointer.offset + pointee.from && offset < pointer.offset + pointee.to;
  });
}
