/** Who a simulated process runs as, what it may do, and how much memory it may lock. */

/** Capabilities of capabilities(7) that the simulated kernel asks for. */
export type ProcessCapability = 'CAP_IPC_LOCK' | 'CAP_SYS_RAWIO' | 'CAP_SYS_RESOURCE';

export interface Credentials {
  /** User id; 0 may open everything. */
  readonly uid: number;
  /** Default: all of them for root, none for anybody else. */
  readonly capabilities?: readonly ProcessCapability[];
}

/** How a process starts. */
export interface ProcessOptions extends Credentials {
  /** RLIMIT_MEMLOCK, bytes: 0 or more, Infinity for no limit. Default 8 MiB, as Linux starts its first process. */
  readonly memlock?: number;
}

/** Linux's MLOCK_LIMIT. */
export const DEFAULT_MEMLOCK = 8 * 1024 * 1024;

export function isCapable({ uid, capabilities }: Credentials, capability: ProcessCapability): boolean {
  return capabilities?.includes(capability) ?? uid === 0;
}

/** A user, over all processes (struct user_struct). */
export class User {
  /** Pages that count against the RLIMIT_MEMLOCK of each of the user's processes. */
  lockedPages = 0;

  constructor(readonly uid: number) {}
}
