/** Counting pinned pages against RLIMIT_MEMLOCK, as drivers/iommu/iommufd/pages.c and mm/util.c do. */
import { errno } from '../../../uapi/errno';
import { isCapable, type Credentials, type User } from '../credentials';
import { PAGE_SIZE, type UserMemory } from '../user-memory';

/**
 * Against whose limit: nobody's (whoever mapped the memory has CAP_IPC_LOCK), the user's over all processes, or the
 * process's.
 */
export type AccountMode = 'none' | 'user' | 'process';

/** A process, as far as it pays for pinned memory. */
export interface Task {
  readonly memory: UserMemory;
  readonly credentials: Credentials;
  readonly user: User;
  /** RLIMIT_MEMLOCK now, bytes. */
  readonly memlock: number;
}

/** Who pays. A process may change its user later on: what it has pinned stays with the first. */
export interface Payer {
  readonly task: Task;
  readonly user: User;
}

/** The last payer that each task was: one object for all it has mapped since it changed its user. */
const payers = new WeakMap<Task, Payer>();

export function payerOf(task: Task): Payer {
  const { user } = task;
  let payer = payers.get(task);
  if (payer?.user !== user) payers.set(task, (payer = { task, user }));
  return payer;
}

/** How memory counts that a process maps now. `perProcess`: RLIMIT_MODE of the iommufd. */
export function accountMode(credentials: Credentials, perProcess: boolean): AccountMode {
  if (isCapable(credentials, 'CAP_IPC_LOCK')) return 'none';
  return perProcess ? 'process' : 'user';
}

/** Counts pages that were pinned. 0; ENOMEM over the limit; EINVAL where a process that pays itself has ended. */
export function charge({ task, user }: Payer, mode: AccountMode, pages: number): number {
  const { memory } = task;
  const most = Math.floor(task.memlock / PAGE_SIZE);
  if (mode === 'process') {
    if (memory.ended) return -errno.EINVAL;
    if (memory.lockedPages + pages > most) return -errno.ENOMEM;
    memory.lockedPages += pages;
  } else if (mode === 'user') {
    if (user.lockedPages + pages > most) return -errno.ENOMEM;
    user.lockedPages += pages;
  }
  memory.pinnedPages += pages;
  return 0;
}

/** Gives pages back. 0, or EINVAL where a process that pays itself has ended. */
export function uncharge({ task, user }: Payer, mode: AccountMode, pages: number): number {
  const { memory } = task;
  if (mode === 'process') {
    if (memory.ended) return -errno.EINVAL;
    memory.lockedPages -= pages;
  } else if (mode === 'user') {
    user.lockedPages -= pages;
  }
  memory.pinnedPages -= pages;
  return 0;
}
