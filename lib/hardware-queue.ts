import { destroy } from './context';
import { Handle, runAll } from './handle';
import { call } from './ioctl';
import type { IovaRange } from './iova';
import * as uapi from './uapi';
import type { VirtualIommu } from './virtual-iommu';

/** Options of `createHardwareQueue`. */
export interface HardwareQueueOptions {
  /** 'tegra241-cmdqv', or any enum iommu_hw_queue_type. */
  type: 'tegra241-cmdqv' | number;
  /** Which of the virtual IOMMU's queues, from 0. */
  index: number;
  /** Where its memory is in the parent address space; there it stays mapped while the queue is open. */
  iova: bigint | number;
  /** Bytes. */
  length: bigint | number;
}

/** A queue of the guest's that the IOMMU reads by itself: the HW queue of iommufd. */
export class HardwareQueue extends Handle {
  /** The kernel's object ID. */
  readonly id: number;
  readonly virtualIommu: VirtualIommu;
  readonly index: number;
  readonly iova: bigint;
  /** Bytes. */
  readonly length: bigint;
  readonly #pinned: IovaRange;

  /** @internal Use `virtualIommu.createHardwareQueue()`. */
  constructor(virtualIommu: VirtualIommu, { type, index, iova, length }: HardwareQueueOptions) {
    super();
    this.virtualIommu = virtualIommu;
    this.index = index;
    this.iova = uapi.toU64(iova, 'iova');
    this.length = uapi.toU64(length, 'length');
    const { context } = virtualIommu;
    this.id = call(context.kernel, context.fd, uapi.IOMMU_HW_QUEUE_ALLOC, {
      viommu_id: virtualIommu.id,
      type: type === 'tegra241-cmdqv' ? uapi.IOMMU_HW_QUEUE_TYPE_TEGRA241_CMDQV : type,
      index,
      nesting_parent_iova: this.iova,
      length: this.length,
    }).out_hw_queue_id;
    this.#pinned = { iova: this.iova, length: this.length };
    virtualIommu.parent.space?.pinned.add(this.#pinned);
    virtualIommu.children.add(this);
  }

  /** @internal */
  override get label(): string {
    return `hardware queue ${this.id}`;
  }

  protected override release(): void {
    const { context, parent, children } = this.virtualIommu;
    runAll([
      () => destroy(context, this.id),
      () => parent.space?.pinned.delete(this.#pinned),
      () => children.delete(this),
    ]);
  }
}
