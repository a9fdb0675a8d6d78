/** Admin commands. NVM Express 1.4, chapter 5. */
import type { Process } from '../process';
import { ADMIN, BROADCAST_NAMESPACE, Running, type Command } from './command';
import { flushNamespace } from './config';
import { type Core, type Handler, namespaceOf, onMedium, requireWanted, sendData } from './core';
import { FEATURE } from './features';
import * as identify from './identify';
import { firmwarePage, LOG_PAGE } from './log-pages';
import { CompletionQueue, SubmissionQueue } from './queues';
import { CommandError, ensure, STATUS } from './status';

const ENTRY_SIZES = { submission: 6, completion: 4 };
/** How often the deletion of a queue looks whether its commands are over. */
const DRAIN_NANOSECONDS = 1000;
/** Set Features: SV, bit 31. */
const SAVE = 0x8000_0000;

/** By opcode. */
export const ADMIN_COMMANDS: ReadonlyMap<number, Handler> = new Map<number, Handler>([
  [ADMIN.DELETE_IO_SQ, deleteSubmissionQueue],
  [ADMIN.CREATE_IO_SQ, createSubmissionQueue],
  [ADMIN.GET_LOG_PAGE, getLogPage],
  [ADMIN.DELETE_IO_CQ, deleteCompletionQueue],
  [ADMIN.CREATE_IO_CQ, createCompletionQueue],
  [ADMIN.IDENTIFY, identifyCommand],
  [ADMIN.ABORT, abort],
  [ADMIN.SET_FEATURES, setFeatures],
  [ADMIN.GET_FEATURES, getFeatures],
  [ADMIN.ASYNC_EVENT_REQUEST, asyncEventRequest],
]);

/** What both create commands have in dwords 10 and 11: identifier, size, physically contiguous. */
function newQueue(core: Core, command: Command, taken: ReadonlyMap<number, unknown>) {
  const id = command.dword(10) & 0xffff;
  const size = (command.dword(10) >>> 16) + 1;
  ensure(id > 0 && id <= core.config.ioQueues && !taken.has(id), STATUS.INVALID_QUEUE_IDENTIFIER);
  ensure(size >= 2 && size <= core.config.entries, STATUS.INVALID_QUEUE_SIZE);
  // CAP.CQR: queues are contiguous here.
  ensure((command.dword(11) & 1) === 1, STATUS.INVALID_FIELD);
  ensure(command.prp1 % BigInt(core.pageSize) === 0n, STATUS.PRP_OFFSET_INVALID);
  return { id, size, base: command.prp1 };
}

/** 5.3. Before software has set CC.IOCQES, the size is invalid too. */
function createCompletionQueue(core: Core, { command }: Running): number {
  const { id, size, base } = newQueue(core, command, core.completionQueues);
  ensure(core.entrySizes.completion === ENTRY_SIZES.completion, STATUS.INVALID_QUEUE_SIZE);
  const vector = command.dword(11) >>> 16;
  ensure(vector < core.config.vectors, STATUS.INVALID_INTERRUPT_VECTOR);
  const interrupts = (command.dword(11) & 2) !== 0;
  core.completionQueues.set(id, new CompletionQueue(id, base, size, interrupts ? vector : undefined));
  return 0;
}

/** 5.4. */
function createSubmissionQueue(core: Core, { command }: Running): number {
  const { id, size, base } = newQueue(core, command, core.submissionQueues);
  ensure(core.entrySizes.submission === ENTRY_SIZES.submission, STATUS.INVALID_QUEUE_SIZE);
  const target = command.dword(11) >>> 16;
  ensure(target > 0 && target <= core.config.ioQueues, STATUS.INVALID_QUEUE_IDENTIFIER);
  const completions = core.completionQueues.get(target);
  ensure(completions !== undefined, STATUS.COMPLETION_QUEUE_INVALID);
  core.submissionQueues.set(id, new SubmissionQueue(id, base, size, completions));
  return 0;
}

/** 5.5. */
function deleteCompletionQueue(core: Core, { command }: Running): number {
  const id = command.dword(10) & 0xffff;
  const queue = id === 0 ? undefined : core.completionQueues.get(id);
  ensure(queue !== undefined, STATUS.INVALID_QUEUE_IDENTIFIER);
  ensure(queue.users === 0, STATUS.INVALID_QUEUE_DELETION);
  core.completionQueues.delete(id);
  return 0;
}

/** 5.6: it is over once every command of the queue is. */
function* deleteSubmissionQueue(core: Core, { command }: Running): Process<number> {
  const id = command.dword(10) & 0xffff;
  const queue = id === 0 ? undefined : core.submissionQueues.get(id);
  ensure(queue !== undefined && !queue.deleted, STATUS.INVALID_QUEUE_IDENTIFIER);
  queue.deleted = true;
  for (const running of queue.running.values()) running.end(STATUS.ABORTED_SQ_DELETION);
  while (queue.fetching || [...queue.running.values()].some(({ lost }) => !lost))
    yield* core.delay(DRAIN_NANOSECONDS);
  core.submissionQueues.delete(id);
  queue.completions.users--;
  return 0;
}

