/**
 * Trial, in the VM: one page mapped at an IOVA and unmapped, on Linux, with a device attached. Arguments: milliseconds.
 */
import { Iommu } from '../../../lib';
import { measure, report } from './measure';

const CALLS = 16;
/** Peer: vm-map-unmap.c has the same numbers. */
const DEVICE = '0000:00:04.0';
const FIRST_IOVA = 0x100000n;
const PAGE = 4096n;

async function main(): Promise<void> {
  using iommu = Iommu.open({ backend: 'linux' });
  const space = iommu.createAddressSpace();
  iommu.bind(DEVICE, { cookie: 1 }).attach(space);
  const page = iommu.allocateDma(Number(PAGE));
  page.bytes[0] = 1;
  const iovas = Array.from({ length: CALLS }, (_, i) => FIRST_IOVA + BigInt(i) * PAGE);
  const value = await measure({ calls: CALLS }, () => {
    for (const iova of iovas) space.map(page, { iova }).unmap();
  });
  report(value);
}

void main();
