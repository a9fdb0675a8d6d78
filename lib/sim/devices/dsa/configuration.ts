/** Whether what software has configured can be enabled: CMDSTS.ERROR of the commands that do. */
import type { DeviceRegisters } from '../register-bank';
import {
  COMMAND_ERROR,
  ENGINES,
  GROUP_CONFIG,
  MAX_BATCH_SHIFT,
  MAX_TRANSFER_SHIFT,
  STATE,
  TOTAL_ENTRIES,
  WORK_QUEUES,
} from './registers';
import type { WorkQueue } from './work-queue';

export type GroupConfig = DeviceRegisters<typeof GROUP_CONFIG>;

const WQ_BITS = (1n << BigInt(WORK_QUEUES)) - 1n;
const ENGINE_BITS = (1n << BigInt(ENGINES)) - 1n;

export function checkDevice(
  state: number,
  busMaster: boolean,
  queues: readonly WorkQueue[],
  groups: readonly GroupConfig[],
): number {
  if (state !== STATE.DISABLED) return COMMAND_ERROR.DEVICE_ENABLED;
  if (!busMaster) return COMMAND_ERROR.BUS_MASTER;
  if (queues.reduce((sum, { entries }) => sum + entries, 0) > TOTAL_ENTRIES) return COMMAND_ERROR.WQ_SIZES;
  return checkGroups(groups);
}

function checkGroups(groups: readonly GroupConfig[]): number {
  let queues = 0n;
  let engines = 0n;
  for (const group of groups) {
    const wqs = group.WQS.at(0).read();
    const own = group.ENGINES.read();
    const beyond = [1, 2, 3].some((i) => group.WQS.at(i).read() !== 0n);
    if (beyond || (wqs & ~WQ_BITS) !== 0n || (own & ~ENGINE_BITS) !== 0n) return COMMAND_ERROR.GROUP_UNKNOWN;
    if ((queues & wqs) !== 0n) return COMMAND_ERROR.GROUP_WQ;
    if ((engines & own) !== 0n) return COMMAND_ERROR.GROUP_ENGINE;
    if ((wqs === 0n) !== (own === 0n)) return COMMAND_ERROR.GROUP_HALF;
    queues |= wqs;
    engines |= own;
  }
  return COMMAND_ERROR.SUCCESS;
}

export function checkQueue(queue: WorkQueue, deviceState: number, pasids: boolean): number {
  const { MODE, THRESHOLD, LIMITS } = queue.config;
  if (deviceState !== STATE.ENABLED) return COMMAND_ERROR.DEVICE_NOT_ENABLED;
  if (queue.state !== STATE.DISABLED) return COMMAND_ERROR.WQ_ENABLED;
  if (queue.entries === 0) return COMMAND_ERROR.WQ_SIZE;
  const { PRIORITY, DEDICATED, PASID_ENABLE, PRIVILEGED } = MODE.read();
  if (PRIORITY === 0) return COMMAND_ERROR.WQ_PRIORITY;
  const threshold = THRESHOLD.field('ENTRIES');
  // Of a shared queue alone: how many may wait of what comes through limited portals.
  if (!DEDICATED && (threshold === 0 || threshold > queue.entries)) return COMMAND_ERROR.WQ_MODE;
  if ((PASID_ENABLE && !pasids) || (!PASID_ENABLE && (!DEDICATED || PRIVILEGED)))
    return COMMAND_ERROR.PASID_ENABLE;
  const { MAX_BATCH, MAX_TRANSFER } = LIMITS.read();
  if (MAX_BATCH > MAX_BATCH_SHIFT) return COMMAND_ERROR.MAX_BATCH;
  if (MAX_TRANSFER > MAX_TRANSFER_SHIFT) return COMMAND_ERROR.MAX_TRANSFER;
  return COMMAND_ERROR.SUCCESS;
}

/** The work queues that an operand names: 16 bits, and which 16. Undefined: one that there is not. */
export function queuesOf(operand: number, queues: readonly WorkQueue[]): WorkQueue[] | undefined {
  const first = 16 * (operand >>> 16);
  const found: WorkQueue[] = [];
  for (let bit = 0; bit < 16; bit++) {
    if (!(operand & (1 << bit))) continue;
    if (first + bit >= queues.length) return undefined;
    found.push(queues[first + bit]);
  }
  return found.length > 0 ? found : undefined;
}