/** 5.1. Bit 0 of the result: the command was not aborted. */
function abort(core: Core, { command }: Running): number {
  const aborts = [...(core.submissionQueues.get(0)?.running.values() ?? [])].filter(
    (each) => each.command.opcode === ADMIN.ABORT,
  );
  ensure(aborts.length <= identify.ABORT_LIMIT + 1, STATUS.ABORT_LIMIT_EXCEEDED);
  const queue = core.submissionQueues.get(command.dword(10) & 0xffff);
  const target = queue?.running.get(command.dword(10) >>> 16);
  if (!target || target.command === command || target.lost) return 1;
  target.end(STATUS.ABORT_REQUESTED);
  return 0;
}

/** 5.15. */
function* identifyCommand(core: Core, running: Running): Process<number> {
  const { command } = running;
  yield* sendData(core, running, identifyData(core, command));
  return 0;
}

function identifyData(core: Core, command: Command): Uint8Array {
  const { namespace: id } = command;
  switch (command.dword(10) & 0xff) {
    case identify.CNS.CONTROLLER:
      return identify.identifyController(core.config, core.ids);
    case identify.CNS.NAMESPACE:
      return identify.identifyNamespace(namespaceOf(core, id));
    case identify.CNS.ACTIVE_NAMESPACES:
      ensure(id < 0xffff_fffe, STATUS.INVALID_NAMESPACE);
      return identify.activeNamespaces(core.config.namespaces, id);
    case identify.CNS.DESCRIPTORS:
      return identify.namespaceDescriptors(namespaceOf(core, id));
    default:
      throw new CommandError(STATUS.INVALID_FIELD);
  }
}

/** 5.14: a number of dwords, 0's based, from an offset on. */
function* getLogPage(core: Core, running: Running): Process<number> {
  const { command } = running;
  const page = command.dword(10) & 0xff;
  const dwords = (command.dword(11) & 0xffff) * 0x1_0000 + (command.dword(10) >>> 16) + 1;
  const offset = Number(command.quad(12));
  const all = logPage(core, page);
  requireWhole(core, command.namespace);
  ensure(offset % 4 === 0 && offset <= all.length, STATUS.INVALID_FIELD);
  // What is beyond the page's end is undefined: nothing is written there.
  yield* sendData(core, running, all.subarray(offset, offset + 4 * dwords));
  const retain = (command.dword(10) & 0x8000) !== 0;
  if (!retain) core.events.acknowledge(page);
  return 0;
}

/** No log page is of one namespace (LPA bit 0 is clear): 0 and the broadcast identifier name the controller. */
function requireWhole(core: Core, namespace: number): void {
  if (namespace === 0 || namespace === BROADCAST_NAMESPACE) return;
  namespaceOf(core, namespace);
  throw new CommandError(STATUS.INVALID_FIELD);
}

function logPage(core: Core, page: number): Uint8Array {
  const { errors, health, features } = core;
  switch (page) {
    case LOG_PAGE.ERRORS:
      return errors.page();
    case LOG_PAGE.HEALTH:
      return health.page(features.temperatures, errors.count);
    case LOG_PAGE.FIRMWARE:
      return firmwarePage();
    default:
      throw new CommandError(STATUS.INVALID_LOG_PAGE);
  }
}

/** 5.21. Nothing can be saved (ONCS bit 4). */
function setFeatures(core: Core, { command }: Running): number {
  const [selector, value] = [command.dword(10), command.dword(11)];
  ensure((selector & SAVE) === 0, STATUS.FEATURE_NOT_SAVEABLE);
  const queuesExist = core.submissionQueues.size > 1 || core.completionQueues.size > 1;
  // What is in the cache must not stay there: software does not flush any more.
  if ((selector & 0xff) === FEATURE.WRITE_CACHE && value === 0) flushAll(core);
  const result = core.features.set(selector & 0xff, value, queuesExist);
  if ((selector & 0xff) === FEATURE.TEMPERATURE_THRESHOLD) core.temperatureChanged();
  return result;
}

function flushAll(core: Core): void {
  onMedium(core, STATUS.WRITE_FAULT, () => {
    for (const namespace of core.config.namespaces) flushNamespace(namespace);
  });
}

/** 5.9. Without ONCS bit 4 there is no other value than the current one. */
function getFeatures(core: Core, { command }: Running): number {
  ensure(((command.dword(10) >>> 8) & 7) === 0, STATUS.INVALID_FIELD);
  return core.features.get(command.dword(10) & 0xff, command.dword(11));
}

/** 5.2: it has its answer when there is an event. */
function* asyncEventRequest(core: Core, running: Running): Process<number> {
  ensure(!core.events.full, STATUS.EVENT_LIMIT_EXCEEDED);
  let result: number | undefined;
  let resume: (() => void) | undefined;
  const forget = core.events.request((event) => {
    result = event;
    resume?.();
  });
  if (result === undefined)
    yield (next) => {
      resume = next;
      running.wake = next;
    };
  forget();
  if (result === undefined) requireWanted(running);
  return result ?? 0;
}
