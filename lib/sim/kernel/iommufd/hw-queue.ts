/**
 * HW_QUEUE objects: guest memory that the hardware itself reads by physical address (drivers/iommu/iommufd/viommu.c's
 * role).
 */
import { errno } from '../../../uapi/errno';
import { IOMMU_HW_QUEUE_TYPE_DEFAULT } from '../../../uapi/iommufd';
import { IOMMU_HW_QUEUE_ALLOC } from '../../../uapi/iommufd-ioctls';
import type { DriverHwQueue, HwQueueCore, HwQueueOperations } from '../iommu/viommu';
import { PAGE_SIZE } from '../user-memory';
import { Access, type PinnedRange } from './access';
import { handler, type Command, type Handler } from './command';
import { IommufdObject } from './object';
import { Viommu } from './viommu';

const U64_MAX = (1n << 64n) - 1n;
const PAGE = BigInt(PAGE_SIZE);
/** Linux lists the pages in one piece of memory, 8 bytes each, that must be smaller than 2 GiB. */
const MOST_PAGES = (1n << 28n) - 1n;

export class HwQueue extends IommufdObject implements HwQueueCore {
  /** Has an id of its own. */
  #access: Access | undefined;
  #pinned: PinnedRange | undefined;
  #part: DriverHwQueue | undefined;

  constructor(readonly viommu: Viommu) {
    super();
    viommu.users++;
  }

  hold(): void {
    this.users++;
  }

  release(): void {
    this.users--;
  }

  /** Pins [iova, iova + length) and hands it to the driver. 0 or -errno; `destroy` undoes either. */
  start(operations: HwQueueOperations, index: number, iova: bigint, length: bigint): number {
    const physical = this.#pin(iova, length);
    if (physical < 0) return physical;
    const part = operations.create(this, index, physical);
    if (typeof part === 'number') return part;
    this.#part = part;
    return 0;
  }

  destroy(): void {
    this.#part?.free();
    this.#pinned?.unpin();
    this.#access?.close();
    this.viommu.users--;
  }

  /** The physical address of the first byte, or -errno. */
  #pin(iova: bigint, length: bigint): number {
    const offset = iova % PAGE;
    if (offset + length + PAGE - 1n > U64_MAX) return -errno.ERANGE;
    const pages = (offset + length + PAGE - 1n) / PAGE;
    if (pages > MOST_PAGES) return -errno.ENOMEM;
    const { file, hwpt } = this.viommu;
    this.#access = file.objects.add(new Access(file, true));
    const attached = this.#access.change(hwpt.ioas);
    if (attached) return attached;
    const pinned = this.#access.pin(iova - offset, pages * PAGE, false);
    if (typeof pinned === 'number') return pinned;
    this.#pinned = pinned;
    const { physical } = pinned;
    if (physical.some((address, i) => address !== physical[0] + i * PAGE_SIZE)) return -errno.EFAULT;
    return physical[0] + Number(offset);
  }
}

function alloc(command: Command<typeof IOMMU_HW_QUEUE_ALLOC.struct>): number {
  const { values, file } = command;
  const { type, nesting_parent_iova: iova, length } = values;
  if (values.flags || type === IOMMU_HW_QUEUE_TYPE_DEFAULT) return -errno.EOPNOTSUPP;
  if (length === 0n) return -errno.EINVAL;
  if (iova + length - 1n > U64_MAX) return -errno.EOVERFLOW;
  const viommu = file.objects.get(values.viommu_id, Viommu);
  if (!viommu) return -errno.ENOENT;
  const { queues } = viommu.part;
  if (!queues?.supports(type)) return -errno.EOPNOTSUPP;
  // The queue's id is taken before its access object's.
  const queue = file.objects.add(new HwQueue(viommu));
  const result = queue.start(queues, values.index, iova, length);
  if (result) {
    file.objects.remove(queue);
    queue.destroy();
    return result;
  }
  return command.respond({ out_hw_queue_id: queue.id });
}

export const hwQueueHandlers: readonly Handler[] = [handler(IOMMU_HW_QUEUE_ALLOC, alloc)];
