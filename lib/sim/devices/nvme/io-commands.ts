/** Commands of the NVM command set. NVM Express 1.4, chapter 6. */
import type { Process } from '../process';
import { BROADCAST_NAMESPACE, NVM, type Command, type Running } from './command';
import { flushNamespace, type Namespace } from './config';
import {
  type Core,
  fetchData,
  fetchMetadata,
  type Handler,
  namespaceOf,
  onMedium,
  requireWanted,
  sendData,
  sendMetadata,
} from './core';
import {
  failedCheck,
  generate,
  interleave,
  METADATA_BYTES,
  protectionRequest,
  type ProtectionRequest,
  readMetadata,
  separate,
  writeMetadata,
} from './protection';
import { CommandError, ensure, STATUS } from './status';

/** What the medium takes, in simulated time. */
const READ_NANOSECONDS = 10_000;
const WRITE_NANOSECONDS = 5_000;
const FLUSH_NANOSECONDS = 20_000;
const LEAST_PAGE = 4096;
const RANGE_BYTES = 16;
/** Dataset Management: deallocate, dword 11 bit 2. */
const DEALLOCATE = 1 << 2;
/** Of writes and zeroes: Force Unit Access, dword 12 bit 30. */
const FORCE_UNIT_ACCESS = 1 << 30;
/** Write Zeroes: they may be deallocated, dword 12 bit 25. */
const DEALLOCATE_ZEROES = 1 << 25;

/** By opcode. */
export const IO_COMMANDS: ReadonlyMap<number, Handler> = new Map<number, Handler>([
  [NVM.FLUSH, flush],
  [NVM.WRITE, write],
  [NVM.READ, read],
  [NVM.WRITE_ZEROES, writeZeroes],
  [NVM.DATASET_MANAGEMENT, datasetManagement],
]);

/** Blocks of a namespace, and their data in bytes. */
interface Extent {
  readonly namespace: Namespace;
  readonly lba: number;
  readonly blocks: number;
  readonly offset: number;
  readonly length: number;
}

/** Starting LBA in dwords 10 and 11, the number of blocks, 0's based, in dword 12. */
function extentOf(core: Core, command: Command): Extent {
  const namespace = namespaceOf(core, command.namespace);
  return extent(namespace, command.quad(10), (command.dword(12) & 0xffff) + 1);
}

function extent(namespace: Namespace, lba: bigint, blocks: number): Extent {
  ensure(lba + BigInt(blocks) <= BigInt(namespace.blocks), STATUS.LBA_OUT_OF_RANGE);
  const { blockSize } = namespace;
  return { namespace, lba: Number(lba), blocks, offset: Number(lba) * blockSize, length: blocks * blockSize };
}

/** MDTS limits what a command transfers (figure 247, byte 77). */
function requireTransferable({ config }: Core, length: number): void {
  const { transferPower } = config;
  ensure(transferPower === 0 || length <= LEAST_PAGE * 2 ** transferPower, STATUS.INVALID_FIELD);
}

/** What a command has written is on the medium when it completes, where it asks for that or no cache keeps it (5.21.1.6). */
function persist({ features }: Core, namespace: Namespace, forced: boolean): void {
  if (forced || !features.cachesWrites) flushNamespace(namespace);
}

function forcesAccess(command: Command): boolean {
  return (command.dword(12) & FORCE_UNIT_ACCESS) !== 0;
}

/** 6.9. */
function* read(core: Core, running: Running): Process<number> {
  const { namespace, lba, blocks, offset, length } = extentOf(core, running.command);
  const { metadata: kept, storage } = namespace;
  const request = kept && protectionRequest(kept, running.command);
  requireTransferable(core, bytesInBuffer(namespace, request, blocks));
  yield* core.delay(READ_NANOSECONDS);
  requireWanted(running);
  const data = new Uint8Array(length);
  let metadata: Uint8Array | undefined;
  onMedium(core, STATUS.UNRECOVERED_READ_ERROR, () => {
    storage.read(offset, data);
    metadata = kept && readMetadata(kept, lba, blocks);
  });
  if (request && metadata) check(core, namespace, request, data, metadata);
  if (!kept || !metadata || request?.act) yield* sendData(core, running, data);
  else if (kept.extended) yield* sendData(core, running, interleave(data, metadata, namespace.blockSize));
  else {
    yield* sendData(core, running, data);
    yield* sendMetadata(core, running, metadata);
  }
  core.health.reads++;
  core.health.bytesRead += length;
  return 0;
}

