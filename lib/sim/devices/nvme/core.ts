/** What the commands of a controller work on. */
import type { DeviceDma } from '../device-dma';
import type { Process } from '../process';
import type { Running } from './command';
import type { Namespace, NvmeConfig } from './config';
import type { AsyncEvents } from './events';
import type { Features } from './features';
import type { ErrorLog, Health } from './log-pages';
import { prpSegments, type Segment } from './prp';
import type { CompletionQueue, SubmissionQueue } from './queues';
import { sglSegments } from './sgl';
import { CommandError, ensure, STATUS } from './status';

/** Bytes of an SGL descriptor. */
const SGL_DESCRIPTOR = 16;

export interface Core {
  readonly config: NvmeConfig;
  readonly features: Features;
  readonly health: Health;
  readonly errors: ErrorLog;
  readonly events: AsyncEvents;
  readonly submissionQueues: Map<number, SubmissionQueue>;
  readonly completionQueues: Map<number, CompletionQueue>;
  readonly dma: DeviceDma;
  /** PCI vendor and subsystem vendor. */
  readonly ids: { readonly vendor: number; readonly subsystem: number };
  /** CC.MPS in bytes. */
  readonly pageSize: number;
  /** CC.IOSQES and CC.IOCQES: powers of two. */
  readonly entrySizes: { readonly submission: number; readonly completion: number };
  delay(nanoseconds: number): Process;
  /** The temperature, or a threshold of it, has changed. */
  temperatureChanged(): void;
}

/** What a command does; its result is dword 0 of the completion. Throws CommandError, DmaError. */
export type Handler = (core: Core, running: Running) => Process<number> | number;

/** The namespace of a command. Throws CommandError. */
export function namespaceOf(core: Core, id: number): Namespace {
  const namespace = id === 0 ? undefined : core.config.namespaces[id - 1];
  ensure(namespace !== undefined, STATUS.INVALID_NAMESPACE);
  return namespace;
}

/** The memory of a command's data: `length` bytes. */
export function* segmentsOf(core: Core, { command }: Running, length: number): Process<Segment[]> {
  const kind = command.dataPointerKind;
  ensure(kind !== 3, STATUS.INVALID_FIELD);
  if (kind === 0) {
    const { prp1, prp2 } = command;
    return yield* prpSegments(core.dma, { prp1, prp2, length }, core.pageSize);
  }
  return yield* sglSegments(core.dma, command.sgl, length);
}

/** The memory of a command's metadata, where it has a buffer of its own (4.2, MPTR): an address, or that of a descriptor. */
function* metadataSegments(core: Core, { command }: Running, length: number): Process<Segment[]> {
  const { metadata: address, dataPointerKind: kind } = command;
  ensure(kind !== 3, STATUS.INVALID_FIELD);
  if (kind === 2) {
    ensure(address % 8n === 0n, STATUS.INVALID_FIELD);
    const bytes = yield* core.dma.read(address, SGL_DESCRIPTOR);
    return yield* sglSegments(core.dma, new DataView(bytes.buffer), length);
  }
  ensure(kind === 1 || address % 4n === 0n, STATUS.INVALID_FIELD);
  return [{ address, length }];
}

/** Moves data to the host's memory. */
export function* sendData(core: Core, running: Running, bytes: Uint8Array): Process {
  yield* send(core, running, yield* segmentsOf(core, running, bytes.length), bytes);
}

export function* sendMetadata(core: Core, running: Running, bytes: Uint8Array): Process {
  yield* send(core, running, yield* metadataSegments(core, running, bytes.length), bytes);
}

function* send(core: Core, running: Running, segments: readonly Segment[], bytes: Uint8Array): Process {
  let done = 0;
  for (const { address, length } of segments) {
    requireWanted(running);
    yield* core.dma.write(address, bytes.subarray(done, done + length));
    done += length;
  }
}

/** Fetches `length` bytes of data from the host's memory. */
export function* fetchData(core: Core, running: Running, length: number): Process<Uint8Array> {
  return yield* gather(core, running, yield* segmentsOf(core, running, length), length);
}

export function* fetchMetadata(core: Core, running: Running, length: number): Process<Uint8Array> {
  return yield* gather(core, running, yield* metadataSegments(core, running, length), length);
}

function* gather(
  core: Core,
  running: Running,
  segments: readonly Segment[],
  length: number,
): Process<Uint8Array> {
  const bytes = new Uint8Array(length);
  let done = 0;
  for (const { address, length: part } of segments) {
    requireWanted(running);
    yield* core.dma.readInto(address, bytes.subarray(done, done + part));
    done += part;
  }
  return bytes;
}

/** Ends a command that was aborted, or whose queue is being deleted. */
export function requireWanted({ endAs }: Running): void {
  ensure(endAs === undefined, endAs ?? STATUS.SUCCESS);
}

/** Runs what the medium does; what it throws is an error of the medium. */
export function onMedium(core: Core, status: number, action: () => void): void {
  try {
    action();
  } catch {
    core.health.mediaErrors++;
    throw new CommandError(status);
  }
}
