/**
 * The capability lists of a PCI function. PCI Express Base Specification 6.0, 7.5.1.1.11 and 7.6.3; numbers and names of
 * the PCI Code and ID Assignment Specification.
 */
import type { Region } from './region';

const STATUS = 0x06;
const STATUS_CAPABILITIES = 1 << 4;
const CAPABILITIES_POINTER = 0x34;
/** The first address that can hold a capability; they are 4 bytes apart at least. */
const FIRST_CAPABILITY = 0x40;
const FIRST_EXTENDED = 0x100;

const NAMES = {
  0x01: 'power-management',
  0x02: 'agp',
  0x03: 'vital-product-data',
  0x04: 'slot-identification',
  0x05: 'msi',
  0x06: 'compactpci-hot-swap',
  0x07: 'pci-x',
  0x08: 'hypertransport',
  0x09: 'vendor-specific',
  0x0a: 'debug-port',
  0x0b: 'compactpci-resource-control',
  0x0c: 'hot-plug',
  0x0d: 'bridge-subsystem',
  0x0e: 'agp-8x',
  0x0f: 'secure-device',
  0x10: 'express',
  0x11: 'msix',
  0x12: 'sata',
  0x13: 'advanced-features',
  0x14: 'enhanced-allocation',
  0x15: 'flattening-portal-bridge',
} as const;

const EXTENDED_NAMES = {
  0x01: 'advanced-error-reporting',
  0x02: 'virtual-channel',
  0x03: 'serial-number',
  0x04: 'power-budgeting',
  0x05: 'root-complex-link',
  0x06: 'root-complex-internal-link',
  0x07: 'root-complex-event-collector',
  0x08: 'multi-function-virtual-channel',
  0x0b: 'extended-vendor-specific',
  0x0d: 'acs',
  0x0e: 'ari',
  0x0f: 'ats',
  0x10: 'sr-iov',
  0x11: 'mr-iov',
  0x12: 'multicast',
  0x13: 'pri',
  0x15: 'resizable-bar',
  0x16: 'dynamic-power-allocation',
  0x17: 'tph-requester',
  0x18: 'latency-tolerance-reporting',
  0x19: 'secondary-express',
  0x1b: 'pasid',
  0x1d: 'downstream-port-containment',
  0x1e: 'l1-pm-substates',
  0x1f: 'precision-time-measurement',
  0x22: 'readiness-time-reporting',
  0x23: 'designated-vendor-specific',
  0x24: 'vf-resizable-bar',
  0x25: 'data-link-feature',
  0x26: 'physical-layer-16gt',
  0x27: 'lane-margining',
  0x2a: 'physical-layer-32gt',
  0x2c: 'system-firmware-intermediary',
  0x2e: 'data-object-exchange',
} as const;

/** Name of a capability in the first 256 bytes, or of an extended one. */
export type CapabilityName =
  (typeof NAMES)[keyof typeof NAMES] | (typeof EXTENDED_NAMES)[keyof typeof EXTENDED_NAMES];

/** Where a capability is. */
export interface PciCapability {
  /** Its number: 0x11 for MSI-X. Numbers of extended capabilities are others' numbers too. */
  readonly id: number;
  /** Undefined for a number that this package does not know. */
  readonly name: CapabilityName | undefined;
  /** Bytes from the start of configuration space. */
  readonly offset: number;
  readonly extended: boolean;
  /** Of an extended capability; 0 for others. */
  readonly version: number;
}

/** Every capability, in the order of the lists. A list that leads back to itself ends there. Throws IommuError. */
export function listCapabilities(config: Region): PciCapability[] {
  return [...walk(config)];
}

function* walk(config: Region): Generator<PciCapability> {
  yield* standard(config);
  yield* extended(config);
}

function* standard(config: Region): Generator<PciCapability> {
  if ((config.read16(STATUS) & STATUS_CAPABILITIES) === 0) return;
  const seen = new Set<number>();
  let offset = config.read8(CAPABILITIES_POINTER) & ~3;
  while (offset >= FIRST_CAPABILITY && !seen.has(offset)) {
    seen.add(offset);
    const id = config.read8(offset);
    // A function that does not answer reads as ones.
    if (id === 0xff) return;
    const name = NAMES[id as keyof typeof NAMES];
    yield { id, name, offset, extended: false, version: 0 };
    offset = config.read8(offset + 1) & ~3;
  }
}

function* extended(config: Region): Generator<PciCapability> {
  const seen = new Set<number>();
  let offset = FIRST_EXTENDED;
  while (offset >= FIRST_EXTENDED && offset + 4 <= config.size && !seen.has(offset)) {
    seen.add(offset);
    const header = config.read32(offset);
    if (header === 0 || header === 0xffffffff) return;
    const id = header & 0xffff;
    // VFIO puts a 0 over the first capability where it hides that one.
    if (id !== 0) {
      const name = EXTENDED_NAMES[id as keyof typeof EXTENDED_NAMES];
      yield { id, name, offset, extended: true, version: (header >>> 16) & 0xf };
    }
    offset = (header >>> 20) & ~3;
  }
}

/** The first of this name, if there is one. Throws IommuError. */
export function findCapability(config: Region, name: CapabilityName): PciCapability | undefined {
  for (const capability of walk(config)) if (capability.name === name) return capability;
  return undefined;
}
