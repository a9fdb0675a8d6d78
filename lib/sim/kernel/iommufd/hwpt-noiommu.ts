/**
 * Devices that no IOMMU is in front of (CONFIG_IOMMUFD_NOIOMMU): their DMA goes to physical addresses. What an IOAS maps
 * for them is pinned and written down in a table that only the kernel reads, for IOMMU_IOAS_NOIOMMU_GET_PA
 * (drivers/iommu/iommufd/hwpt_noiommu.c's role).
 */
import { errno } from '../../../uapi/errno';
import { IOMMU_IOAS_NOIOMMU_GET_PA } from '../../../uapi/iommufd-ioctls';
import { isCapable } from '../credentials';
import type { IommuDriver, KernelDevice, PagingDomain, UserData } from '../iommu/core';
import { PAGE_SIZE } from '../user-memory';
import { handler, type Command, type Handler } from './command';
import { IntervalList, type Interval } from './interval-list';
import type { IoPageTable } from './io-page-table';
import { Ioas } from './ioas';

const U64_MAX = (1n << 64n) - 1n;
const PAGE = BigInt(PAGE_SIZE);
/** The format is AMD's v1 table, which has every power of two up to 2^51 but 512 GiB. */
const PAGE_SIZES = ((1n << 52n) - PAGE) & ~(1n << 39n);

/** Contiguous IOVAs that lead to contiguous memory. */
interface Run extends Interval {
  readonly physical: number;
}

class NoIommuDomain implements PagingDomain {
  readonly granule = PAGE_SIZE;
  readonly pageSizes = PAGE_SIZES;
  readonly apertureStart = 0n;
  readonly apertureLast = U64_MAX;
  readonly #runs = new IntervalList<Run>();

  map(page: number, physical: number, pages: number): number {
    const start = BigInt(page) * PAGE;
    this.#runs.add({ start, last: start + BigInt(pages) * PAGE - 1n, physical });
    return 0;
  }

  unmap(page: number, pages: number): void {
    const start = BigInt(page) * PAGE;
    const last = start + BigInt(pages) * PAGE - 1n;
    // What is unmapped in parts was mapped page by page.
    let run;
    while ((run = this.#runs.first(start, last))) this.#runs.remove(run);
  }

  physicalOf(iova: bigint): number {
    const run = this.#runs.first(iova, iova);
    return run ? run.physical + Number(iova - run.start) : 0;
  }

  free(): void {
    // The runs go with the object.
  }
}

class NoIommu implements IommuDriver {
  hardwareInfo(): undefined {
    return undefined;
  }

  reservedRegions(): readonly [] {
    return [];
  }

  allocatePaging(_device: KernelDevice, flags: number, data?: UserData): PagingDomain | number {
    return flags || data ? -errno.EOPNOTSUPP : new NoIommuDomain();
  }

  /** Any table will do: none is looked at by the device. */
  attachGroup(): number {
    return 0;
  }

  attachGroupPasid(): number {
    return 0;
  }

  remove(): void {
    // Nothing was set up for the device.
  }

  releaseGroup(): void {
    // Its DMA was never blocked.
  }

  pageResponse(): void {
    // It has no translation requests to fail.
  }
}

/** Stands for the IOMMU of devices that have none. */
export const noIommu: IommuDriver = new NoIommu();

/** Where `iova` leads, and how many bytes from there on are contiguous in memory, `most` at most; or -errno. */
function physicalExtent(
  table: IoPageTable,
  iova: bigint,
  most: bigint,
): { physical: bigint; length: bigint } | number {
  const area = table.areas.first(iova, iova);
  if (!area) return -errno.ENOENT;
  const { last, storage, pages } = area;
  if (pages.revoked) return -errno.EINVAL;
  if (!storage?.physicalOf) return -errno.EOPNOTSUPP;
  const physical = BigInt(storage.physicalOf(iova));
  const [inPage, inArea] = [PAGE - (iova % PAGE), last - iova + 1n];
  let length = inPage < inArea ? inPage : inArea;
  for (let next = PAGE; length < most && iova + next <= last; next += PAGE) {
    if (BigInt(storage.physicalOf(iova + next)) !== physical + next) break;
    length += PAGE;
  }
  return { physical, length: length < most ? length : most };
}

function getPhysicalAddress(command: Command<typeof IOMMU_IOAS_NOIOMMU_GET_PA.struct>): number {
  const { values, file, process } = command;
  if (!isCapable(process.credentials, 'CAP_SYS_RAWIO')) return -errno.EPERM;
  if (values.flags || values.__reserved) return -errno.EOPNOTSUPP;
  if (values.length === 0n) return -errno.EINVAL;
  if (values.iova === U64_MAX) return -errno.EOVERFLOW;
  const ioas = file.objects.get(values.ioas_id, Ioas);
  if (!ioas) return -errno.ENOENT;
  const extent = physicalExtent(ioas.table, values.iova, values.length);
  if (typeof extent === 'number') return extent;
  return command.respond({ out_phys: extent.physical, length: extent.length });
}

export const noIommuHandlers: readonly Handler[] = [handler(IOMMU_IOAS_NOIOMMU_GET_PA, getPhysicalAddress)];
