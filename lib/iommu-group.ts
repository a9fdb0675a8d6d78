/**
 * IOMMU groups as sysfs shows them (RFC, section 1.3): the devices that nothing isolates from each other, who uses them,
 * and why nobody can take the group.
 */
import type { BoundDevice } from './bound-device';
import type { Kernel } from './kernel';
import { listPciDevices, unbindCommand, type DeviceDescription, type PciDescription } from './sysfs';

/**
 * What a member means for who wants the group. 'bound': it is this Iommu's. 'vfio': a driver has it that gives it to
 * programs. 'no-dma': its driver does no DMA with it. 'no-driver'. 'kernel': its driver does DMA, and nobody can take
 * the group.
 */
export type MemberUse = 'bound' | 'vfio' | 'no-dma' | 'no-driver' | 'kernel';

/** A device of a group. */
export interface GroupMember extends PciDescription {
  readonly use: MemberUse;
}

/** The unit of isolation: its devices are taken together, and are in one address space. */
export interface IommuGroup {
  readonly id: number;
  /** By address. */
  readonly members: readonly GroupMember[];
  /** No driver of the kernel does DMA in it. Somebody else may have it all the same: that only bind() tells. */
  readonly viable: boolean;
  /** The members that keep it from being viable. */
  readonly blockers: readonly GroupMember[];
}

/** Drivers that leave DMA alone (`driver_managed_dma` in Linux 7.3), besides VFIO's. */
const NO_DMA_DRIVERS: ReadonlySet<string> = new Set(['pcieport', 'pci-stub']);

function useOf(device: PciDescription, bound: ReadonlySet<string>): MemberUse {
  const { bdf, driver, path } = device;
  if (bound.has(bdf)) return 'bound';
  if (driver === undefined) return 'no-driver';
  // Drivers of VFIO's for particular devices have other names, but the same file.
  if (path !== undefined || driver === 'vfio-pci') return 'vfio';
  return NO_DMA_DRIVERS.has(driver) ? 'no-dma' : 'kernel';
}

/** The groups of the machine, by number. */
export function listGroups(kernel: Kernel, devices: Iterable<BoundDevice>): IommuGroup[] {
  const bound = new Set([...devices].map(({ name }) => name));
  const groups = new Map<number, GroupMember[]>();
  for (const device of listPciDevices(kernel)) {
    if (device.iommuGroup === undefined) continue;
    const members = groups.get(device.iommuGroup) ?? [];
    groups.set(device.iommuGroup, [...members, { ...device, use: useOf(device, bound) }]);
  }
  return [...groups].sort(([one], [other]) => one - other).map(([id, members]) => describeGroup(id, members));
}

function describeGroup(id: number, members: readonly GroupMember[]): IommuGroup {
  const blockers = members.filter(({ use }) => use === 'kernel');
  return { id, members, viable: blockers.length === 0, blockers };
}

/** What to do about the members that keep a device's group from being taken; undefined where it is viable. */
export function whyNotViable(kernel: Kernel, { iommuGroup }: DeviceDescription): string | undefined {
  const group = listGroups(kernel, []).find(({ id }) => id === iommuGroup);
  if (!group || group.viable) return undefined;
  const who = group.blockers.map(({ bdf, driver }) => `${bdf} is on the driver ${String(driver)}`);
  const commands = group.blockers.map(({ bdf }) => unbindCommand(bdf));
  return `IOMMU group ${group.id} is not viable: ${who.join(', ')}; unbind it: ${commands.join(' && ')}`;
}
