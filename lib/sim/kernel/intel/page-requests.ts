/** The kernel's end of the page request queue (VT-d specification, section 7.4). */
import { IOMMU_PGFAULT_FLAGS_LAST_PAGE, IOMMU_PGFAULT_FLAGS_PASID_VALID } from '../../../uapi/iommufd';
import {
  IOMMU_PGFAULT_PERM_EXEC,
  IOMMU_PGFAULT_PERM_PRIV,
  IOMMU_PGFAULT_PERM_READ,
  IOMMU_PGFAULT_PERM_WRITE,
} from '../../../uapi/iommufd';
import type { PhysicalMemory } from '../../memory';
import { decodePageRequest, PAGE_REQUEST_BYTES, PAGE_REQUEST_DESCRIPTOR } from '../../vtd/page-request-queue';
import * as regs from '../../vtd/registers';
import type { VtdUnit } from '../../vtd/unit';
import type { PageFault } from '../iommu/page-fault';

const QUEUE_BYTES = 4096;

export class PageRequestReader {
  readonly #queue: number;
  readonly #words = new Int32Array(PAGE_REQUEST_DESCRIPTOR.wordCount);
  readonly #wide = new BigUint64Array(this.#words.buffer);

  /** `report` is told of every request, with the requester's RID. */
  constructor(
    readonly memory: PhysicalMemory,
    readonly unit: VtdUnit,
    readonly report: (rid: number, fault: PageFault) => void,
  ) {
    this.#queue = memory.allocatePage();
    if (this.#queue < 0) throw new RangeError('no memory for the page request queue');
    unit.write64(regs.PQH_REG, 0, 0);
    unit.write64(regs.PQT_REG, 0, 0);
    unit.write64(regs.PQA_REG, Math.floor(this.#queue / 2 ** 32), this.#queue % 2 ** 32);
  }

  /** The page request event: takes everything out of the queue. */
  handleEvent(): void {
    const { unit } = this;
    // Cleared first: a request that arrives while the queue is being read raises the event again.
    unit.write32(regs.PRS_REG, regs.PRS_PPR);
    const tail = unit.read32(regs.PQT_REG);
    let head = unit.read32(regs.PQH_REG);
    const requesters: number[] = [];
    const faults: PageFault[] = [];
    while (head !== tail) {
      this.memory.readWords(this.#queue + head, this.#words);
      const request = decodePageRequest(this.#words);
      requesters.push(request.RID);
      this.#words[2] &= ~0xfff;
      faults.push(faultOf(request, this.#wide[1]));
      head = (head + PAGE_REQUEST_BYTES) % QUEUE_BYTES;
    }
    unit.write64(regs.PQH_REG, 0, head);
    // After an overflow the hardware answers for us until this is cleared; the queue has room again now.
    if (unit.read32(regs.PRS_REG) & regs.PRS_PRO) unit.write32(regs.PRS_REG, regs.PRS_PRO);
    for (let i = 0; i < faults.length; i++) this.report(requesters[i], faults[i]);
  }
}

function faultOf(request: ReturnType<typeof decodePageRequest>, address: bigint): PageFault {
  return {
    flags:
      (request.PP ? IOMMU_PGFAULT_FLAGS_PASID_VALID : 0) | (request.LPIG ? IOMMU_PGFAULT_FLAGS_LAST_PAGE : 0),
    pasid: request.PASID,
    grpid: request.PRGI,
    permissions:
      (request.RD ? IOMMU_PGFAULT_PERM_READ : 0) |
      (request.WR ? IOMMU_PGFAULT_PERM_WRITE : 0) |
      (request.EXE ? IOMMU_PGFAULT_PERM_EXEC : 0) |
      (request.PRIV ? IOMMU_PGFAULT_PERM_PRIV : 0),
    address,
  };
}
