/** Physical region pages: where a command's data is. NVM Express 1.4, 4.3. */
import type { Process } from '../process';
import { ensure, STATUS } from './status';

/** A stretch of memory without a gap. */
export interface Segment {
  readonly address: bigint;
  readonly length: number;
}

/** Reads memory of the host. */
export interface HostMemory {
  read(address: bigint, length: number): Process<Uint8Array>;
}

/** What a PRP points to begins at a dword; a list begins at a qword (4.3). */
const DATA_ALIGNMENT = 4n;
const LIST_ALIGNMENT = 8n;
const ENTRY = 8;

/**
 * The memory of `length` bytes. Only the first entry may have an offset; a second page is entry 2 itself, and where there are
 * more, entry 2 points to a list of them, whose last entry in a page points to the rest of the list.
 */
export function* prpSegments(
  memory: HostMemory,
  data: { readonly prp1: bigint; readonly prp2: bigint; readonly length: number },
  pageSize: number,
): Process<Segment[]> {
  const { prp1, prp2, length } = data;
  if (length === 0) return [];
  ensure(prp1 % DATA_ALIGNMENT === 0n, STATUS.PRP_OFFSET_INVALID);
  const first = Math.min(length, pageSize - Number(prp1 % BigInt(pageSize)));
  const segments: Segment[] = [{ address: prp1, length: first }];
  const rest = length - first;
  if (rest === 0) return segments;
  if (rest <= pageSize) {
    appendPage(segments, prp2, rest, pageSize);
    return segments;
  }
  yield* appendList(memory, segments, prp2, rest, pageSize);
  return segments;
}

function* appendList(
  memory: HostMemory,
  segments: Segment[],
  pointer: bigint,
  length: number,
  pageSize: number,
): Process {
  let at = pointer;
  for (let left = length; left > 0;) {
    ensure(at % LIST_ALIGNMENT === 0n, STATUS.PRP_OFFSET_INVALID);
    const pages = Math.ceil(left / pageSize);
    const room = (pageSize - Number(at % BigInt(pageSize))) / ENTRY;
    const chained = pages > room;
    const entries = Math.min(pages, room);
    const bytes = yield* memory.read(at, entries * ENTRY);
    const view = new DataView(bytes.buffer, bytes.byteOffset);
    for (let i = 0; i < (chained ? entries - 1 : entries); i++) {
      const part = Math.min(left, pageSize);
      appendPage(segments, view.getBigUint64(i * ENTRY, true), part, pageSize);
      left -= part;
    }
    if (chained) {
      at = view.getBigUint64((entries - 1) * ENTRY, true);
      // A chain that stands at the end of its page again has no room for an entry: it would never end.
      ensure(at % BigInt(pageSize) === 0n, STATUS.PRP_OFFSET_INVALID);
    }
  }
}

/** Pages that follow one another become one segment. */
function appendPage(segments: Segment[], address: bigint, length: number, pageSize: number): void {
  ensure(address % BigInt(pageSize) === 0n, STATUS.PRP_OFFSET_INVALID);
  appendSegment(segments, address, length);
}

export function appendSegment(segments: Segment[], address: bigint, length: number): void {
  const last = segments.at(-1);
  if (last && last.address + BigInt(last.length) === address)
    segments[segments.length - 1] = { address: last.address, length: last.length + length };
  else segments.push({ address, length });
}
