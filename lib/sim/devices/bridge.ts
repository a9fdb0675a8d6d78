/**
 * Ports and bridges: functions with a bus behind them (PCI-to-PCI Bridge Architecture Specification 1.2; PCI Express
 * Base Specification 6.0, 1.3). They forward what comes from below; some of them put their own requester ID on it.
 */
import type { Capability, ExpressCapability } from './capabilities';
import { PciFunction } from './pci-function';
import * as pci from './pci-registers';

/**
 * 'root-port': of the root complex. 'upstream-port' and 'downstream-port': of a switch, whose inner bus is between them.
 * 'pcie-to-pci-bridge': conventional PCI behind PCI Express. 'pci-bridge': conventional PCI on both sides.
 */
export type BridgeKind =
  'root-port' | 'upstream-port' | 'downstream-port' | 'pcie-to-pci-bridge' | 'pci-bridge';

export interface BridgeOptions {
  readonly kind: BridgeKind;
  /** Number of the bus behind it, as firmware gives it: 1 to 255, above that of the bus it sits on. */
  readonly bus: number;
  /**
   * A root or downstream port: the ACS controls it has (ACS_* bits); default those that keep what is behind it apart from
   * its peers. 0: a port without ACS.
   */
  readonly acs?: number;
  /** It is function 0 of several. */
  readonly multifunction?: boolean;
}

/** What Linux asks of every port on the way up, before it takes a device to be isolated (REQ_ACS_FLAGS). */
export const ACS_ISOLATION =
  pci.ACS_SOURCE_VALIDATION |
  pci.ACS_REQUEST_REDIRECT |
  pci.ACS_COMPLETION_REDIRECT |
  pci.ACS_UPSTREAM_FORWARDING;

/** Identities: QEMU's root port, TI's switch as QEMU has it, and QEMU's bridges. */
const IDENTITIES: Readonly<Record<BridgeKind, { vendorId: number; deviceId: number }>> = {
  'root-port': { vendorId: 0x1b36, deviceId: 0x000c },
  'upstream-port': { vendorId: 0x104c, deviceId: 0x8232 },
  'downstream-port': { vendorId: 0x104c, deviceId: 0x8233 },
  'pcie-to-pci-bridge': { vendorId: 0x1b36, deviceId: 0x000e },
  'pci-bridge': { vendorId: 0x1b36, deviceId: 0x0001 },
};

function isPort(kind: BridgeKind): kind is 'root-port' | 'upstream-port' | 'downstream-port' {
  return kind === 'root-port' || kind === 'upstream-port' || kind === 'downstream-port';
}

export class PciBridge extends PciFunction {
  readonly kind: BridgeKind;
  /** Number of the bus behind it. */
  readonly bus: number;

  constructor({ kind, bus, acs = ACS_ISOLATION, multifunction = false }: BridgeOptions) {
    if (!Number.isInteger(bus) || bus < 1 || bus > 0xff) throw new RangeError(`no bus has the number ${bus}`);
    const express: ExpressCapability[] =
      kind === 'pci-bridge' ? [] : [{ kind: 'express', type: kind, functionLevelReset: false }];
    const powerManagement: Capability = { kind: 'power-management', noSoftReset: true };
    const controls = kind === 'root-port' || kind === 'downstream-port' ? acs : 0;
    super({
      ...IDENTITIES[kind],
      revisionId: 0,
      classCode: 0x060400,
      bridge: true,
      multifunction,
      capabilities: [powerManagement, ...express],
      extendedCapabilities: controls ? [{ kind: 'acs', controls }] : [],
    });
    this.kind = kind;
    this.bus = bus;
  }

  /** The driver that Linux has for it: of PCI Express ports the port driver, of other bridges none. */
  get nativeDriver(): 'pcieport' | null {
    return isPort(this.kind) ? 'pcieport' : null;
  }

  /**
   * The requester ID under which a request from below goes on. A PCI Express to PCI bridge takes (secondary bus, 0), for
   * conventional PCI has none (PCI Express to PCI/PCI-X Bridge Specification 1.0, 2.3); a conventional bridge is the
   * master of the transaction itself.
   */
  forward(requester: number): number {
    if (this.kind === 'pcie-to-pci-bridge') return this.bus << 8;
    return this.kind === 'pci-bridge' ? this.requesterId : requester;
  }

  protected override readRegister(): number {
    return 0;
  }
  protected override writeRegister(): void {}
  protected override onReset(): void {}
}