/** 6.15. Nothing is written before all data is there and was checked. */
function* write(core: Core, running: Running): Process<number> {
  const { command } = running;
  const { namespace, lba, blocks, offset, length } = extentOf(core, command);
  const request = namespace.metadata && protectionRequest(namespace.metadata, command);
  requireTransferable(core, bytesInBuffer(namespace, request, blocks));
  const { data, metadata } = yield* fetchBlocks(core, running, namespace, request);
  if (request && metadata && !request.act) check(core, namespace, request, data, metadata);
  yield* core.delay(WRITE_NANOSECONDS);
  requireWanted(running);
  onMedium(core, STATUS.WRITE_FAULT, () => {
    namespace.storage.write(offset, data);
    if (namespace.metadata && metadata) writeMetadata(namespace.metadata, lba, metadata);
    persist(core, namespace, forcesAccess(command));
  });
  core.health.writes++;
  core.health.bytesWritten += length;
  return 0;
}

/** Data and metadata of a write: from one buffer, from two, or made here. */
function* fetchBlocks(
  core: Core,
  running: Running,
  namespace: Namespace,
  request: ProtectionRequest | undefined,
): Process<{ data: Uint8Array; metadata: Uint8Array | undefined }> {
  const { blockSize, metadata } = namespace;
  const { blocks } = extentOf(core, running.command);
  const bytes = yield* fetchData(core, running, bytesInBuffer(namespace, request, blocks));
  if (!metadata) return { data: bytes, metadata: undefined };
  if (request?.act) return { data: bytes, metadata: generate(request, bytes, blockSize) };
  if (metadata.extended) return separate(bytes, blockSize);
  return { data: bytes, metadata: yield* fetchMetadata(core, running, blocks * METADATA_BYTES) };
}

/** Of a data buffer: with the metadata, where that is in the same (8.2.1). */
function bytesInBuffer(
  { blockSize, metadata }: Namespace,
  request: ProtectionRequest | undefined,
  blocks: number,
): number {
  const inside = metadata?.extended && !request?.act;
  return blocks * (inside ? blockSize + METADATA_BYTES : blockSize);
}

/** What a check finds counts as an error of the medium (figure 194, byte 160). */
function check(
  { health }: Core,
  { blockSize }: Namespace,
  request: ProtectionRequest,
  data: Uint8Array,
  metadata: Uint8Array,
): void {
  const status = failedCheck(request, data, metadata, blockSize);
  if (status === undefined) return;
  health.mediaErrors++;
  throw new CommandError(status);
}

/** 6.8: of one namespace, or of all. */
function* flush(core: Core, running: Running): Process<number> {
  const { namespace: id } = running.command;
  const chosen = id === BROADCAST_NAMESPACE ? core.config.namespaces : [namespaceOf(core, id)];
  yield* core.delay(FLUSH_NANOSECONDS);
  requireWanted(running);
  onMedium(core, STATUS.WRITE_FAULT, () => {
    for (const namespace of chosen) flushNamespace(namespace);
  });
  return 0;
}

/**
 * 6.17. Protection information is made where that is asked for (PRACT), and zeros otherwise; of blocks that are to be
 * deallocated (dword 12 bit 25) it is what unwritten blocks have.
 */
function* writeZeroes(core: Core, running: Running): Process<number> {
  const { command } = running;
  const { namespace, lba, blocks, offset, length } = extentOf(core, command);
  const { metadata: kept, storage, blockSize } = namespace;
  const request = kept && protectionRequest(kept, command);
  const deallocate = (command.dword(12) & DEALLOCATE_ZEROES) !== 0;
  yield* core.delay(WRITE_NANOSECONDS);
  requireWanted(running);
  onMedium(core, STATUS.WRITE_FAULT, () => {
    storage.zero(offset, length);
    if (kept && request?.act) writeMetadata(kept, lba, generate(request, new Uint8Array(length), blockSize));
    else if (kept && (deallocate || kept.protection === 0))
      kept.storage.zero(lba * METADATA_BYTES, blocks * METADATA_BYTES);
    else if (kept) writeMetadata(kept, lba, new Uint8Array(blocks * METADATA_BYTES));
    persist(core, namespace, forcesAccess(command));
  });
  return 0;
}

/** 6.7: up to 256 ranges. Those that are to be deallocated are, and read as zeros; other hints change nothing. */
function* datasetManagement(core: Core, running: Running): Process<number> {
  const { command } = running;
  const namespace = namespaceOf(core, command.namespace);
  const count = (command.dword(10) & 0xff) + 1;
  const bytes = yield* fetchData(core, running, count * RANGE_BYTES);
  const view = new DataView(bytes.buffer);
  const ranges = Array.from({ length: count }, (_, i) => {
    const at = i * RANGE_BYTES;
    return extent(namespace, view.getBigUint64(at + 8, true), view.getUint32(at + 4, true));
  });
  if ((command.dword(11) & DEALLOCATE) === 0) return 0;
  yield* core.delay(WRITE_NANOSECONDS);
  requireWanted(running);
  onMedium(core, STATUS.WRITE_FAULT, () => {
    for (const { lba, blocks, offset, length } of ranges) {
      namespace.storage.zero(offset, length);
      namespace.metadata?.storage.zero(lba * METADATA_BYTES, blocks * METADATA_BYTES);
    }
    persist(core, namespace, false);
  });
  return 0;
}
