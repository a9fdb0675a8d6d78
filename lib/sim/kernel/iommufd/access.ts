/**
 * ACCESS objects: how the kernel itself reaches memory by IOVA, without DMA (iommufd_access in
 * drivers/iommu/iommufd/device.c).
 */
import { errno } from '../../../uapi/errno';
import { IOMMU_READ, IOMMU_WRITE } from '../iommu/core';
import { PAGE_SIZE, type UserMemory } from '../user-memory';
import type { IommufdFile } from './file';
import type { Area, TableAccess } from './area';
import type { Ioas } from './ioas';
import { IommufdObject } from './object';
import type { Hold } from './pages';

const U64_MAX = (1n << 64n) - 1n;
const PAGE = BigInt(PAGE_SIZE);

/** A piece of an IOVA range within one area. */
interface Piece {
  readonly area: Area;
  /** Byte of the area's pages. */
  readonly startByte: bigint;
  readonly length: bigint;
}

/** Pages that stay where they are until they are let go. */
export interface PinnedRange {
  readonly iova: bigint;
  readonly last: bigint;
  /** Physical addresses of the pages, in order of IOVA. */
  readonly physical: readonly number[];
  unpin(): void;
}

export class Access extends IommufdObject implements TableAccess {
  readonly alignment: bigint;
  #ioas: Ioas | undefined;

  /**
   * `pinsPages`: it takes pages, not only bytes. `release` is told which range [iova, iova + length) must not stay
   * pinned. One without it is iommufd's own: what it pins cannot be unmapped, and it does not keep the file open.
   */
  constructor(
    readonly file: IommufdFile,
    readonly pinsPages: boolean,
    readonly release?: (iova: bigint, length: bigint) => void,
  ) {
    super();
    this.alignment = pinsPages ? PAGE : 1n;
    // Whoever made it: nobody else can destroy the object.
    this.users = 1;
    if (release) file.get();
  }

  letGo(iova: bigint, length: bigint): void {
    this.release?.(iova, length);
  }

  /** Ends it. Nothing of it is pinned any more. */
  close(): void {
    this.users = 0;
    this.file.objects.remove(this);
    this.destroy();
    if (this.release) this.file.put();
  }

  destroy(): void {
    this.change(undefined);
  }

  get ioas(): Ioas | undefined {
    return this.#ioas;
  }

  /** Moves it to another IOAS. 0, or EADDRINUSE where its areas are not aligned as it needs them. */
  change(ioas: Ioas | undefined): number {
    const old = this.#ioas;
    if (old === ioas) return 0;
    const result = ioas?.table.addAccess(this) ?? 0;
    if (result) return result;
    if (ioas) ioas.users++;
    if (old) {
      this.letGo(0n, U64_MAX);
      old.table.removeAccess(this);
      old.users--;
    }
    this.#ioas = ioas;
    return 0;
  }

  /** Pins the pages of [iova, iova + length). Page-aligned pieces only. */
  pin(iova: bigint, length: bigint, write: boolean): PinnedRange | number {
    const locks = this.release ? 0 : 1;
    const holds: { area: Area; hold: Hold }[] = [];
    const unpin = () => {
      for (const { area, hold } of holds.splice(0)) {
        hold.release();
        area.accesses--;
        area.locks -= locks;
      }
    };
    const result = this.#forEach(iova, length, ({ area, startByte, length: bytes }, isLast) => {
      // One page must not hold the end of one piece and the start of another.
      if (startByte % PAGE || (!isLast && (startByte + bytes) % PAGE)) return -errno.EINVAL;
      if (!permits(area, write)) return -errno.EPERM;
      const hold = area.pages.hold(startByte, bytes);
      if (typeof hold === 'number') return hold;
      const charged = area.pages.charge();
      if (charged) {
        hold.release();
        return charged;
      }
      area.accesses++;
      area.locks += locks;
      holds.push({ area, hold });
      return 0;
    });
    if (result) {
      unpin();
      return result;
    }
    const physical = holds.flatMap(({ hold }) =>
      Array.from({ length: hold.end - hold.first }, (_, i) => hold.physical + i * PAGE_SIZE),
    );
    return { iova, last: iova + length - 1n, physical, unpin };
  }

  /** Copies to or from the memory at `iova`. `current` as Pages.copy has it. What was copied before an error stays. */
  copy(iova: bigint, data: Uint8Array, write: boolean, current: UserMemory | undefined): number {
    const { memory } = this.file.system;
    let done = 0;
    return this.#forEach(iova, BigInt(data.length), ({ area, startByte, length }) => {
      if (!permits(area, write)) return -errno.EPERM;
      const bytes = data.subarray(done, (done += Number(length)));
      return area.pages.copy(startByte, bytes, write, memory, current);
    });
  }

  /** Goes through the areas behind the range; ENOENT at the first hole. */
  #forEach(iova: bigint, length: bigint, visit: (piece: Piece, isLast: boolean) => number): number {
    if (length === 0n) return -errno.EINVAL;
    const last = iova + length - 1n;
    if (last > U64_MAX) return -errno.EOVERFLOW;
    if (!this.#ioas) return -errno.ENOENT;
    while (iova <= last) {
      const area = this.#ioas.table.areas.first(iova, iova);
      if (!area) return -errno.ENOENT;
      const end = area.last < last ? area.last : last;
      const piece = { area, startByte: area.startByte + (iova - area.start), length: end - iova + 1n };
      const result = visit(piece, end === last);
      if (result) return result;
      iova = end + 1n;
    }
    return 0;
  }
}

function permits({ protection, pages }: Area, write: boolean): boolean {
  return write ? (protection & IOMMU_WRITE) !== 0 && pages.writable : (protection & IOMMU_READ) !== 0;
}
