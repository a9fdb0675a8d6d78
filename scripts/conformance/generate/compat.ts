/** Random calls of programs older than iommufd: VFIO's container on /dev/iommu, and physical addresses. */
import * as uapi from '../../../lib/uapi';
import type { Literal, Value } from '../program';
import type { Builder } from './builder';
import { hostileInteger } from './hostile';
import { fixedIova, mapping, mappingLength, userMemory } from './ioas';

const PAGE = 4096;

export function vfioIoas(builder: Builder): void {
  const { random } = builder;
  const op = random.oneIn(12) ? random.below(6) : random.pick([0, 1, 1, 1, 2]);
  const ioas_id = builder.id('ioas');
  const label = builder.ioctl('IOMMU_VFIO_IOAS', { ioas_id, op });
  if (op === uapi.IOMMU_VFIO_IOAS_GET) builder.made('ioas', label, 'ioas_id');
  if (op === uapi.IOMMU_VFIO_IOAS_SET) builder.compat.set(builder.context, ioas_id);
}

/** Makes the IOAS one of type1's first version, if nothing is mapped yet. */
export function firstVersion(builder: Builder): void {
  const ioas_id = builder.id('ioas');
  builder.exactly('IOMMU_VFIO_IOAS', { ioas_id, op: uapi.IOMMU_VFIO_IOAS_SET });
  builder.compat.set(builder.context, ioas_id);
  setTo(builder, uapi.VFIO_TYPE1_IOMMU);
}

function setTo(builder: Builder, argument: Literal): void {
  builder.ioctl('VFIO_SET_IOMMU', {}, { argument });
}

/** An extension or a type. */
function number(builder: Builder): Literal {
  const { random } = builder;
  return random.oneIn(8) ? hostileInteger(random, 4) : random.below(12);
}

export function setIommu(builder: Builder): void {
  const { random } = builder;
  setTo(builder, random.oneIn(3) ? number(builder) : random.pick([1, 1, 3]));
}

export function checkExtension(builder: Builder): void {
  if (builder.random.oneIn(10)) builder.ioctl('VFIO_GET_API_VERSION', {});
  builder.ioctl('VFIO_CHECK_EXTENSION', {}, { argument: number(builder) });
}

export function containerInfo(builder: Builder): void {
  const { random } = builder;
  builder.ioctl('VFIO_IOMMU_GET_INFO', {
    argsz: random.oneIn(2) ? random.pick([256, 4096]) : random.below(128),
  });
}

export function mapDma(builder: Builder): void {
  const { random } = builder;
  const size = mappingLength(builder);
  const iova = fixedIova(builder);
  const flags = random.oneIn(10) ? random.below(8) : random.pick([1, 2, 3, 3, 3]);
  const label = builder.ioctl('VFIO_IOMMU_MAP_DMA', { flags, vaddr: userMemory(builder, size), iova, size });
  const ioas = builder.compat.get(builder.context);
  if (label < 0 || ioas === undefined) return;
  builder.mappings.push({
    ioas,
    at: (plus) => iova + plus,
    length: size,
    fd: builder.context,
  });
}

export function unmapDma(builder: Builder): void {
  const { random } = builder;
  const all = random.oneIn(15);
  const flags = all ? uapi.VFIO_DMA_UNMAP_FLAG_ALL : random.oneIn(20) ? random.below(8) : 0;
  const found = mapping(builder);
  if (all || !found) {
    const iova = all && !random.oneIn(4) ? 0 : fixedIova(builder);
    const size = all && !random.oneIn(4) ? 0 : random.pick<Literal>([PAGE, 0x10_0000, '0xfffffffffffff000']);
    builder.ioctl('VFIO_IOMMU_UNMAP_DMA', { flags, iova, size });
    return;
  }
  // A part of it: from the start, to the end, from the middle, across one end.
  const from = random.pick([0, 0, 1, 2, 3, -1]) * PAGE + (random.oneIn(10) ? random.pick([1, 0x800, -1]) : 0);
  const size = random.oneIn(3)
    ? found.length
    : random.pick([1, 1, 2, 3, 8]) * PAGE + (random.oneIn(10) ? random.pick([1, 0x800, -1]) : 0);
  builder.ioctl('VFIO_IOMMU_UNMAP_DMA', { flags, iova: found.at(from), size });
}

export function dirtyPages(builder: Builder): void {
  builder.ioctl('VFIO_IOMMU_DIRTY_PAGES', { flags: builder.random.below(8) });
}

export function getPhysicalAddress(builder: Builder): void {
  const { random } = builder;
  const found = mapping(builder);
  const offset = random.below(4) * PAGE + (random.oneIn(3) ? random.pick([1, 0x800, 0xfff]) : 0);
  const iova: Value = found?.at(offset) ?? fixedIova(builder);
  builder.ioctl('IOMMU_IOAS_NOIOMMU_GET_PA', {
    ioas_id: found?.ioas ?? builder.id('ioas'),
    iova,
    length: random.oneIn(6) ? hostileInteger(random, 8) : random.pick([1, PAGE, 2 * PAGE, 0x1_0000]),
  });
}
