/** The configuration space that most devices have, in short. */
import type { Capability, ExtendedCapability } from './capabilities';
import type { BarDescription, FunctionDescription } from './config-space';
import * as pci from './pci-registers';

/** A PCI Express function with power management and function level reset. */
export interface EndpointDescription {
  readonly vendorId: number;
  readonly deviceId: number;
  /** 24 bits: base class, sub-class, programming interface. */
  readonly classCode: number;
  /** Default 0. */
  readonly revisionId?: number;
  readonly subsystemVendorId?: number;
  readonly subsystemId?: number;
  /** Bytes of each memory BAR, by its number: a power of two, 4096 at least for one that Linux can map. They are 64 bits wide. */
  readonly bars?: Readonly<Record<number, number>>;
  /** Vectors of MSI-X: 1 to 2048. Their table and pending bits get the first BAR that is free. */
  readonly msix?: number;
  /** Vectors of MSI. */
  readonly msi?: 1 | 2 | 4 | 8 | 16 | 32;
  /** INTA. */
  readonly intx?: boolean;
  /** Address translation services. */
  readonly ats?: boolean;
  /** Page requests in flight at most. Needs ATS. */
  readonly pri?: number;
  /** Bits of a PASID: 1 to 20. */
  readonly pasid?: number;
}

/** Makes the description that PciDevice takes. Throws RangeError where it cannot be. */
export function endpoint(short: EndpointDescription): FunctionDescription {
  const { bars = {}, msix, msi, intx, ats, pri, pasid, revisionId = 0, ...identity } = short;
  if (pri !== undefined && !ats)
    throw new RangeError('page requests (pri) need address translation services (ats)');
  const declared = Object.entries(bars).map(([bar, size]) => memoryBar(Number(bar), size));
  const capabilities: Capability[] = [
    { kind: 'power-management', noSoftReset: true },
    { kind: 'express', type: 'root-complex-endpoint', functionLevelReset: true },
  ];
  if (msi !== undefined) capabilities.push({ kind: 'msi', vectors: msi, wide: true, maskable: true });
  if (msix !== undefined) {
    const table = msixBar(declared, msix);
    declared.push(table);
    const place = (offset: number) => ({ bar: table.bar, offset });
    capabilities.push({ kind: 'msix', vectors: msix, table: place(0), pending: place(table.size / 2) });
  }
  const extended: ExtendedCapability[] = [];
  if (ats) extended.push({ kind: 'ats', queueDepth: 32 });
  if (pri !== undefined) extended.push({ kind: 'pri', capacity: pri });
  if (pasid !== undefined) extended.push({ kind: 'pasid', width: pasid, execute: true, privileged: true });
  return {
    ...identity,
    revisionId,
    interruptPin: intx ? 1 : 0,
    bars: declared,
    capabilities,
    extendedCapabilities: extended,
  };
}

function memoryBar(bar: number, size: number): BarDescription {
  return { bar, size, width: 64, prefetchable: false };
}

/** The table in the first half, the pending bits, which are fewer, in the second. */
function msixBar(declared: readonly BarDescription[], vectors: number): BarDescription {
  const taken = new Set(declared.flatMap(({ bar }) => [bar, bar + 1]));
  for (let bar = 0; bar + 1 < pci.BAR_COUNT; bar += 2)
    if (!taken.has(bar) && !taken.has(bar + 1))
      return memoryBar(bar, Math.max(4096, 2 ** Math.ceil(Math.log2(2 * vectors * pci.MSIX_ENTRY_SIZE))));
  throw new RangeError('no BAR is left for the MSI-X table');
}
