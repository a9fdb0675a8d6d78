/** DEVICE objects: bind, attach, replace, detach (drivers/iommu/iommufd/device.c's role). */
import { errno } from '../../../uapi/errno';
import * as rows from '../../../uapi/iommufd-ioctls';
import { IOMMU_HW_INFO_FLAG_INPUT_TYPE, IOMMU_HW_INFO_TYPE_DEFAULT } from '../../../uapi/iommufd';
import { VFIO_DEVICE_NO_SNOOP_DEFAULT } from '../../../uapi/proposal/no-snoop';
import {
  IOMMU_NO_PASID,
  type AttachHandle,
  type Domain,
  type IommuDriver,
  type IommuGroup,
  type KernelDevice,
} from '../iommu/core';
import type { FaultGroup } from '../iommu/page-fault';
import { handler, type Command, type Handler } from './command';
import type { IommufdFile } from './file';
import { Hwpt, HwptNested, HwptPaging } from './hwpt';
import { noIommu } from './hwpt-noiommu';
import { Ioas } from './ioas';
import { IommufdObject } from './object';
import type { Vdevice } from './vdevice';

/** What sits in one slot of a group: the RID's, or a PASID's. All devices of the group share it. */
interface Attachment {
  hwpt: Hwpt;
  readonly devices: Set<IommufdDevice>;
}

/** A group as one iommufd sees it. */
export class IommufdGroup {
  readonly attachments = new Map<number, Attachment>();
  /** Devices of the group that are bound to this iommufd. */
  bound = 0;

  constructor(readonly group: IommuGroup) {}
}

/** Finds the owner of a page fault: the device and the queue of the table it is attached to. */
class Handle implements AttachHandle {
  readonly deliver: ((group: FaultGroup) => void) | undefined;
  readonly domain: Domain;

  constructor(
    readonly hwpt: Hwpt,
    device: IommufdDevice,
  ) {
    this.domain = hwpt.domain;
    const { fault } = hwpt;
    this.deliver = fault && ((group) => fault.deliver(group, device.id));
  }
}

export class IommufdDevice extends IommufdObject {
  /** Present while a virtual IOMMU knows the device. */
  vdevice: Vdevice | undefined;
  /** VFIO_DEVICE_NO_SNOOP_*: what the user says of its DMA. */
  noSnoopHint: number = VFIO_DEVICE_NO_SNOOP_DEFAULT;

  /** `keepsFile`: whoever bound the device keeps the iommufd alive by it. */
  constructor(
    readonly file: IommufdFile,
    readonly device: KernelDevice,
    readonly driver: IommuDriver,
    readonly igroup: IommufdGroup,
    readonly keepsFile: boolean,
  ) {
    super();
    // The driver that bound it: nobody else can destroy the object.
    this.users = 1;
  }

  /** Takes the device, and with it its whole group, away from the kernel; its DMA is blocked from now on. */
  static claim(file: IommufdFile, device: KernelDevice): IommufdDevice | number {
    const { iommu } = file.system;
    // Nothing keeps its DMA or its interrupts apart then: VFIO has let it in all the same.
    if (!iommu) return IommufdDevice.#claim(file, device, noIommu, true);
    return iommu.isolatedMsi ? IommufdDevice.#claim(file, device, iommu.driver, true) : -errno.EPERM;
  }

  /** The same for a mediated device: its parent's interrupts are the kernel's. */
  static claimMediated(file: IommufdFile, device: KernelDevice, driver: IommuDriver): IommufdDevice | number {
    return IommufdDevice.#claim(file, device, driver, true);
  }

  /** The same for a device of the selftest: it sends no interrupts, and it goes with the iommufd. */
  static claimMock(file: IommufdFile, device: KernelDevice, driver: IommuDriver): IommufdDevice | number {
    return IommufdDevice.#claim(file, device, driver, false);
  }

