/** Who a simulated process runs as, what it may do, and how much memory it may lock. */

/** Capabilities of capabilities(7) that the simulated kernel asks for, and their bits (linux/capability.h). */
const BITS = { CAP_IPC_LOCK: 14n, CAP_SYS_RAWIO: 17n, CAP_SYS_RESOURCE: 24n } as const;
export type ProcessCapability = keyof typeof BITS;
export const CAPABILITIES = Object.keys(BITS) as readonly ProcessCapability[];

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

/** The capabilities as a set of bits. */
export function capabilityBits(credentials: Credentials): bigint {
  const held = CAPABILITIES.filter((one) => isCapable(credentials, one));
  return held.reduce((bits, one) => bits | (1n << BITS[one]), 0n);
}

/** A user, over all processes (struct user_struct). */
export class User {
  /** Pages that count against the RLIMIT_MEMLOCK of each of the user's processes. */
  lockedPages = 0;

  constructor(readonly uid: number) {}
}
