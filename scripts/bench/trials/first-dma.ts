/**
 * Trial: milliseconds from the start of the process to some point. Arguments: the point, milliseconds (not used: there is
 * one start).
 *
 * - nothing: Node runs a program
 * - loaded: the package is loaded
 * - dma: a simulated device has read from one mapped page and written to another
 */
import { report } from './measure';

const LENGTH = 64;
const ENGINE = '0000:00:05.0';

async function copy(): Promise<void> {
  const { Iommu } = await import('../../../lib/index.js');
  const sim = await import('../../../lib/sim/index.js');
  const { dmaEngine: REG } = sim;
  using iommu = Iommu.open({ backend: 'simulated' });
  const device = iommu.bind(ENGINE, { cookie: 1 });
  const space = iommu.createAddressSpace();
  device.attach(space);
  device.enableBusMaster();
  const [from, to] = [iommu.allocateDma(4096), iommu.allocateDma(4096)];
  from.bytes.fill(0x5a, 0, LENGTH);
  const bar = device.region('bar0');
  bar.write64(REG.SOURCE, space.map(from).iova);
  bar.write64(REG.DESTINATION, space.map(to).iova);
  bar.write32(REG.LENGTH, LENGTH);
  bar.write32(REG.CONTROL, sim.CONTROL_START | sim.OPERATION_COPY);
  while (bar.read32(REG.STATUS) & sim.STATUS_BUSY);
  if (to.bytes[LENGTH - 1] !== 0x5a) throw new Error('the DMA did not arrive');
}

const POINTS: Readonly<Record<string, () => Promise<unknown>>> = {
  nothing: () => Promise.resolve(),
  loaded: () => Promise.all([import('../../../lib/index.js'), import('../../../lib/sim/index.js')]),
  dma: copy,
};

async function main(): Promise<void> {
  const reach = POINTS[process.argv[2]];
  if (reach === undefined) throw new Error(`there is no point ${process.argv[2]}`);
  await reach();
  // Its zero is when the process was started.
  report(performance.now());
}

void main();
