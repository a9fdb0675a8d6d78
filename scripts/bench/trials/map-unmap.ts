/**
 * Trial: one page mapped and unmapped in simulation, beside mappings that stay, with a device attached, so that page
 * tables are written and caches invalidated. Arguments: the way, mappings that stay, milliseconds.
 *
 * - mapping: AddressSpace.map at an IOVA, Mapping.unmap
 * - range: AddressSpace.map at an IOVA, AddressSpace.unmap of a range
 * - anywhere: AddressSpace.map where the kernel finds room, Mapping.unmap
 * - ioctl: as mapping, but the two ioctls themselves
 */
import { Iommu, type AddressSpace, type DmaBuffer } from '../../../lib';
import { Machine } from '../../../lib/sim';
import * as uapi from '../../../lib/uapi';
import { measure, report } from './measure';

const CALLS = 16;
const PAGE = 4096n;
/** Above what no device reaches, the interrupts' addresses below 4 GiB: a million would not fit under them. */
const HIGH = 0x1_0000_0000n;
/** Of those that stay, as many at a time are made. */
const CHUNK = 4096;

/** Maps the page at `iova`; what it returns takes it away again. */
type Map = (iova: bigint) => () => void;

function byMapping(space: AddressSpace, page: DmaBuffer): Map {
  return (iova) => {
    const mapping = space.map(page, { iova });
    return () => mapping.unmap();
  };
}

function byRange(space: AddressSpace, page: DmaBuffer): Map {
  return (iova) => {
    space.map(page, { iova });
    return () => void space.unmap(iova, PAGE);
  };
}

function anywhere(space: AddressSpace, page: DmaBuffer): Map {
  return () => {
    const mapping = space.map(page);
    return () => mapping.unmap();
  };
}

/** On the kernel itself, with structs that are used again. */
function byIoctls({ kernel, fd }: Iommu, space: AddressSpace, page: DmaBuffer): Map {
  const { IOMMU_IOAS_MAP, IOMMU_IOAS_UNMAP } = uapi;
  const access = uapi.IOMMU_IOAS_MAP_READABLE | uapi.IOMMU_IOAS_MAP_WRITEABLE;
  const map = IOMMU_IOAS_MAP.struct.encode({
    size: IOMMU_IOAS_MAP.struct.size,
    flags: uapi.IOMMU_IOAS_MAP_FIXED_IOVA | access,
    ioas_id: space.ioasId,
    user_va: page.address,
    length: PAGE,
  });
  const unmap = IOMMU_IOAS_UNMAP.struct.encode({ size: IOMMU_IOAS_UNMAP.struct.size, ioas_id: space.ioasId });
  const [mapView, unmapView] = [map, unmap].map(({ buffer }) => new DataView(buffer));
  const mapIova = IOMMU_IOAS_MAP.struct.offsets.iova;
  const { iova: unmapIova, length: unmapLength } = IOMMU_IOAS_UNMAP.struct.offsets;
  const call = (request: number, bytes: Uint8Array) => {
    const result = kernel.ioctl(fd, request, bytes);
    if (result < 0) throw new Error(`ioctl 0x${request.toString(16)}: ${result}`);
  };
  return (iova) => {
    mapView.setBigUint64(mapIova, iova, true);
    call(IOMMU_IOAS_MAP.request, map);
    return () => {
      unmapView.setBigUint64(unmapIova, iova, true);
      unmapView.setBigUint64(unmapLength, PAGE, true);
      call(IOMMU_IOAS_UNMAP.request, unmap);
    };
  };
}

function mapper(way: string, iommu: Iommu, space: AddressSpace, page: DmaBuffer): Map {
  switch (way) {
    case 'mapping':
      return byMapping(space, page);
    case 'range':
      return byRange(space, page);
    case 'anywhere':
      return anywhere(space, page);
    case 'ioctl':
      return byIoctls(iommu, space, page);
    default:
      throw new Error(`there is no way ${way}`);
  }
}

async function main(): Promise<void> {
  const [way, live] = [process.argv[2], Number(process.argv[3])];
  using iommu = Iommu.open({ backend: new Machine() });
  const space = iommu.createAddressSpace();
  iommu.bind('0000:00:04.0', { cookie: 1 }).attach(space);
  const page = iommu.allocateDma(Number(PAGE));
  const map = mapper(way, iommu, space, page);
  // Those that stay lie one after the other, each with a page behind it that is free: there the others come and go,
  // in an order without a pattern. Where the kernel looks for room, from the lowest IOVA on and without gaps: it would
  // take the first.
  const [first, stride] = way === 'anywhere' ? [PAGE, PAGE] : [HIGH, 2n * PAGE];
  for (let made = 0; made < live; made += CHUNK)
    space.mapMany(
      Array.from({ length: Math.min(CHUNK, live - made) }, (_, i) => ({
        source: page,
        iova: first + stride * BigInt(made + i),
      })),
    );
  const gaps = Array.from({ length: 4096 }, (_, i) => first + PAGE * BigInt(2 * ((i * 40_503) % live) + 1));
  let at = 0;
  const value = await measure({ calls: CALLS }, () => {
    for (let i = 0; i < CALLS; i++) {
      const unmap = map(gaps[at++ & 4095]);
      unmap();
    }
  });
  report(value);
}

void main();