  static #claim(
    file: IommufdFile,
    device: KernelDevice,
    driver: IommuDriver,
    keepsFile: boolean,
  ): IommufdDevice | number {
    const { group } = device;
    if (group.ownerCount > 0 && group.owner !== file) return -errno.EPERM;
    if (group.ownerCount === 0) {
      const result = driver.attachGroup(group, undefined);
      if (result) return result;
    }
    group.owner = file;
    group.ownerCount++;
    const igroup = file.groupOf(group);
    igroup.bound++;
    if (keepsFile) file.get();
    return file.objects.add(new IommufdDevice(file, device, driver, igroup, keepsFile));
  }

  unbind(): void {
    if (this.vdevice) this.file.objects.bury(this.vdevice);
    this.users = 0;
    this.file.objects.remove(this);
    this.destroy();
    if (this.keepsFile) this.file.put();
  }

  override destroy(): void {
    const { group } = this.igroup;
    if (--this.igroup.bound === 0) this.file.forgetGroup(group);
    if (--group.ownerCount > 0) return;
    group.owner = undefined;
    this.driver.releaseGroup(group);
  }

  /**
   * Attaches the RID (IOMMU_NO_PASID) or a PASID to an IOAS or HWPT; `replacing` says whether this device is
   * attached already. Returns the id of the HWPT used, or -errno, and then nothing has changed.
   */
  attach(pasid: number, ptId: number, replacing: boolean): number {
    const target = this.file.objects.get(ptId, IommufdObject);
    if (!target) return -errno.ENOENT;
    const change = (hwpt: Hwpt) => (replacing ? this.#replace(pasid, hwpt) : this.#attach(pasid, hwpt));
    if (target instanceof Hwpt) return change(target) || target.id;
    if (!(target instanceof Ioas)) return -errno.EINVAL;

    for (const hwpt of target.hwpts) {
      if (!hwpt.automatic) continue;
      const result = change(hwpt);
      if (result === 0) return hwpt.id;
      // EINVAL says that this table is not for this device; anything else is a failure of the attach.
      if (result !== -errno.EINVAL) return result;
    }
    const hwpt = HwptPaging.create(target, this, 0);
    if (typeof hwpt === 'number') return hwpt;
    // The id is taken before the table that is replaced gives its own back.
    const { id } = this.file.objects.add(hwpt);
    const result = replacing ? hwpt.fill() || change(hwpt) : this.#attachFirst(pasid, hwpt);
    if (result) {
      this.file.objects.remove(hwpt);
      hwpt.destroy();
      return result;
    }
    hwpt.automatic = true;
    return id;
  }

  /** A first attach fills the table last: mappings the device rules out fail before memory that cannot be pinned. */
  #attachFirst(pasid: number, hwpt: HwptPaging): number {
    const attached = this.#attach(pasid, hwpt);
    if (attached) return attached;
    const filled = hwpt.fill();
    if (filled) this.detach(pasid);
    return filled;
  }

  /** Nothing happens where the slot is empty. */
  detach(pasid: number): void {
    const attachment = this.igroup.attachments.get(pasid);
    if (!attachment?.devices.delete(this)) return;
    const { hwpt } = attachment;
    if (attachment.devices.size === 0) {
      this.igroup.attachments.delete(pasid);
      this.#setHandle(pasid, undefined);
    }
    const paging = pagingOf(hwpt);
    if (paging && pasid === IOMMU_NO_PASID) paging.ioas.table.unreserve(this.device);
    this.#release(hwpt);
    this.file.noSnoop.update();
  }

  #attach(pasid: number, hwpt: Hwpt): number {
    const attachment = this.igroup.attachments.get(pasid);
    if (attachment?.devices.has(this)) return -errno.EBUSY;
    if (attachment && attachment.hwpt !== hwpt) return -errno.EINVAL;
    const reserved = this.#reserve(pasid, hwpt, [this]);
    if (reserved) return reserved;
    if (!attachment) {
      const result = this.#compatible(hwpt, pasid) || this.#setHandle(pasid, new Handle(hwpt, this));
      if (result) {
        if (pasid === IOMMU_NO_PASID) pagingOf(hwpt)?.ioas.table.unreserve(this.device);
        return result;
      }
    }
    this.igroup.attachments.set(pasid, {
      hwpt,
      devices: new Set([...(attachment?.devices ?? []), this]),
    });
    hwpt.users++;
    this.file.noSnoop.update();
    return 0;
  }

  #replace(pasid: number, hwpt: Hwpt): number {
    const attachment = this.igroup.attachments.get(pasid);
    if (!attachment?.devices.has(this)) return -errno.EINVAL;
    const old = attachment.hwpt;
    if (old === hwpt) return 0;
    const sameIoas = pagingOf(old)?.ioas === pagingOf(hwpt)?.ioas;
    const devices = [...attachment.devices];
    const reserved = sameIoas ? 0 : this.#reserve(pasid, hwpt, devices);
    if (reserved) return reserved;
    const result = this.#compatible(hwpt, pasid) || this.#setHandle(pasid, new Handle(hwpt, this));
    // A failure lets the new table's IOAS forget the devices even where the old table is of the same one, and they
    // stay attached: Linux 7.3 does that (iommufd_device_do_replace), and IOAS_IOVA_RANGES shows it.
    const loser = pagingOf(result ? hwpt : old);
    if (pasid === IOMMU_NO_PASID && (result || !sameIoas))
      for (const device of devices) loser?.ioas.table.unreserve(device.device);
    if (result) return result;
    attachment.hwpt = hwpt;
    hwpt.users += devices.length;
    for (const _ of devices) this.#release(old);
    this.file.noSnoop.update();
    return 0;
  }

  /** Takes the IOVAs these devices cannot use out of the table's IOAS. */
  #reserve(pasid: number, hwpt: Hwpt, devices: readonly IommufdDevice[]): number {
    const table = pagingOf(hwpt)?.ioas.table;
    if (!table || pasid !== IOMMU_NO_PASID) return 0;
    for (const { device, driver } of devices)
      for (const { start, last } of driver.reservedRegions(device)) {
        const result = table.reserve(start, last, device);
        if (!result) continue;
        for (const undo of devices) table.unreserve(undo.device);
        return result;
      }
    return 0;
  }

  /** A device with PASIDs in use must have PASID-compatible tables in all its slots. */
  #compatible(hwpt: Hwpt, pasid: number): number {
    const { attachments } = this.igroup;
    if (hwpt.pasidCompatible) {
      const rid = attachments.get(IOMMU_NO_PASID);
      return pasid !== IOMMU_NO_PASID && rid && !rid.hwpt.pasidCompatible ? -errno.EINVAL : 0;
    }
    const pasids = [...attachments.keys()].some((other) => other !== IOMMU_NO_PASID);
    return pasid !== IOMMU_NO_PASID || pasids ? -errno.EINVAL : 0;
  }

  /** Moves the slot, and answers the faults of whoever was there before. */
  #setHandle(pasid: number, handle: Handle | undefined): number {
    const { group } = this.igroup;
    const old = group.handles.get(pasid) as Handle | undefined;
    const result =
      pasid === IOMMU_NO_PASID
        ? this.driver.attachGroup(group, handle)
        : this.driver.attachGroupPasid(group, pasid, handle);
    if (result) return result;
    if (handle) group.handles.set(pasid, handle);
    else group.handles.delete(pasid);
    if (old) old.hwpt.fault?.answerFaultsOf(old);
    return 0;
  }

  #release(hwpt: Hwpt): void {
    hwpt.users--;
    if (hwpt.users > 0 || !(hwpt instanceof HwptPaging) || !hwpt.automatic) return;
    this.file.objects.remove(hwpt);
    hwpt.destroy();
  }
}

