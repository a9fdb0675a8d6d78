/**
 * Trial: what a fault loop consists of, each part alone. Arguments: the part, milliseconds.
 *
 * - dma: the device's DMA to a page that is mapped
 * - page-request: a page request enters the IOMMU, read(2) returns its record, write(2) takes the response back
 * - map: AddressSpace.map of one page
 */
import { NO_PASID, Machine } from '../../../lib/sim';
import { iommu_hwpt_page_response, iommu_hwpt_pgfault, IOMMUFD_PAGE_RESP_SUCCESS } from '../../../lib/uapi';
import { CALLS, FaultingEngine, IOVAS } from './faulting-engine';
import { measure, report, type Work } from './measure';

const ENGINE_RID = 0x0028;

const PARTS: Record<string, (engine: FaultingEngine) => Promise<number>> = {
  dma,
  'page-request': pageRequest,
  map,
};

function work(engine: FaultingEngine, mapped: boolean): Work {
  return {
    calls: CALLS,
    // As in the loop, the device's translations are forgotten and each page is new to it.
    prepare: () => {
      if (engine.space.mappings.length > 0) engine.space.unmapAll();
      if (mapped) for (const iova of IOVAS) engine.map(iova);
    },
  };
}

function dma(engine: FaultingEngine): Promise<number> {
  return measure(work(engine, true), () => {
    for (const iova of IOVAS) {
      engine.start(iova);
      engine.finish();
    }
  });
}

function map(engine: FaultingEngine): Promise<number> {
  return measure(work(engine, false), () => {
    for (const iova of IOVAS) engine.map(iova);
  });
}

function pageRequest({ machine, iommu, queue }: FaultingEngine): Promise<number> {
  const records = new Uint8Array(64 * iommu_hwpt_pgfault.size);
  const response = iommu_hwpt_page_response.encode({ cookie: 1, code: IOMMUFD_PAGE_RESP_SUCCESS });
  const responseView = new DataView(response.buffer);
  const recordsView = new DataView(records.buffer);
  const request = {
    pasid: NO_PASID,
    read: false,
    write: true,
    execute: false,
    privileged: false,
    last: true,
  };
  return measure({ calls: CALLS }, () => {
    for (let i = 0; i < CALLS; i++) {
      const sent = machine.unit.pageRequest(ENGINE_RID, { ...request, high: 1, low: i << 12, prgIndex: i });
      while (machine.step());
      const length = iommu.kernel.read(queue.fd, records);
      if (!sent || length !== iommu_hwpt_pgfault.size) throw new Error(`read: ${length}`);
      const cookie = recordsView.getUint32(iommu_hwpt_pgfault.offsets.cookie, true);
      responseView.setUint32(iommu_hwpt_page_response.offsets.cookie, cookie, true);
      const written = iommu.kernel.write(queue.fd, response);
      if (written !== response.length) throw new Error(`write: ${written}`);
    }
  });
}

async function main(): Promise<void> {
  const part = PARTS[process.argv[2]];
  if (part === undefined) throw new Error(`there is no part ${process.argv[2]}`);
  const engine = new FaultingEngine(new Machine());
  report(await part(engine));
  engine.iommu.close();
}

void main();
