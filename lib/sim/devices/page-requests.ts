/**
 * The device's end of the page request interface. PCI Express Base Specification 6.0, sections 10.4 (page requests
 * and responses) and 10.5.2 (capability).
 */
import { type DmaPort, type PageRequest, PRG_FAILURE } from '../bus';
import type { ConfigSpace } from './config-space';
import * as pci from './pci-registers';

/** Page request group indices: 9 bits. */
export const PRG_INDICES = 512;

export class PageRequestInterface {
  /** Requests in flight of each group, and the PASID they carried. */
  private readonly requests = new Uint32Array(PRG_INDICES);
  private readonly pasids = new Int32Array(PRG_INDICES);
  private outstanding = 0;
  private wasEnabled = false;
  /** A Response Failure came: responses are ignored until software enables the interface again. */
  private failed = false;

  constructor(
    private readonly config: ConfigSpace,
    private readonly at: number,
  ) {}

  get enabled(): boolean {
    return (this.config.read(this.at + pci.PRI_CONTROL, 2) & pci.PRI_CONTROL_ENABLE) !== 0;
  }

  /** Page requests that may be sent now: the allocation by software less those in flight. */
  get credits(): number {
    if (!this.enabled) return 0;
    const capacity = this.config.read(this.at + pci.PRI_CAPACITY, 4);
    const allocation = this.config.read(this.at + pci.PRI_ALLOCATION, 4);
    return Math.max(0, Math.min(capacity, allocation) - this.outstanding);
  }

  /** Whether a group index has no request in flight. */
  isFree(prgIndex: number): boolean {
    return this.requests[prgIndex] === 0;
  }

  /** Sends a request. False: no credit, not enabled, or refused by the root; no response will come for it. */
  send(port: DmaPort, request: PageRequest): boolean {
    if (this.credits === 0) return false;
    this.requests[request.prgIndex]++;
    this.pasids[request.prgIndex] = request.pasid;
    this.outstanding++;
    if (port.requestPage(request)) return true;
    this.requests[request.prgIndex]--;
    this.outstanding--;
    return false;
  }

  /** Takes a PRG response. True if it answers a group in flight; otherwise the status register has the reason. */
  respond(pasid: number, prgIndex: number, code: number): boolean {
    if (this.failed) return false;
    const status = this.at + pci.PRI_STATUS;
    const count = this.requests[prgIndex] ?? 0;
    if (count === 0 || this.pasids[prgIndex] !== pasid) {
      this.config.setBits(status, pci.PRI_STATUS_UNEXPECTED_GROUP, true);
      return false;
    }
    this.forget(prgIndex);
    if (code === PRG_FAILURE) {
      // A catastrophic error at the host: it disables the interface (10.4.2.1).
      this.failed = true;
      this.requests.fill(0);
      this.outstanding = 0;
      this.wasEnabled = false;
      this.config.setBits(status, pci.PRI_STATUS_RESPONSE_FAILURE, true);
      this.config.setBits(this.at + pci.PRI_CONTROL, pci.PRI_CONTROL_ENABLE, false);
    }
    this.updateStopped();
    return true;
  }

  /** Gives up a group of which the root refused a later request, so that no response will come. */
  forget(prgIndex: number): void {
    this.outstanding -= this.requests[prgIndex];
    this.requests[prgIndex] = 0;
    this.updateStopped();
  }

  /** For after software wrote to configuration space. */
  configurationWritten(): void {
    const control = this.config.read(this.at + pci.PRI_CONTROL, 2);
    const enabled = (control & pci.PRI_CONTROL_ENABLE) !== 0;
    if ((control & pci.PRI_CONTROL_RESET) !== 0) {
      // Reset has effect only while Enable is clear, and reads as zero.
      this.config.set(this.at + pci.PRI_CONTROL, 2, control & ~pci.PRI_CONTROL_RESET);
      if (!enabled) this.reset();
    }
    if (enabled && !this.wasEnabled) this.failed = false;
    this.wasEnabled = enabled;
    this.updateStopped();
  }

  /** Forgets all requests. */
  reset(): void {
    this.requests.fill(0);
    this.outstanding = 0;
    this.failed = false;
    this.wasEnabled = false;
  }

  /** Stopped: disabled, and every request has been answered. */
  private updateStopped(): void {
    const stopped = !this.enabled && this.outstanding === 0;
    this.config.setBits(this.at + pci.PRI_STATUS, pci.PRI_STATUS_STOPPED, stopped);
  }
}
