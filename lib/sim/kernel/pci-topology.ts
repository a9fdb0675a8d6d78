/**
 * What the PCI core knows of isolation: under which requester IDs a device's requests come up, which ports keep devices
 * apart, and which IOMMU group follows from that (the roles of pci_for_each_dma_alias, pci_acs_enabled and
 * pci_device_group).
 */
import { ACS_ISOLATION } from '../devices/bridge';
import * as registers from '../devices/pci-registers';
import type { DmaAlias, IommuGroup, KernelPciDevice } from './iommu/core';
import type { PciDevice } from './pci';

type Group = IommuGroup<KernelPciDevice>;

/** Device/Port Type of a PCI Express function; undefined for conventional PCI. */
function expressType({ pci: { config } }: PciDevice): number | undefined {
  const at = config.capability(registers.CAPABILITY_EXPRESS);
  return at ? (config.read(at + registers.EXPRESS_CAPABILITIES, 2) >> 4) & 0xf : undefined;
}

/** The alias that a bridge gives to what is below; undefined where it forwards requests as they are. */
function bridgeAlias(bridge: PciDevice): number | undefined {
  switch (expressType(bridge)) {
    case undefined:
      return bridge.rid;
    case registers.EXPRESS_TYPE_PCI_BRIDGE:
      return bridge.secondaryBus << 8;
    default:
      return undefined;
  }
}

interface AliasOf extends DmaAlias {
  readonly device: PciDevice;
}

function aliasesOf(device: PciDevice): AliasOf[] {
  const aliases = [device.rid, ...device.quirkAliases].map((rid) => ({ rid, bus: device.rid >> 8, device }));
  for (let bridge = device.bus.self; bridge; bridge = bridge.bus.self) {
    const rid = bridgeAlias(bridge);
    if (rid !== undefined) aliases.push({ rid, bus: bridge.rid >> 8, device: bridge });
  }
  return aliases;
}

/** Every requester ID under which requests of a device may come up. */
export function dmaAliasesOf(device: PciDevice): readonly DmaAlias[] {
  return aliasesOf(device).map(({ rid, bus }) => ({ rid, bus }));
}

/** The kernel turns on what a port has of isolation, as soon as it knows that there is an IOMMU. */
export function enableAcs({ pci: { config } }: PciDevice): void {
  const at = config.extendedCapability(registers.EXTENDED_CAPABILITY_ACS);
  if (!at) return;
  const there = config.read(at + registers.ACS_CAPABILITY, 2);
  config.write(at + registers.ACS_CONTROL, 2, there & ACS_ISOLATION);
}

/** Isolation of a port or function is on, as far as its capability says that it is not always so. */
function acsOn({ pci: { config } }: PciDevice): boolean {
  const at = config.extendedCapability(registers.EXTENDED_CAPABILITY_ACS);
  if (!at) return false;
  const wanted = ACS_ISOLATION & config.read(at + registers.ACS_CAPABILITY, 2);
  return (config.read(at + registers.ACS_CONTROL, 2) & wanted) === wanted;
}

/** Nothing passes the function on its way to a peer: it has ACS, or no opportunity. */
function isIsolated(device: PciDevice): boolean {
  switch (expressType(device)) {
    case undefined:
    case registers.EXPRESS_TYPE_PCI_BRIDGE:
      return false;
    case registers.EXPRESS_TYPE_ROOT_PORT:
    case registers.EXPRESS_TYPE_DOWNSTREAM_PORT:
      return acsOn(device);
    default:
      return !device.multifunction || acsOn(device);
  }
}

function isIsolatedUpToRoot(bridge: PciDevice): boolean {
  for (let at: PciDevice | undefined = bridge; at; at = at.bus.self) if (!isIsolated(at)) return false;
  return true;
}

function groupOf({ group }: PciDevice): Group | undefined {
  return group.id >= 0 ? group : undefined;
}

/** The group that a device belongs to because of others that have one; undefined: it gets one of its own. */
export function sharedGroup(device: PciDevice): Group | undefined {
  let top = device;
  for (const { device: owner } of aliasesOf(device)) {
    const group = groupOf(owner);
    if (group) return group;
    top = owner;
  }
  for (let bridge = top.bus.self; bridge && !isIsolatedUpToRoot(bridge); bridge = bridge.bus.self) {
    const group = groupOf(bridge);
    if (group) return group;
    top = bridge;
  }
  const seen = new Set<PciDevice>();
  return aliasGroup(top, seen) ?? functionGroup(top, seen);
}

/** Of devices that alias it, or that it aliases. */
function aliasGroup(device: PciDevice, seen: Set<PciDevice>): Group | undefined {
  if (seen.has(device)) return undefined;
  seen.add(device);
  const own = groupOf(device);
  if (own) return own;
  for (const other of device.bus.devices) {
    if (other === device || !areAliases(device, other)) continue;
    const group = aliasGroup(other, seen) ?? functionGroup(other, seen);
    if (group) return group;
  }
  return undefined;
}

function areAliases(one: PciDevice, other: PciDevice): boolean {
  return one.quirkAliases.includes(other.rid) || other.quirkAliases.includes(one.rid);
}

/** Of other functions of the same device that nothing isolates from it. */
function functionGroup(device: PciDevice, seen: Set<PciDevice>): Group | undefined {
  if (!device.multifunction || isIsolated(device)) return undefined;
  for (const other of device.bus.devices) {
    if (other === device || other.rid >> 3 !== device.rid >> 3 || isIsolated(other)) continue;
    const group = aliasGroup(other, seen);
    if (group) return group;
  }
  return undefined;
}
