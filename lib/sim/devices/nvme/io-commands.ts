/** Commands of the NVM command set. NVM Express 1.4, chapter 6. */
import type { Process } from '../process';
import { BROADCAST_NAMESPACE, NVM, type Command, type Running } from './command';
import type { Namespace } from './config';
import { type Core, fetchData, type Handler, namespaceOf, requireWanted, sendData } from './core';
import { CommandError, ensure, STATUS } from './status';

/** What the medium takes, in simulated time. */
const READ_NANOSECONDS = 10_000;
const WRITE_NANOSECONDS = 5_000;
const FLUSH_NANOSECONDS = 20_000;
const LEAST_PAGE = 4096;
const RANGE_BYTES = 16;
/** Dataset Management: deallocate, dword 11 bit 2. */
const DEALLOCATE = 1 << 2;

/** By opcode. */
export const IO_COMMANDS: ReadonlyMap<number, Handler> = new Map<number, Handler>([
  [NVM.FLUSH, flush],
  [NVM.WRITE, write],
  [NVM.READ, read],
  [NVM.WRITE_ZEROES, writeZeroes],
  [NVM.DATASET_MANAGEMENT, datasetManagement],
]);

/** Bytes of a namespace. */
interface Extent {
  readonly namespace: Namespace;
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
  return { namespace, offset: Number(lba) * blockSize, length: blocks * blockSize };
}

/** MDTS limits what a command transfers (figure 247, byte 77). */
function requireTransferable({ config }: Core, length: number): void {
  const { transferPower } = config;
  ensure(transferPower === 0 || length <= LEAST_PAGE * 2 ** transferPower, STATUS.INVALID_FIELD);
}

/** Runs what the medium does; what it throws is an error of the medium. */
function onMedium(core: Core, status: number, action: () => void): void {
  try {
    action();
  } catch {
    core.health.mediaErrors++;
    throw new CommandError(status);
  }
}

/** 6.9. */
function* read(core: Core, running: Running): Process<number> {
  const { namespace, offset, length } = extentOf(core, running.command);
  requireTransferable(core, length);
  yield* core.delay(READ_NANOSECONDS);
  requireWanted(running);
  const bytes = new Uint8Array(length);
  onMedium(core, STATUS.UNRECOVERED_READ_ERROR, () => namespace.storage.read(offset, bytes));
  yield* sendData(core, running, bytes);
  core.health.reads++;
  core.health.bytesRead += length;
  return 0;
}

/** 6.15. Nothing is written before all data is there. Force Unit Access, dword 12 bit 30, flushes. */
function* write(core: Core, running: Running): Process<number> {
  const { command } = running;
  const { namespace, offset, length } = extentOf(core, command);
  requireTransferable(core, length);
  const bytes = yield* fetchData(core, running, length);
  yield* core.delay(WRITE_NANOSECONDS);
  requireWanted(running);
  onMedium(core, STATUS.WRITE_FAULT, () => {
    namespace.storage.write(offset, bytes);
    if ((command.dword(12) & 0x4000_0000) !== 0) namespace.storage.flush();
  });
  core.health.writes++;
  core.health.bytesWritten += length;
  return 0;
}

/** 6.8: of one namespace, or of all. */
function* flush(core: Core, running: Running): Process<number> {
  const { namespace: id } = running.command;
  const chosen = id === BROADCAST_NAMESPACE ? core.config.namespaces : [namespaceOf(core, id)];
  yield* core.delay(FLUSH_NANOSECONDS);
  requireWanted(running);
  onMedium(core, STATUS.WRITE_FAULT, () => {
    for (const { storage } of chosen) storage.flush();
  });
  return 0;
}

/** 6.17. */
function* writeZeroes(core: Core, running: Running): Process<number> {
  const { namespace, offset, length } = extentOf(core, running.command);
  yield* core.delay(WRITE_NANOSECONDS);
  requireWanted(running);
  onMedium(core, STATUS.WRITE_FAULT, () => namespace.storage.zero(offset, length));
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
    for (const { offset, length } of ranges) namespace.storage.zero(offset, length);
  });
  return 0;
}
