/** VFIO_IOMMU_GET_INFO on /dev/iommu: page sizes, and two capabilities that follow the struct. */
import { errno } from '../../../uapi/errno';
import { vfio_info_cap_header } from '../../../uapi/vfio-capabilities';
import * as uapi from '../../../uapi/vfio-type1';
import type { IommufdFile } from './file';
import type { IoPageTable } from './io-page-table';

const info = uapi.vfio_iommu_type1_info;
const available = uapi.vfio_iommu_type1_info_dma_avail;
const ranges = uapi.vfio_iommu_type1_info_cap_iova_range;
const U32_MAX = 2 ** 32 - 1;
/** Where the capabilities are: each starts at a multiple of 8. */
const AVAILABLE_AT = info.size;
const RANGES_AT = AVAILABLE_AT + Math.ceil(available.size / 8) * 8;
/** Where the first says where the second is. */
const NEXT_AT = AVAILABLE_AT + vfio_info_cap_header.offsets.next;

function u32Bytes(value: number): Uint8Array {
  return new Uint8Array(Uint32Array.of(value).buffer);
}

/** The caller's memory from the struct on. What lies past its end is not written, and the call fails. */
class Answer {
  faulted = false;

  constructor(
    readonly user: Uint8Array,
    /** As much as the caller says there is room. */
    readonly argsz: number,
  ) {}

  /** Writes where there is room. */
  write(at: number, bytes: Uint8Array): void {
    if (this.faulted || at + bytes.length > this.argsz) return;
    const room = Math.max(this.user.length - at, 0);
    this.user.set(bytes.subarray(0, room), Math.min(at, this.user.length));
    this.faulted = room < bytes.length;
  }
}

/** The list of usable IOVAs. Returns where it ends. */
function writeRanges(answer: Answer, table: IoPageTable): number {
  let nr_iovas = 0;
  let end = RANGES_AT + ranges.size;
  for (const { start, last } of table.usableRanges()) {
    answer.write(end, uapi.vfio_iova_range.encode({ start, end: last }));
    nr_iovas++;
    end += uapi.vfio_iova_range.size;
  }
  // Ranges that fit are there even if the list as a whole is not.
  const header = { id: uapi.VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE, version: 1 };
  if (answer.argsz >= end) answer.write(RANGES_AT, ranges.encode({ header, nr_iovas }));
  return end;
}

/** Fills what the caller's `argsz` has room for, and says how much all of it takes. */
export function containerInfo(file: IommufdFile, user: Uint8Array | undefined): number {
  const { minimumSize } = uapi.VFIO_IOMMU_GET_INFO;
  if (!user || user.length < minimumSize) return -errno.EFAULT;
  const argsz = new DataView(user.buffer, user.byteOffset).getUint32(0, true);
  if (argsz < minimumSize) return -errno.EINVAL;
  const ioas = file.compatIoas;
  if (!ioas) return -errno.ENODEV;

  const answer = new Answer(user, argsz);
  const header = { id: uapi.VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL, version: 1 };
  answer.write(AVAILABLE_AT, available.encode({ header, avail: U32_MAX }));
  const end = writeRanges(answer, ioas.table);
  // Linked as soon as there is room for what comes before, whether or not it is there itself.
  if (argsz >= RANGES_AT) answer.write(NEXT_AT, u32Bytes(RANGES_AT));
  const struct = info.encode({
    argsz: end,
    flags: uapi.VFIO_IOMMU_INFO_PGSIZES | uapi.VFIO_IOMMU_INFO_CAPS,
    iova_pgsizes: ioas.table.pageSizes,
    cap_offset: argsz >= end ? info.size : 0,
  });
  answer.write(0, struct.subarray(0, argsz));
  return answer.faulted ? -errno.EFAULT : 0;
}
