/**
 * The state of an Iommu as plain data, for people and programs: what JSON.stringify takes. 64-bit values (addresses and
 * cookies) are hexadecimal strings, byte counts are numbers, and what is not there is null.
 */
import { AddressSpace } from './address-space';
import type { AttachTarget } from './attach-target';
import type { BoundDevice } from './bound-device';
import type { Context } from './context';
import type { DmaBuffer } from './dma-buffer';
import type { FaultQueue } from './fault-queue';
import type { Handle } from './handle';
import { KernelManagedSpace } from './kernel-managed-space';
import { NestedAddressSpace } from './nested-address-space';
import type { EnforceSnoop } from './no-snoop';
import { hex, type Hex } from './hex';
import { PageTable } from './page-table';
import { listDevices, type DeviceDescription } from './sysfs';
import { UserAddressSpace } from './user-address-space';
import { VirtualIommu } from './virtual-iommu';

export interface DescribedDevice {
  readonly cookie: Hex;
  readonly name: string;
  /** Of a mediated device: what it is a part of. */
  readonly parent: string | null;
  /** The kernel's `dev_id`. */
  readonly id: number;
  /** The VFIO descriptor. */
  readonly fd: number | null;
  readonly group: number | null;
  /** Its slots: which address space for requests without PASID (null), and for which PASID. */
  readonly attached: readonly { readonly pasid: number | null; readonly ioasid: number }[];
}

/** An IOMMU group of which a device is bound. */
export interface DescribedGroup {
  readonly id: number;
  /** All that are in it; a cookie for those bound here. */
  readonly members: readonly {
    readonly name: string;
    readonly driver: string | null;
    readonly cookie: Hex | null;
  }[];
}

export interface DescribedMapping {
  readonly iova: Hex;
  readonly length: number;
  readonly read: boolean;
  readonly write: boolean;
  /** Where it leads: memory, as a buffer's number and the first byte; or an address of the parent space. */
  readonly buffer: number | null;
  readonly offset: number | null;
  readonly parentIova: Hex | null;
}

export interface DescribedSpace {
  readonly ioasid: number;
  readonly owner: 'kernel' | 'user';
  /** IOASID of the space that this one is nested on. */
  readonly parent: number | null;
  /** Who translates from here to the parent; null without one. */
  readonly nesting: 'hardware' | 'software' | null;
  /** Object IDs of the kernel: the IOAS, and page tables there are now. */
  readonly ioas: number | null;
  readonly pageTables: readonly number[];
  readonly pasid: boolean;
  /** Null where another space or the IOMMU decides. */
  readonly enforceSnoop: EnforceSnoop | null;
  /** The kernel's ID of the fault queue. */
  readonly faults: number | null;
  readonly mappings: readonly DescribedMapping[];
  /** Of a space nested in software: what devices reach. */
  readonly shadow: readonly Pick<DescribedMapping, 'iova' | 'length' | 'read' | 'write'>[] | null;
}

export interface DescribedBuffer {
  /** What mappings call it: from 0, in the order in which they were allocated. */
  readonly number: number;
  readonly address: Hex;
  readonly length: number;
  /** Its memfd, if it has one. */
  readonly fd: number | null;
}

export interface DescribedFault {
  readonly ioasid: number;
  readonly cookie: Hex;
  readonly pasid: number | null;
  readonly address: Hex;
  readonly read: boolean;
  readonly write: boolean;
}

export interface DescribedFaultQueue {
  readonly id: number;
  readonly fd: number;
  readonly limit: number;
  /** Faults that were read and not answered. */
  readonly pending: readonly DescribedFault[];
}

/** What `iommu.openVm()` gave. */
export interface DescribedVirtualMachine {
  readonly fd: number;
  /** Its devices, by their cookies. */
  readonly devices: readonly Hex[];
  readonly translatesPasids: boolean;
  /** The vPASIDs that its processors translate. */
  readonly mapped: readonly { readonly pasid: number; readonly ioasid: number }[];
}

/** `iommu.describe()`. */
export interface IommuDescription {
  readonly backend: 'linux' | 'simulated';
  readonly kernel: string;
  /** The descriptor of /dev/iommu. */
  readonly fd: number;
  readonly devices: readonly DescribedDevice[];
  readonly groups: readonly DescribedGroup[];
  readonly spaces: readonly DescribedSpace[];
  readonly buffers: readonly DescribedBuffer[];
  readonly faultQueues: readonly DescribedFaultQueue[];
  readonly virtualMachines: readonly DescribedVirtualMachine[];
}

