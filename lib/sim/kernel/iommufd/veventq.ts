/** VEVENTQ objects: what happens in a virtual IOMMU, for its guest to read (drivers/iommu/iommufd/eventq.c's role). */
import { POLLIN, POLLRDNORM } from '../../../kernel';
import { errno } from '../../../uapi/errno';
import {
  IOMMU_VEVENTQ_FLAG_LOST_EVENTS,
  IOMMU_VEVENTQ_TYPE_DEFAULT,
  iommufd_vevent_header,
} from '../../../uapi/iommufd';
import { IOMMU_VEVENTQ_ALLOC } from '../../../uapi/iommufd-ioctls';
import { handler, type Command, type Handler } from './command';
import { EventQueue } from './eventq';
import { Viommu } from './viommu';

const MOST_EVENTS = 1 << 19;
const MOST_SEQUENCE = 0x7fff_ffff;

interface Vevent {
  readonly sequence: number;
  readonly data: Uint8Array;
}

export class VeventQueue extends EventQueue {
  readonly #events: Vevent[] = [];
  /**
   * Present after an event that found no room: a header without data, behind all others, with the number of the last
   * that was lost. The next event that finds room takes its place.
   */
  #lost: number | undefined;
  #sequence = 0;

  /** `depth` in events. */
  constructor(
    readonly viommu: Viommu,
    readonly type: number,
    readonly depth: number,
  ) {
    super();
    viommu.users++;
    viommu.eventQueues.set(type, this);
  }

  destroy(): void {
    this.viommu.eventQueues.delete(this.type);
    this.viommu.users--;
  }

  /** Queues an event, or remembers that it was lost. */
  report(data: Uint8Array): void {
    const sequence = this.#sequence;
    this.#sequence = (sequence + 1) & MOST_SEQUENCE;
    if (this.#events.length === this.depth) {
      this.#lost = sequence;
    } else {
      this.#lost = undefined;
      this.#events.push({ sequence, data });
    }
    this.notify();
  }

  /** read(2): whole events, as many as fit. */
  read(bytes: Uint8Array): number {
    const { size } = iommufd_vevent_header;
    if (bytes.length < size) return -errno.EINVAL;
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    let done = 0;
    for (let event; (event = this.#events[0]); done += size + event.data.length) {
      if (size + event.data.length > bytes.length - done) return done || -errno.EINVAL;
      this.#events.shift();
      iommufd_vevent_header.write(view, done, { flags: 0, sequence: event.sequence });
      bytes.set(event.data, done + size);
    }
    if (this.#lost === undefined || size > bytes.length - done) return done;
    const lost = { flags: IOMMU_VEVENTQ_FLAG_LOST_EVENTS, sequence: this.#lost };
    iommufd_vevent_header.write(view, done, lost);
    this.#lost = undefined;
    return done + size;
  }

  poll(): number {
    return this.#events.length > 0 || this.#lost !== undefined ? POLLIN | POLLRDNORM : 0;
  }
}

function alloc(command: Command<typeof IOMMU_VEVENTQ_ALLOC.struct>): number {
  const { values, file } = command;
  const { type, veventq_depth: depth } = values;
  if (values.flags || values.__reserved || type === IOMMU_VEVENTQ_TYPE_DEFAULT) return -errno.EOPNOTSUPP;
  if (depth === 0 || depth > MOST_EVENTS) return -errno.EINVAL;
  const viommu = file.objects.get(values.viommu_id, Viommu);
  if (!viommu) return -errno.ENOENT;
  if (viommu.eventQueues.has(type)) return -errno.EEXIST;
  const queue = new VeventQueue(viommu, type, depth);
  const fd = queue.open(command);
  if (fd < 0) {
    queue.destroy();
    return fd;
  }
  file.objects.add(queue);
  return command.respond({ out_veventq_id: queue.id, out_veventq_fd: fd });
}

export const veventqHandlers: readonly Handler[] = [handler(IOMMU_VEVENTQ_ALLOC, alloc)];
