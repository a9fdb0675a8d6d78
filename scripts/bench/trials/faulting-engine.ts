/** The simulated DMA engine, attached to a space whose missing pages are faults: what the fault trials share. */
import { Iommu, type AddressSpace, type FaultQueue, type Region } from '../../../lib';
import * as sim from '../../../lib/sim';

/** Pages touched in a timed batch. */
export const CALLS = 16;
const PAGE = 4096n;
const BASE = 0x1_0000_0000n;
const ENGINE = '0000:00:05.0';
const { dmaEngine: REG } = sim;
/** Bytes of each DMA. */
const LENGTH = 64;
const PATTERN = 0x5eed_f00d;

export const IOVAS: readonly bigint[] = Array.from({ length: CALLS }, (_, i) => BASE + BigInt(i) * PAGE);

export class FaultingEngine {
  readonly iommu: Iommu;
  readonly queue: FaultQueue;
  readonly space: AddressSpace;
  /** Mapped wherever the engine asks for a page. */
  readonly page;
  readonly #bar: Region;

  constructor(readonly machine: sim.Machine) {
    this.iommu = Iommu.open({ backend: machine });
    const device = this.iommu.bind(ENGINE, { cookie: 1 });
    device.enableBusMaster();
    this.#bar = device.region('bar0');
    this.queue = this.iommu.createFaultQueue();
    this.space = this.iommu.createAddressSpace({ faults: this.queue });
    device.attach(this.space);
    this.page = this.iommu.allocateDma(Number(PAGE));
    this.#bar.write32(REG.PATTERN, PATTERN);
    this.#bar.write32(REG.LENGTH, LENGTH);
  }

  map(iova: bigint): void {
    this.space.map(this.page, { iova });
  }

  /** Has the engine write to `iova`; where no page is, it asks for one. */
  start(iova: bigint): void {
    this.#bar.write64(REG.DESTINATION, iova);
    const how = sim.OPERATION_FILL | sim.CONTROL_ATS | sim.CONTROL_PAGE_REQUESTS;
    this.#bar.write32(REG.CONTROL, sim.CONTROL_START | how);
  }

  /** Polls until the DMA is done, as a driver would, and makes sure that it arrived. */
  finish(): void {
    let status;
    do status = this.#bar.read32(REG.STATUS);
    while ((status & sim.STATUS_BUSY) !== 0);
    if (status >>> sim.STATUS_ERROR_SHIFT !== sim.ERROR_NONE) throw new Error(`engine status ${status}`);
    const bytes = this.page.bytes;
    if (bytes[LENGTH - 1] !== PATTERN >>> 24) throw new Error('the DMA did not arrive');
    bytes[LENGTH - 1] = 0;
  }
}
