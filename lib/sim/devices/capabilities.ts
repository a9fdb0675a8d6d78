/**
 * Capabilities of a PCI function, declared as data, and their bytes. An image is what configuration space looks
 * like after reset, with what software may write. Sections are those of the PCI Express Base Specification 6.0.
 */
import * as pci from './pci-registers';

/** MSI, 7.7.1. */
export interface MsiCapability {
  readonly kind: 'msi';
  readonly vectors: 1 | 2 | 4 | 8 | 16 | 32;
  /** 64-bit message address. */
  readonly wide: boolean;
  /** Per-vector mask and pending bits. */
  readonly maskable: boolean;
}

/** MSI-X, 7.7.2. The table and the pending bits answer in their BARs by themselves. */
export interface MsixCapability {
  readonly kind: 'msix';
  /** 1 to 2048. */
  readonly vectors: number;
  /** BAR number and byte offset (a multiple of 8) of the table and of the pending bit array. */
  readonly table: { readonly bar: number; readonly offset: number };
  readonly pending: { readonly bar: number; readonly offset: number };
}

/** PCI Express, 7.5.3: gives the function its 4096 bytes of configuration space. */
export interface ExpressCapability {
  readonly kind: 'express';
  readonly type:
    | 'endpoint'
    | 'root-complex-endpoint'
    | 'root-port'
    | 'upstream-port'
    | 'downstream-port'
    | 'pcie-to-pci-bridge';
  readonly functionLevelReset: boolean;
  /** False: requests never have the No Snoop attribute, and its enable bit is hardwired to 0. Default true. */
  readonly noSnoop?: boolean;
}

/** PCI power management, 7.5.2: D0 and D3hot. */
export interface PowerManagementCapability {
  readonly kind: 'power-management';
  /** Configuration survives D3hot. If false, the way back to D0 resets the function. */
  readonly noSoftReset: boolean;
}

export type Capability = MsiCapability | MsixCapability | ExpressCapability | PowerManagementCapability;

/** Address translation services, 10.5.1. */
export interface AtsCapability {
  readonly kind: 'ats';
  /** Invalidate requests the function takes before it pushes back: 1 to 32. */
  readonly queueDepth: number;
}

/** Page request interface, 10.5.2. */
export interface PriCapability {
  readonly kind: 'pri';
  /** Outstanding Page Request Capacity: page requests in flight at most, 1 or more. */
  readonly capacity: number;
}

/** Process address space IDs, 7.8.9. */
export interface PasidCapability {
  readonly kind: 'pasid';
  /** Bits of a PASID: 1 to 20. */
  readonly width: number;
  readonly execute: boolean;
  readonly privileged: boolean;
}

/** Access control services, 7.7.11. */
export interface AcsCapability {
  readonly kind: 'acs';
  /** ACS_* bits that there are. */
  readonly controls: number;
}

export type ExtendedCapability = AtsCapability | PriCapability | PasidCapability | AcsCapability;

/** Bytes after reset, and which of their bits software may write, or clear by writing ones. */
export class ConfigImage {
  readonly bytes = new Uint8Array(pci.EXTENDED_CONFIG_SPACE_SIZE);
  readonly writable = new Uint8Array(pci.EXTENDED_CONFIG_SPACE_SIZE);
  readonly writeOneToClear = new Uint8Array(pci.EXTENDED_CONFIG_SPACE_SIZE);

  /** Declares a register of `width` bytes (1 to 4), little-endian. */
  register(offset: number, width: number, value: number, writable = 0, writeOneToClear = 0): void {
    for (let i = 0; i < width; i++) {
      this.bytes[offset + i] = value >>> (8 * i);
      this.writable[offset + i] = writable >>> (8 * i);
      this.writeOneToClear[offset + i] = writeOneToClear >>> (8 * i);
    }
  }
}

function inRange(name: string, value: number, least: number, most: number): void {
  if (!Number.isInteger(value) || value < least || value > most) {
    throw new RangeError(`${name} must be an integer from ${least} to ${most}, not ${value}`);
  }
}

