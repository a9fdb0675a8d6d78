/**
 * A program of its own, for dma-garbage.test.ts: a device does DMA through the whole simulated machine, and says how many bytes of
 * JavaScript objects that made. Arguments: a scenario, and how many requests. Prints one line of JSON.
 */
import { PerformanceObserver } from 'node:perf_hooks';
import { Iommu } from '../../lib';
import { NO_PASID } from '../../lib/sim/bus';
import { Machine, type MachineOptions } from '../../lib/sim/machine';
import { ProbeFunction } from './kernel/probe-function';

const BDF = '0000:00:06.0';
const PAGE = 4096;
/** More pages than the IOTLB has entries. */
const PAGES = 8192;
const BASE = 0x2_8000_0000;
const PASID = 5;

/** What a scenario's requests are: through these pages, with this many bytes. */
interface Scenario {
  readonly iommu?: MachineOptions['iommu'];
  /** Pages are mapped one by one, in an order that makes no large ones of them. */
  readonly small: boolean;
  readonly pages: number;
  readonly pasid?: number;
  readonly bytes: number;
  /** Makes an object of 16 bytes or more for each request: what the measurement has to see. */
  readonly litter?: boolean;
}

const SECOND_STAGE = { capabilities: { FSTS: 0 } };
const SCENARIOS: Readonly<Record<string, Scenario>> = {
  'first stage, hits': { small: true, pages: 16, bytes: 8 },
  'first stage, misses': { small: true, pages: PAGES, bytes: 8 },
  'first stage, large pages, misses': { small: false, pages: PAGES, bytes: 64 },
  'with PASID, misses': { small: true, pages: PAGES, pasid: PASID, bytes: 4 },
  'second stage, hits': { iommu: SECOND_STAGE, small: true, pages: 16, bytes: 8 },
  'second stage, misses': { iommu: SECOND_STAGE, small: true, pages: PAGES, bytes: 128 },
  'no IOMMU': { iommu: 'none', small: true, pages: 16, bytes: 8 },
  litter: { small: true, pages: 16, bytes: 8, litter: true },
};

class Requester extends ProbeFunction {
  readonly #bytes = new Uint8Array(256);
  litter: object | undefined;

  /** `count` requests, reads and writes in turn, of which each goes to another page; how many were refused. */
  run(
    count: number,
    { pages, pasid = NO_PASID, bytes, litter = false }: Scenario,
    high: number,
    low: number,
  ): number {
    let refused = 0;
    for (let i = 0; i < count; i++) {
      // 5 has no factor in common with the number of pages.
      const at = low + ((i * 5) & (pages - 1)) * PAGE + (i & 7) * 256;
      const done =
        (i & 1) === 0
          ? this.dmaRead(pasid, high, at, this.#bytes, 0, bytes)
          : this.dmaWrite(pasid, high, at, this.#bytes, 0, bytes);
      if (done !== bytes) refused++;
      if (litter) this.litter = { i };
    }
    return refused;
  }
}

/** Maps the pages, and returns the address of the first, halves (the low one as a signed number). */
function setUp(machine: Machine, scenario: Scenario): [number, number] {
  if (scenario.iommu === 'none') {
    const pa = machine.memory.allocatePages(scenario.pages);
    machine.device(BDF)!.config.write(4, 2, 6);
    return [0, pa];
  }
  const iommu = Iommu.open({ backend: machine });
  const device = iommu.bind(BDF, { cookie: 1n });
  const space = iommu.createAddressSpace(scenario.pasid === undefined ? {} : { pasid: true });
  device.attach(space, scenario.pasid === undefined ? {} : { pasid: scenario.pasid });
  device.enableBusMaster();
  const buffer = iommu.allocateDma(scenario.pages * PAGE);
  if (scenario.small) {
    for (let i = 0; i < scenario.pages; i++) {
      const offset = (scenario.pages - 1 - i) * PAGE;
      space.map(buffer, { iova: BigInt(BASE + i * PAGE), offset, length: PAGE });
    }
  } else space.map(buffer, { iova: BigInt(BASE) });
  return [Math.floor(BASE / 2 ** 32), BASE | 0];
}

async function main(): Promise<void> {
  const scenario = SCENARIOS[process.argv[2]!];
  const count = Number(process.argv[3]);
  if (scenario === undefined) throw new RangeError(`no scenario ${process.argv[2]}`);
  const requester = new Requester();
  const machine = new Machine({
    manual: true,
    devices: { [BDF]: requester },
    ...(scenario.iommu !== undefined && { iommu: scenario.iommu }),
  });
  const [high, low] = setUp(machine, scenario);
  let collections = 0;
  const observer = new PerformanceObserver((list) => void (collections += list.getEntries().length));
  const turns = async (): Promise<void> => {
    for (let i = 0; i < 5; i++) await new Promise(setImmediate);
  };
  // Warm up: code that is not compiled yet makes objects for numbers.
  for (let i = 0; i < 20; i++) {
    if (requester.run(count / 4, scenario, high, low) !== 0) throw new Error('a request was refused');
    await turns();
  }
  // A collection of memory outside the heap may have begun: it would end in the middle of what is measured.
  if (!globalThis.gc) throw new Error('--expose-gc is missing');
  globalThis.gc();
  await turns();
  observer.observe({ entryTypes: ['gc'] });
  const before = process.memoryUsage().heapUsed;
  const refused = requester.run(count, scenario, high, low);
  const bytes = process.memoryUsage().heapUsed - before;
  await turns();
  process.stdout.write(`${JSON.stringify({ bytes, collections, refused })}\n`);
}

void main();
