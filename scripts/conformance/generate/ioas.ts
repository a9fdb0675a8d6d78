/** Random calls about I/O address spaces: IOAS_* and OPTION. */
import * as uapi from '../../../lib/uapi';
import { MEMFD_BYTES, SCRATCH_BYTES } from '../limits';
import type { FdRef, Literal, Value, Words } from '../program';
import type { Builder, Mapping } from './builder';
import { hostileInteger, hostilePointer } from './hostile';

export const PAGE = 4096;
const HUGE = 2 * 2 ** 20;
/** Where in the scratch memory mappings may be: after what pointers point to. */
export const SMALL_PAGES = 3 * 2 ** 18;

/** Where fixed mappings go: few places, so that they meet. In the mock's aperture too. */
export function fixedIova(builder: Builder): number {
  const { random } = builder;
  const base = random.pick([0x1_0000, 0x10_0000, 0x100_0000, 0x110_0000, 0x4000_0000, 0xfedf_c000]);
  const offset = random.below(12) * PAGE;
  return base + offset + (random.oneIn(12) ? random.pick([1, 0x800, 0x10]) : 0);
}

/** Bytes: a few pages mostly. */
export function mappingLength(builder: Builder): number {
  const { random } = builder;
  if (random.oneIn(10)) return random.pick([1, 0x800, 0x801, PAGE + 1, 2 * 2 ** 20, 2 ** 20 + PAGE, 0x10]);
  return (1 + random.below(8)) * PAGE;
}

/** User memory of at least `bytes`. */
export function userMemory(builder: Builder, bytes: number): Value {
  const { random } = builder;
  if (random.oneIn(30)) return hostilePointer(random);
  // The one memory that is in small pages: what it is pinned for can be counted.
  if (bytes <= PAGE && random.oneIn(10))
    return { at: 'scratch', offset: SMALL_PAGES + random.below(4) * PAGE };
  if (bytes <= MEMFD_BYTES && random.oneIn(20))
    return { at: 'memfd', offset: Math.min(random.below(12) * PAGE, MEMFD_BYTES - bytes) };
  const page = random.oneIn(3) ? random.pick([0, 1, 256, 511, 512]) : random.below(64);
  const offset = page * PAGE + (random.oneIn(10) ? random.pick([1, 0x10, 0x800, 0x801]) : 0);
  // Within one huge page: whether another is next to it in physical memory is chance.
  const start = offset - (offset % HUGE);
  return { at: 'data', offset: Math.min(offset, Math.max(start, start + HUGE - bytes)) };
}

/** An existing mapping, mostly of the iommufd that calls go to. */
export function mapping(builder: Builder): Mapping | undefined {
  const { mappings, random, context } = builder;
  const fitting = random.oneIn(20) ? mappings : mappings.filter(({ fd }) => fd === context);
  return fitting.length > 0 ? random.pick(fitting) : undefined;
}

export function ioasAlloc(builder: Builder): void {
  builder.made('ioas', builder.ioctl('IOMMU_IOAS_ALLOC', {}), 'out_ioas_id');
}

const FIXED = uapi.IOMMU_IOAS_MAP_FIXED_IOVA;

function mapFlags(builder: Builder): number {
  const { random } = builder;
  if (random.oneIn(20)) return random.below(16);
  const access = random.pick([
    uapi.IOMMU_IOAS_MAP_READABLE | uapi.IOMMU_IOAS_MAP_WRITEABLE,
    uapi.IOMMU_IOAS_MAP_READABLE | uapi.IOMMU_IOAS_MAP_WRITEABLE,
    uapi.IOMMU_IOAS_MAP_READABLE,
    uapi.IOMMU_IOAS_MAP_WRITEABLE,
  ]);
  return access | (random.oneIn(3) ? 0 : FIXED);
}

/** Lets later calls find a mapping. */
export function remember(
  builder: Builder,
  made: { label: number; ioas: Value; field: string; fixed: number | undefined },
  length: number,
) {
  const { label, ioas, field, fixed } = made;
  if (label < 0) return;
  const at = (plus: number): Value => (fixed === undefined ? { of: label, field, plus } : fixed + plus);
  builder.mappings.push({ ioas, at, length, fd: builder.context });
}

