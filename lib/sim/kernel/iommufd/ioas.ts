/** IOAS objects and the ioctls on them (drivers/iommu/iommufd/ioas.c's role). */
import { errno } from '../../../uapi/errno';
import * as rows from '../../../uapi/iommufd-ioctls';
import {
  IOMMU_IOAS_MAP_FIXED_IOVA,
  IOMMU_IOAS_MAP_READABLE,
  IOMMU_IOAS_MAP_WRITEABLE,
  iommu_iova_range,
} from '../../../uapi/iommufd';
import { IOMMU_READ, IOMMU_WRITE } from '../iommu/core';
import { PAGE_SIZE } from '../user-memory';
import { handler, type Command, type Handler } from './command';
import type { HwptPaging } from './hwpt';
import { IoPageTable, type Slice } from './io-page-table';
import { Pages } from './pages';
import { IntervalList, type Interval } from './interval-list';
import { IommufdObject } from './object';
import { convertSource } from './selftest-iova';

const U64_MAX = (1n << 64n) - 1n;
const PAGE = BigInt(PAGE_SIZE);
const MAP_FLAGS = IOMMU_IOAS_MAP_FIXED_IOVA | IOMMU_IOAS_MAP_WRITEABLE | IOMMU_IOAS_MAP_READABLE;

export class Ioas extends IommufdObject {
  readonly table = new IoPageTable();
  /** In the order of their creation. */
  readonly hwpts: HwptPaging[] = [];

  destroy(): void {
    this.table.unmap(0n, U64_MAX);
  }
}

/** The checks that MAP, MAP_FILE and COPY make on flags and permissions. Returns IOMMU_* or -errno. */
function protectionOf(flags: number, addresses: readonly bigint[]): number {
  if (addresses.some((address) => address === U64_MAX)) return -errno.EOVERFLOW;
  const protection =
    (flags & IOMMU_IOAS_MAP_WRITEABLE ? IOMMU_WRITE : 0) | (flags & IOMMU_IOAS_MAP_READABLE ? IOMMU_READ : 0);
  return protection || -errno.EINVAL;
}

function alloc(command: Command<typeof rows.IOMMU_IOAS_ALLOC.struct>): number {
  if (command.values.flags) return -errno.EOPNOTSUPP;
  const ioas = command.file.objects.add(new Ioas());
  return command.respond({ out_ioas_id: ioas.id });
}

function iovaRanges(command: Command<typeof rows.IOMMU_IOAS_IOVA_RANGES.struct>): number {
  const { values, file } = command;
  if (values.__reserved) return -errno.EOPNOTSUPP;
  const ioas = file.objects.get(values.ioas_id, Ioas);
  if (!ioas) return -errno.ENOENT;
  let count = 0;
  for (const range of ioas.table.usableRanges()) {
    if (count < values.num_iovas) {
      const at = values.allowed_iovas + BigInt(count * iommu_iova_range.size);
      if (!command.memory.write(at, iommu_iova_range.encode(range))) return -errno.EFAULT;
    }
    count++;
  }
  const result = command.respond({ num_iovas: count, out_iova_alignment: ioas.table.alignment });
  return result || (count > values.num_iovas ? -errno.EMSGSIZE : 0);
}

function allowIovas(command: Command<typeof rows.IOMMU_IOAS_ALLOW_IOVAS.struct>): number {
  const { values, file, memory } = command;
  if (values.__reserved) return -errno.EOPNOTSUPP;
  const ioas = file.objects.get(values.ioas_id, Ioas);
  if (!ioas) return -errno.ENOENT;
  const ranges = new IntervalList<Interval>();
  for (let i = 0; i < values.num_iovas; i++) {
    const bytes = memory.read(
      values.allowed_iovas + BigInt(i * iommu_iova_range.size),
      iommu_iova_range.size,
    );
    if (!bytes) return -errno.EFAULT;
    const range = iommu_iova_range.decode(bytes);
    if (range.start >= range.last) return -errno.EINVAL;
    if (ranges.first(range.start, range.last)) return -errno.EINVAL;
    ranges.add(range);
  }
  return ioas.table.allow([...ranges]);
}

function map(command: Command<typeof rows.IOMMU_IOAS_MAP.struct>): number {
  const { values, file, memory } = command;
  if (values.flags & ~MAP_FLAGS || values.__reserved) return -errno.EOPNOTSUPP;
  const protection = protectionOf(values.flags, [values.iova, values.length]);
  if (protection < 0) return protection;
  const ioas = file.objects.get(values.ioas_id, Ioas);
  if (!ioas) return -errno.ENOENT;
  if (values.user_va + values.length > U64_MAX) return -errno.EOVERFLOW;
  if (values.length > U64_MAX - PAGE) return -errno.EINVAL;
  const offset = values.user_va % PAGE;
  const slice: Slice = {
    pages: new Pages(memory, values.user_va - offset, (protection & IOMMU_WRITE) !== 0),
    startByte: offset,
    length: values.length,
  };
  const fixed = values.flags & IOMMU_IOAS_MAP_FIXED_IOVA ? values.iova : undefined;
  const iova = ioas.table.map([slice], values.length, fixed, protection);
  return iova < 0n ? Number(iova) : command.respond({ iova });
}

function copy(command: Command<typeof rows.IOMMU_IOAS_COPY.struct>): number {
  const { values, file } = command;
  const source = file.objects.get(values.src_ioas_id, Ioas);
  const { flags, src_iova } = file.system.selftest ? convertSource(source?.table, values) : values;
  if (flags & ~MAP_FLAGS) return -errno.EOPNOTSUPP;
  const protection = protectionOf(flags, [values.length, src_iova, values.dst_iova]);
  if (protection < 0) return protection;
  if (!source) return -errno.ENOENT;
  const slices = source.table.slices(src_iova, values.length);
  if (typeof slices === 'number') return slices;
  const target = file.objects.get(values.dst_ioas_id, Ioas);
  if (!target) return -errno.ENOENT;
  const fixed = flags & IOMMU_IOAS_MAP_FIXED_IOVA ? values.dst_iova : undefined;
  const iova = target.table.map(slices, values.length, fixed, protection);
  return iova < 0n ? Number(iova) : command.respond({ dst_iova: iova, flags, src_iova });
}

function unmap(command: Command<typeof rows.IOMMU_IOAS_UNMAP.struct>): number {
  const { values, file } = command;
  const ioas = file.objects.get(values.ioas_id, Ioas);
  if (!ioas) return -errno.ENOENT;
  const { iova, length } = values;
  if (iova === 0n && length === U64_MAX) {
    const all = ioas.table.unmap(0n, U64_MAX);
    return all.result || command.respond({ length: all.unmapped });
  }
  if (iova === U64_MAX || length === U64_MAX) return -errno.EOVERFLOW;
  if (length === 0n) return -errno.EINVAL;
  if (iova + length - 1n > U64_MAX) return -errno.EOVERFLOW;
  const { result, unmapped } = ioas.table.unmap(iova, iova + length - 1n);
  if (result) return result;
  return unmapped === 0n ? -errno.ENOENT : command.respond({ length: unmapped });
}

export const ioasHandlers: readonly Handler[] = [
  handler(rows.IOMMU_IOAS_ALLOC, alloc),
  handler(rows.IOMMU_IOAS_IOVA_RANGES, iovaRanges),
  handler(rows.IOMMU_IOAS_ALLOW_IOVAS, allowIovas),
  handler(rows.IOMMU_IOAS_MAP, map),
  handler(rows.IOMMU_IOAS_COPY, copy),
  handler(rows.IOMMU_IOAS_UNMAP, unmap),
];
