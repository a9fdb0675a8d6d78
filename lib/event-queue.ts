import { destroy } from './context';
import { runAll } from './handle';
import { call } from './ioctl';
import type { Memory } from './kernel';
import { openOrClose, openRing } from './open-ring';
import { RecordConsumer } from './record-consumer';
import { RING_EVENTS } from './rings/layout';
import * as uapi from './uapi';
import { decodeSmmuEvent, decodeTegra241Event, type VirtualEvent } from './virtual-event';
import type { VirtualIommu } from './virtual-iommu';

/** Options of `createEventQueue`. */
export interface EventQueueOptions {
  /** 'arm-smmuv3', 'tegra241-cmdqv', or any enum iommu_veventq_type with the bytes of its record. */
  type: 'arm-smmuv3' | 'tegra241-cmdqv' | { readonly id: number; readonly recordSize: number };
  /** How many events the kernel keeps unread: 1 to 2^19. More are lost, and counted. */
  depth: number;
}

const HEADER = uapi.iommufd_vevent_header.size;
/** Numbers of events are 31 bits wide. */
const SEQUENCES = 2 ** 31;

const KNOWN = {
  'arm-smmuv3': {
    id: uapi.IOMMU_VEVENTQ_TYPE_ARM_SMMUV3,
    recordSize: uapi.iommu_vevent_arm_smmuv3.size,
  },
  'tegra241-cmdqv': {
    id: uapi.IOMMU_VEVENTQ_TYPE_TEGRA241_CMDQV,
    recordSize: uapi.iommu_vevent_tegra241_cmdqv.size,
  },
} as const;

/** Slots of the ring. The kernel keeps `depth` events beside. */
const SLOTS = 256;

/**
 * What a virtual IOMMU reports of one type: the vEVENTQ of iommufd. `for await (const event of queue)`, next() or
 * drain(). A queue that is not read in time loses events, which `event.lost` tells.
 */
export class EventQueue extends RecordConsumer<VirtualEvent, VirtualEvent> {
  readonly virtualIommu: VirtualIommu;
  /** The kernel's object ID. */
  readonly id: number;
  /** The queue's file descriptor, for raw calls. */
  readonly fd: number;
  readonly #memory: Memory | undefined;
  readonly #type: EventQueueOptions['type'];
  readonly #recordSize: number;
  readonly #bytes: Uint8Array;
  /** The number of the next event, if none is lost. */
  #expected = 0;

  /** @internal Use `virtualIommu.createEventQueue()`. */
  constructor(virtualIommu: VirtualIommu, { type, depth }: EventQueueOptions) {
    const { id: typeId, recordSize } = describe(type);
    const { context } = virtualIommu;
    const values = { viommu_id: virtualIommu.id, type: typeId, veventq_depth: depth };
    const { out_veventq_id: id, out_veventq_fd: fd } = call(
      context.kernel,
      context.fd,
      uapi.IOMMU_VEVENTQ_ALLOC,
      values,
    );
    const shape = {
      kind: RING_EVENTS,
      sourceBytes: HEADER + recordSize,
      records: SLOTS,
      responses: 0,
    } as const;
    const { ring, pump, memory } = openOrClose(context, id, fd, () =>
      openRing(context.kernel, fd, shape, Infinity),
    );
    super(ring, pump);
    this.id = id;
    this.fd = fd;
    this.virtualIommu = virtualIommu;
    this.#memory = memory;
    this.#type = type;
    this.#recordSize = recordSize;
    this.#bytes = new Uint8Array(ring.words.buffer);
    virtualIommu.children.add(this);
  }

  /** @internal */
  override get label(): string {
    return `event queue ${this.id}`;
  }

  /** A header, and a record unless the header is there to say that the newest were lost. */
  protected override take(slot: number): VirtualEvent {
    const at = 4 * slot;
    const { flags, sequence } = uapi.iommufd_vevent_header.decode(this.#bytes, at);
    const tail = (flags & uapi.IOMMU_VEVENTQ_FLAG_LOST_EVENTS) !== 0;
    // The number of such a header is that of the last one lost.
    const lost = (sequence - this.#expected + (tail ? 1 : 0) + SEQUENCES) % SEQUENCES;
    this.#expected = (sequence + 1) % SEQUENCES;
    const data = this.#bytes.slice(at + HEADER, at + HEADER + (tail ? 0 : this.#recordSize));
    return { ...(tail ? ({ type: 'lost' } as const) : this.#decodeRecord(data)), sequence, lost, data };
  }

  protected override visitAll(callback: (event: VirtualEvent) => void): void {
    while (this.position !== this.end) {
      const slot = this.ring.slot(this.position);
      this.position = (this.position + 1) | 0;
      callback(this.take(slot));
    }
  }

  protected override viewOf(event: VirtualEvent): VirtualEvent {
    return event;
  }

  #decodeRecord(data: Uint8Array) {
    if (this.#type === 'arm-smmuv3')
      return decodeSmmuEvent(data, (virtId) => this.virtualIommu.deviceOf(virtId));
    if (this.#type === 'tegra241-cmdqv') return decodeTegra241Event(data);
    return { type: 'raw' } as const;
  }

  protected override release(): void {
    const { context } = this.virtualIommu;
    runAll([
      () => super.release(),
      () => void context.kernel.close(this.fd),
      () => destroy(context, this.id),
      () => this.#memory?.free(),
      () => void this.virtualIommu.children.delete(this),
    ]);
  }
}

function describe(type: EventQueueOptions['type']): { readonly id: number; readonly recordSize: number } {
  const known = typeof type === 'string' ? KNOWN[type] : type;
  if (typeof known?.id !== 'number' || !Number.isSafeInteger(known.recordSize) || known.recordSize < 0)
    throw new TypeError("events are of type 'arm-smmuv3', 'tegra241-cmdqv' or { id, recordSize }");
  return known;
}
