/**
 * What a function may do at the moment, decoded once per write to configuration space, because every DMA asks.
 */
import { ACCESS_EXECUTE, ACCESS_NO_SNOOP, ACCESS_PRIVILEGED, ACCESS_TRANSLATED, NO_PASID } from '../bus';
import type { ConfigSpace } from './config-space';
import * as pci from './pci-registers';

export class Enables {
  /** Memory Space Enable: the BARs answer. */
  memory = false;
  /** Bus Master Enable: the function may read and write memory (PCI 3.0, 6.2.2). */
  busMaster = false;
  /** Enable No Snoop: requests may have the attribute (PCIe 6.0, 7.5.3.4). */
  noSnoop = false;
  /** Address translation services (PCIe 6.0, 10.5.1.3). */
  ats = false;

  private readonly expressAt: number;
  private readonly atsAt: number;
  private readonly pasidAt: number;
  private readonly pasidLimit: number;
  /** Access bits a request with a PASID may have, or -1 while requests may carry none. */
  private pasidAccess = -1;

  constructor(private readonly config: ConfigSpace) {
    this.expressAt = config.capability(pci.CAPABILITY_EXPRESS);
    this.atsAt = config.extendedCapability(pci.EXTENDED_CAPABILITY_ATS);
    this.pasidAt = config.extendedCapability(pci.EXTENDED_CAPABILITY_PASID);
    const capability = this.pasidAt === 0 ? 0 : config.read(this.pasidAt + pci.PASID_CAPABILITY, 2);
    this.pasidLimit = 2 ** ((capability >>> 8) & 0x1f);
  }

  /** `awake`: the function is in D0; otherwise it answers configuration requests only. */
  update(awake: boolean): void {
    const { config } = this;
    this.memory = awake && config.memoryEnabled;
    this.busMaster = awake && config.busMasterEnabled;
    this.ats =
      this.atsAt !== 0 && (config.read(this.atsAt + pci.ATS_CONTROL, 2) & pci.ATS_CONTROL_ENABLE) !== 0;
    const express = this.expressAt === 0 ? 0 : config.read(this.expressAt + pci.EXPRESS_DEVICE_CONTROL, 2);
    this.noSnoop = (express & pci.EXPRESS_NO_SNOOP) !== 0;
    const control = this.pasidAt === 0 ? 0 : config.read(this.pasidAt + pci.PASID_CONTROL, 2);
    this.pasidAccess = -1;
    if ((control & pci.PASID_CONTROL_ENABLE) === 0) return;
    this.pasidAccess =
      ((control & pci.PASID_EXECUTE) !== 0 ? ACCESS_EXECUTE : 0) |
      ((control & pci.PASID_PRIVILEGED) !== 0 ? ACCESS_PRIVILEGED : 0);
  }

  /** Whether messages and requests may carry this PASID. */
  allowsPasid(pasid: number): boolean {
    return pasid === NO_PASID || (this.pasidAccess >= 0 && pasid >= 0 && pasid < this.pasidLimit);
  }

  /** Whether the function may make a memory or translation request with these access bits. */
  allowsRequest(pasid: number, access: number): boolean {
    if (!this.busMaster || !this.allowsPasid(pasid)) return false;
    if ((access & ACCESS_TRANSLATED) !== 0 && !this.ats) return false;
    // Execute and privileged are fields of the PASID prefix.
    const modes = access & (ACCESS_EXECUTE | ACCESS_PRIVILEGED);
    return pasid === NO_PASID ? modes === 0 : (modes & ~this.pasidAccess) === 0;
  }

  /** Access bits as the function sends them: without what it may not set, and does not need. */
  sent(access: number): number {
    return this.noSnoop ? access : access & ~ACCESS_NO_SNOOP;
  }
}
