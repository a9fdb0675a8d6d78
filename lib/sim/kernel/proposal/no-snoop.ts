/**
 * No-snoop DMA (RFC, section 1.5): address spaces that enforce snooping or do not, what devices are used for, and the
 * query that KVM makes of an iommufd.
 */
import { errno } from '../../../uapi/errno';
import * as uapi from '../../../uapi/proposal/no-snoop';
import { EventFile } from '../eventfd';
import { handler, type Command, type Handler } from '../iommufd/command';
import type { IommufdDevice } from '../iommufd/device';
import type { IommufdFile } from '../iommufd/file';
import { HwptNested, HwptPaging, type Hwpt } from '../iommufd/hwpt';
import { Ioas } from '../iommufd/ioas';

/** All DMA through it snoops: a nested table says what its parent says. */
function enforcesSnoop(hwpt: Hwpt): boolean {
  if (hwpt instanceof HwptPaging) return hwpt.enforcesCoherency;
  return hwpt instanceof HwptNested && hwpt.parent.enforcesCoherency;
}

/**
 * Whether a device does DMA that leaves caches alone, as far as anybody knows: one that cannot does not, whatever the
 * user says; of any other the user may say that it does not.
 */
function usesNoSnoop({ device, noSnoopHint }: IommufdDevice): boolean {
  return (device.canNoSnoop ?? true) && noSnoopHint !== uapi.VFIO_DEVICE_NO_SNOOP_UNUSED;
}

/** Whether KVM has to handle no-snoop DMA (let the guest flush caches) because of what is attached in an iommufd. */
export function needsNoSnoop(file: IommufdFile): boolean {
  for (const { attachments } of file.groups)
    for (const { hwpt, devices } of attachments.values())
      if (!enforcesSnoop(hwpt) && [...devices].some(usesNoSnoop)) return true;
  return false;
}

/** What an iommufd knows of who wants to hear of changes. */
export class NoSnoopWatch {
  #last = false;
  #event: EventFile | undefined;

  constructor(readonly file: IommufdFile) {}

  /** Something was attached, detached, or is used otherwise. */
  update(): void {
    const needed = needsNoSnoop(this.file);
    if (needed === this.#last) return;
    this.#last = needed;
    this.#event?.signal();
  }

  notify(event: EventFile | undefined): void {
    event?.get();
    this.close();
    this.#event = event;
  }

  close(): void {
    this.#event?.put();
    this.#event = undefined;
  }
}

function enforceSnoop({ values, file }: Command<typeof uapi.iommu_ioasid_enforce_snoop>): number {
  if (values.flags) return -errno.EOPNOTSUPP;
  if (values.mode > uapi.IOMMU_IOASID_ENFORCE_SNOOP_DISABLE) return -errno.EINVAL;
  const ioas = file.objects.get(values.ioas_id, Ioas);
  if (!ioas) return -errno.ENOENT;
  // Tables have it from the beginning: some formats say it in every entry.
  if (ioas.hwpts.length > 0) return -errno.EBUSY;
  ioas.enforceSnoop = values.mode;
  return 0;
}

function query(command: Command<typeof uapi.iommu_no_snoop_query>): number {
  if (command.values.flags || command.values.__reserved) return -errno.EOPNOTSUPP;
  return command.respond({ out_needed: Number(needsNoSnoop(command.file)) });
}

function notify({ values, file, process }: Command<typeof uapi.iommu_no_snoop_notify>): number {
  if (values.flags || values.__reserved) return -errno.EOPNOTSUPP;
  if (values.eventfd < 0) {
    file.noSnoop.notify(undefined);
    return 0;
  }
  const event = process.file(values.eventfd);
  if (!event) return -errno.EBADF;
  if (!(event instanceof EventFile)) return -errno.EINVAL;
  file.noSnoop.notify(event);
  return 0;
}

export const noSnoopHandlers: readonly Handler[] = [
  handler(uapi.IOMMU_IOASID_ENFORCE_SNOOP, enforceSnoop),
  handler(uapi.IOMMU_NO_SNOOP_QUERY, query),
  handler(uapi.IOMMU_NO_SNOOP_NOTIFY, notify),
];

/** VFIO_DEVICE_NO_SNOOP_HINT. */
export function noSnoopHint(device: IommufdDevice, user: Uint8Array): number {
  const { struct, minimumSize } = uapi.VFIO_DEVICE_NO_SNOOP_HINT;
  if (user.length < minimumSize) return -errno.EFAULT;
  const { argsz, flags, hint } = struct.decode(user);
  if (argsz < minimumSize || flags || hint > uapi.VFIO_DEVICE_NO_SNOOP_UNUSED) return -errno.EINVAL;
  device.noSnoopHint = hint;
  device.file.noSnoop.update();
  return 0;
}
