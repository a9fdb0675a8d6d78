/** /dev/iommu: one open file is one iommufd, with objects of its own. */
import type { DeviceMapping } from '../../../kernel';
import { errno } from '../../../uapi/errno';
import * as rows from '../../../uapi/iommufd-ioctls';
import { OpenFile } from '../file';
import type { IommuGroup } from '../iommu/core';
import type { SimulatedProcess } from '../process';
import { noSnoopHandlers, NoSnoopWatch } from '../proposal/no-snoop';
import { slotOwnerHandlers } from '../proposal/slot-owner';
import type { System } from '../system';
import { changeProcessHandlers } from './change-process';
import { copyStruct, handler, type Command, type Handler } from './command';
import { deviceHandlers, IommufdGroup } from './device';
import { dirtyHandlers } from './dirty';
import { faultHandlers } from './fault';
import { hwQueueHandlers } from './hw-queue';
import { hwptHandlers } from './hwpt-ioctls';
import { noIommuHandlers } from './hwpt-noiommu';
import { ioasHandlers, type Ioas } from './ioas';
import { MmapTable } from './mmap';
import { ObjectTable } from './object';
import { optionHandlers } from './option';
import { selftestHandler } from './selftest';
import { vdeviceHandlers } from './vdevice';
import { veventqHandlers } from './veventq';
import { vfioCompatHandlers, vfioCompatIoctl } from './vfio-compat';
import { viommuHandlers } from './viommu';

const destroy = handler(rows.IOMMU_DESTROY, (command: Command<typeof rows.IOMMU_DESTROY.struct>) =>
  command.file.objects.destroy(command.values.id),
);

/** The dispatch table: request → what answers it. */
const handlers: ReadonlyMap<number, Handler> = new Map(
  [
    destroy,
    ...ioasHandlers,
    ...optionHandlers,
    ...changeProcessHandlers,
    ...hwptHandlers,
    ...dirtyHandlers,
    ...deviceHandlers,
    ...faultHandlers,
    ...viommuHandlers,
    ...vdeviceHandlers,
    ...veventqHandlers,
    ...hwQueueHandlers,
    ...noIommuHandlers,
    ...vfioCompatHandlers,
  ].map((entry) => [entry.row.request, entry]),
);

/** What only the RFC has: numbers behind Linux's. */
const proposals: ReadonlyMap<number, Handler> = new Map(
  [...slotOwnerHandlers, ...noSnoopHandlers].map((entry) => [entry.row.request, entry]),
);

/** Numbers (the request's low byte) of the first and the last ioctl that the uAPI has. */
const FIRST_NUMBER = rows.IOMMU_DESTROY.request & 0xff;
const LAST_NUMBER = rows.IOMMU_IOAS_NOIOMMU_GET_PA.request & 0xff;

export class IommufdFile extends OpenFile {
  readonly objects = new ObjectTable();
  /** Pinned memory counts against the limit of the process that mapped it, not against its user's. */
  accountsPerProcess = false;
  readonly mmapTable = new MmapTable();
  readonly noSnoop = new NoSnoopWatch(this);
  /** A group that no IOMMU is in front of was put into it, as into a VFIO container. */
  noIommuMode = false;
  #compatIoas: Ioas | undefined;
  readonly #groups = new Map<IommuGroup, IommufdGroup>();

  constructor(readonly system: System) {
    super();
  }

  /** The IOAS that ioctls of VFIO containers mean. */
  get compatIoas(): Ioas | undefined {
    // One that was destroyed has no id any more.
    return this.#compatIoas?.id ? this.#compatIoas : undefined;
  }

  set compatIoas(ioas: Ioas | undefined) {
    this.#compatIoas = ioas;
  }

  groupOf(group: IommuGroup): IommufdGroup {
    let igroup = this.#groups.get(group);
    if (!igroup) this.#groups.set(group, (igroup = new IommufdGroup(group)));
    return igroup;
  }

  /** Groups of which devices are bound here. */
  get groups(): Iterable<IommufdGroup> {
    return this.#groups.values();
  }

  /** A device of the group is bound here. */
  hasGroup(group: IommuGroup): boolean {
    return this.#groups.has(group);
  }

  forgetGroup(group: IommuGroup): void {
    this.#groups.delete(group);
  }

  override ioctl(process: SimulatedProcess, request: number, argument: Uint8Array | number): number {
    const number = request & 0xff;
    const { selftest } = this.system;
    const last = selftest ? selftestHandler.row.request & 0xff : LAST_NUMBER;
    const proposal = proposals.get(request);
    if (!proposal && (number < FIRST_NUMBER || number > last))
      return vfioCompatIoctl(this, process, request, argument);
    const user = process.userBytes(argument);
    if (!user || user.length < 4) return -errno.EFAULT;
    const isTest = selftest && request === selftestHandler.row.request;
    const entry = isTest ? selftestHandler : (proposal ?? handlers.get(request));
    if (!entry) return -errno.ENOTTY;
    const size = new DataView(user.buffer, user.byteOffset, user.byteLength).getUint32(0, true);
    const { struct, minimumSize } = entry.row;
    if (size < minimumSize) return -errno.EINVAL;
    const bytes = copyStruct(user, size, struct.size);
    if (typeof bytes === 'number') return bytes;
    return entry.run({
      file: this,
      process,
      memory: process.memory,
      values: struct.decode(bytes) as never,
      respond(fields) {
        struct.write(new DataView(bytes.buffer), 0, fields);
        user.set(bytes.subarray(0, Math.min(size, struct.size)));
        return 0;
      },
    });
  }

  override mmap(offset: number, length: number, protection: number): DeviceMapping | number {
    return this.mmapTable.map(this, offset, length, protection);
  }

  protected override release(): void {
    this.objects.destroyAll();
    this.noSnoop.close();
  }
}
