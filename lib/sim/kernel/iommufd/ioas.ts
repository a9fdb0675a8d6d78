/** IOAS objects and the ioctls on them (drivers/iommu/iommufd/ioas.c's role). */
import { errno } from '../../../uapi/errno';
import * as rows from '../../../uapi/iommufd-ioctls';
import {
  IOMMU_IOAS_MAP_FIXED_IOVA,
  IOMMU_IOAS_MAP_READABLE,
  IOMMU_IOAS_MAP_WRITEABLE,
  iommu_iova_range,
} from '../../../uapi/iommufd';
import { IOMMU_IOASID_ENFORCE_SNOOP_AUTO } from '../../../uapi/proposal/no-snoop';
import { DmaBuf } from '../dma-buf';
import type { OpenFile } from '../file';
import { IOMMU_READ, IOMMU_WRITE } from '../iommu/core';
import type { SimulatedProcess } from '../process';
import { PAGE_SIZE } from '../user-memory';
import { accountMode } from './accounting';
import { handler, type Command, type Handler } from './command';
import type { IommufdFile } from './file';
import type { HwptPaging } from './hwpt';
import { IoPageTable } from './io-page-table';
import { DmaBufSource, FileSource, UserSource } from './page-source';
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
  /** IOMMU_IOASID_ENFORCE_SNOOP_*: whether its tables make DMA snoop. */
  enforceSnoop: number = IOMMU_IOASID_ENFORCE_SNOOP_AUTO;

  destroy(): void {
    this.table.unmapAll();
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

/** Where a mapping of MAP or MAP_FILE goes: at `iova`, or where there is room. */
interface Placement {
  readonly length: bigint;
  readonly iova: bigint | undefined;
  /** IOMMU_READ | IOMMU_WRITE. */
  readonly protection: number;
}

/** Maps pages that no other area has, from byte `startByte` on. The IOVA, or -errno. */
function place(table: IoPageTable, pages: Pages, startByte: bigint, placement: Placement): bigint {
  const { length, iova, protection } = placement;
  // Without an area that has them, the pages are given up again.
  pages.get();
  const result = table.map([{ pages, startByte, length }], length, iova, protection);
  pages.put();
  return result;
}

/** Maps memory of `process` at `address`. The IOVA, or -errno. */
export function mapUserMemory(
  file: IommufdFile,
  process: SimulatedProcess,
  { table }: Ioas,
  address: bigint,
  placement: Placement,
): bigint {
  const { length, protection } = placement;
  if (address + length > U64_MAX) return BigInt(-errno.EOVERFLOW);
  if (length > U64_MAX - PAGE) return BigInt(-errno.EINVAL);
  const offset = address % PAGE;
  const source = new UserSource(process.memory, address - offset);
  const mode = accountMode(process.credentials, file.accountsPerProcess);
  return place(table, new Pages(source, (protection & IOMMU_WRITE) !== 0, process, mode), offset, placement);
}

function map(command: Command<typeof rows.IOMMU_IOAS_MAP.struct>): number {
  const { values, file, process } = command;
  if (values.flags & ~MAP_FLAGS || values.__reserved) return -errno.EOPNOTSUPP;
  const protection = protectionOf(values.flags, [values.iova, values.length]);
  if (protection < 0) return protection;
  const ioas = file.objects.get(values.ioas_id, Ioas);
  if (!ioas) return -errno.ENOENT;
  const fixed = values.flags & IOMMU_IOAS_MAP_FIXED_IOVA ? values.iova : undefined;
  const placement = { length: values.length, iova: fixed, protection };
  const iova = mapUserMemory(file, process, ioas, values.user_va, placement);
  return iova < 0n ? Number(iova) : command.respond({ iova });
}

/** What a DMA-buf's or another file's bytes from `start` on are as pages, and who pays; or -errno. */
function filePages(
  file: IommufdFile,
  process: SimulatedProcess,
  opened: OpenFile,
  start: bigint,
  { length, protection }: Placement,
): Pages | number {
  const offset = start % PAGE;
  const writable = (protection & IOMMU_WRITE) !== 0;
  if (opened instanceof DmaBuf) {
    if (start + length > BigInt(opened.length)) return -errno.EINVAL;
    const source = DmaBufSource.create(opened, start - offset);
    return typeof source === 'number' ? source : new Pages(source, writable, process, 'none');
  }
  if (length > U64_MAX - PAGE) return -errno.EINVAL;
  const mode = accountMode(process.credentials, file.accountsPerProcess);
  return new Pages(new FileSource(opened, start - offset), writable, process, mode);
}

function mapFile(command: Command<typeof rows.IOMMU_IOAS_MAP_FILE.struct>): number {
  const { values, file, process } = command;
  if (values.flags & ~MAP_FLAGS) return -errno.EOPNOTSUPP;
  const protection = protectionOf(values.flags, [values.iova, values.length]);
  if (protection < 0) return protection;
  const ioas = file.objects.get(values.ioas_id, Ioas);
  if (!ioas) return -errno.ENOENT;
  const { start, length, flags } = values;
  if (length === 0n) return -errno.EINVAL;
  if (start + length - 1n > U64_MAX) return -errno.EOVERFLOW;
  const opened = process.file(values.fd);
  if (!opened) return -errno.EBADF;
  const placement = { length, iova: flags & IOMMU_IOAS_MAP_FIXED_IOVA ? values.iova : undefined, protection };
  const pages = filePages(file, process, opened, start, placement);
  if (typeof pages === 'number') return pages;
  const iova = place(ioas.table, pages, start % PAGE, placement);
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
    const all = ioas.table.unmapAll();
    return all.result || command.respond({ length: all.unmapped });
  }
  if (iova === U64_MAX || length === U64_MAX) return -errno.EOVERFLOW;
  const { result, unmapped } = ioas.table.unmapRange(iova, length);
  if (result) return result;
  return unmapped === 0n ? -errno.ENOENT : command.respond({ length: unmapped });
}

export const ioasHandlers: readonly Handler[] = [
  handler(rows.IOMMU_IOAS_ALLOC, alloc),
  handler(rows.IOMMU_IOAS_IOVA_RANGES, iovaRanges),
  handler(rows.IOMMU_IOAS_ALLOW_IOVAS, allowIovas),
  handler(rows.IOMMU_IOAS_MAP, map),
  handler(rows.IOMMU_IOAS_MAP_FILE, mapFile),
  handler(rows.IOMMU_IOAS_COPY, copy),
  handler(rows.IOMMU_IOAS_UNMAP, unmap),
];
