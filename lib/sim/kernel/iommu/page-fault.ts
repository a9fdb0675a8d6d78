/**
 * Page requests on their way up: single requests are gathered into groups, and a complete group goes to
 * whoever attached the domain it happened in (drivers/iommu/io-pgfault.c's role).
 */
import { IOMMU_PGFAULT_FLAGS_LAST_PAGE, IOMMU_PGFAULT_FLAGS_PASID_VALID } from '../../../uapi/iommufd';
import { IOMMU_NO_PASID, type AttachHandle, type IommuDriver, type KernelDevice } from './core';

/** PRG response "Invalid Request", which is also IOMMUFD_PAGE_RESP_INVALID. */
const INVALID = 1;

/** One page request as the kernel reports it. */
export interface PageFault {
  /** IOMMU_PGFAULT_FLAGS_*. */
  readonly flags: number;
  readonly pasid: number;
  readonly grpid: number;
  /** IOMMU_PGFAULT_PERM_*. */
  readonly permissions: number;
  readonly address: bigint;
}

/** Requests by page request group index, until the one marked last arrives. PASIDs do not separate groups. */
export type PartialFaults = PageFault[];

/** A complete group, waiting for one response. */
export class FaultGroup {
  #answered = false;

  constructor(
    readonly device: KernelDevice,
    readonly faults: readonly PageFault[],
    readonly handle: AttachHandle,
    readonly driver: IommuDriver,
  ) {}

  /** Answers the device. Only the first call has an effect. `code` is an IOMMUFD_PAGE_RESP_*. */
  respond(code: number): void {
    if (this.#answered) return;
    this.#answered = true;
    const last = this.faults[this.faults.length - 1];
    this.driver.pageResponse(this.device, pasidOf(last), last.grpid, code);
  }
}

function pasidOf(fault: PageFault): number {
  return fault.flags & IOMMU_PGFAULT_FLAGS_PASID_VALID ? fault.pasid : -1;
}

/** Who hears of the faults with `pasid`, or without one (IOMMU_NO_PASID). */
function handleOf(driver: IommuDriver, { handles }: KernelDevice['group'], pasid: number) {
  const handle = handles.get(pasid);
  if (handle || !driver.userPasidTable) return handle;
  const rid = handles.get(IOMMU_NO_PASID);
  return rid?.domain.nested ? rid : undefined;
}

/** Takes one page request from a driver. A group without an owner is answered "invalid" at once. */
export function reportPageFault(driver: IommuDriver, device: KernelDevice, fault: PageFault): void {
  if (!(fault.flags & IOMMU_PGFAULT_FLAGS_LAST_PAGE)) {
    device.partialFaults.push(fault);
    return;
  }
  const faults: PageFault[] = [];
  const others: PageFault[] = [];
  for (const partial of device.partialFaults) (partial.grpid === fault.grpid ? faults : others).push(partial);
  device.partialFaults.splice(0, Infinity, ...others);
  faults.push(fault);

  const pasid = fault.flags & IOMMU_PGFAULT_FLAGS_PASID_VALID ? fault.pasid : IOMMU_NO_PASID;
  const handle = handleOf(driver, device.group, pasid);
  if (handle?.deliver) handle.deliver(new FaultGroup(device, faults, handle, driver));
  else driver.pageResponse(device, pasidOf(fault), fault.grpid, INVALID);
}