/** The table whose IOAS must leave room for the device: a nested table's parent stands for it. */
function pagingOf(hwpt: Hwpt): HwptPaging | undefined {
  if (hwpt instanceof HwptPaging) return hwpt;
  return hwpt instanceof HwptNested ? hwpt.parent : undefined;
}

function hardwareInfo(command: Command<typeof rows.IOMMU_GET_HW_INFO.struct>): number {
  const { values, file, memory } = command;
  if (values.flags & ~IOMMU_HW_INFO_FLAG_INPUT_TYPE) return -errno.EOPNOTSUPP;
  if (values.__reserved.some((byte) => byte !== 0)) return -errno.EOPNOTSUPP;
  const device = file.objects.get(values.dev_id, IommufdDevice);
  if (!device) return -errno.ENOENT;
  const info = device.driver.hardwareInfo(device.device);
  if (!info) return -errno.EOPNOTSUPP;
  const type =
    values.flags & IOMMU_HW_INFO_FLAG_INPUT_TYPE ? values.in_data_type : IOMMU_HW_INFO_TYPE_DEFAULT;
  if (type !== IOMMU_HW_INFO_TYPE_DEFAULT && type !== info.type) return -errno.EOPNOTSUPP;
  const known = info.data.subarray(0, values.data_len);
  if (!memory.write(values.data_uptr, known)) return -errno.EFAULT;
  const rest = values.data_uptr + BigInt(known.length);
  if (!memory.clear(rest, values.data_len - known.length)) return -errno.EFAULT;
  return command.respond({
    data_len: info.data.length,
    out_data_type: info.type,
    out_max_pasid_log2: info.maxPasidLog2,
    out_capabilities: info.capabilities,
  });
}

export const deviceHandlers: readonly Handler[] = [handler(rows.IOMMU_GET_HW_INFO, hardwareInfo)];