export function ioasMap(builder: Builder): void {
  if (builder.onlyFiles && !builder.random.oneIn(15)) return ioasMapFile(builder);
  const ioas = builder.id('ioas');
  const flags = mapFlags(builder);
  const bytes = mappingLength(builder);
  const fixed = fixedIova(builder);
  const user_va = userMemory(builder, bytes);
  const label = builder.ioctl('IOMMU_IOAS_MAP', {
    flags,
    ioas_id: ioas,
    user_va,
    length: bytes,
    iova: fixed,
  });
  remember(builder, { label, ioas, field: 'iova', fixed: flags & FIXED ? fixed : undefined }, bytes);
}

/**
 * A file to map, mostly one that can be. An iommufd, or what holds one, would keep itself open for ever: what is bound
 * to it would never be free again.
 */
function mappableFile(builder: Builder): FdRef {
  const { random } = builder;
  if (random.oneIn(15)) return random.oneIn(2) ? 'none' : builder.add({ op: 'eventfd', initial: 0 });
  const buffers = builder.files.filter(({ kind }) => kind === 'dmabuf');
  return buffers.length > 0 && random.oneIn(2) ? random.pick(buffers).fd : 'memfd';
}

/** Byte of a file: the last that fit, and beyond, now and then. */
function fileOffset(builder: Builder): Literal {
  const { random } = builder;
  if (random.oneIn(10)) return random.pick([MEMFD_BYTES, MEMFD_BYTES - PAGE, hostileInteger(random, 8)]);
  const page = random.oneIn(3) ? 0 : random.below(12);
  return page * PAGE + (random.oneIn(10) ? random.pick([1, 0x10, 0x800, 0x801]) : 0);
}

export function ioasMapFile(builder: Builder): void {
  const ioas = builder.id('ioas');
  const flags = mapFlags(builder);
  const bytes = mappingLength(builder);
  const fixed = fixedIova(builder);
  const fd: Value = { fd: mappableFile(builder) };
  const start = fileOffset(builder);
  const fields = { flags, ioas_id: ioas, fd, start, length: bytes, iova: fixed };
  const label = builder.ioctl('IOMMU_IOAS_MAP_FILE', fields);
  const made = { label, ioas, field: 'iova', fixed: flags & FIXED ? fixed : undefined };
  remember(builder, made, bytes);
}

export function ioasCopy(builder: Builder): void {
  const { random } = builder;
  const source = mapping(builder);
  const target = builder.id('ioas');
  const flags = mapFlags(builder);
  const fixed = fixedIova(builder);
  const whole = source && random.oneIn(2);
  const bytes = whole ? source.length : mappingLength(builder);
  const label = builder.ioctl('IOMMU_IOAS_COPY', {
    flags,
    dst_ioas_id: target,
    src_ioas_id: source && !random.oneIn(15) ? source.ioas : builder.id('ioas'),
    length: bytes,
    dst_iova: fixed,
    src_iova: source ? source.at(random.oneIn(3) ? random.pick([PAGE, 0x800, 2 * PAGE]) : 0) : fixed,
  });
  const made = { label, ioas: target, field: 'dst_iova', fixed: flags & FIXED ? fixed : undefined };
  remember(builder, made, bytes);
}

export function ioasUnmap(builder: Builder): void {
  const { random } = builder;
  const found = mapping(builder);
  if (!found || random.oneIn(12)) {
    const all = random.oneIn(2);
    builder.ioctl('IOMMU_IOAS_UNMAP', {
      ioas_id: builder.id('ioas'),
      iova: all ? 0 : fixedIova(builder),
      length: all
        ? '0xffffffffffffffff'
        : random.pick<Literal>([0x10_0000, 0x1000_0000, '0xfffffffffffff000']),
    });
    return;
  }
  const part = random.oneIn(5);
  if (!part) builder.mappings = builder.mappings.filter((each) => each !== found);
  builder.ioctl('IOMMU_IOAS_UNMAP', {
    ioas_id: found.ioas,
    iova: found.at(part ? random.pick([PAGE, -PAGE, 1, 0x800, -2 * PAGE]) : 0),
    length: random.oneIn(5) ? mappingLength(builder) * random.pick([1, 2, 8]) : found.length,
  });
}

