/**
 * pPASIDs: the PASIDs that hardware sees of mediated devices. Those of the global space stand for the same thing behind
 * every requester ID, the others only behind one; the two spaces do not overlap, so that no slot has two meanings.
 */
import { errno } from '../../uapi/errno';

/** One past the last PASID. */
const PASIDS = 2 ** 20;

/** The first PASID of each space. */
export interface PasidSpaces {
  /** Of each requester ID's own space, from 1; it ends where the global one begins. */
  readonly perRid: number;
  readonly global: number;
}

export const DEFAULT_PASID_SPACES: PasidSpaces = { perRid: 1, global: 2 ** 19 };

/** Hands out the lowest free PASID of [first, end). */
export class PasidAllocator {
  readonly #taken = new Set<number>();

  constructor(
    readonly first: number,
    readonly end: number,
  ) {}

  /** A PASID, or -ENOSPC. */
  allocate(): number {
    let pasid = this.first;
    while (this.#taken.has(pasid)) pasid++;
    if (pasid >= this.end) return -errno.ENOSPC;
    this.#taken.add(pasid);
    return pasid;
  }

  free(pasid: number): void {
    this.#taken.delete(pasid);
  }
}

/** The PASIDs of one machine. RangeError for spaces that are none. */
export class Pasids {
  readonly global: PasidAllocator;

  constructor(readonly spaces: PasidSpaces) {
    const { perRid, global } = spaces;
    if (!(
      Number.isInteger(perRid) &&
      Number.isInteger(global) &&
      0 < perRid &&
      perRid < global &&
      global < PASIDS
    ))
      throw new RangeError(`PASID spaces begin between 1 and ${PASIDS - 1}, the global one behind the other`);
    this.global = new PasidAllocator(global, PASIDS);
  }

  /** The space of one requester ID. */
  perRid(): PasidAllocator {
    return new PasidAllocator(this.spaces.perRid, this.spaces.global);
  }
}