export function describeContext(context: Context): IommuDescription {
  const { kernel, fd, devices, spaces, buffers, queues, machines } = context;
  const known = listDevices(kernel);
  const numbers = new Map([...buffers].map((buffer, number) => [buffer, number]));
  const made = [...spaces]
    .filter((space) => space instanceof KernelManagedSpace)
    .flatMap(({ children }) => tablesOn(children));
  const targets = [...spaces, ...made.filter(({ space }) => !space)];
  return {
    backend: kernel.backend,
    kernel: kernel.version,
    fd,
    devices: [...devices].map((device) => describeDevice(device, known)),
    groups: describeGroups([...devices], known),
    spaces: targets.map((target) => describeSpace(target, numbers)).sort((a, b) => a.ioasid - b.ioasid),
    buffers: [...numbers].map(([buffer, number]) => describeBuffer(buffer, number)),
    faultQueues: [...queues].map(describeQueue),
    virtualMachines: [...machines].map(({ fd: file, devices: members, translatesPasids, mapped }) => ({
      ...{ fd: file, devices: members.map(({ cookie }) => hex(cookie)), translatesPasids, mapped },
    })),
  };
}

/** Page tables made by hand. Those without a space are nested, and address spaces of their own. */
function tablesOn(children: Iterable<Handle>): PageTable[] {
  return [...children].flatMap((child) => {
    if (child instanceof PageTable) return [child, ...tablesOn(child.children)];
    return child instanceof VirtualIommu ? tablesOn(child.children) : [];
  });
}

const nameOf = (device: DeviceDescription): string => device.bdf ?? device.uuid;

function describeDevice(device: BoundDevice, known: readonly DeviceDescription[]): DescribedDevice {
  const description = known.find((each) => nameOf(each) === device.name);
  return {
    cookie: hex(device.cookie),
    name: device.name,
    parent: description && 'parent' in description ? description.parent : null,
    id: device.id,
    fd: 'fd' in device && typeof device.fd === 'number' ? device.fd : null,
    group: description?.iommuGroup ?? null,
    attached: device.slots.map(({ pasid, target }) => ({ pasid: pasid ?? null, ioasid: target.ioasid })),
  };
}

function describeGroups(
  devices: readonly BoundDevice[],
  known: readonly DeviceDescription[],
): DescribedGroup[] {
  const bound = new Map(devices.map(({ name, cookie }) => [name, hex(cookie)]));
  const ids = known.filter((each) => bound.has(nameOf(each))).map(({ iommuGroup }) => iommuGroup);
  return [...new Set(ids)]
    .filter((id) => id !== undefined)
    .map((id) => ({
      id,
      members: known
        .filter(({ iommuGroup }) => iommuGroup === id)
        .map((each) => {
          const name = nameOf(each);
          return { name, driver: each.driver ?? null, cookie: bound.get(name) ?? null };
        }),
    }));
}

function describeSpace(target: AttachTarget, numbers: ReadonlyMap<DmaBuffer, number>): DescribedSpace {
  const kernelManaged = target instanceof KernelManagedSpace;
  const parent = parentOf(target);
  const software = target instanceof NestedAddressSpace;
  const byHand = kernelManaged ? tablesOn(target.children).filter(({ space }) => space === target) : [];
  return {
    ioasid: target.ioasid,
    owner: kernelManaged ? 'kernel' : 'user',
    parent: parent?.ioasid ?? null,
    nesting: parent ? (software ? 'software' : 'hardware') : null,
    ioas: kernelManaged ? target.ioasId : null,
    pageTables: [...target.pageTableIds, ...byHand.map(({ id }) => id)],
    pasid: target.pasid,
    enforceSnoop: target instanceof KernelManagedSpace ? target.enforceSnoop : null,
    faults: target.faults?.id ?? null,
    mappings: mappingsOf(target, numbers),
    shadow: software ? target.shadow.map(describeRange) : null,
  };
}

function parentOf(target: AttachTarget): AttachTarget | undefined {
  const nests =
    target instanceof NestedAddressSpace || target instanceof UserAddressSpace || target instanceof PageTable;
  return nests ? target.parent : undefined;
}

function mappingsOf(target: AttachTarget, numbers: ReadonlyMap<DmaBuffer, number>): DescribedMapping[] {
  if (target instanceof AddressSpace)
    return target.mappings.map((mapping) => ({
      ...describeRange(mapping),
      buffer: numbers.get(mapping.buffer) ?? null,
      offset: mapping.offset,
      parentIova: null,
    }));
  if (!(target instanceof NestedAddressSpace)) return [];
  return target.mappings.map((mapping) => ({
    ...describeRange(mapping),
    buffer: null,
    offset: null,
    parentIova: hex(mapping.parentIova),
  }));
}

function describeRange(range: { iova: bigint; length: number; read: boolean; write: boolean }) {
  return { iova: hex(range.iova), length: range.length, read: range.read, write: range.write };
}

function describeBuffer({ address, length, fd }: DmaBuffer, number: number): DescribedBuffer {
  return { number, address: hex(address), length, fd: fd < 0 ? null : fd };
}

function describeQueue({ id, fd, limit, pending }: FaultQueue): DescribedFaultQueue {
  const faults = pending.map(({ ioasid, cookie, pasid, address, permissions }) => ({
    ...{ ioasid, cookie: hex(cookie), pasid: pasid ?? null, address: hex(address) },
    ...{ read: permissions.read, write: permissions.write },
  }));
  return { id, fd, limit, pending: faults };
}
