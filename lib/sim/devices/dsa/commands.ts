/** Commands of the CMD register: each takes time, and ends with CMDSTS.ERROR. */
import type { Process } from '../process';
import { checkDevice, checkQueue, type GroupConfig, queuesOf } from './configuration';
import { COMMAND, COMMAND_ERROR, STATE } from './registers';
import { allOver, type Job, type WorkQueue } from './work-queue';

/** What commands are about. */
export interface Administered {
  readonly queues: readonly WorkQueue[];
  readonly groups: readonly GroupConfig[];
  /** GENSTS.STATE. */
  state: number;
  readonly busMaster: boolean;
  /** Software has switched PASIDs on. */
  readonly pasidsEnabled: boolean;
  /** Every register that configures, as after a reset. */
  clearConfig(): void;
}

const { SUCCESS } = COMMAND_ERROR;

export function* execute(device: Administered, command: number, operand: number): Process<number> {
  const { queues } = device;
  switch (command) {
    case COMMAND.ENABLE_DEVICE: {
      const error = checkDevice(device.state, device.busMaster, queues, device.groups);
      if (error === SUCCESS) device.state = STATE.ENABLED;
      return error;
    }
    case COMMAND.RESET_DEVICE:
      for (const queue of queues) {
        queue.state = STATE.DISABLED;
        queue.abort(() => true);
      }
      device.state = STATE.DISABLED;
      device.clearConfig();
      return SUCCESS;
    case COMMAND.ENABLE_WQ: {
      const queue = queues[operand];
      if (!queue) return COMMAND_ERROR.INVALID_WQ;
      const error = checkQueue(queue, device.state, device.pasidsEnabled);
      if (error === SUCCESS) queue.state = STATE.ENABLED;
      return error;
    }
    default:
      return yield* executeEnabled(device, command, operand);
  }
}

/** Commands that need an enabled device. */
function* executeEnabled(device: Administered, command: number, operand: number): Process<number> {
  const { queues } = device;
  const enabled = device.state === STATE.ENABLED;
  switch (command) {
    case COMMAND.DISABLE_DEVICE:
      if (!enabled) return COMMAND_ERROR.DISABLE_NOT_ENABLED;
      device.state = STATE.DRAIN;
      yield* disable(queues);
      device.state = STATE.DISABLED;
      return SUCCESS;
    case COMMAND.DRAIN_ALL:
    case COMMAND.DRAIN_PASID: {
      if (!enabled) return COMMAND_ERROR.WQ_DEVICE_NOT_ENABLED;
      const jobs = queues.flatMap((queue) => queue.jobs);
      yield* allOver(command === COMMAND.DRAIN_ALL ? jobs : jobs.filter(of(operand)));
      return SUCCESS;
    }
    case COMMAND.ABORT_ALL:
    case COMMAND.ABORT_PASID:
      if (!enabled) return COMMAND_ERROR.WQ_DEVICE_NOT_ENABLED;
      for (const queue of queues) queue.abort(command === COMMAND.ABORT_ALL ? () => true : of(operand));
      return SUCCESS;
    case COMMAND.DISABLE_WQ:
    case COMMAND.DRAIN_WQ:
    case COMMAND.ABORT_WQ:
    case COMMAND.RESET_WQ: {
      if (!enabled) return COMMAND_ERROR.WQ_DEVICE_NOT_ENABLED;
      const named = queuesOf(operand, queues);
      if (!named) return COMMAND_ERROR.INVALID_WQ;
      return yield* executeQueues(command, named);
    }
    default:
      return COMMAND_ERROR.INVALID_COMMAND;
  }
}

function* executeQueues(command: number, queues: readonly WorkQueue[]): Process<number> {
  if (command === COMMAND.ABORT_WQ) {
    for (const queue of queues) queue.abort(() => true);
  } else if (command === COMMAND.DRAIN_WQ) {
    yield* allOver(queues.flatMap((queue) => queue.jobs));
  } else {
    yield* disable(queues);
    if (command === COMMAND.RESET_WQ) for (const queue of queues) queue.clearConfig();
  }
  return SUCCESS;
}

/** Takes no more, and waits for what there is. */
function* disable(queues: readonly WorkQueue[]): Process {
  const open = queues.filter(({ state }) => state !== STATE.DISABLED);
  for (const queue of open) queue.state = STATE.DRAIN;
  for (const queue of open) {
    yield* allOver(queue.jobs);
    queue.state = STATE.DISABLED;
  }
}

function of(pasid: number): (job: Job) => boolean {
  return (job) => job.pasid === pasid;
}