/** Ranges of IOVAs as an array in scratch memory. */
function ranges(builder: Builder, count: number, offset: number): Words {
  const { random } = builder;
  const values: Literal[] = [];
  for (let i = 0; i < count; i++) {
    const start = random.oneIn(12) ? hostileInteger(random, 8) : fixedIova(builder);
    const size = random.oneIn(6)
      ? random.pick([0, 1, 2, 0xfff])
      : mappingLength(builder) * random.pick([1, 16, 4096]);
    values.push(
      start,
      typeof start === 'number' ? start + size - (random.oneIn(8) ? 0 : 1) : hostileInteger(random, 8),
    );
  }
  return { offset, width: 8, values };
}

export function ioasAllowIovas(builder: Builder): void {
  const { random } = builder;
  const count = random.pick([0, 1, 1, 2, 3]);
  const offset = random.below(8) * 16;
  builder.ioctl(
    'IOMMU_IOAS_ALLOW_IOVAS',
    {
      ioas_id: builder.id('ioas'),
      num_iovas: random.oneIn(20) ? count + random.below(3) : count,
      allowed_iovas: random.oneIn(20) ? hostilePointer(random) : { at: 'scratch', offset },
    },
    { scratch: [ranges(builder, count, offset)] },
  );
}

export function ioasIovaRanges(builder: Builder): void {
  const { random } = builder;
  const num_iovas = random.pick([0, 1, 2, 3, 8, 100]);
  const allowed_iovas: Value = random.oneIn(15)
    ? hostilePointer(random)
    : { at: 'scratch', offset: random.below(512) };
  builder.ioctl('IOMMU_IOAS_IOVA_RANGES', { ioas_id: builder.id('ioas'), num_iovas, allowed_iovas });
}

export function option(builder: Builder): void {
  const { random } = builder;
  const option_id = random.oneIn(15) ? random.below(5) : random.below(2);
  const global = option_id === uapi.IOMMU_OPTION_RLIMIT_MODE && !random.oneIn(6);
  builder.ioctl('IOMMU_OPTION', {
    option_id,
    op: random.oneIn(12) ? random.below(5) : random.below(2),
    object_id: global ? 0 : builder.id('ioas'),
    val64: random.oneIn(5) ? random.pick<Literal>([2, '0xffffffffffffffff', '0x100000000']) : random.below(2),
  });
}

export function changeProcess(builder: Builder): void {
  builder.ioctl('IOMMU_IOAS_CHANGE_PROCESS', {});
}

/** How much is pinned, and counted against the process's limit. */
export function status(builder: Builder): void {
  builder.add({ op: 'status', line: builder.random.pick(['VmPin', 'VmPin', 'VmLck']) });
}

/** An address space as most sequences start with: options can be set of it, and before it of the iommufd. */
export function firstIoas(builder: Builder): Value {
  const { random } = builder;
  const set = (option_id: number, object_id: Value, val64: number) =>
    builder.ioctl('IOMMU_OPTION', { op: uapi.IOMMU_OPTION_OP_SET, option_id, object_id, val64 });
  if (random.oneIn(6)) set(uapi.IOMMU_OPTION_RLIMIT_MODE, 0, random.oneIn(6) ? 0 : 1);
  const ioas = builder.made('ioas', builder.exactly('IOMMU_IOAS_ALLOC', {}), 'out_ioas_id');
  if (random.oneIn(6)) set(uapi.IOMMU_OPTION_HUGE_PAGES, ioas, 0);
  return ioas;
}

/** Scratch memory for output of up to `bytes`. */
export function scratchPointer(builder: Builder, bytes: number): Value {
  const { random } = builder;
  if (random.oneIn(15)) return hostilePointer(random);
  return { at: 'scratch', offset: Math.min(random.below(64) * 8, SCRATCH_BYTES - bytes) };
}
