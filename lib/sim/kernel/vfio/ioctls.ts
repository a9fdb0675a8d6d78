/** The ioctls of a device that is bound: what each of them takes, checks and answers. */
import { errno } from '../../../uapi/errno';
import { VFIO_DEVICE_NO_SNOOP_HINT } from '../../../uapi/proposal/no-snoop';
import { PASID_CPU } from '../../../uapi/proposal/pasid';
import * as vfio from '../../../uapi/vfio';
import { IOMMU_NO_PASID } from '../iommu/core';
import type { IommufdDevice } from '../iommufd/device';
import type { PciDevice } from '../pci';
import type { SimulatedProcess } from '../process';
import { noSnoopHint } from '../proposal/no-snoop';
import type { VirtualConfig } from './config';
import { answerInfo } from './device-info';
import type { DmaBufs } from './dma-buf';
import type { DeviceFeatures } from './features';
import { hotReset, hotResetInfo } from './hot-reset';
import type { VfioInterrupts } from './interrupts';
import type { IoEventfds } from './ioeventfd';
import type { LowPower } from './low-power';
import { offsetOf, regionCapabilities, regionFlags, regionSize } from './regions';
import { fillStruct, LAST_PASID, pasidOf } from './structs';

/** What there is of an opened device once it is bound. */
export interface Bound {
  readonly pci: PciDevice;
  readonly device: IommufdDevice;
  readonly config: VirtualConfig;
  /** BARs that can be mapped. */
  readonly mappable: ReadonlySet<number>;
  readonly interrupts: VfioInterrupts;
  readonly ioeventfds: IoEventfds;
  readonly dmaBufs: DmaBufs;
  readonly power: LowPower;
  readonly features: DeviceFeatures;
  /** The RID has a page table. */
  attached: boolean;
  /** PASIDs that have one. */
  readonly pasids: Set<number>;
}

/** Answers an ioctl; `user` is the memory from the argument on, 4 bytes at least. */
type Answer = (bound: Bound, user: Uint8Array, process: SimulatedProcess) => number;

function attach(bound: Bound, user: Uint8Array): number {
  const { struct, minimumSize } = vfio.VFIO_DEVICE_ATTACH_IOMMUFD_PT;
  const pasid = pasidOf(user, minimumSize, vfio.VFIO_DEVICE_ATTACH_PASID, struct.offsets.pasid);
  if (pasid !== undefined && pasid < 0) return pasid;
  const view = new DataView(user.buffer, user.byteOffset);
  const ptId = view.getUint32(struct.offsets.pt_id, true);
  const replacing = pasid === undefined ? bound.attached : bound.pasids.has(pasid);
  if (pasid !== undefined && pasid > LAST_PASID) return -errno.ENOSPC;
  const result = bound.device.attach(pasid ?? IOMMU_NO_PASID, ptId, replacing);
  if (result < 0) return result;
  if (pasid === undefined) bound.attached = true;
  else bound.pasids.add(pasid);
  // An IOAS gives back the HWPT that was chosen or made.
  view.setUint32(struct.offsets.pt_id, result, true);
  return 0;
}

function detach(bound: Bound, user: Uint8Array): number {
  const { struct, minimumSize } = vfio.VFIO_DEVICE_DETACH_IOMMUFD_PT;
  const pasid = pasidOf(user, minimumSize, vfio.VFIO_DEVICE_DETACH_PASID, struct.offsets.pasid);
  if (pasid !== undefined && pasid < 0) return pasid;
  if (pasid === undefined ? bound.attached : bound.pasids.delete(pasid))
    bound.device.detach(pasid ?? IOMMU_NO_PASID);
  if (pasid === undefined) bound.attached = false;
  return 0;
}

function info({ pci, device }: Bound, user: Uint8Array): number {
  const hasPasids = (device.driver.hardwareInfo(device.device)?.maxPasidLog2 ?? 0) > 0;
  return answerInfo(user, {
    flags: vfio.VFIO_DEVICE_FLAGS_PCI | (pci.resetWorks ? vfio.VFIO_DEVICE_FLAGS_RESET : 0),
    regions: vfio.VFIO_PCI_NUM_REGIONS,
    interrupts: vfio.VFIO_PCI_NUM_IRQS,
    // A PCI device's vPASIDs are its PASIDs: nobody has to translate them.
    pasid: hasPasids ? (pci.pci.portalBar === undefined ? 0 : PASID_CPU) : undefined,
  });
}

function regionInfo({ pci: { pci }, mappable }: Bound, user: Uint8Array): number {
  const { struct, minimumSize } = vfio.VFIO_DEVICE_GET_REGION_INFO;
  return fillStruct(user, struct.size, minimumSize, (argsz) => {
    const { index, cap_offset } = struct.decode(user);
    const size = regionSize(pci, index);
    if (size < 0) return -errno.EINVAL;
    const flags = regionFlags(pci, index, mappable);
    const known = { index, size, offset: offsetOf(index) };
    const capabilities = regionCapabilities(pci, index, mappable);
    if (capabilities.length === 0) return struct.encode({ ...known, argsz, flags, cap_offset });
    const all = { ...known, flags: flags | vfio.VFIO_REGION_INFO_FLAG_CAPS };
    const needed = struct.size + capabilities.length;
    // Too short for the capabilities: the caller learns how much they need.
    if (argsz < needed) return struct.encode({ ...all, argsz: needed, cap_offset: 0 });
    if (user.length < needed) return -errno.EFAULT;
    user.set(capabilities, struct.size);
    return struct.encode({ ...all, argsz, cap_offset: struct.size });
  });
}

function irqInfo({ interrupts }: Bound, user: Uint8Array): number {
  const { struct, minimumSize } = vfio.VFIO_DEVICE_GET_IRQ_INFO;
  return fillStruct(user, struct.size, minimumSize, (argsz) => {
    const { index } = struct.decode(user);
    if (index >= vfio.VFIO_PCI_NUM_IRQS) return -errno.EINVAL;
    return struct.encode({ argsz, flags: interrupts.flags(index), index, count: interrupts.count(index) });
  });
}

/**
 * By request. The others of linux/vfio.h (planes of a display, migration data) are for devices that have a driver of
 * their own.
 */
export const answers: ReadonlyMap<number, Answer> = new Map<number, Answer>([
  [vfio.VFIO_DEVICE_ATTACH_IOMMUFD_PT.request, attach],
  [vfio.VFIO_DEVICE_DETACH_IOMMUFD_PT.request, detach],
  [vfio.VFIO_DEVICE_GET_INFO.request, info],
  [vfio.VFIO_DEVICE_GET_REGION_INFO.request, regionInfo],
  [vfio.VFIO_DEVICE_GET_IRQ_INFO.request, irqInfo],
  [vfio.VFIO_DEVICE_SET_IRQS.request, ({ interrupts }, user, process) => interrupts.set(process, user)],
  [
    vfio.VFIO_DEVICE_GET_PCI_HOT_RESET_INFO.request,
    ({ pci, device }, user) => hotResetInfo(pci, device.file, user),
  ],
  [vfio.VFIO_DEVICE_PCI_HOT_RESET.request, ({ pci, device }, user) => hotReset(pci, device.file, user)],
  [vfio.VFIO_DEVICE_IOEVENTFD.request, ({ ioeventfds }, user, process) => ioeventfds.set(process, user)],
  [vfio.VFIO_DEVICE_FEATURE.request, ({ features }, user, process) => features.call(process, user)],
  [VFIO_DEVICE_NO_SNOOP_HINT.request, ({ device }, user) => noSnoopHint(device, user)],
]);
