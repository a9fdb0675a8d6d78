/** Scatter gather lists: where a command's data is. NVM Express 1.4, 4.4. */
import type { Process } from '../process';
import { appendSegment, type HostMemory, type Segment } from './prp';
import { CommandError, ensure, STATUS } from './status';

export const SGL_TYPE = { DATA_BLOCK: 0, SEGMENT: 2, LAST_SEGMENT: 3 } as const;
const DESCRIPTOR = 16;
/** Descriptors that a command may have in all: no chain goes on without end. */
const MOST_DESCRIPTORS = 8192;

interface Descriptor {
  readonly address: bigint;
  readonly length: number;
  readonly type: number;
}

/** Figure 118 on: address, length, and in byte 15 type and sub type; only addresses in memory are supported. */
function parse(view: DataView, at: number): Descriptor {
  const identifier = view.getUint8(at + 15);
  const type = identifier >>> 4;
  const known = (Object.values(SGL_TYPE) as number[]).includes(type);
  ensure(known && (identifier & 15) === 0, STATUS.SGL_TYPE_INVALID);
  return { address: view.getBigUint64(at, true), length: view.getUint32(at + 8, true), type };
}

/**
 * The memory of `length` bytes. A segment descriptor is the last one of its segment; the last segment has none. Descriptors of
 * more memory than the data needs are allowed (SGLS bit 18), of less are not.
 */
export function* sglSegments(memory: HostMemory, first: DataView, length: number): Process<Segment[]> {
  const segments: Segment[] = [];
  let left = length;
  const append = ({ address, length: size }: Descriptor) => {
    const used = Math.min(size, left);
    if (used > 0) appendSegment(segments, address, used);
    left -= used;
  };
  let next: Descriptor | undefined = parse(first, 0);
  if (next.type === SGL_TYPE.DATA_BLOCK) {
    append(next);
    next = undefined;
  }
  for (let total = 0; next;) {
    const segment: Descriptor = next;
    ensure(segment.length > 0 && segment.length % DESCRIPTOR === 0, STATUS.INVALID_SGL_SEGMENT);
    total += segment.length / DESCRIPTOR;
    ensure(total <= MOST_DESCRIPTORS, STATUS.INVALID_SGL_COUNT);
    const bytes: Uint8Array = yield* memory.read(segment.address, segment.length);
    const descriptors = parseSegment(bytes, segment.type === SGL_TYPE.LAST_SEGMENT);
    next = descriptors.at(-1);
    if (next?.type === SGL_TYPE.DATA_BLOCK) next = undefined;
    else descriptors.pop();
    descriptors.forEach(append);
  }
  if (left > 0) throw new CommandError(STATUS.DATA_SGL_LENGTH_INVALID);
  return segments;
}

function parseSegment(bytes: Uint8Array, isLast: boolean): Descriptor[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const count = bytes.length / DESCRIPTOR;
  return Array.from({ length: count }, (_, i) => {
    const descriptor = parse(view, i * DESCRIPTOR);
    const mayPoint = !isLast && i === count - 1;
    ensure(mayPoint || descriptor.type === SGL_TYPE.DATA_BLOCK, STATUS.INVALID_SGL_SEGMENT);
    return descriptor;
  });
}
