/**
 * Trial, in the VM: one page mapped at an IOVA and unmapped, on Linux, with a device attached. Arguments: the way,
 * milliseconds.
 *
 * - calls: the two ioctls, as the package makes them
 * - objects: AddressSpace.map, Mapping.unmap
 * - many: AddressSpace.mapMany and unmapMany, 16 pages at a time
 */
import { Iommu, type AddressSpace, type DmaBuffer } from '../../../lib';
import { HotCalls } from '../../../lib/hot-calls';
import * as uapi from '../../../lib/uapi';
import { measure, report } from './measure';

const CALLS = 16;
/** Peer: vm-map-unmap.c has the same numbers. */
const DEVICE = '0000:00:04.0';
const FIRST_IOVA = 0x100000n;
const PAGE = 4096;
const IOVAS = Array.from({ length: CALLS }, (_, i) => FIRST_IOVA + BigInt(i * PAGE));
const FLAGS = uapi.IOMMU_IOAS_MAP_FIXED_IOVA | uapi.IOMMU_IOAS_MAP_READABLE | uapi.IOMMU_IOAS_MAP_WRITEABLE;

type Way = (iommu: Iommu, space: AddressSpace, page: DmaBuffer) => () => void;

const WAYS: Readonly<Record<string, Way>> = {
  calls: ({ kernel, fd }, { ioasId }, page) => {
    const hot = new HotCalls(kernel, fd);
    return () => {
      for (const iova of IOVAS) {
        const placing = { ioasId, flags: FLAGS, length: PAGE, iova };
        const mapped = hot.make(hot.writeMap(0, placing, page.userAddress));
        const unmapped = hot.make(hot.writeUnmap(0, ioasId, iova, PAGE));
        if (mapped < 0 || unmapped < 0) throw new Error(`map ${mapped}, unmap ${unmapped}`);
      }
    };
  },
  objects: (_iommu, space, page) => () => {
    for (const iova of IOVAS) space.map(page, { iova }).unmap();
  },
  many: (_iommu, space, page) => () => {
    space.unmapMany(space.mapMany(IOVAS.map((iova) => ({ source: page, iova }))));
  },
};

async function main(): Promise<void> {
  const way = WAYS[process.argv[2]];
  if (way === undefined) throw new Error(`there is no way ${process.argv[2]}`);
  using iommu = Iommu.open({ backend: 'linux' });
  const space = iommu.createAddressSpace();
  iommu.bind(DEVICE, { cookie: 1 }).attach(space);
  const page = iommu.allocateDma(PAGE);
  page.bytes[0] = 1;
  report(await measure({ calls: CALLS }, way(iommu, space, page)));
}

void main();
