/** The three requests that put memory into an IOAS: by address, by file, and from another IOAS. */
import { hex } from './hex';
import type { Context } from './context';
import type { DmaBuffer } from './dma-buffer';
import { attempt, refused } from './ioctl';
import { readIovaRanges } from './iova';
import * as uapi from './uapi';

/** Memory that is mapped in an IOAS, from an IOVA on. */
export interface MappedSource {
  readonly ioasId: number;
  readonly iova: bigint;
}

/** What to map, and how. */
export interface MapRequest {
  readonly ioasId: number;
  readonly source: DmaBuffer | MappedSource;
  /** First byte of the source. */
  readonly offset: number;
  readonly length: number;
  /** Where; undefined: the kernel chooses. */
  readonly iova: bigint | undefined;
  readonly read: boolean;
  readonly write: boolean;
}

/** Maps; the IOVA it got. Throws IommuError. */
export function mapMemory(context: Context, request: MapRequest): bigint {
  const { source, iova = 0n, length, offset, ioasId } = request;
  const flags =
    (request.read ? uapi.IOMMU_IOAS_MAP_READABLE : 0) |
    (request.write ? uapi.IOMMU_IOAS_MAP_WRITEABLE : 0) |
    (request.iova === undefined ? 0 : uapi.IOMMU_IOAS_MAP_FIXED_IOVA);
  const { kernel, fd } = context;
  if ('ioasId' in source) {
    const values = {
      flags,
      dst_ioas_id: ioasId,
      src_ioas_id: source.ioasId,
      length,
      dst_iova: iova,
      src_iova: source.iova + BigInt(offset),
    };
    const { result, out } = attempt(kernel, fd, uapi.IOMMU_IOAS_COPY, values);
    if (result < 0) throw mapFailure(context, uapi.IOMMU_IOAS_COPY, request, result);
    return out.dst_iova;
  }
  if (source.fd >= 0) {
    const values = { flags, ioas_id: ioasId, fd: source.fd, start: offset, length, iova };
    const { result, out } = attempt(kernel, fd, uapi.IOMMU_IOAS_MAP_FILE, values, source);
    if (result >= 0) return out.iova;
    // Before Linux 6.13 its address has to do: devices see the same memory.
    if (result !== -uapi.errno.ENOTTY) throw mapFailure(context, uapi.IOMMU_IOAS_MAP_FILE, request, result);
  }
  const values = { flags, ioas_id: ioasId, user_va: source.address + BigInt(offset), length, iova };
  const { result, out } = attempt(kernel, fd, uapi.IOMMU_IOAS_MAP, values, source);
  if (result < 0) throw mapFailure(context, uapi.IOMMU_IOAS_MAP, request, result);
  return out.iova;
}

/** EINVAL has several causes; ask the kernel which applies. */
function mapFailure(context: Context, row: { name: string }, request: MapRequest, result: number): Error {
  const hint = result === -uapi.errno.EINVAL ? whyInvalid(context, request) : undefined;
  return refused(context.kernel, row, {}, result, { hint });
}

function whyInvalid(context: Context, { ioasId, iova, offset, ...request }: MapRequest): string | undefined {
  const length = BigInt(request.length);
  if (length === 0n) return 'the length must not be 0';
  const { alignment, ranges } = readIovaRanges(context, ioasId);
  const unit = `a multiple of ${alignment} bytes`;
  if (iova !== undefined && iova % alignment !== 0n) return `the IOVA ${hex(iova)} must be ${unit}`;
  if (length % alignment !== 0n) return `the length ${length} must be ${unit}`;
  if (BigInt(offset) % alignment !== 0n) return `the offset ${offset} must be ${unit}`;
  if (iova === undefined) return undefined;
  const end = iova + length;
  if (ranges.some((range) => range.iova <= iova && end <= range.iova + range.length)) return undefined;
  const usable = ranges.map((range) => span(range.iova, range.iova + range.length));
  return `${span(iova, end)} is not within what devices of this space reach: ${usable.join(', ')}`;
}

/** First and last address of [start, end). */
function span(start: bigint, end: bigint): string {
  return `${hex(start)}-${hex(end - 1n)}`;
}
