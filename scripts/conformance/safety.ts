/**
 * Calls that are not made: they let the kernel write or pin past the memory that the runner has for it, what the program
 * that runs there has next to it, or they run into a mistake of Linux 7.3 that changes the machine for all calls that follow.
 */
import {
  IOMMU_TEST_OP_ACCESS_PAGES,
  IOMMU_TEST_OP_ACCESS_REPLACE_IOAS,
  IOMMU_TEST_OP_ACCESS_RW,
  IOMMU_TEST_OP_DESTROY_ACCESS_PAGES,
  IOMMU_TEST_OP_DEV_CHECK_CACHE,
  IOMMU_TEST_OP_DIRTY,
  IOMMU_TEST_OP_MD_CHECK_REFS,
  IOMMU_TEST_OP_TRIGGER_VEVENT,
} from '../../lib/uapi';
import { DATA_BYTES, MEMFD_BYTES, SCRATCH_BYTES } from './limits';
import type { Fields, IoctlCall, Literal } from './program';

/** Bytes that may be written from a pointer on. */
const ROOM = 2 ** 19;

function number(fields: Fields, name: string): number {
  const value = fields[name] ?? 0;
  // What an earlier call returned is an id or an IOVA.
  return typeof value === 'object' ? 2 ** 32 : Number(value);
}

function pointsIn(fields: Fields, name: string): boolean {
  return typeof fields[name] === 'object';
}

function bitmapBytes(fields: Fields, prefix: string): number {
  const pageSize = number(fields, `${prefix}page_size`);
  return pageSize === 0 ? 0 : number(fields, `${prefix}length`) / pageSize / 8;
}

const MEMORY = { data: DATA_BYTES, scratch: SCRATCH_BYTES, memfd: MEMFD_BYTES } as const;
/** No program has as much memory in one piece. */
const SURELY_ABSENT = 2 ** 28;

/** Whether what follows the memory would be mapped too: something of the running program's, or nothing, by chance. */
function mapsBeyond(fields: Fields, address: string, length: string): boolean {
  const pointer = fields[address];
  if (typeof pointer !== 'object' || !('at' in pointer)) return false;
  const bytes = number(fields, length);
  return bytes < SURELY_ABSENT && pointer.offset + bytes > MEMORY[pointer.at];
}

/**
 * Linux 7.3's selftest takes any device for one of its own, and locks a lock in the middle of the other's struct
 * (TRIGGER_VEVENT; DEV_CHECK_CACHE only reads): edu has no BAR any more after that.
 */
function confusesDevices({ op }: Fields): boolean {
  return op === IOMMU_TEST_OP_TRIGGER_VEVENT || op === IOMMU_TEST_OP_DEV_CHECK_CACHE;
}

/**
 * Linux 7.3 takes the offset as signed, and a negative one for that of a BAR, which it looks up before its list of BARs.
 * And of edu's registers a write must not start anything: computation, interrupts, DMA.
 */
function writesAnywhere(fields: Fields): boolean {
  const offset = BigInt((fields.offset ?? 0) as Literal);
  return offset >= 1n << 63n || (offset >= 8n && offset < 0xa0n);
}

/** Operations of IOMMU_TEST_CMD whose `id` is a file descriptor. */
const FILE_OPERATIONS: readonly unknown[] = [
  IOMMU_TEST_OP_ACCESS_PAGES,
  IOMMU_TEST_OP_ACCESS_REPLACE_IOAS,
  IOMMU_TEST_OP_ACCESS_RW,
  IOMMU_TEST_OP_DESTROY_ACCESS_PAGES,
];
/** Standard input, output and error are no such file anywhere; and no program has so many descriptors. */
const FIRST_FILE = 3;
const MANY_FILES = 2 ** 16;

/** Whether `id` may be one of the running program's descriptors, of which each has its own. */
function namesAnyFile({ op, id = 0 }: Fields): boolean {
  if (!FILE_OPERATIONS.includes(op)) return false;
  if (typeof id === 'object') return !('fd' in id);
  return Number(id) >= FIRST_FILE && Number(id) < MANY_FILES;
}

/** Linux first makes a list of the queue's pages: refused from 2^40 bytes on, and below that as large as its memory. */
function listsManyPages(fields: Fields): boolean {
  const length = number(fields, 'length');
  return length > 2 ** 33 && length < 2 ** 40;
}

/** `realDevice`: a device that is none of the mock IOMMU's was bound. */
export function isUnsafe({ request, fields }: IoctlCall, realDevice: boolean): boolean {
  switch (request) {
    case 'IOMMU_GET_HW_INFO':
      return pointsIn(fields, 'data_uptr') && number(fields, 'data_len') > ROOM;
    case 'IOMMU_HWPT_GET_DIRTY_BITMAP':
      return pointsIn(fields, 'data') && bitmapBytes(fields, '') > ROOM;
    case 'IOMMU_HWPT_INVALIDATE': {
      const [count, size] = [number(fields, 'entry_num'), number(fields, 'entry_len')];
      // Larger ones are refused by the kernel.
      return pointsIn(fields, 'data_uptr') && count <= 2 ** 19 && size <= 4096 && count * size > ROOM;
    }
    case 'IOMMU_IOAS_MAP':
      return mapsBeyond(fields, 'user_va', 'length');
    case 'VFIO_IOMMU_MAP_DMA':
      return mapsBeyond(fields, 'vaddr', 'size');
    case 'IOMMU_HW_QUEUE_ALLOC':
      return listsManyPages(fields);
    case 'IOMMU_TEST_CMD':
      if (namesAnyFile(fields)) return true;
      if (fields.op === IOMMU_TEST_OP_DIRTY)
        return pointsIn(fields, 'dirty.uptr') && bitmapBytes(fields, 'dirty.') > ROOM;
      if (realDevice && confusesDevices(fields)) return true;
      // Pages past the memory are the running program's own.
      if (fields.op === IOMMU_TEST_OP_MD_CHECK_REFS)
        return pointsIn(fields, 'check_refs.uptr') && number(fields, 'check_refs.length') > ROOM / 4;
      return (
        fields.op === IOMMU_TEST_OP_ACCESS_RW &&
        pointsIn(fields, 'access_rw.uptr') &&
        number(fields, 'access_rw.length') > ROOM
      );
    case 'VFIO_DEVICE_IOEVENTFD':
      return typeof fields.offset !== 'object' && writesAnywhere(fields);
    default:
      return false;
  }
}