function placeMsi(image: ConfigImage, at: number, capability: MsiCapability): number {
  const log2 = Math.log2(capability.vectors);
  if (!Number.isInteger(log2) || log2 < 0 || log2 > 5) {
    throw new RangeError(`MSI vectors must be a power of two up to 32, not ${capability.vectors}`);
  }
  const flags =
    (capability.wide ? pci.MSI_CONTROL_64BIT : 0) |
    (capability.maskable ? pci.MSI_CONTROL_PER_VECTOR_MASKING : 0);
  image.register(at + pci.MSI_CONTROL, 2, flags | (log2 << 1), pci.MSI_CONTROL_ENABLE | 0x70);
  image.register(at + pci.MSI_ADDRESS, 4, 0, 0xfffffffc);
  let next = at + pci.MSI_UPPER_ADDRESS;
  if (capability.wide) {
    image.register(next, 4, 0, 0xffffffff);
    next += 4;
  }
  image.register(next, 2, 0, 0xffff);
  if (!capability.maskable) return next + 2;
  next += 4;
  image.register(next, 4, 0, capability.vectors === 32 ? 0xffffffff : (1 << capability.vectors) - 1);
  return next + 8;
}

function placeMsix(image: ConfigImage, at: number, capability: MsixCapability): number {
  inRange('MSI-X vectors', capability.vectors, 1, 2048);
  const control = pci.MSIX_CONTROL_ENABLE | pci.MSIX_CONTROL_FUNCTION_MASK;
  image.register(at + pci.MSIX_CONTROL, 2, capability.vectors - 1, control);
  image.register(at + pci.MSIX_TABLE, 4, capability.table.offset | capability.table.bar);
  image.register(at + pci.MSIX_PBA, 4, capability.pending.offset | capability.pending.bar);
  return at + 12;
}

const EXPRESS_TYPES = {
  endpoint: pci.EXPRESS_TYPE_ENDPOINT,
  'root-complex-endpoint': pci.EXPRESS_TYPE_ROOT_COMPLEX_ENDPOINT,
  'root-port': pci.EXPRESS_TYPE_ROOT_PORT,
  'upstream-port': pci.EXPRESS_TYPE_UPSTREAM_PORT,
  'downstream-port': pci.EXPRESS_TYPE_DOWNSTREAM_PORT,
  'pcie-to-pci-bridge': pci.EXPRESS_TYPE_PCI_BRIDGE,
} as const;

function placeExpress(image: ConfigImage, at: number, capability: ExpressCapability): number {
  const type = EXPRESS_TYPES[capability.type];
  image.register(at + pci.EXPRESS_CAPABILITIES, 2, 2 | (type << 4));
  // Role-based error reporting (bit 15) is required of every function since PCIe 1.1.
  const reset = capability.functionLevelReset ? pci.EXPRESS_FUNCTION_LEVEL_RESET : 0;
  image.register(at + pci.EXPRESS_DEVICE_CAPABILITIES, 4, (1 << 15) | reset);
  // Reset value: relaxed ordering and no-snoop enabled, reads of up to 512 bytes.
  const initiate = capability.functionLevelReset ? pci.EXPRESS_INITIATE_FLR : 0;
  const hardwired = (capability.noSnoop ?? true) ? 0 : pci.EXPRESS_NO_SNOOP;
  image.register(at + pci.EXPRESS_DEVICE_CONTROL, 2, 0x2810 & ~hardwired, (0x78ff & ~hardwired) | initiate);
  image.register(at + pci.EXPRESS_DEVICE_STATUS, 2, 0, 0, 0xf);
  if (capability.type !== 'root-complex-endpoint') {
    // 2.5 GT/s, one lane; an integrated endpoint has no link.
    image.register(at + pci.EXPRESS_LINK_CAPABILITIES, 4, 0x11);
    image.register(at + pci.EXPRESS_LINK_STATUS, 2, 0x11);
  }
  return at + pci.EXPRESS_SIZE;
}

function placePowerManagement(image: ConfigImage, at: number, capability: PowerManagementCapability): number {
  image.register(at + pci.PM_CAPABILITIES, 2, 3);
  const reset = capability.noSoftReset ? pci.PM_NO_SOFT_RESET : 0;
  image.register(at + pci.PM_CONTROL_STATUS, 2, reset, pci.PM_POWER_STATE);
  return at + 8;
}

const CAPABILITY_IDS = {
  msi: pci.CAPABILITY_MSI,
  msix: pci.CAPABILITY_MSIX,
  express: pci.CAPABILITY_EXPRESS,
  'power-management': pci.CAPABILITY_POWER_MANAGEMENT,
} as const;

const EXTENDED_CAPABILITY_IDS = {
  acs: pci.EXTENDED_CAPABILITY_ACS,
  ats: pci.EXTENDED_CAPABILITY_ATS,
  pri: pci.EXTENDED_CAPABILITY_PRI,
  pasid: pci.EXTENDED_CAPABILITY_PASID,
} as const;

