/** The three requests that put memory into an IOAS: by address, by file, and from another IOAS. */
import { hex } from './hex';
import type { Context } from './context';
import { DmaBuffer } from './dma-buffer';
import type { IommuError } from './errors';
import { MOST_IN_BATCH, type HotRow } from './hot-calls';
import { refused } from './ioctl';
import { readIovaRanges } from './iova';
import * as uapi from './uapi';

// Kept here: what a module passes on from others it passes on through a function.
const READABLE = uapi.IOMMU_IOAS_MAP_READABLE;
const WRITEABLE = uapi.IOMMU_IOAS_MAP_WRITEABLE;
const FIXED_IOVA = uapi.IOMMU_IOAS_MAP_FIXED_IOVA;
const { IOMMU_IOAS_MAP_FILE } = uapi;

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
  const { hot } = context;
  let row = write(context, 0, request);
  let result = hot.make(row);
  if (lacksMapFile(row, result)) {
    context.mapsFiles = false;
    row = write(context, 0, request);
    result = hot.make(row);
  }
  if (result < 0) throw mapFailure(context, row, request, result);
  return request.iova ?? hot.mappedAt(0, row);
}

/**
 * Maps many, in as few crossings into the kernel as they take, until one fails. `mapped` gets the index and the IOVA of
 * each that did not; returns the error of the one that did.
 */
export function mapMany(
  context: Context,
  requests: readonly MapRequest[],
  mapped: (index: number, iova: bigint) => void,
): IommuError | undefined {
  const { hot } = context;
  const rows: HotRow[] = [];
  for (let first = 0; first < requests.length;) {
    const count = Math.min(MOST_IN_BATCH, requests.length - first);
    for (let i = 0; i < count; i++) hot.add(i, (rows[i] = write(context, i, requests[first + i])));
    const done = hot.run(count);
    const result = done < count ? hot.result(done) : 0;
    // All of them before anything else can write into the page.
    const iovas = Array.from(
      { length: done },
      (_, i) => requests[first + i].iova ?? hot.mappedAt(i, rows[i]),
    );
    iovas.forEach((iova, i) => mapped(first + i, iova));
    first += done;
    if (done === count) continue;
    if (!lacksMapFile(rows[done], result))
      return mapFailure(
        context,
        rows[done],
        requests[first],
        result,
        `entry ${first}, from 0, of those to map`,
      );
    context.mapsFiles = false;
  }
  return undefined;
}

/** Writes the struct of call `index`; which request that is. */
function write({ hot, mapsFiles }: Context, index: number, request: MapRequest): HotRow {
  const { source, offset, ioasId, length, read, write: writable, iova } = request;
  const placing = {
    ioasId,
    flags: (read ? READABLE : 0) | (writable ? WRITEABLE : 0) | (iova === undefined ? 0 : FIXED_IOVA),
    length,
    iova: iova ?? 0n,
  };
  if (source instanceof DmaBuffer)
    return source.fd >= 0 && mapsFiles
      ? hot.writeMapFile(index, placing, source.fd, offset)
      : hot.writeMap(index, placing, source.userAddress + offset);
  return hot.writeCopy(
    index,
    placing,
    source.ioasId,
    offset === 0 ? source.iova : source.iova + BigInt(offset),
  );
}

/** Before Linux 6.13 a file's address has to do: devices see the same memory. */
function lacksMapFile(row: HotRow, result: number): boolean {
  return row === IOMMU_IOAS_MAP_FILE && result === -uapi.errno.ENOTTY;
}

/** EINVAL has several causes; ask the kernel which applies. */
function mapFailure(
  context: Context,
  row: HotRow,
  request: MapRequest,
  result: number,
  also?: string,
): IommuError {
  const hint = result === -uapi.errno.EINVAL ? whyInvalid(context, request) : undefined;
  return refused(context.kernel, row, {}, result, { hint, also });
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