/** Writes the registers behind a capability's two-byte header; returns the offset after them. */
function placeCapability(image: ConfigImage, at: number, capability: Capability): number {
  switch (capability.kind) {
    case 'msi':
      return placeMsi(image, at, capability);
    case 'msix':
      return placeMsix(image, at, capability);
    case 'express':
      return placeExpress(image, at, capability);
    case 'power-management':
      return placePowerManagement(image, at, capability);
  }
}

/**
 * Lays the capability list out from 0x40, in the order given, each at a multiple of four.
 * Returns the offset of each capability by its ID.
 */
export function placeCapabilities(image: ConfigImage, list: readonly Capability[]): Map<number, number> {
  const offsets = new Map<number, number>();
  let link = pci.CAPABILITIES_POINTER;
  let at = pci.HEADER_SIZE;
  for (const capability of list) {
    const id = CAPABILITY_IDS[capability.kind];
    if (offsets.has(id)) throw new RangeError(`a function has one ${capability.kind} capability at most`);
    offsets.set(id, at);
    image.register(at, 2, id);
    image.register(link, 1, at);
    link = at + 1;
    at = (placeCapability(image, at, capability) + 3) & ~3;
  }
  if (at > pci.CONFIG_SPACE_SIZE) throw new RangeError('the capabilities do not fit in configuration space');
  return offsets;
}

function placeExtendedCapability(image: ConfigImage, at: number, capability: ExtendedCapability): number {
  switch (capability.kind) {
    case 'acs':
      image.register(at + pci.ACS_CAPABILITY, 2, capability.controls);
      image.register(at + pci.ACS_CONTROL, 2, 0, capability.controls);
      return at + 8;
    case 'ats': {
      inRange('ATS queue depth', capability.queueDepth, 1, 32);
      // A depth of 32 is encoded as 0. Every function here asks for whole pages and knows global invalidations.
      const flags = pci.ATS_PAGE_ALIGNED_REQUEST | pci.ATS_GLOBAL_INVALIDATE;
      image.register(at + pci.ATS_CAPABILITY, 2, (capability.queueDepth & 0x1f) | flags);
      image.register(at + pci.ATS_CONTROL, 2, 0, pci.ATS_CONTROL_ENABLE | pci.ATS_CONTROL_STU);
      return at + 8;
    }
    case 'pri': {
      inRange('PRI capacity', capability.capacity, 1, 0xffffffff);
      image.register(at + pci.PRI_CONTROL, 2, 0, pci.PRI_CONTROL_ENABLE | pci.PRI_CONTROL_RESET);
      const clearable = pci.PRI_STATUS_RESPONSE_FAILURE | pci.PRI_STATUS_UNEXPECTED_GROUP;
      const status = pci.PRI_STATUS_STOPPED | pci.PRI_STATUS_PASID_REQUIRED;
      image.register(at + pci.PRI_STATUS, 2, status, 0, clearable);
      image.register(at + pci.PRI_CAPACITY, 4, capability.capacity);
      image.register(at + pci.PRI_ALLOCATION, 4, 0, 0xffffffff);
      return at + 16;
    }
    case 'pasid': {
      inRange('PASID width', capability.width, 1, 20);
      const flags =
        (capability.execute ? pci.PASID_EXECUTE : 0) | (capability.privileged ? pci.PASID_PRIVILEGED : 0);
      image.register(at + pci.PASID_CAPABILITY, 2, flags | (capability.width << 8));
      image.register(at + pci.PASID_CONTROL, 2, 0, pci.PASID_CONTROL_ENABLE | flags);
      return at + 8;
    }
  }
}

/** The same for the extended capabilities, from 0x100 (7.6). */
export function placeExtendedCapabilities(
  image: ConfigImage,
  list: readonly ExtendedCapability[],
): Map<number, number> {
  const offsets = new Map<number, number>();
  let at = pci.EXTENDED_CAPABILITIES;
  list.forEach((capability, index) => {
    const id = EXTENDED_CAPABILITY_IDS[capability.kind];
    if (offsets.has(id)) throw new RangeError(`a function has one ${capability.kind} capability at most`);
    offsets.set(id, at);
    const next = (placeExtendedCapability(image, at, capability) + 3) & ~3;
    const link = index === list.length - 1 ? 0 : next;
    // Header: ID, version 1, offset of the next.
    image.register(at, 4, id | (1 << 16) | (link << 20));
    at = next;
  });
  return offsets;
}
